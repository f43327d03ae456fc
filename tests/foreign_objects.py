"""Objects of JSON as other programs write them into pictures, made here: 20 steps of a cat, 512x768, seed 5."""

from __future__ import annotations

from typing import Any


def graph(**changes: Any) -> dict[str, Any]:
    """A graph of ComfyUI with a LoRA, and prompts that a node of their own holds."""
    sampler = {"seed": 5, "steps": 20, "cfg": 7, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1}
    links = {"model": ["9", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": {**sampler, **links, **changes}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub\\x.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["10", 0], "clip": ["9", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["9", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "l.safetensors",
                "strength_model": 0.5,
                "strength_clip": 1,
                "model": ["4", 0],
                "clip": ["4", 1],
            },
        },
        "10": {"class_type": "PrimitiveString", "inputs": {"value": "a cat on a mat"}},
    }


CUSTOM = {
    "1": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["2", 0],
            "guider": ["3", 0],
            "sampler": ["4", 0],
            "sigmas": ["5", 0],
            "latent_image": ["6", 0],
        },
    },
    "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    "3": {
        "class_type": "CFGGuider",
        "inputs": {"cfg": 7, "model": ["7", 0], "positive": ["8", 0], "negative": ["9", 0]},
    },
    "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "5": {
        "class_type": "BasicScheduler",
        "inputs": {"scheduler": "beta", "steps": 20, "denoise": 1, "model": ["7", 0]},
    },
    "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 512, "height": 768}},
    "7": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat on a mat", "clip": ["7", 1]}},
    "9": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["7", 1]}},
}
SECOND = {
    **graph(),
    "20": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1024, "height": 1536}},
    "21": {
        "class_type": "KSampler",
        "inputs": {**graph()["3"]["inputs"], "steps": 9, "denoise": 0.5, "latent_image": ["20", 0]},
    },
}
INVOKE = {
    "app_version": "4.2.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a cat on a mat",
    "negative_prompt": "ugly",
    "width": 512,
    "height": 768,
    "seed": 5,
    "rand_device": "cpu",
    "cfg_scale": 7.0,
    "steps": 20,
    "clip_skip": 0,
    "scheduler": "dpmpp_2m_k",
    "model": {"key": "1", "name": "x", "base": "sd-1", "type": "main"},
    "strength": None,
}
INVOKE_2 = {
    "model": "stable diffusion",
    "model_weights": "x",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.3.5",
    "image": {
        "prompt": [{"prompt": "a cat on a mat [ugly]", "weight": 1.0}],
        "steps": 20,
        "cfg_scale": 7,
        "threshold": 0,
        "perlin": 0,
        "height": 768,
        "width": 512,
        "seed": 5,
        "type": "txt2img",
        "sampler": "k_lms",
        "variations": [],
    },
}
NOVEL = {
    "steps": 20,
    "height": 768,
    "width": 512,
    "scale": 7.0,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.0,
    "seed": 5,
    "n_samples": 1,
    "noise_schedule": "native",
    "sampler": "k_euler_ancestral",
    "uc": "ugly",
    "sm": False,
}
FOOOCUS = {
    "base_model": "x",
    "base_model_hash": "0123456789",
    "full_prompt": ["a cat on a mat"],
    "full_negative_prompt": ["ugly"],
    "guidance_scale": 7,
    "loras": [["l", 0.5, "0123"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "",
    "prompt": "a cat",
    "performance": "Speed",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(512, 768)",
    "seed": "5",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "sharpness": 2,
    "steps": 20,
    "styles": "['Fooocus V2']",
    "vae": "Default (model)",
    "version": "Fooocus v2.3.0",
    "adm_guidance": "(1.5, 0.8, 0.3)",
}
EASY = {
    "prompt": "a cat on a mat",
    "negative_prompt": "ugly",
    "seed": "5",
    "num_inference_steps": "20",
    "guidance_scale": "7",
    "width": "512",
    "height": "768",
    "sampler_name": "euler_a",
    "use_stable_diffusion_model": "x",
}
SWARM = {
    "sui_image_params": {
        "prompt": "a cat on a mat",
        "negativeprompt": "ugly",
        "model": "x",
        "seed": 5,
        "steps": 20,
        "cfgscale": 7.0,
        "width": 512,
        "height": 768,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "swarm_version": "0.9.2.1",
    }
}
DRAW = {
    "c": "a cat on a mat",
    "uc": "ugly",
    "sampler": "DPM++ 2M Karras",
    "scale": 7,
    "seed": 5,
    "size": "512x768",
    "steps": 20,
    "strength": 1,
    "model": "x.ckpt",
}
RUINED = {
    "Prompt": "a cat on a mat",
    "Negative": "ugly",
    "steps": 20,
    "cfg": 7,
    "width": 512,
    "height": 768,
    "seed": 5,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "base_model_name": "x",
    "software": "RuinedFooocus",
}

"""One text of each writer and version, in its own form and words of ours: the request that it means, and the notes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from foreign_files import PLACES, png, stealth, utf8, with_exif
from stable_diffusion.request.metadata import parse_parameters, read_metadata
from stable_diffusion.request.names import SAMPLERS
from stable_diffusion.request.request import Request

HEAD = "a cat on a mat\nNegative prompt: ugly\n"
USUAL = "CFG scale: 7, Seed: 5, Size: 512x768"


@dataclass(frozen=True)
class Case:
    """Texts of a picture by key, what they mean, and a word of each note that is made of them."""

    texts: dict[str, str]
    wanted: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prompts: tuple[str, str] = ("a cat on a mat", "ugly")


def a1111(values: str, *notes: str, head: str = HEAD, **wanted: Any) -> Case:
    return Case({"parameters": head + values}, wanted, notes)


def as_json(
    key: str, data: Any, *notes: str, prompts: tuple[str, str] = ("a cat on a mat", "ugly"), **wanted: Any
) -> Case:
    return Case({key: json.dumps(data)}, wanted, notes, prompts)


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
            "inputs": {"lora_name": "l.safetensors", "strength_model": 0.5, "strength_clip": 1, "model": ["4", 0], "clip": ["4", 1]},
        },
        "10": {"class_type": "PrimitiveString", "inputs": {"value": "a cat on a mat"}},
    }  # fmt: skip


CUSTOM = {
    "1": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["2", 0], "guider": ["3", 0], "sampler": ["4", 0], "sigmas": ["5", 0], "latent_image": ["6", 0]}},
    "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    "3": {"class_type": "CFGGuider", "inputs": {"cfg": 7, "model": ["7", 0], "positive": ["8", 0], "negative": ["9", 0]}},
    "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "5": {"class_type": "BasicScheduler", "inputs": {"scheduler": "beta", "steps": 20, "denoise": 1, "model": ["7", 0]}},
    "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 512, "height": 768}},
    "7": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat on a mat", "clip": ["7", 1]}},
    "9": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["7", 1]}},
}  # fmt: skip
SECOND = {
    **graph(),
    "20": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1024, "height": 1536}},
    "21": {
        "class_type": "KSampler",
        "inputs": {**graph()["3"]["inputs"], "steps": 9, "denoise": 0.5, "latent_image": ["20", 0]},
    },
}
INVOKE = {
    "app_version": "4.2.0", "generation_mode": "txt2img", "positive_prompt": "a cat on a mat", "negative_prompt": "ugly",
    "width": 512, "height": 768, "seed": 5, "rand_device": "cpu", "cfg_scale": 7.0, "steps": 20, "clip_skip": 0,
    "scheduler": "dpmpp_2m_k", "model": {"key": "1", "name": "x", "base": "sd-1", "type": "main"}, "strength": None,
}  # fmt: skip
INVOKE_2 = {
    "model": "stable diffusion", "model_weights": "x", "app_id": "invoke-ai/InvokeAI", "app_version": "2.3.5",
    "image": {
        "prompt": [{"prompt": "a cat on a mat [ugly]", "weight": 1.0}], "steps": 20, "cfg_scale": 7, "threshold": 0,
        "perlin": 0, "height": 768, "width": 512, "seed": 5, "type": "txt2img", "sampler": "k_lms", "variations": [],
    },
}  # fmt: skip
NOVEL = {
    "steps": 20, "height": 768, "width": 512, "scale": 7.0, "uncond_scale": 1.0, "cfg_rescale": 0.0, "seed": 5,
    "n_samples": 1, "noise_schedule": "native", "sampler": "k_euler_ancestral", "uc": "ugly", "sm": False,
}  # fmt: skip
FOOOCUS = {
    "base_model": "x", "base_model_hash": "0123456789", "full_prompt": ["a cat on a mat"], "full_negative_prompt": ["ugly"],
    "guidance_scale": 7, "loras": [["l", 0.5, "0123"]], "metadata_scheme": "fooocus", "negative_prompt": "", "prompt": "a cat",
    "performance": "Speed", "refiner_model": "None", "refiner_switch": 0.5, "resolution": "(512, 768)", "seed": "5",
    "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "sharpness": 2, "steps": 20, "styles": "['Fooocus V2']",
    "vae": "Default (model)", "version": "Fooocus v2.3.0", "adm_guidance": "(1.5, 0.8, 0.3)",
}  # fmt: skip
EASY = {
    "prompt": "a cat on a mat", "negative_prompt": "ugly", "seed": "5", "num_inference_steps": "20", "guidance_scale": "7",
    "width": "512", "height": "768", "sampler_name": "euler_a", "use_stable_diffusion_model": "x",
}  # fmt: skip
SWARM = {
    "sui_image_params": {
        "prompt": "a cat on a mat", "negativeprompt": "ugly", "model": "x", "seed": 5, "steps": 20, "cfgscale": 7.0,
        "width": 512, "height": 768, "sampler": "dpmpp_2m", "scheduler": "karras", "swarm_version": "0.9.2.1",
    }
}  # fmt: skip
DRAW = {"c": "a cat on a mat", "uc": "ugly", "sampler": "DPM++ 2M Karras", "scale": 7, "seed": 5, "size": "512x768",
        "steps": 20, "strength": 1, "model": "x.ckpt"}  # fmt: skip
RUINED = {"Prompt": "a cat on a mat", "Negative": "ugly", "steps": 20, "cfg": 7, "width": 512, "height": 768, "seed": 5,
          "sampler_name": "dpmpp_2m", "scheduler": "karras", "base_model_name": "x", "software": "RuinedFooocus"}  # fmt: skip
KARRAS, NORMAL = {"sampler": "dpmpp_2m", "schedule": "karras"}, {"sampler": "dpmpp_2m", "schedule": "normal"}
LORA = ("a cat on a mat <lora:l:1:0.5>", "ugly")

CASES: dict[str, Case] = {
    "A1111 of 2022": a1111(f"Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}, Model hash: abcdef01", "GPU", **KARRAS),
    "A1111 of 2022, even steps": a1111(f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, Model hash: abcdef01", "GPU", **NORMAL),
    "A1111 1.2, txt2img": a1111(
        f"Steps: 20, Sampler: DPM++ SDE, {USUAL}, Denoising strength: 0.7, Version: v1.2.1", "GPU",
        sampler="dpmpp_sde", schedule="normal", strength=0.7),
    "A1111 1.3, LMS": a1111(f"Steps: 20, Sampler: LMS, {USUAL}, Version: v1.3.0", "GPU", sampler="lms"),
    "A1111 1.6": a1111(
        f"Steps: 20, Sampler: DPM++ 3M SDE Exponential, {USUAL}, RNG: CPU, Token merging ratio: 0.5, Version: v1.6.0",
        "Token merging", sampler="dpmpp_3m_sde", schedule="exponential"),
    "A1111 1.6, Restart": a1111(f"Steps: 20, Sampler: Restart, {USUAL}, RNG: CPU, Version: v1.6.1", sampler="restart"),
    "A1111 1.8": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: karras, {USUAL}, RNG: NV, Version: v1.8.0", **KARRAS),
    "A1111 1.9": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, {USUAL}, RNG: CPU, Version: v1.9.4",
        sampler="dpmpp_2m", schedule="automatic"),
    "A1111 1.10": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: SGM Uniform, {USUAL}, RNG: CPU, Skip Early CFG: 0.1, Version: v1.10.1",
        "Skip Early CFG", sampler="dpmpp_2m", schedule="sgm_uniform"),
    "A1111, braces that were text": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Version: v1.9.4", head="a {cat|dog} __x__\nNegative prompt: ugly\n"),
    "A1111, templates behind": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Version: v1.5.1\nTemplate: a {{cat|dog}}, x: 1, y: 2, z: 3\nmore\n"
        "Negative Template: ugly"),
    "A1111, a value over two lines": a1111(
        f'Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Wildcard prompt: "a cat\non, a: mat, b: c", Version: v1.5.1'),
    "A1111, extensions": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, ADetailer model: y, ADetailer confidence: 0.3, freeu_enabled: True, "
        'ControlNet 0: "Module: none, Model: y", Hypernet: z, VAE: w, Version: v1.9.4',
        "ADetailer", "freeu", "ControlNet 0", "Hypernet", "VAE"),
    "A1111, an odd side": a1111("Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 513x768, RNG: CPU", "513"),
    "Forge of 2024": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, RNG: CPU, Version: f0.0.17v1.8.0rc-latest-276-g29be1da7", **NORMAL),
    "Forge 2": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: Simple, {USUAL}, Distilled CFG Scale: 3.5, RNG: CPU, "
        "Hires CFG Scale: 1, Module 1: ae, Version: f2.0.1v1.10.1-previous-313-g8a042934",
        "Distilled", "Hires CFG", "Module 1", sampler="dpmpp_2m", schedule="simple"),
    "reForge": a1111(
        f"Steps: 20, Sampler: Euler a CFG++, Schedule type: Beta, {USUAL}, RNG: CPU, Version: f1.0.5-v1.10.1RC-latest-9-gabc",
        sampler="euler_ancestral_cfg_pp", schedule="beta"),
    "SD.Next": a1111(
        "Steps: 20, Size: 512x768, Sampler: DPM++ 2M, Seed: 5, CFG scale: 7, Clip skip: 1, App: SD.Next, Version: 2f75c2b, "
        "Operations: txt2img, Model: x, Sampler sigma: karras", "GPU", "Sampler sigma", sampler="dpmpp_2m", clip_skip=1),
    "SD.Next, its default sampler": a1111(
        f"Steps: 20, Sampler: Default, {USUAL}, Parser: native, App: SDNext, Version: 12ab", "GPU", "'Default'", sampler=None),
    "Vlad's fork of 2023": a1111(f"Steps: 20, Sampler: UniPC, {USUAL}, Backend: Original, Version: abc", "GPU", sampler="uni_pc"),
    "Fooocus": as_json("parameters", FOOOCUS, "sharpness", "adm guidance", prompts=("a cat on a mat <lora:l:0.5>", "ugly"),
                       sampler="dpmpp_2m_sde", schedule="karras"),
    "Fooocus, A1111's form": a1111(
        "Steps: 20, Sampler: DPM++ 2M SDE Karras, Seed: 5, Size: 512x768, CFG scale: 7, Sharpness: 2, Model: x, "
        "Scheduler: karras, Performance: Speed, Styles: \"['Fooocus V2', 'y']\", Version: Fooocus v2.5.5",
        "Sharpness", sampler="dpmpp_2m_sde", schedule="karras"),
    "RuinedFooocus": as_json("parameters", RUINED, **KARRAS),
    "sd.cpp": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, Size: 512x768, Model: x, RNG: cuda, "
        "Sampler: euler_a, Version: stable-diffusion.cpp", sampler="euler_ancestral", schedule="normal"),
    "sd.cpp with a schedule": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, Size: 512x768, Model: x, RNG: std_default, "
        "Sampler: dpm++2m karras, Version: stable-diffusion.cpp", "STD_DEFAULT", **KARRAS),
    "sd.cpp of 2025": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, Size: 512x768, Model: x, RNG: cpu, "
        "Sampler RNG: cpu, Sampler: dpm++2mv2 discrete, Version: stable-diffusion.cpp master-1-abc", "dpm++2mv2",
        sampler="dpmpp_2m", schedule="normal"),
    "StabilityMatrix": Case(
        {"parameters": HEAD + f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, Model hash: x, Model: x", "smproj": "{}"}, NORMAL),
    "StabilityMatrix, named": Case(
        {"parameters": HEAD + f"Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}", "parameters-json": "{}"}, KARRAS),
    "ComfyUI": as_json("prompt", graph(), prompts=LORA, **KARRAS),
    "ComfyUI, a seed of 64 bits": as_json("prompt", graph(seed=2**64 - 1), prompts=LORA, seed=2**64 - 1),
    "ComfyUI, custom sampling": as_json("prompt", CUSTOM, sampler="euler", schedule="beta"),
    "ComfyUI, two samplers": as_json("prompt", SECOND, "second sampler", "LatentUpscale", prompts=LORA, **KARRAS),
    "ComfyUI's saver": a1111(f"Steps: 20, Sampler: dpmpp_2m_karras, {USUAL}, Version: ComfyUI", **KARRAS),
    "ComfyUI's saver, A1111's names": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Scheduler: karras, {USUAL}, Model: x, Version: ComfyUI", **KARRAS),
    "ComfyUI's saver for Civitai": a1111(
        f'Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}, Hashes: {{"model": "abc", "lora:l": "def"}}, Version: ComfyUI', **KARRAS),
    "InvokeAI 4": as_json("invokeai_metadata", INVOKE, **KARRAS),
    "InvokeAI 3": as_json(
        "invokeai_metadata", {**INVOKE, "app_version": "3.0.2", "model": {"model_name": "x", "base_model": "sd-1"},
        "scheduler": "euler_a", "loras": [{"lora": {"model_name": "l"}, "weight": 0.5}], "controlnets": [{"weight": 1}]},
        "controlnets", prompts=("a cat on a mat <lora:l:0.5>", "ugly"), sampler="euler_ancestral"),
    "InvokeAI 2": as_json("sd-metadata", INVOKE_2, sampler="lms"),
    "InvokeAI 1": Case(
        {"Dream": '"a cat on a mat [ugly]" -s 20 -S 5 -W 512 -H 768 -C 7 -A k_euler_a'}, {"sampler": "euler_ancestral"}),
    "InvokeAI, weights": as_json(
        "invokeai_metadata", {**INVOKE, "positive_prompt": "a cat++ on (a mat)0.8, blue-eyed"},
        prompts=("a (cat:1.21) on (a mat:0.8), blue-eyed", "ugly")),
    "NovelAI 1": Case(
        {"Software": "NovelAI", "Description": "a cat on a mat", "Comment": json.dumps(NOVEL), "Source": "Stable Diffusion 1"},
        {"sampler": "euler_ancestral", "schedule": "normal"}, ("noise",)),
    "NovelAI 3": Case(
        {"Software": "NovelAI", "Title": "NovelAI generated image", "Description": "x",
         "Comment": json.dumps({**NOVEL, "prompt": "a {{cat}} [on] a mat (x)", "sm": True, "noise_schedule": "karras"})},
        {"schedule": "karras"}, ("noise", "sm"), (r"a ((cat:1.05):1.05) (on:0.9524) a mat \(x\)", "ugly")),
    "NovelAI, hidden in alpha": Case(
        {"alpha": json.dumps({"Software": "NovelAI", "Description": "a cat on a mat", "Comment": json.dumps(NOVEL)})},
        {"sampler": "euler_ancestral"}, ("noise",)),
    "Civitai": a1111(
        "Steps: 20, CFG scale: 7, Sampler: Euler a, Seed: 5, Size: 512x768, Clip skip: 2, Created Date: 2024-10-01T01:02:03.4Z, "
        'Civitai resources: [{"type":"checkpoint","modelName":"x: y, z","weight":1}], Civitai metadata: {}', "GPU",
        sampler="euler_ancestral", clip_skip=2),
    "Easy Diffusion": Case(EASY, {"sampler": "euler_ancestral"}, ("GPU",)),
    "Easy Diffusion, JSON": as_json("parameters", EASY, "GPU", sampler="euler_ancestral"),
    "SwarmUI": as_json("parameters", SWARM, **KARRAS),
    "Draw Things": as_json("UserComment", DRAW, "noise", **KARRAS),
}  # fmt: skip


def written(case: Case, folder: Path) -> Path:
    path = folder / "a.png"
    path.write_bytes(png(*(utf8(key, text) for key, text in case.texts.items() if key != "UserComment")))
    if "UserComment" in case.texts:
        path = folder / "a.jpg"
        path.write_bytes(with_exif("JPEG", b"ASCII\0\0\0" + case.texts["UserComment"].encode()))
    if "alpha" in case.texts:
        path.write_bytes(stealth(case.texts["alpha"], pack=True, alpha=True))
    return path


@pytest.mark.parametrize("name", CASES)
def test_each_writer_is_read(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    info = read_metadata(written(case, tmp_path))
    request = info.request
    if "braces" in name:
        assert request.prompt == "a {cat|dog} __x__" and request.prompting.variants is False
    else:
        assert (request.prompt, request.negative_prompt) == case.prompts
    usual = {"steps": 20, "seed": 5, "guidance": 7.0, "width": 512, "height": 768, "strength": None}
    for key, value in {**usual, **case.wanted}.items():
        assert getattr(request, key) == value, (key, info.notes)
    assert request.noise.eta is None
    assert len(info.notes) == len(case.notes), info.notes
    for word in case.notes:
        assert any(word in note for note in info.notes), (word, info.notes)


@pytest.mark.parametrize("name", CASES)
def test_like_paints_what_can_be_painted(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = written(CASES[name], tmp_path)
    request = Request.like(path)
    assert request.strength is None and request.image is None
    assert Request.like(path, image=Image.new("RGB", (8, 8)), strength=0.5).strength == 0.5
    assert len([each for each in recwarn if "not taken over: no image" in str(each.message)]) == ("txt2img" in name)


def test_what_was_off_is_no_note() -> None:
    off = "freeu_enabled: False, Face restoration: None, Dynamic thresholding enabled: False, Tiling: False"
    assert parse_parameters(f"a\nSteps: 1, Seed: 2, RNG: CPU, {off}").notes == ()


@pytest.mark.parametrize(
    "pair", ["Clip skip: 0", "Eta: 99", "Mask blur: x", "Denoising strength: 7", "Hires steps: many"]
)
def test_a_value_beside_the_point_does_not_cost_the_picture(pair: str) -> None:
    info = parse_parameters(f"a\nSteps: 1, Sampler: Euler, Seed: 2, RNG: CPU, {pair}")
    assert info.request.seed == 2 and len(info.notes) == (pair != "Hires steps: many" or 1)


WORDS = (
    "a cat",
    "(red:1.2)",
    "é",
    "海",
    "Ã©",
    "\n",
    ", ",
    "Steps: 3",
    "x: 1, y: 2, z: 3",
    '"',
    "{",
    "[a|b]",
    "\\(",
    "<lora:x:1>",
)


def random_words(rng: random.Random) -> str:
    return " ".join("".join(rng.choice(WORDS) for _ in range(rng.randint(1, 5))).split(" ")).strip()


def writers(values: dict[str, Any], prompt: str, negative: str) -> dict[str, str]:
    """The same settings in each writer's form."""
    line = (
        f"Steps: {values['steps']}, Sampler: {values['label']}, CFG scale: {values['cfg']}, Seed: {values['seed']}, "
        f"Size: {values['width']}x{values['height']}"
    )
    head = f"{prompt}\n" + (f"Negative prompt: {negative}\n" if negative else "")
    nodes = graph(
        seed=values["seed"], steps=values["steps"], cfg=values["cfg"], sampler_name=values["id"], model=["4", 0]
    )
    nodes["10"]["inputs"]["value"], nodes["7"]["inputs"]["text"] = prompt, negative
    nodes["5"]["inputs"] |= {"width": values["width"], "height": values["height"]}
    size = {"width": values["width"], "height": values["height"]}
    common = {"seed": values["seed"], "steps": values["steps"], **size}
    return {
        "A1111": f"{head}{line}, RNG: CPU, Version: v1.10.1",
        "Forge": f"{head}{line}, RNG: CPU, Version: f2.0.1v1.10.1-previous-1-gabc",
        "a template behind": f"{head}{line}, RNG: CPU, Version: v1.5.1\nTemplate: {prompt.splitlines()[0]}",
        "ComfyUI": json.dumps({key: node for key, node in nodes.items() if key != "9"}),
        "SwarmUI": json.dumps({"sui_image_params": {
            "prompt": prompt, "negativeprompt": negative, "cfgscale": values["cfg"], "sampler": values["id"], **common}}),
        "Fooocus": json.dumps({**FOOOCUS, "loras": [], "full_prompt": prompt, "full_negative_prompt": negative,
            "guidance_scale": values["cfg"], "sampler": values["id"], "seed": values["seed"], "steps": values["steps"],
            "resolution": f"({values['width']}, {values['height']})"}),
    }  # fmt: skip


def test_random_settings_come_back_from_every_writer_and_place(tmp_path: Path) -> None:
    rng = random.Random(7)
    places = [name for name in PLACES if not any(word in name for word in ("JIS", "damaged", "cut off"))]
    path = tmp_path / "a.png"
    for _ in range(60):
        sampler = rng.choice([each for each in SAMPLERS.values() if each.id not in ("lcm", "tcd")])
        values = {
            "id": sampler.id, "label": sampler.label, "steps": rng.randint(1, 150), "cfg": rng.choice([1, 4.5, 7, 12.25]),
            "seed": rng.choice([0, 5, 2**32 - 1, 2**63 + 9, rng.randrange(2**64)]), "width": 8 * rng.randint(8, 99),
            "height": 8 * rng.randint(8, 99),
        }  # fmt: skip
        prompt, negative = f"x{random_words(rng)}", rng.choice(["", random_words(rng)])
        for writer, text in writers(values, prompt, negative).items():
            place = rng.choice(places)
            path.write_bytes(PLACES[place](text))
            found = read_metadata(path).request
            told = (found.prompt, found.negative_prompt, found.steps, found.sampler, found.guidance, found.seed)
            wanted = (prompt, negative, values["steps"], sampler.id, values["cfg"], values["seed"])
            assert told == wanted, (writer, place, text)
            assert (found.width, found.height) == (values["width"], values["height"])

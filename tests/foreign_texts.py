"""Texts as each program writes them, one of each version, in words of ours: what they mean, and what is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from foreign_objects import CUSTOM, DRAW, EASY, FOOOCUS, INVOKE, INVOKE_2, NOVEL, RUINED, SECOND, SWARM, graph

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


KARRAS, NORMAL = {"sampler": "dpmpp_2m", "schedule": "karras"}, {"sampler": "dpmpp_2m", "schedule": "normal"}
LORA = ("a cat on a mat <lora:l:1:0.5>", "ugly")

CASES: dict[str, Case] = {
    "A1111 of 2022": a1111(f"Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}, Model hash: abcdef01", "GPU", **KARRAS),
    "A1111 of 2022, even steps": a1111(f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, Model hash: abcdef01", "GPU", **NORMAL),
    "A1111 1.2, txt2img": a1111(
        f"Steps: 20, Sampler: DPM++ SDE, {USUAL}, Denoising strength: 0.7, Version: v1.2.1",
        "GPU",
        sampler="dpmpp_sde",
        schedule="normal",
        strength=0.7,
    ),
    "A1111 1.3, LMS": a1111(f"Steps: 20, Sampler: LMS, {USUAL}, Version: v1.3.0", "GPU", sampler="lms"),
    "A1111 1.6": a1111(
        f"Steps: 20, Sampler: DPM++ 3M SDE Exponential, {USUAL}, RNG: CPU, Token merging ratio: 0.5, Version: v1.6.0",
        token_merging=0.5,
        sampler="dpmpp_3m_sde",
        schedule="exponential",
    ),
    "A1111 1.6, Restart": a1111(f"Steps: 20, Sampler: Restart, {USUAL}, RNG: CPU, Version: v1.6.1", sampler="restart"),
    "A1111 1.8": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: karras, {USUAL}, RNG: NV, Version: v1.8.0", **KARRAS
    ),
    "A1111 1.9": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, {USUAL}, RNG: CPU, Version: v1.9.4",
        sampler="dpmpp_2m",
        schedule="automatic",
    ),
    "A1111 1.10": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: SGM Uniform, {USUAL}, RNG: CPU, "
        "Skip Early CFG: 0.1, Version: v1.10.1",
        "Skip Early CFG",
        sampler="dpmpp_2m",
        schedule="sgm_uniform",
    ),
    "A1111, braces that were text": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Version: v1.9.4",
        head="a {cat|dog} __x__\nNegative prompt: ugly\n",
    ),
    "A1111, templates behind": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Version: v1.5.1\nTemplate: a {{cat|dog}}, "
        "x: 1, y: 2, z: 3\nmore\n"
        "Negative Template: ugly"
    ),
    "A1111, a value over two lines": a1111(
        f'Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, Wildcard prompt: "a cat\non, a: mat, b: c", Version: v1.5.1'
    ),
    "A1111, extensions": a1111(
        f"Steps: 20, Sampler: Euler, {USUAL}, RNG: CPU, ADetailer model: y, "
        "ADetailer confidence: 0.3, freeu_enabled: True, "
        'ControlNet 0: "Module: none, Model: y", Hypernet: z, VAE: w, Version: v1.9.4',
        "ADetailer",
        "freeu",
        "ControlNet 0",
        "Hypernet",
        "VAE",
    ),
    "A1111, an odd side": a1111("Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 513x768, RNG: CPU", "513"),
    "Forge of 2024": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, RNG: CPU, Version: f0.0.17v1.8.0rc-latest-276-g29be1da7", **NORMAL
    ),
    "Forge 2": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: Simple, {USUAL}, Distilled CFG Scale: 3.5, RNG: CPU, "
        "Hires CFG Scale: 1, Module 1: ae, Version: f2.0.1v1.10.1-previous-313-g8a042934",
        "Distilled",
        "Hires CFG",
        "Module 1",
        sampler="dpmpp_2m",
        schedule="simple",
    ),
    "reForge": a1111(
        f"Steps: 20, Sampler: Euler a CFG++, Schedule type: Beta, {USUAL}, RNG: CPU, "
        "Version: f1.0.5-v1.10.1RC-latest-9-gabc",
        sampler="euler_ancestral_cfg_pp",
        schedule="beta",
    ),
    "SD.Next": a1111(
        "Steps: 20, Size: 512x768, Sampler: DPM++ 2M, Seed: 5, CFG scale: 7, Clip skip: 1, "
        "App: SD.Next, Version: 2f75c2b, "
        "Operations: txt2img, Model: x, Sampler sigma: karras",
        "GPU",
        "Sampler sigma",
        sampler="dpmpp_2m",
        clip_skip=1,
    ),
    "SD.Next, its default sampler": a1111(
        f"Steps: 20, Sampler: Default, {USUAL}, Parser: native, App: SDNext, Version: 12ab",
        "GPU",
        "'Default'",
        sampler=None,
    ),
    "Vlad's fork of 2023": a1111(
        f"Steps: 20, Sampler: UniPC, {USUAL}, Backend: Original, Version: abc", "GPU", sampler="uni_pc"
    ),
    "Fooocus": as_json(
        "parameters",
        FOOOCUS,
        "sharpness",
        "adm guidance",
        prompts=("a cat on a mat <lora:l:0.5>", "ugly"),
        sampler="dpmpp_2m_sde",
        schedule="karras",
    ),
    "Fooocus, A1111's form": a1111(
        "Steps: 20, Sampler: DPM++ 2M SDE Karras, Seed: 5, Size: 512x768, CFG scale: 7, Sharpness: 2, Model: x, "
        "Scheduler: karras, Performance: Speed, Styles: \"['Fooocus V2', 'y']\", Version: Fooocus v2.5.5",
        "Sharpness",
        sampler="dpmpp_2m_sde",
        schedule="karras",
    ),
    "RuinedFooocus": as_json("parameters", RUINED, **KARRAS),
    "sd.cpp": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, "
        "Size: 512x768, Model: x, RNG: cuda, "
        "Sampler: euler_a, Version: stable-diffusion.cpp",
        sampler="euler_ancestral",
        schedule="normal",
    ),
    "sd.cpp with a schedule": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, "
        "Size: 512x768, Model: x, RNG: std_default, "
        "Sampler: dpm++2m karras, Version: stable-diffusion.cpp",
        "STD_DEFAULT",
        **KARRAS,
    ),
    "sd.cpp of 2025": a1111(
        "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, "
        "Size: 512x768, Model: x, RNG: cpu, "
        "Sampler RNG: cpu, Sampler: dpm++2mv2 discrete, Version: stable-diffusion.cpp master-1-abc",
        "dpm++2mv2",
        sampler="dpmpp_2m",
        schedule="normal",
    ),
    "StabilityMatrix": Case(
        {"parameters": HEAD + f"Steps: 20, Sampler: DPM++ 2M, {USUAL}, Model hash: x, Model: x", "smproj": "{}"}, NORMAL
    ),
    "StabilityMatrix, named": Case(
        {"parameters": HEAD + f"Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}", "parameters-json": "{}"}, KARRAS
    ),
    "ComfyUI": as_json("prompt", graph(), prompts=LORA, **KARRAS),
    "ComfyUI, a seed of 64 bits": as_json("prompt", graph(seed=2**64 - 1), prompts=LORA, seed=2**64 - 1),
    "ComfyUI, custom sampling": as_json("prompt", CUSTOM, sampler="euler", schedule="beta"),
    "ComfyUI, two samplers": as_json("prompt", SECOND, "second sampler", "LatentUpscale", prompts=LORA, **KARRAS),
    "ComfyUI's saver": a1111(f"Steps: 20, Sampler: dpmpp_2m_karras, {USUAL}, Version: ComfyUI", **KARRAS),
    "ComfyUI's saver, A1111's names": a1111(
        f"Steps: 20, Sampler: DPM++ 2M, Scheduler: karras, {USUAL}, Model: x, Version: ComfyUI", **KARRAS
    ),
    "ComfyUI's saver for Civitai": a1111(
        f'Steps: 20, Sampler: DPM++ 2M Karras, {USUAL}, Hashes: {{"model": "abc", "lora:l": "def"}}, Version: ComfyUI',
        **KARRAS,
    ),
    "InvokeAI 4": as_json("invokeai_metadata", INVOKE, **KARRAS),
    "InvokeAI 3": as_json(
        "invokeai_metadata",
        {
            **INVOKE,
            "app_version": "3.0.2",
            "model": {"model_name": "x", "base_model": "sd-1"},
            "scheduler": "euler_a",
            "loras": [{"lora": {"model_name": "l"}, "weight": 0.5}],
            "controlnets": [{"weight": 1}],
        },
        "controlnets",
        prompts=("a cat on a mat <lora:l:0.5>", "ugly"),
        sampler="euler_ancestral",
    ),
    "InvokeAI 2": as_json("sd-metadata", INVOKE_2, sampler="lms"),
    "InvokeAI 1": Case(
        {"Dream": '"a cat on a mat [ugly]" -s 20 -S 5 -W 512 -H 768 -C 7 -A k_euler_a'}, {"sampler": "euler_ancestral"}
    ),
    "InvokeAI, weights": as_json(
        "invokeai_metadata",
        {**INVOKE, "positive_prompt": "a cat++ on (a mat)0.8, blue-eyed"},
        prompts=("a (cat:1.21) on (a mat:0.8), blue-eyed", "ugly"),
    ),
    "NovelAI 1": Case(
        {
            "Software": "NovelAI",
            "Description": "a cat on a mat",
            "Comment": json.dumps(NOVEL),
            "Source": "Stable Diffusion 1",
        },
        {"sampler": "euler_ancestral", "schedule": "normal"},
        ("noise",),
    ),
    "NovelAI 3": Case(
        {
            "Software": "NovelAI",
            "Title": "NovelAI generated image",
            "Description": "x",
            "Comment": json.dumps(
                {**NOVEL, "prompt": "a {{cat}} [on] a mat (x)", "sm": True, "noise_schedule": "karras"}
            ),
        },
        {"schedule": "karras"},
        ("noise", "sm"),
        (r"a ((cat:1.05):1.05) (on:0.9524) a mat \(x\)", "ugly"),
    ),
    "NovelAI, hidden in alpha": Case(
        {"alpha": json.dumps({"Software": "NovelAI", "Description": "a cat on a mat", "Comment": json.dumps(NOVEL)})},
        {"sampler": "euler_ancestral"},
        ("noise",),
    ),
    "Civitai": a1111(
        "Steps: 20, CFG scale: 7, Sampler: Euler a, Seed: 5, Size: 512x768, Clip skip: 2, "
        "Created Date: 2024-10-01T01:02:03.4Z, "
        'Civitai resources: [{"type":"checkpoint","modelName":"x: y, z","weight":1}], Civitai metadata: {}',
        "GPU",
        sampler="euler_ancestral",
        clip_skip=2,
    ),
    "Easy Diffusion": Case(EASY, {"sampler": "euler_ancestral"}, ("GPU",)),
    "Easy Diffusion, JSON": as_json("parameters", EASY, "GPU", sampler="euler_ancestral"),
    "SwarmUI": as_json("parameters", SWARM, **KARRAS),
    "Draw Things": as_json("UserComment", DRAW, "noise", **KARRAS),
}

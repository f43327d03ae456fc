"""What a picture's text says and a request does not take over: a note of each, and nothing silently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .group import SettingGroup, every_setting
from .settings import Inpaint
from .writers.infotext import SPELLINGS
from .writers.programs import program_of

if TYPE_CHECKING:
    from .request import Request

_TAKEN = (
    *("Size", "Seed", "Eta DDIM", "Hires resize", "Denoising strength", "Variation seed", "Emphasis", "Variants"),
    *("Refiner", "Crop top left", "Tiling", "Mask mode", "Inpaint area"),
)
"""Keys that are read besides those of the settings themselves."""
_HARMLESS = (
    *("Model hash", "VAE hash", "Lora hashes", "Version", "User", "App", "Backend", "Pipeline", "Operations", "Parser"),
    *("Hashes", "Created Date", "Created", "Date", "Time", "Job timestamp", "Civitai metadata", "Civitai resources"),
    *("Batch size", "Batch pos", "Batch index", "Batch", "Init image hash", "Mask hash", "Template", "Size"),
    *("Negative Template", "Wildcard prompt", "Wildcard negative prompt", "Styles", "Style", "Performance"),
    *("Fooocus V2 Expansion", "Metadata Scheme", "Refiner hash", "Sampler RNG", "Guidance", "Workflow", "Comment"),
    *("Original prompt", "Negative prompt", "Prompt", "Width", "Height", "Cache FP16 weight for LoRA", "Device"),
    *(
        "Created by",
        "Generation time",
        "Engine",
        "Precision",
        "Sharing",
        "Total time",
        "Memory",
        "Model type",
        "Base model",
        "Diffusers",
    ),
    "ControlNet hashes",
)
"""Keys that say nothing of how the picture looks, or repeat what else is said."""
_OFF = ("false", "none", "off", "disabled", "")
_FAMILIES = (
    *("ADetailer", "freeu", "Dynamic thresholding", "Hypertile", "Soft inpainting", "Regional Prompter", "RP ", "SAG"),
    *("PerturbedAttentionGuidance", "PAG", "IC-Light", "LayerDiffuse", "LLLite", "Kohya HRFix", "Ultimate SD upscale"),
    *("Tiled Diffusion", "MultiDiffusion", "Latent Couple", "AnimateDiff", "Detailer"),
)
"""How the keys of an extension begin: one note is made of them."""
_CONTROL = re.compile(r"ControlNet(?: \d+)?|CN \d+")
LONGEST = 120
"""Of a value in a note, in characters."""


def left_out(kind: type[SettingGroup], values: Mapping[str, str]) -> Iterator[str]:
    """Notes on the values that a request of class `kind` does not hold."""
    known = {each.key for each in every_setting(kind)} | {*_TAKEN, *_HARMLESS, *program_of(values).idle}
    folded = {str(key).casefold() for key in known if key is not None} | set(SPELLINGS)
    families: set[str] = set()
    for key, value in values.items():
        if key.casefold() in folded or value.strip().casefold() in _OFF:
            continue
        family = next((start for start in _FAMILIES if key.casefold().startswith(start.casefold())), None)
        if family is not None:
            if family in families or values.get(f"{family}enabled", values.get(f"{family} enabled")) == "False":
                continue
            families.add(family)
        yield _note(key, value)


def _note(key: str, value: str) -> str:
    short = value if len(value) <= LONGEST else f"{value[:LONGEST]}..."
    if key == "Prompt cut":
        return "the prompts were too long for the file, and cut"
    if _CONTROL.fullmatch(key):
        return f"{key!r} is not taken over: give its file and picture again ({short})"
    return f"{key!r} ({' '.join(short.split())}) is not taken over"


_TAG = re.compile(r"\s*(<(?:lora|lyco|hypernet):[^<>\n]+>)")


def without_tags(request: Request) -> tuple[Request, list[str]]:
    """The request without the adapters that its prompts name, for there is no folder to find them in; and notes."""
    texts = (request.prompt, request.negative_prompt)
    names = dict.fromkeys(name for text in texts for name in _TAG.findall(text))
    notes = [f"{name!r} is not taken over: no folder of LoRAs (lora_dir, --lora-dir) is given" for name in names]
    prompt, negative = (_TAG.sub("", text) for text in texts)
    return (replace(request, prompt=prompt, negative_prompt=negative) if names else request), notes


def from_text_alone(request: Request) -> tuple[Request, list[str]]:
    """The request without what needs a picture to start from, and notes on that.

    Programs name such settings in pictures that began without one, so a text alone does not say whether there was one.
    """
    notes: list[str] = []
    if request.strength is not None:
        notes.append(f"'Denoising strength' ({request.strength:g}) is not taken over: no image to start from is given")
    if request.inpaint != Inpaint():
        notes.append("the settings of a mask are not taken over: no image and mask are given")
    if request.canvas.outpaint is not None:
        notes.append("'Outpaint' is not taken over: no image to paint around is given")
    plain = replace(request, strength=None, inpaint=Inpaint(), canvas=replace(request.canvas, outpaint=None))
    return plain, notes

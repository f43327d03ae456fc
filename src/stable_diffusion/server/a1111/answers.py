"""What clients of A1111 read in an answer: pictures, the echo of their fields, and `info` as JSON text."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ... import __version__
from ...images import GeneratedImage, opaque
from ...jobs import Picture
from ...request.metadata import PictureInfo, parse_parameters
from ...request.writers.infotext import split_text
from ..content import is_flagged
from .bodies import Generation, Img2Img
from .options import FORMATS, Options
from .txt2img import Translated

PICTURES = ("init_images", "mask", "latent_mask", "firstpass_image", "extra_images")
"""Fields that the echo leaves out unless `include_init_images` asks for them."""
LONGEST = 2000
"""Characters of a text within the arguments of a script that the echo repeats: longer ones are pictures."""
OWN_KEYS = (
    *("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Version", "Clip skip"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength"),
)
"""Keys of a picture's text that `info` has fields of its own for."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished request: its pictures with their files, in order, and everything that a client is to be told.

    sheets   how many of the first pictures are sheets of a plot
    """

    pictures: Sequence[Picture]
    files: Sequence[bytes]
    notes: tuple[str, ...]
    started: float
    sheets: int = 0


def generation_answer(body: Generation, asked: Translated, made: Made) -> dict[str, Any]:
    """The answer of txt2img and img2img; `images` is empty where `send_images` is off or nothing was finished."""
    infos = [parse_parameters(picture.parameters) for picture in made.pictures]
    files = made.files if body.send_images else ()
    return {
        "images": [picture_text(file, asked.options) for file in files],
        "parameters": _echo(body, infos),
        "info": json.dumps(_info(body, asked, made, infos), ensure_ascii=False),
    }


def picture_text(file: bytes, options: Options) -> str:
    """A picture's PNG file in base64: its very bytes, or the picture in the format that the options ask for."""
    kind = FORMATS[options.samples_format]
    if kind != "png":
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            target, made = io.BytesIO(), GeneratedImage.of(image)
        shown = made if kind == "webp" else GeneratedImage.of(opaque(made))
        shown.info["parameters"] = image.info.get("parameters", "")
        shown.save(target, kind.upper(), quality=options.jpeg_quality)
        file = target.getvalue()
    return base64.b64encode(file).decode("ascii")


def _echo(body: Generation, infos: Sequence[PictureInfo]) -> dict[str, Any]:
    """The fields as they were sent, with what the model filled in; nothing that the API does not know."""
    found = body.model_dump()
    with_pictures = isinstance(body, Img2Img) and body.include_init_images
    for name in PICTURES:
        if name in found and not with_pictures:
            found[name] = None
    for name in ("alwayson_scripts", "override_settings", "script_args"):
        found[name] = _plain(found[name])
    if infos:
        first = infos[0].request
        used: dict[str, Any] = {
            "steps": first.steps,
            "cfg_scale": first.guidance,
            "width": first.width,
            "height": first.height,
        }
        used["sampler_name"] = infos[0].values.get("Sampler")
        found |= {name: value for name, value in used.items() if found[name] is None}
    return found


def _plain(value: Any) -> Any:
    """Anything that a client sent as JSON can hold it: null in the place of pictures and of what is no number."""
    if isinstance(value, Mapping):
        return {writable(str(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        return None if len(value) > LONGEST else writable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def writable(text: str) -> str:
    """The text without halves of signs, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode()


def _info(body: Generation, asked: Translated, made: Made, infos: Sequence[PictureInfo]) -> dict[str, Any]:
    """`info`, whose types strict clients check: no null where A1111 has text or a number."""
    requests = [info.request for info in infos]
    values = infos[0].values if infos else {}
    first = requests[0] if requests else None
    seeds = [picture.seed if picture.seed is not None else -1 for picture in made.pictures]
    flags = [is_flagged(picture) for picture in made.pictures]
    subseeds = [body.subseed if each.variation.seed is None else each.variation.seed for each in requests]
    strength = None
    if first is not None:
        strength = first.strength if first.hires is None else first.hires.strength
    prompts = [each.prompt for each in requests] or [body.prompt]
    negatives = [each.negative_prompt for each in requests] or [body.negative_prompt]
    return {
        "prompt": prompts[0],
        "all_prompts": prompts,
        "negative_prompt": negatives[0],
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else body.seed,
        "all_seeds": seeds,
        "subseed": subseeds[0] if subseeds else body.subseed,
        "all_subseeds": subseeds,
        "subseed_strength": body.subseed_strength,
        "width": (None if first is None else first.width) or body.width or 0,
        "height": (None if first is None else first.height) or body.height or 0,
        "sampler_name": values.get("Sampler") or body.sampler_name or body.sampler_index or "",
        "cfg_scale": _number(values.get("CFG scale"), body.cfg_scale),
        "steps": (None if first is None else first.steps) or body.steps or 0,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": values.get("Model", asked.options.sd_model_checkpoint),
        "sd_model_hash": values.get("Model hash", ""),
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": strength,
        "extra_generation_params": {name: value for name, value in values.items() if name not in OWN_KEYS},
        "index_of_first_image": made.sheets,
        "infotexts": [picture.parameters for picture in made.pictures],
        "styles": list(body.styles),
        "job_timestamp": timestamp(made.started),
        "clip_skip": (None if first is None else first.clip_skip) or 1,
        "is_using_inpainting_conditioning": False,
        "version": f"stable-diffusion {__version__}",
        "notes": [*asked.notes, *made.notes],
        **({"flagged": flags} if any(flags) else {}),
    }


def _number(text: str | None, usual: float | None) -> float:
    try:
        return float(text) if text is not None else usual or 0.0
    except ValueError:
        return usual or 0.0


def timestamp(moment: float) -> str:
    """A time as A1111 writes it: 20261130164500."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(moment))


def text_parameters(text: str) -> dict[str, Any]:
    """A picture's text as A1111's png-info takes it apart; empty where it is none."""
    prompt, negative, values = split_text(text)
    if not values:
        return {}
    found: dict[str, Any] = {"Prompt": prompt, "Negative prompt": negative}
    for name, value in values.items():
        width, sign, height = value.partition("x")
        if sign and width.isdigit() and height.isdigit():
            found |= {f"{name}-1": width, f"{name}-2": height}
        else:
            found[name] = value
    return found

"""The `parameters` text of A1111 inside picture files: written, and read back into the same request.

The text is the prompt, then `Negative prompt: ...` where there is one, then one line of `Key: value` pairs. PNG holds
it in a text chunk, JPEG and WebP in the EXIF user comment. Where prompt and format would be mixed up (a prompt with a
line that looks like a part of the format), the exact prompts are added as quoted values that other readers skip.

A setting with a key of its own is written by the table alone: what is off is left out, and other programs skip keys
that they do not know. Beside the table stand the settings that A1111 writes in a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .group import Setting, every_setting
from .metadata_read import SOURCES, picture_text, read_text
from .names import SAMPLERS, SCHEDULES
from .request import Request
from .settings import ABSENT
from .writers.choices import has_choices
from .writers.infotext import split_text, write_infotext
from .writers.programs import OURS

if TYPE_CHECKING:
    from PIL import Image

ORDER = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Size", "Model hash", "Model"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength", "Clip skip", "Background"),
    *("Eta", "Eta DDIM", "ENSD", "RNG", "Shift", "Tiling", "Panorama"),
    *("Sigma churn", "Sigma tmin", "Sigma tmax", "Sigma noise"),
    *("Hires upscale", "Hires steps", "Hires upscaler", "Refiner", "Refiner switch at"),
    *("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding", "Soft mask"),
    *("Emphasis", "Variants", "Outpaint", "Window", "Window overlap", "Original size", "Target size", "Crop top left"),
    *("Aesthetic score", "Negative aesthetic score", "Guidance rescale", "Guidance interval"),
    *("Speed", "Token merging ratio"),
)
"""The order of keys, A1111's where it has them; others follow in the order of the table."""
ETA_DDIM = ("ddim", "ddim_cfg_pp", "plms", "uni_pc")
"""Samplers whose eta has a key of its own."""

PLAIN = ("torch", "float32", "alone")
"""Engine, precision and sharing of network calls that are not written."""


@dataclass(frozen=True)
class PictureInfo:
    """What a picture file says of its making: the request, every key as written, and what could not be taken over."""

    request: Request
    values: dict[str, str]
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class Used:
    """What a picture was made with besides its model, for its text: names with hashes, tags to write, the entries of
    its controls, the hash of its refiner, what ran its networks in which precision, and how runs shared their calls."""

    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    controls: tuple[tuple[str, str], ...] = ()
    refiner_hash: str | None = None
    engine: str = PLAIN[0]
    precision: str = PLAIN[1]
    sharing: str = PLAIN[2]

    def values(self) -> dict[str, str]:
        """The entries of the picture's text, as A1111 writes them."""
        entries = {"TI hashes": self.embeddings, "Lora hashes": self.loras}
        written = {
            key: ", ".join(f"{name}: {digits}" for name, digits in hashes.items())
            for key, hashes in entries.items()
            if hashes
        }
        kinds = {"Engine": self.engine, "Precision": self.precision, "Sharing": self.sharing}
        unusual = {key: kind for (key, kind), plain in zip(kinds.items(), PLAIN, strict=True) if kind != plain}
        return {**dict(self.controls), **written, **unusual}


def parameters_text(
    request: Request, *, model_hash: str | None = None, version: str | None = None, used: Used | None = None
) -> str:
    """The text for one finished picture; `request` is resolved and has count 1. Keys are in A1111's order.

    `used` are its adapters: those that were given as files are written as the tags that mean them.
    """
    used = Used() if used is None else used
    prompt = request.prompt + used.tags
    values = {
        **written_values(request, model_hash, used.refiner_hash),
        **used.values(),
        "Version": OURS if version is None else f"{OURS} {version}",
    }
    return write_infotext(prompt, request.negative_prompt, values)


def parse_parameters(text: str) -> PictureInfo:
    """A parameters text, ours or another program's, as a request. InvalidRequest where it is none, or a number is
    unusable."""
    found = read_text(Request, text)
    return PictureInfo(request=found.request, values=found.values, notes=found.notes, text=text)


def read_metadata(source: str | Path | Image.Image) -> PictureInfo:
    """What a picture file (or an opened one) says of its making, whichever program wrote it; InvalidRequest where it
    says nothing."""
    return parse_parameters(picture_text(source))


CUT = "Prompt cut"
"""Key of texts whose prompts had to be made shorter."""


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The text with its prompts cut until it `fits`: what else it says is kept; "" where that alone is too long."""
    prompt, negative, values = split_text(text)

    def cut(length: int) -> str:
        return write_infotext(prompt[:length].strip(), negative[:length].strip(), {**values, CUT: True})

    low, high = 0, max(len(prompt), len(negative))
    if not fits(cut(low)):
        return ""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(cut(middle)) else (low, middle)
    return cut(low)


def user_comment(text: str) -> bytes:
    """EXIF user comment: the character code, then UTF-16 in big-endian order, as A1111 writes it."""
    return b"UNICODE\0" + text.encode("utf-16-be", "replace")


def written_values(
    request: Request, model_hash: str | None = None, refiner_hash: str | None = None
) -> dict[str, object]:
    """The pairs of a resolved request of one picture, in order."""
    values: dict[str, object] = {} if model_hash is None else {"Model hash": model_hash}
    for each in every_setting(Request):
        if each.path in _WRITERS:
            values |= _WRITERS[each.path](request)
        elif each.key is not None and not _is_off(each, value := each.of(request)):
            values[each.key] = each.kind.write(value)
    if refiner_hash is not None and "Refiner" in values:
        values["Refiner"] = f"{values['Refiner']} [{refiner_hash}]"
    place = {key: number for number, key in enumerate(ORDER)}
    ordered = sorted(values, key=lambda key: place.get(key, len(ORDER)))
    return {key: values[key] for key in ordered if values[key] is not None}


def _is_off(each: Setting, value: object) -> bool:
    """What is not given, or as usual, is not written; of a group that a request may be without, all is."""
    return value is None or (value == each.default and each.group not in ABSENT)


def _sampler(request: Request) -> dict[str, object]:
    name = request.sampler
    return {"Sampler": SAMPLERS[name].label if name in SAMPLERS else name}


def _schedule(request: Request) -> dict[str, object]:
    name = request.schedule
    return {"Schedule type": SCHEDULES[name].label if name in SCHEDULES else name}


def _variation(request: Request) -> dict[str, object]:
    varied = request.variation
    return {"Variation seed": varied.seed, "Variation seed strength": varied.strength} if varied.strength > 0 else {}


def _strength(request: Request) -> dict[str, object]:
    """Of the picture to start from, or of the second pass."""
    return {"Denoising strength": request.strength if request.hires is None else request.hires.strength}


def _variants(request: Request) -> dict[str, object]:
    """Needed only where the prompts hold signs that would be read as choices."""
    signs = has_choices(request.prompt) or has_choices(request.negative_prompt)
    return {"Variants": False if signs and not request.prompting.variants else None}


def _crop(request: Request) -> dict[str, object]:
    left, top = request.micro_conditioning.crop
    return {"Crop top left": f"{top} {left}" if left or top else None}


_WRITERS: dict[str, Callable[[Request], dict[str, object]]] = {
    "sampler": _sampler,
    "schedule": _schedule,
    "width": lambda request: {"Size": f"{request.width}x{request.height}"},
    "variation.seed": lambda request: {},
    "variation.strength": _variation,
    "strength": _strength,
    "noise.eta": lambda request: {"Eta DDIM" if request.sampler in ETA_DDIM else "Eta": request.noise.eta},
    "noise.source": lambda request: {"RNG": SOURCES[request.noise.source]},
    "canvas.tiling": lambda request: {"Tiling": True if request.canvas.tiling == "both" else request.canvas.tiling},
    "inpaint.blur": lambda request: {"Mask blur": request.inpaint.blur or None},
    "inpaint.invert": lambda request: {"Mask mode": "Inpaint not masked" if request.inpaint.invert else None},
    "inpaint.only_masked": lambda request: {"Inpaint area": "Only masked" if request.inpaint.only_masked else None},
    "prompting.variants": _variants,
    "micro_conditioning.crop": _crop,
}

"""The `parameters` text of A1111 inside picture files: written, and read back into the same request.

The text is the prompt, then `Negative prompt: ...` where there is one, then one line of `Key: value` pairs. PNG holds
it in a text chunk, JPEG and WebP in the EXIF user comment. Where prompt and format would be mixed up (a prompt with a
line that looks like a part of the format), the exact prompts are added as quoted values that other readers skip.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InvalidRequest
from ..pipeline.image import open_picture
from ..pipeline.loras import Used
from ..pipeline.tasks.background import checked_background
from .metadata_groups import HIRES, group_values, parsed, read_groups, seed_values, strength_of
from .names import AUTOMATIC, SAMPLERS, SCHEDULES
from .request import Request, canonical_sampler

KEY = "parameters"
NEGATIVE = "Negative prompt:"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
VERSION = "stable-diffusion"
_PAIR = re.compile(r'\s*(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_CONTROL = re.compile(r"ControlNet \d+")
_SIZE = re.compile(r"(\d+)x(\d+)")
_KEYS = ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Denoising strength", "Clip skip")
"""Common keys, which other programs write in other cases ("CFG Scale" of ComfyUI's savers)."""
COMFY = "ComfyUI"
"""How savers of ComfyUI begin their version; it draws its noise on the CPU, and "Automatic" is unknown to it."""
FEWEST_PAIRS = 3
"""A last line of fewer pairs belongs to the prompt."""
MAX_TEXT = 100_000


@dataclass(frozen=True)
class PictureInfo:
    """What a picture file says of its making: the request, every key as written, and what could not be taken over."""

    request: Request
    values: dict[str, str]
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False)


def parameters_text(
    request: Request, *, model_hash: str | None = None, version: str | None = None, used: Used | None = None
) -> str:
    """The text for one finished picture; `request` is resolved and has count 1. Keys are in A1111's order.

    `used` are its adapters: those that were given as files are written as the tags that mean them.
    """
    used = Used() if used is None else used
    prompt = request.prompt + used.tags
    sampler = "" if request.sampler is None else request.sampler
    schedule = request.schedule
    values: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": SAMPLERS[sampler].label if sampler in SAMPLERS else sampler,
        "Schedule type": SCHEDULES[schedule].label if schedule in SCHEDULES else schedule,
        "CFG scale": request.guidance,
        "Image CFG scale": request.image_guidance,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash,
        "Model": request.model,
        **seed_values(request),
        "Denoising strength": strength_of(request),
        "Clip skip": request.clip_skip,
        "Background": request.background,
        **group_values(request, refiner_hash=used.refiner_hash),
        "Guidance rescale": request.guidance_rescale if request.guidance_rescale else None,
        "Guidance interval": _interval_text(request.guidance_interval),
        **used.values(),
        "Version": VERSION if version is None else f"{VERSION} {version}",
    }
    text = _written(prompt, request.negative_prompt, values)
    if split_text(text)[:2] == (prompt, request.negative_prompt):
        return text
    exact = {"Exact prompt": prompt, "Exact negative prompt": request.negative_prompt}
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in exact.items() if value}
    return text + "".join(f", {key}: {value}" for key, value in quoted.items())


def _written(prompt: str, negative: str, values: dict[str, object]) -> str:
    pairs = ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items() if value is not None)
    return "\n".join([prompt, *([f"{NEGATIVE} {negative}"] if negative else []), pairs])


def _quoted(value: object) -> str:
    """Numbers without a needless ".0"; text in JSON quotes where it holds a sign of the format."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if any(sign in text for sign in ',:\n"') or text != text.strip():
        return json.dumps(text, ensure_ascii=False)
    return text


def _interval_text(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{interval[0]} to {interval[1]}"


def split_text(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, values) of a parameters text, read as A1111 reads it.

    The last line holds values only where it has at least three pairs; a line that starts `Negative prompt:` begins the
    negative part. Inner white space is kept.
    """
    lines = text.strip().split("\n")
    pairs = _PAIR.findall(lines[-1])
    if len(pairs) < FEWEST_PAIRS:
        pairs = []
    else:
        lines.pop()
    start = next((n for n, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    prompt, negative = "\n".join(lines[:start]), "\n".join(lines[start:])
    values = {key.strip(): _unquoted(value) for key, value in pairs}
    known = {key.casefold(): key for key in _KEYS if key not in values}
    values |= {known[key.casefold()]: value for key, value in values.items() if key.casefold() in known}
    exact = values.pop("Exact prompt", None), values.pop("Exact negative prompt", "")
    if exact[0] is not None:
        return exact[0], exact[1], values
    return prompt.strip(), negative.lstrip().removeprefix(NEGATIVE).strip(), values


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def parse_parameters(text: str) -> PictureInfo:
    """A parameters text, ours or A1111's, as a request. InvalidRequest where it is none, or a number is unusable."""
    if len(text) > MAX_TEXT:
        raise InvalidRequest(f"the parameters text has {len(text)} characters; expected at most {MAX_TEXT}")
    prompt, negative, values = split_text(text)
    if not values or not prompt:
        raise InvalidRequest(
            "the text holds no generation parameters; expected a prompt and a line of 'Key: value' pairs"
        )
    settings, notes = _sampling(values)
    size = _SIZE.fullmatch(values.get("Size", ""))
    if size is not None:
        settings |= {"width": int(size[1]), "height": int(size[2])}
    for key, name, kind in (
        ("Steps", "steps", int),
        ("CFG scale", "guidance", float),
        ("Image CFG scale", "image_guidance", float),
        ("Seed", "seed", int),
        *(() if any(key in values for key in HIRES) else (("Denoising strength", "strength", float),)),
        ("Clip skip", "clip_skip", int),
        ("Guidance rescale", "guidance_rescale", float),
    ):
        if key in values:
            settings[name] = parsed(key, values[key], kind)
    if "Guidance interval" in values:
        parts = values["Guidance interval"].split(" to ")
        settings["guidance_interval"] = tuple(parsed("Guidance interval", part, float) for part in parts)
    if "Background" in values:
        try:
            settings["background"] = checked_background(values["Background"])
        except InvalidRequest:
            notes.append(f"the background {values['Background']!r} is not known here; none is asked for")
    if "Model" in values:
        settings["model"] = values["Model"]
    version = values.get("Version", "")
    groups, more = read_groups(values, ours=version.startswith(VERSION), on_cpu=version.startswith(COMFY))
    notes += [*more, *_foreign(values)]
    request = Request(prompt, negative_prompt=negative, **settings, **groups)
    return PictureInfo(request=request, values=values, notes=tuple(notes), text=text)


def _sampling(values: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Sampler and schedule; what this package does not have is left to the model, with a note."""
    settings: dict[str, Any] = {}
    notes: list[str] = []
    if "Sampler" in values:
        try:
            settings["sampler"], schedule = canonical_sampler(values["Sampler"])
            if schedule is not None:
                settings["schedule"] = schedule
        except InvalidRequest:
            notes.append(f"the sampler {values['Sampler']!r} is not known here; the model's own is used instead")
    version = values.get("Version", "")
    usual = "normal" if version.startswith(COMFY) else AUTOMATIC
    name = values.get("Schedule type", None if version.startswith(VERSION) or "schedule" in settings else usual)
    if name is not None and ("sampler" in settings or "Schedule type" in values):
        try:
            settings["schedule"] = Request("-", schedule=name).schedule
        except InvalidRequest:
            notes.append(f"the schedule {name!r} is not known here; the sampler's usual one is used instead")
            settings["schedule"] = AUTOMATIC
    return settings, notes


_IGNORED = (
    *("TI hashes", "VAE", "Token merging ratio", "Face restoration", "NGMS"),
    *("Soft inpainting enabled", "Schedule rho", "Schedule max sigma", "Schedule min sigma"),
)


def _foreign(values: dict[str, str]) -> list[str]:
    """What another program's picture used that changes the result and is not taken over."""
    notes = [f"{key!r} ({values[key]}) is not taken over" for key in _IGNORED if key in values]
    controls = [key for key in values if _CONTROL.fullmatch(key)]
    return notes + [f"{key!r} is not taken over: give its file and picture again ({values[key]})" for key in controls]


def read_metadata(source: str | Path | Image.Image) -> PictureInfo:
    """What a PNG, JPEG or WebP file (or an opened one) says of its making; InvalidRequest where it says nothing."""
    image = source if isinstance(source, Image.Image) else open_picture(source, "picture")
    text = written_text(image)
    if not text:
        where = "the picture" if isinstance(source, Image.Image) else repr(str(source))
        raise InvalidRequest(f"{where} holds no generation parameters")
    return parse_parameters(text)


def written_text(image: Image.Image) -> str | None:
    """The text in an opened picture as it stands, whether or not it is a request; None where there is none."""
    text = image.info.get(KEY)
    return text if isinstance(text, str) else _user_comment(image)


def request_like(path: str | Path, **changes: Any) -> Request:
    """The request written in a picture, with `changes`; a warning for each thing that could not be taken over."""
    info = read_metadata(path)
    for note in info.notes:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    return info.request.changed(**changes)


def user_comment(text: str) -> bytes:
    """EXIF user comment: the character code, then UTF-16 in big-endian order, as A1111 writes it."""
    return b"UNICODE\0" + text.encode("utf-16-be")


def _user_comment(image: Image.Image) -> str | None:
    value = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    if isinstance(value, str):
        return value.removeprefix("UNICODE\0").removeprefix("ASCII\0\0\0")
    if not isinstance(value, bytes) or len(value) < 8:
        return None
    code, body = value[:8], value[8:]
    if code != b"UNICODE\0":
        return body.decode("utf-8", errors="replace").strip("\0")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace")
    big = body.decode("utf-16-be", errors="replace")
    little = body.decode("utf-16-le", errors="replace")
    return max(big, little, key=lambda text: sum(c in " ,:\n" for c in text))

"""The groups of a request in a picture's text: A1111's keys where it has them, keys of our own for the rest.

What other programs do not know they skip; what is off is not written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..pipeline.tasks.micro_conditioning import SizeConditioning
from ..pipeline.tasks.hires import UPSCALERS, upscaler_name
from ..text.variants import has_variants
from .request import Request
from .settings import EMPHASES, MAX_HIRES

SOURCES = {"cpu": "CPU", "device": "GPU", "nv": "NV"}
"""A request's noise sources, and A1111's names of them."""
ETA_DDIM = ("ddim", "ddim_cfg_pp", "plms", "uni_pc")
"""Samplers whose eta has a key of its own."""
SIGMA_KEYS = {"s_churn": "Sigma churn", "s_tmin": "Sigma tmin", "s_tmax": "Sigma tmax", "s_noise": "Sigma noise"}
SCORES = {"aesthetic_score": "Aesthetic score", "negative_aesthetic_score": "Negative aesthetic score"}
_SIDES = ("left", "top", "right", "bottom")
_OUTPAINT = re.compile(r"left (\d+) top (\d+) right (\d+) bottom (\d+)")
_SIZE = re.compile(r"(\d+)x(\d+)")
_HASHED = re.compile(r" \[[0-9a-f]{8,64}\]$")
"""How A1111 ends the name of a model."""
HIRES = ("Hires upscale", "Hires resize")
"""A second pass has one of these: a factor, or a size."""
NOT_TAKEN = ("Hires sampler", "Hires schedule type", "Hires checkpoint", "Hires prompt", "Discard penultimate sigma")
"""Of a second pass: what is read and not taken over."""


def parsed(key: str, text: str, kind: type[int] | type[float]) -> float:
    """A number of the text; InvalidRequest where it is none."""
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise InvalidRequest(f"{key!r} of the picture's parameters is {text!r}; expected {expected}") from None


def seed_values(request: Request) -> dict[str, object]:
    """What follows the model in the text: variation seeds."""
    varied = request.variation
    values: dict[str, object] = {}
    if varied.strength > 0:
        values |= {"Variation seed": varied.seed, "Variation seed strength": varied.strength}
    if varied.resize_from is not None:
        values["Seed resize from"] = "x".join(map(str, varied.resize_from))
    return values


def group_values(request: Request, *, refiner_hash: str | None = None) -> dict[str, object]:
    """What follows clip skip in the text; values that are None are left out there."""
    noise, canvas, inpaint, hires = request.noise, request.canvas, request.inpaint, request.hires
    eta = "Eta DDIM" if request.sampler in ETA_DDIM else "Eta"
    tiling: dict[str | None, object] = {None: None, "both": True, "x": "x", "y": "y"}
    values: dict[str, object] = {
        eta: noise.eta,
        "ENSD": noise.seed_delta or None,
        "RNG": SOURCES[noise.source],
        "Shift": noise.shift,
        "Tiling": tiling[canvas.tiling],
        "Panorama": canvas.panorama or None,
        **{key: getattr(noise, name) for name, key in SIGMA_KEYS.items()},
    }
    if hires is not None:
        values |= {"Hires upscale": hires.scale, "Hires steps": hires.steps, "Hires upscaler": hires.upscaler}
    if request.refiner is not None:
        hashed = "" if refiner_hash is None else f" [{refiner_hash}]"
        values |= {"Refiner": request.refiner.model + hashed, "Refiner switch at": request.refiner.switch}
    values |= {
        "Mask blur": inpaint.blur or None,
        "Mask mode": "Inpaint not masked" if inpaint.invert else None,
        "Masked content": inpaint.fill,
        "Inpaint area": "Only masked" if inpaint.only_masked else None,
        "Masked area padding": inpaint.padding,
        "Soft mask": inpaint.soft or None,
        "Emphasis": request.prompting.emphasis,
        "Variants": None if request.prompting.variants or not _has_variants(request) else False,
        "Outpaint": None if canvas.outpaint is None else " ".join(
            f"{side} {pixels}" for side, pixels in zip(_SIDES, canvas.outpaint, strict=True)
        ),
        "Window": canvas.window,
        "Window overlap": canvas.window_overlap,
    }  # fmt: skip
    return values | _told_values(request.told_size)


def _has_variants(request: Request) -> bool:
    """Whether the prompts hold signs that would be read as choices."""
    return has_variants(request.prompt) or has_variants(request.negative_prompt)


def _told_values(told: SizeConditioning) -> dict[str, object]:
    """What the model was told of sizes, as far as it is not the usual."""
    pairs = {"Original size": told.original, "Target size": told.target}
    usual = SizeConditioning()
    scores = {key: getattr(told, name) for name, key in SCORES.items() if getattr(told, name) != getattr(usual, name)}
    return {
        **{key: "x".join(map(str, pair)) for key, pair in pairs.items() if pair is not None},
        **({} if told.crop == usual.crop else {"Crop top left": f"{told.crop[1]} {told.crop[0]}"}),
        **scores,
    }


def strength_of(request: Request) -> float | None:
    """ "Denoising strength": of the picture, or of the second pass."""
    return request.strength if request.hires is None else request.hires.strength


def read_groups(values: Mapping[str, str], *, ours: bool, on_cpu: bool = False) -> tuple[dict[str, Any], list[str]]:
    """(groups as mappings of their fields, notes) of a text's values; `ours` says that this program wrote them, and
    `on_cpu` that it was one which draws noise on the CPU."""
    notes: list[str] = []
    groups: dict[str, dict[str, Any]] = {
        "noise": _noise(values, ours, ours or on_cpu, notes),
        "variation": _variation(values),
        "inpaint": _inpaint(values),
        "canvas": _canvas(values, notes),
        "told_size": _told_size(values),
        "prompting": {"variants": False} if values.get("Variants") == "False" else {},
    }
    if "Emphasis" in values:
        known = next((name for name in EMPHASES if name.casefold() == values["Emphasis"].casefold()), None)
        groups["prompting"] |= {} if known is None else {"emphasis": known}
        if known is None:
            notes.append(f"the emphasis {values['Emphasis']!r} is not known here; the model's own is used instead")
    found: dict[str, Any] = {name: group for name, group in groups.items() if group}
    if "Refiner" in values:
        found["refiner"] = _refiner(values)
    scale = _hires_scale(values, notes)
    if scale is not None:
        found["hires"] = _hires(values, scale, notes)
    notes += [f"{key!r} ({values[key]}) is not taken over" for key in NOT_TAKEN if key in values]
    return found, notes


def _noise(values: Mapping[str, str], ours: bool, on_cpu: bool, notes: list[str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    rng = values.get("RNG", "CPU" if on_cpu else "GPU").upper()
    if rng == "NV":
        group["source"] = "nv"
    elif rng == "GPU" and ours:
        group["source"] = "device"
    elif rng != "CPU":
        group["source"] = "nv"
        notes.append("the noise was drawn on a GPU; it is taken to be an NVIDIA card, whose numbers are made here too")
    for key in ("Eta", "Eta DDIM"):
        if key in values:
            group["eta"] = parsed(key, values[key], float)
    for name, key in SIGMA_KEYS.items():
        if key in values:
            group[name] = parsed(key, values[key], float)
    if "Shift" in values:
        group["shift"] = parsed("Shift", values["Shift"], float)
    if "ENSD" in values:
        group["seed_delta"] = parsed("ENSD", values["ENSD"], int)
    return group


def _variation(values: Mapping[str, str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    if "Variation seed strength" in values:
        group["strength"] = parsed("Variation seed strength", values["Variation seed strength"], float)
        if "Variation seed" in values:
            group["seed"] = parsed("Variation seed", values["Variation seed"], int)
    size = _SIZE.fullmatch(values.get("Seed resize from", ""))
    if size is not None and "0" not in size.groups():
        group["resize_from"] = (int(size[1]), int(size[2]))
    return group


def _inpaint(values: Mapping[str, str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    if "Mask blur" in values:
        group["blur"] = parsed("Mask blur", values["Mask blur"], float)
    if values.get("Mask mode") == "Inpaint not masked":
        group["invert"] = True
    if "Masked content" in values:
        group["fill"] = values["Masked content"]
    if values.get("Inpaint area") == "Only masked":
        group["only_masked"] = True
    if "Masked area padding" in values:
        group["padding"] = parsed("Masked area padding", values["Masked area padding"], int)
    if values.get("Soft mask") == "True":
        group["soft"] = True
    return group


def _canvas(values: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    tiling = values.get("Tiling", "False")
    if tiling in ("True", "x", "y", "both"):
        group["tiling"] = "both" if tiling == "True" else tiling
    elif tiling != "False":
        notes.append(f"'Tiling' ({tiling}) is not taken over")
    if values.get("Panorama") == "True":
        group["panorama"] = True
    margins = _OUTPAINT.fullmatch(values.get("Outpaint", ""))
    if margins is not None:
        group["outpaint"] = tuple(map(int, margins.groups()))
    for key, name in (("Window", "window"), ("Window overlap", "window_overlap")):
        if key in values:
            group[name] = parsed(key, values[key], int)
    return group


def _refiner(values: Mapping[str, str]) -> dict[str, Any]:
    group: dict[str, Any] = {"model": _HASHED.sub("", values["Refiner"])}
    if "Refiner switch at" in values:
        group["switch"] = parsed("Refiner switch at", values["Refiner switch at"], float)
    return group


def _told_size(values: Mapping[str, str]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    for key, name in (("Original size", "original"), ("Target size", "target")):
        size = _SIZE.fullmatch(values.get(key, ""))
        if size is not None:
            group[name] = (int(size[1]), int(size[2]))
    crop = re.fullmatch(r"(\d+) (\d+)", values.get("Crop top left", ""))
    if crop is not None:
        group["crop"] = (int(crop[2]), int(crop[1]))
    return group | {name: parsed(key, values[key], float) for name, key in SCORES.items() if key in values}


def _hires_scale(values: Mapping[str, str], notes: list[str]) -> float | None:
    """The factor of a second pass; of one that A1111 was given as a size, where a 0 stands for "in proportion"."""
    if "Hires upscale" in values:
        return parsed("Hires upscale", values["Hires upscale"], float)
    if "Hires resize" not in values:
        return None
    sizes = [_SIZE.fullmatch(values.get(key, "")) for key in ("Size", "Hires resize")]
    pairs = [(int(size[1]), int(size[2])) for size in sizes if size is not None]
    factors: list[float] = []
    if len(pairs) == 2:
        factors = [new / old for old, new in zip(pairs[0], pairs[1], strict=True) if new and old]
    if not factors or not 1 <= max(factors) <= MAX_HIRES:
        notes.append(f"'Hires resize' ({values['Hires resize']}) is not taken over, and so nor is the second pass")
        return None
    if max(factors) != min(factors):
        notes.append(f"'Hires resize' ({values['Hires resize']}) has other proportions: what A1111 cut off stays")
    return max(factors)


def _hires(values: Mapping[str, str], scale: float, notes: list[str]) -> dict[str, Any]:
    group: dict[str, Any] = {"scale": scale}
    if "Hires steps" in values:
        steps = parsed("Hires steps", values["Hires steps"], int)
        group |= {"steps": steps} if steps else {}  # 0 is A1111's "as many as the first"
    if "Denoising strength" in values:
        group["strength"] = parsed("Denoising strength", values["Denoising strength"], float)
    name = values.get("Hires upscaler")
    if name is not None:
        try:
            group["upscaler"] = upscaler_name(name)
        except InvalidRequest:
            group["upscaler"] = UPSCALERS[0] if name.casefold().startswith("latent") else "Lanczos"
            notes.append(f"the upscaler {name!r} is not known here; {group['upscaler']!r} is used instead")
    return group

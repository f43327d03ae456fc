"""The `Key: value` pairs of a picture's text, written from the table of settings and read back.

A setting with a key of its own needs nothing here: what is off is not written, and other programs skip keys that they
do not know. Beside the table stand the settings that A1111 writes in a way of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest
from .fields import Flag, Kind, Number, Whole
from .group import Setting
from .names import AUTOMATIC, SAMPLERS, SCHEDULES, resolve_schedule
from .request import Request, all_settings, canonical_sampler
from .sequences import Pixels, Span
from .settings import ABSENT, EMPHASES, MAX_HIRES, UPSCALERS

ORDER = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Size", "Model hash", "Model"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength", "Clip skip", "Background"),
    *("Eta", "Eta DDIM", "ENSD", "RNG", "Shift", "Tiling", "Panorama"),
    *("Sigma churn", "Sigma tmin", "Sigma tmax", "Sigma noise"),
    *("Hires upscale", "Hires steps", "Hires upscaler", "Refiner", "Refiner switch at"),
    *("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding", "Soft mask"),
    *("Emphasis", "Variants", "Outpaint", "Window", "Window overlap", "Original size", "Target size", "Crop top left"),
    *("Aesthetic score", "Negative aesthetic score", "Guidance rescale", "Guidance interval"),
)
"""The order of keys, A1111's where it has them; others follow in the order of the table."""
SOURCES = {"cpu": "CPU", "device": "GPU", "nv": "NV"}
"""A request's noise sources, and A1111's names of them."""
ETA_DDIM = ("ddim", "ddim_cfg_pp", "plms", "uni_pc")
"""Samplers whose eta has a key of its own."""
HIRES = ("Hires upscale", "Hires resize")
"""A second pass has one of these: a factor, or a size."""
NOT_TAKEN = ("Hires sampler", "Hires schedule type", "Hires checkpoint", "Hires prompt", "Discard penultimate sigma")
"""Of a second pass: what is read and not taken over."""
_SIZE = re.compile(r"(\d+)x(\d+)")
_HASHED = re.compile(r" \[[0-9a-f]{8,64}\]$")
"""How A1111 ends the name of a model."""
_BRACES = re.compile(r"\\.|(\{\s*\d{1,3}(?:-\d{1,3})?\s*\$\$)|([{}|])", re.DOTALL)
_WILDCARD = re.compile(r"(?<!\\)__(?!_)(?:(?!__)[\w\-./*?])+__")


# --- writing ----------------------------------------------------------------------------------------------------------


def written_values(
    request: Request, model_hash: str | None = None, refiner_hash: str | None = None
) -> dict[str, object]:
    """The pairs of a resolved request of one picture, in order."""
    values: dict[str, object] = {} if model_hash is None else {"Model hash": model_hash}
    for each in all_settings():
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
    left, top = request.told_size.crop
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
    "told_size.crop": _crop,
}


def has_choices(prompt: str) -> bool:
    """Whether a prompt holds what `text.variants` reads as choices or wildcards."""
    opened: list[bool] = []
    for match in _BRACES.finditer(prompt):
        if match[1] or match[2] == "{":
            opened.append(bool(match[1]))
        elif match[2] == "|" and opened:
            opened[-1] = True
        elif match[2] == "}" and opened and opened.pop():
            return True
    return _WILDCARD.search(prompt) is not None


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class Reading:
    """The pairs of a text on their way to a request.

    ours     this program wrote them    on_cpu   the program that did draws its noise on the CPU
    usual    the schedule that a text without one means; None the sampler's own
    """

    values: Mapping[str, str]
    ours: bool
    on_cpu: bool
    usual: str | None
    notes: list[str] = field(default_factory=list)

    def request(self, prompt: str, negative: str) -> Request:
        """The request; InvalidRequest where a number is unusable."""
        settings: dict[str, Any] = {}
        for each in all_settings():
            value = _READERS[each.path](self) if each.path in _READERS else self._plain(each)
            if value is not None:
                each.put(settings, value)
        for group, needed in (("hires", "scale"), ("refiner", "model")):
            if needed not in settings.get(group, {}):
                settings.pop(group, None)
        self.notes += [f"{key!r} ({self.values[key]}) is not taken over" for key in NOT_TAKEN if key in self.values]
        return Request(prompt, negative_prompt=negative, **settings)

    def _plain(self, each: Setting) -> Any:
        """What the setting's own key says."""
        text = None if each.key is None else self.values.get(each.key)
        return None if text is None or each.key is None else _value(each.key, each.kind, text)

    def number(self, key: str, kind: Kind) -> Any:
        return _value(key, kind, self.values[key]) if key in self.values else None


def _value(key: str, kind: Kind, text: str) -> Any:
    """A value of the text; InvalidRequest where a number is none. Sizes in another form are passed over."""
    if isinstance(kind, Flag):
        return True if text == "True" else None
    if isinstance(kind, Pixels):
        form = r"(\d+)x(\d+)" if kind.is_size else " ".join(rf"{name} (\d+)" for name in kind.names)
        match = re.fullmatch(form, text)
        found = () if match is None else tuple(map(int, match.groups()))
        return found if found and min(found) >= kind.low else None
    if not isinstance(kind, (Whole, Number, Span)):
        return text
    try:
        return kind.read(text)
    except ValueError:
        raise InvalidRequest(f"{key!r} of the picture's parameters is {text!r}; expected {kind.form}") from None


def _read_size(reading: Reading, side: int) -> int | None:
    size = _SIZE.fullmatch(reading.values.get("Size", ""))
    return None if size is None else int(size[side + 1])


def _read_sampler(reading: Reading) -> str | None:
    """What this package does not have is left to the model, with a note."""
    name = reading.values.get("Sampler")
    try:
        return None if name is None else canonical_sampler(name)[0]
    except InvalidRequest:
        reading.notes.append(f"the sampler {name!r} is not known here; the model's own is used instead")
        return None


def _read_schedule(reading: Reading) -> str | None:
    sampler, combined = None, None
    if "Sampler" in reading.values:
        try:
            sampler, combined = canonical_sampler(reading.values["Sampler"])
        except InvalidRequest:  # noted with the sampler
            pass
    name = reading.values.get("Schedule type", reading.usual if combined is None else None)
    if name is None or (sampler is None and "Schedule type" not in reading.values):
        return combined
    try:
        return resolve_schedule(name, AUTOMATIC)
    except InvalidRequest:
        reading.notes.append(f"the schedule {name!r} is not known here; the sampler's usual one is used instead")
        return AUTOMATIC


def _read_strength(reading: Reading) -> Any:
    second = any(key in reading.values for key in HIRES)
    return None if second else reading.number("Denoising strength", Number(0, 1))


def _read_background(reading: Reading) -> Any:
    name = reading.values.get("Background")
    kind = next(each.kind for each in all_settings() if each.path == "background")
    try:
        return None if name is None else kind.check("background", name)
    except InvalidRequest:
        reading.notes.append(f"the background {name!r} is not known here; none is asked for")
        return None


def _read_emphasis(reading: Reading) -> str | None:
    name = reading.values.get("Emphasis")
    known = next((known for known in EMPHASES if name is not None and known.casefold() == name.casefold()), None)
    if name is not None and known is None:
        reading.notes.append(f"the emphasis {name!r} is not known here; the model's own is used instead")
    return known


def _read_source(reading: Reading) -> str | None:
    rng = reading.values.get("RNG", "CPU" if reading.ours or reading.on_cpu else "GPU").upper()
    if rng == "CPU":
        return None
    if rng == "GPU" and reading.ours:
        return "device"
    if rng != "NV":
        reading.notes.append(
            "the noise was drawn on a GPU; it is taken to be an NVIDIA card, whose numbers are made here too"
        )
    return "nv"


def _read_tiling(reading: Reading) -> str | None:
    tiling = reading.values.get("Tiling", "False")
    if tiling in ("True", "x", "y", "both"):
        return "both" if tiling == "True" else tiling
    if tiling != "False":
        reading.notes.append(f"'Tiling' ({tiling}) is not taken over")
    return None


def _read_eta(reading: Reading) -> Any:
    key = "Eta DDIM" if "Eta DDIM" in reading.values else "Eta"
    return reading.number(key, Number(0, 10))


def _read_variation_seed(reading: Reading) -> Any:
    return reading.number("Variation seed", Whole(0, 0)) if "Variation seed strength" in reading.values else None


def _read_crop(reading: Reading) -> tuple[int, int] | None:
    crop = re.fullmatch(r"(\d+) (\d+)", reading.values.get("Crop top left", ""))
    return None if crop is None else (int(crop[2]), int(crop[1]))


def _read_scale(reading: Reading) -> Any:
    """The factor of a second pass; of one that A1111 was given as a size, where a 0 stands for "in proportion"."""
    values, notes = reading.values, reading.notes
    if "Hires upscale" in values:
        return reading.number("Hires upscale", Number(1, MAX_HIRES))
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


def _read_upscaler(reading: Reading) -> str | None:
    name = reading.values.get("Hires upscaler")
    if name is None or not any(key in reading.values for key in HIRES):
        return None
    if name.strip().casefold() in {known.casefold() for known in UPSCALERS}:
        return name
    found = UPSCALERS[0] if name.casefold().startswith("latent") else "Lanczos"
    reading.notes.append(f"the upscaler {name!r} is not known here; {found!r} is used instead")
    return found


_READERS: dict[str, Callable[[Reading], Any]] = {
    "sampler": _read_sampler,
    "schedule": _read_schedule,
    "width": lambda reading: _read_size(reading, 0),
    "height": lambda reading: _read_size(reading, 1),
    "strength": _read_strength,
    "background": _read_background,
    "prompting.emphasis": _read_emphasis,
    "prompting.variants": lambda reading: False if reading.values.get("Variants") == "False" else None,
    "noise.source": _read_source,
    "noise.eta": _read_eta,
    "variation.seed": _read_variation_seed,
    "hires.scale": _read_scale,
    "hires.steps": lambda reading: reading.number("Hires steps", Whole(0, 0)) or None,  # 0: as many as the first
    "hires.strength": lambda reading: reading.number("Denoising strength", Number(0, 1)),
    "hires.upscaler": _read_upscaler,
    "refiner.model": lambda reading: (
        _HASHED.sub("", reading.values["Refiner"]) if "Refiner" in reading.values else None
    ),
    "told_size.crop": _read_crop,
    "inpaint.invert": lambda reading: reading.values.get("Mask mode") == "Inpaint not masked" or None,
    "inpaint.only_masked": lambda reading: reading.values.get("Inpaint area") == "Only masked" or None,
    "canvas.tiling": _read_tiling,
}

"""The `parameters` text of A1111 and its kin, read from pictures into requests.

A setting with a key of its own needs nothing here: at the end stand those that A1111 writes in its own way. Nothing
here knows `Request`: the caller gives the class that is to be made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..errors import InvalidRequest
from .fields import Colour, Flag, Kind, Number, Whole, upscaler_files
from .group import Setting, SettingGroup, every_setting
from .left_out import left_out
from .names import AUTOMATIC, resolve_schedule
from .pictures import open_picture
from .sequences import Pixels, Span
from .settings import BACKGROUNDS, EMPHASES, MAX_HIRES, UPSCALERS
from .writers.choices import has_choices
from .writers.files import hidden_text, texts_in_file, texts_in_image
from .writers.forms import as_infotext, infotext_of, json_texts
from .writers.infotext import split_text
from .writers.programs import Program, known_sampler, program_of, schedule_before_names

if TYPE_CHECKING:
    from PIL import Image

R = TypeVar("R", bound=SettingGroup)

MAX_TEXT = 100_000
SOURCES = {"cpu": "CPU", "device": "GPU", "nv": "NV"}
"""A request's noise sources, and A1111's names of them."""
HIRES = ("Hires upscale", "Hires resize")
"""A second pass has one of these: a factor, or a size."""
_SIZE = re.compile(r"(\d+)\s*[x×X*]\s*(\d+)")
_HASHED = re.compile(r" \[[0-9a-f]{8,64}\]$")
"""How A1111 ends the name of a model."""
_NEEDED = ("Steps", "Seed", "Size", "CFG scale", "Sampler", "Model")
"""Keys whose values are refused where they are unusable; others are left out with a note."""


@dataclass(frozen=True)
class Read(Generic[R]):
    """The request of a text, every key as written, what could not be taken over, and whether the text is ours."""

    request: R
    values: dict[str, str]
    notes: tuple[str, ...]
    ours: bool


def read_text(kind: type[R], text: str) -> Read[R]:
    """A text of any program, as a request of class `kind`. InvalidRequest where it is none, or a number is unusable."""
    written = as_infotext(text) if text.lstrip()[:1] == "{" else text
    if written is not None and len(written) > MAX_TEXT:
        raise InvalidRequest(f"the parameters text has {len(written)} characters; expected at most {MAX_TEXT}")
    prompt, negative, values = split_text(written or "")
    if not values:
        raise InvalidRequest(
            "the text holds no generation parameters; expected a prompt and a line of 'Key: value' pairs"
        )
    reading = Reading(values, program_of(values), (prompt, negative))
    request = reading.request(kind, prompt, negative)
    return Read(request, values, (*reading.notes, *left_out(kind, values)), reading.program.ours)


def picture_text(source: str | Path | Image.Image) -> str:
    """The text in a picture file (or an opened one) in A1111's form; InvalidRequest where it holds none."""
    text = written_text(source)
    if not text:
        where = repr(str(source)) if isinstance(source, (str, PathLike)) else "the picture"
        raise InvalidRequest(f"{where} holds no generation parameters")
    return text


def written_text(source: str | Path | Image.Image) -> str | None:
    """The same, whether or not it is a request; None where there is none."""
    path = Path(source) if isinstance(source, (str, PathLike)) else None
    if path is not None and path.is_file() and (found := infotext_of(texts_in_file(path))) is not None:
        return found
    opened = not isinstance(source, (str, PathLike)) and hasattr(source, "info")
    image = cast("Image.Image", source) if opened else open_picture(source, "picture")
    found = infotext_of(texts_in_image(image))
    if found is None and (hidden := hidden_text(image)) is not None:
        found = as_infotext(hidden) or infotext_of(json_texts(hidden))
    return found


@dataclass
class Reading:
    """The pairs of a text on their way to a request: of this `program`, with these `prompts`."""

    values: Mapping[str, str]
    program: Program
    prompts: tuple[str, str]
    notes: list[str] = field(default_factory=list)

    def request(self, kind: type[R], prompt: str, negative: str) -> R:
        """The request; InvalidRequest where a number is unusable."""
        settings: dict[str, Any] = {}
        for each in every_setting(kind):
            value = self._setting(each)
            if value is not None:
                each.put(settings, value)
        for group, needed in (("hires", "scale"), ("refiner", "model")):
            if needed not in settings.get(group, {}):
                settings.pop(group, None)
        return kind(prompt, negative_prompt=negative, **settings)

    def _setting(self, each: Setting) -> Any:
        """The value of a setting; of another program, one that cannot be had is left out with a note."""
        if self.program.ours or each.key in _NEEDED or each.key is None:
            return self._read(each)
        try:
            value = self._read(each)
            return value if value is None else each.check(value)
        except InvalidRequest as error:
            self.notes.append(f"{each.key!r} is not taken over: {error}")
            return None

    def _read(self, each: Setting) -> Any:
        return _READERS[each.path](self) if each.path in _READERS else self._plain(each)

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
        return kind.read(re.sub(r"\.0+$", "", text) if isinstance(kind, Whole) else text)
    except ValueError:
        raise InvalidRequest(f"{key!r} of the picture's parameters is {text!r}; expected {kind.form}") from None


SIDE = 8
"""Sides of A1111's pictures are multiples of it: what is over is cut off."""


def _read_size(reading: Reading, side: int) -> int | None:
    size = _SIZE.fullmatch(reading.values.get("Size", ""))
    if size is None:
        return None
    given = int(size[side + 1])
    if reading.program.ours or given % SIDE == 0:
        return given
    made = max(SIDE, given // SIDE * SIDE)
    reading.notes.append(f"a side of {given} pixels is no multiple of {SIDE}; it is {made}")
    return made


def _read_sampler(reading: Reading) -> str | None:
    """What this package does not have is left to the nearest or to the model, with a note."""
    name = reading.values.get("Sampler")
    if name is None:
        return None
    found, _, note = known_sampler(name)
    if note is not None:
        reading.notes.append(note)
    return found


def _read_schedule(reading: Reading) -> str | None:
    sampler, combined, _ = known_sampler(reading.values.get("Sampler", ""))
    name, program = reading.values.get("Schedule type"), reading.program
    if name is None:
        if combined is not None or sampler is None:
            return combined
        return schedule_before_names(sampler) if program.before else program.usual
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
    try:
        return None if name is None else Colour(BACKGROUNDS).check("background", name)
    except InvalidRequest:
        reading.notes.append(f"the background {name!r} is not known here; none is asked for")
        return None


def _read_emphasis(reading: Reading) -> str | None:
    name = reading.values.get("Emphasis")
    if name is None and reading.program.emphasis is not None and any("(" in prompt for prompt in reading.prompts):
        return reading.program.emphasis
    known = next((known for known in EMPHASES if name is not None and known.casefold() == name.casefold()), None)
    if name is not None and known is None:
        reading.notes.append(f"the emphasis {name!r} is not known here; the model's own is used instead")
    return known


def _read_variants(reading: Reading) -> bool | None:
    """Braces in a finished picture's prompt were text: had they been choices, they would have been made."""
    braces = not reading.program.ours and any(map(has_choices, reading.prompts))
    return False if braces or reading.values.get("Variants") == "False" else None


_GPUS = ("GPU", "CUDA", "XPU", "MPS", "ROCM")


def _read_source(reading: Reading) -> str | None:
    rng = reading.values.get("RNG", reading.program.rng).upper()
    if rng == "CPU":
        return None
    if rng == "GPU" and reading.program.ours:
        return "device"
    if rng == "NV" or (rng == "CUDA" and reading.program.rng == "NV"):
        return "nv"
    if rng in _GPUS:
        reading.notes.append(
            "the noise was drawn on a GPU; it is taken to be an NVIDIA card, whose numbers are made here too"
        )
        return "nv"
    reading.notes.append(
        f"the noise{f' of {rng!r}' if rng else ''} cannot be made here: the seed gives another picture"
    )
    return None


def _read_compat(reading: Reading) -> str | None:
    """A picture of A1111 or its kin is made its way again; a text that names no program is taken for one of theirs."""
    version = reading.values.get("Version", "v1")
    return reading.values.get("Compat", "a1111" if re.match(r"[vf]\d", version) else None)


def _read_tiling(reading: Reading) -> str | None:
    tiling = reading.values.get("Tiling", "False")
    if tiling in ("True", "x", "y", "both"):
        return "both" if tiling == "True" else tiling
    if tiling != "False":
        reading.notes.append(f"'Tiling' ({tiling}) is not taken over")
    return None


def _read_eta(reading: Reading) -> Any:
    if "Eta" in reading.program.idle and not reading.values.get("Sampler", "").startswith(("ddim", "tcd")):
        return None
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
    if name.strip().casefold() in {known.casefold() for known in (*UPSCALERS, *upscaler_files())}:
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
    "prompting.variants": _read_variants,
    "noise.source": _read_source,
    "noise.compat": _read_compat,
    "noise.eta": _read_eta,
    "variation.seed": _read_variation_seed,
    "hires.scale": _read_scale,
    "hires.steps": lambda reading: reading.number("Hires steps", Whole(0, 0)) or None,  # 0: as many as the first
    "hires.strength": lambda reading: reading.number("Denoising strength", Number(0, 1)),
    "hires.upscaler": _read_upscaler,
    "refiner.model": lambda reading: (
        _HASHED.sub("", reading.values["Refiner"]) if "Refiner" in reading.values else None
    ),
    "micro_conditioning.crop": _read_crop,
    "inpaint.invert": lambda reading: reading.values.get("Mask mode") == "Inpaint not masked" or None,
    "inpaint.only_masked": lambda reading: reading.values.get("Inpaint area") == "Only masked" or None,
    "canvas.tiling": _read_tiling,
}

"""The `parameters` text of A1111 and its kin, read from pictures into requests.

A setting with a key of its own needs nothing here: at the end stand those that A1111 writes in its own way. Nothing
here knows `Request`: the caller gives the class that is to be made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import InvalidRequest
from .fields import Colour, Flag, Kind, Number, Whole
from .group import Setting, SettingGroup, every_setting
from .names import AUTOMATIC, canonical_sampler, resolve_schedule
from .pictures import open_picture
from .sequences import Pixels, Span
from .settings import BACKGROUNDS, EMPHASES, MAX_HIRES, UPSCALERS

if TYPE_CHECKING:
    from PIL import Image

R = TypeVar("R", bound=SettingGroup)

KEY = "parameters"
NEGATIVE = "Negative prompt:"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
VERSION = "stable-diffusion"
_PAIR = re.compile(r'\s*(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_CONTROL = re.compile(r"ControlNet \d+")
_KEYS = ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Denoising strength", "Clip skip")
"""Common keys, which other programs write in other cases ("CFG Scale" of ComfyUI's savers)."""
COMFY = "ComfyUI"
"""How savers of ComfyUI begin their version; it draws its noise on the CPU, and "Automatic" is unknown to it."""
FEWEST_PAIRS = 3
"""A last line of fewer pairs belongs to the prompt."""
MAX_TEXT = 100_000
SOURCES = {"cpu": "CPU", "device": "GPU", "nv": "NV"}
"""A request's noise sources, and A1111's names of them."""
HIRES = ("Hires upscale", "Hires resize")
"""A second pass has one of these: a factor, or a size."""
NOT_TAKEN = ("Hires sampler", "Hires schedule type", "Hires checkpoint", "Hires prompt", "Discard penultimate sigma")
"""Of a second pass: what is read and not taken over."""
_SIZE = re.compile(r"(\d+)x(\d+)")
_HASHED = re.compile(r" \[[0-9a-f]{8,64}\]$")
"""How A1111 ends the name of a model."""


@dataclass(frozen=True)
class Read(Generic[R]):
    """The request of a text, every key as written, and what could not be taken over."""

    request: R
    values: dict[str, str]
    notes: tuple[str, ...]


def read_text(kind: type[R], text: str) -> Read[R]:
    """A parameters text, ours or A1111's, as a request of class `kind`. InvalidRequest where it is none, or a number
    is unusable."""
    if len(text) > MAX_TEXT:
        raise InvalidRequest(f"the parameters text has {len(text)} characters; expected at most {MAX_TEXT}")
    prompt, negative, values = split_text(text)
    if not values or not prompt:
        raise InvalidRequest(
            "the text holds no generation parameters; expected a prompt and a line of 'Key: value' pairs"
        )
    version = values.get("Version", "")
    ours, comfy = version.startswith(VERSION), version.startswith(COMFY)
    reading = Reading(values, ours=ours, on_cpu=comfy, usual=None if ours else "normal" if comfy else AUTOMATIC)
    request = reading.request(kind, prompt, negative)
    return Read(request, values, (*reading.notes, *_foreign(values)))


def picture_text(source: str | Path | Image.Image) -> str:
    """The text in a PNG, JPEG or WebP file (or an opened one); InvalidRequest where it holds none."""
    image = open_picture(source, "picture") if isinstance(source, (str, PathLike)) else source
    text = written_text(image)
    if not text:
        where = repr(str(source)) if isinstance(source, (str, PathLike)) else "the picture"
        raise InvalidRequest(f"{where} holds no generation parameters")
    return text


def written_text(image: Image.Image) -> str | None:
    """The text in an opened picture as it stands, whether or not it is a request; None where there is none."""
    text = image.info.get(KEY)
    return text if isinstance(text, str) else _user_comment(image)


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


_IGNORED = (
    *("TI hashes", "VAE", "Token merging ratio", "Face restoration", "NGMS"),
    *("Soft inpainting enabled", "Schedule rho", "Schedule max sigma", "Schedule min sigma"),
)


def _foreign(values: dict[str, str]) -> list[str]:
    """What another program's picture used that changes the result and is not taken over."""
    notes = [f"{key!r} ({values[key]}) is not taken over" for key in _IGNORED if key in values]
    controls = [key for key in values if _CONTROL.fullmatch(key)]
    return notes + [f"{key!r} is not taken over: give its file and picture again ({values[key]})" for key in controls]


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

    def request(self, kind: type[R], prompt: str, negative: str) -> R:
        """The request; InvalidRequest where a number is unusable."""
        settings: dict[str, Any] = {}
        for each in every_setting(kind):
            value = _READERS[each.path](self) if each.path in _READERS else self._plain(each)
            if value is not None:
                each.put(settings, value)
        for group, needed in (("hires", "scale"), ("refiner", "model")):
            if needed not in settings.get(group, {}):
                settings.pop(group, None)
        self.notes += [f"{key!r} ({self.values[key]}) is not taken over" for key in NOT_TAKEN if key in self.values]
        return kind(prompt, negative_prompt=negative, **settings)

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
    try:
        return None if name is None else Colour(BACKGROUNDS).check("background", name)
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
    "told_size.crop": _read_crop,
    "inpaint.invert": lambda reading: reading.values.get("Mask mode") == "Inpaint not masked" or None,
    "inpaint.only_masked": lambda reading: reading.values.get("Inpaint area") == "Only masked" or None,
    "canvas.tiling": _read_tiling,
}

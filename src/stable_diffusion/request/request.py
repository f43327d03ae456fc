"""What is asked for, checked in plain sentences, and the events that a run yields.

`None` means "not given": `resolve` puts the model's own setting there. What goes beyond the common settings is in
groups (`settings`), which can be given as mappings: `Request("a cat", hires={"scale": 1.5})`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from PIL import Image

from ..errors import InvalidRequest
from ..pipeline.image import open_picture
from ..pipeline.loras import Lora, checked_loras
from ..pipeline.micro_conditioning import SizeConditioning
from ..pipeline.tasks.background import checked_background
from .control import Control, checked_controls
from .fields import MAX_SIDE, number, whole
from .names import AUTOMATIC, SAMPLERS, resolve_sampler, resolve_schedule
from .settings import (
    ABSENT,
    GROUPS,
    MAX_SEED,
    MAX_STEPS,
    Canvas,
    Hires,
    Inpaint,
    Noise,
    Prompting,
    Refiner,
    VariationSeed,
)

if TYPE_CHECKING:
    from torch import Tensor

Task = Literal["txt2img", "img2img", "inpaint"]

MAX_PROMPT = 10_000
MAX_COUNT = 1000
MAX_GUIDANCE = 100.0


@dataclass(frozen=True)
class Request:
    """One order of pictures. Raises InvalidRequest where a value is unusable whatever the model.

    prompt, negative_prompt   text in A1111's grammar: weights, `BREAK`, `AND`, `[from:to:when]`, `[a|b]`, `{a|b}`
    model                     path or name for `load`; None is the model at hand, or the embedded one
    width, height             pixels, multiples of the model's factor (8 for Stable Diffusion)
    steps                     1 to 1000           guidance   0 to 100; 1 switches guidance off
    seed                      0 to 2^63 - 1, None or -1 for a random one; picture k of `count` has seed + k
    sampler, schedule         ids or A1111 display names; a combined name ("DPM++ 2M Karras") sets both
    image, mask               Pillow pictures or paths: start from `image`, repaint where `mask` is white
    strength                  0 to 1, how much of `image` is painted anew (0.75)
    guidance_rescale          0 to 1              guidance_interval   (first, last) as fractions of the steps
    image_guidance            0 to 100 (1.5), how closely a model that edits pictures keeps to `image`
    depth                     picture or path: the depth map, near is white, that a depth-guided model follows
    clip_skip                 1 reads the text encoder's last layer, 2 the one before; None the model's own choice
    background                "transparent", "white", "scene" or "#rrggbb"; None as the prompt has it: things alone are
                              cut out, scenes opaque. Models without alpha paint their own and have no "transparent"
    loras                     adapter files for these pictures: paths, or (path, strength[, strength for the text])
    lora_dir, embeddings_dir  the folders where `<lora:name:weight>` and the names of embeddings in prompts are found
    controls                  pictures that lead through ControlNets, T2I-Adapters or IP-Adapters: `Control`s
    refiner                   another model that paints the last steps: a path or name, or a `Refiner`
    told_size                 what Stable Diffusion XL is told of sizes: `SizeConditioning`
    prompting, noise, variation, hires, inpaint, canvas   groups of further settings, see `settings`
    """

    prompt: str
    _: KW_ONLY
    negative_prompt: str = ""
    model: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    count: int = 1
    image: Image.Image | None = None
    mask: Image.Image | None = None
    strength: float | None = None
    guidance_rescale: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    image_guidance: float | None = None
    depth: Image.Image | None = None
    clip_skip: int | None = None
    background: str | None = None
    loras: tuple[Lora, ...] = ()
    lora_dir: Path | None = None
    embeddings_dir: Path | None = None
    controls: tuple[Control, ...] = ()
    prompting: Prompting = field(default_factory=Prompting)
    noise: Noise = field(default_factory=Noise)
    variation: VariationSeed = field(default_factory=VariationSeed)
    hires: Hires | None = None
    refiner: Refiner | None = None
    told_size: SizeConditioning = field(default_factory=SizeConditioning)
    inpaint: Inpaint = field(default_factory=Inpaint)
    canvas: Canvas = field(default_factory=Canvas)

    def __post_init__(self) -> None:
        prompt = checked_text("prompt", self.prompt)
        if not prompt:
            raise InvalidRequest("the prompt is empty; expected a few words that say what to paint")
        self._set(prompt=prompt, negative_prompt=checked_text("negative_prompt", self.negative_prompt))
        if self.model is not None:
            self._set(model=str(self.model))
        for name, low, high in (("width", 1, MAX_SIDE), ("height", 1, MAX_SIDE), ("steps", 1, MAX_STEPS)):
            self._set(**{name: whole(name, getattr(self, name), low, high)})
        self._set(clip_skip=whole("clip_skip", self.clip_skip, 1, 100))
        self._set(background=checked_background(self.background))
        self._set(guidance=number("guidance", self.guidance, 0, MAX_GUIDANCE))
        self._set(strength=number("strength", self.strength, 0, 1))
        self._set(image_guidance=number("image_guidance", self.image_guidance, 0, MAX_GUIDANCE))
        count = whole("count", self.count, 1, MAX_COUNT)
        seed = None if self.seed == -1 and not isinstance(self.seed, bool) else self.seed
        seed = whole("seed", seed, 0, MAX_SEED)
        if count is None:
            raise InvalidRequest(f"count is None; expected a whole number from 1 to {MAX_COUNT}")
        if seed is not None and seed > MAX_SEED - (count - 1):
            raise InvalidRequest(f"seed {seed} leaves no room for {count} pictures; expected at most 2^63 - {count}")
        self._set(count=count, seed=seed)
        self._check_guidance()
        self._check_names()
        self._check_pictures()
        self._check_groups()
        self._set(loras=checked_loras(self.loras), controls=checked_controls(self.controls, self.image))
        for name in ("lora_dir", "embeddings_dir"):
            if getattr(self, name) is not None:
                self._set(**{name: Path(getattr(self, name)).expanduser()})

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_guidance(self) -> None:
        rescale = number("guidance_rescale", self.guidance_rescale, 0, 1)
        if rescale is None:
            raise InvalidRequest("guidance_rescale is None; expected a number from 0 to 1")
        self._set(guidance_rescale=rescale)
        if self.guidance_interval is None:
            return
        try:
            start, end = self.guidance_interval
        except (TypeError, ValueError):
            raise InvalidRequest(
                f"guidance_interval is {self.guidance_interval!r}; expected two numbers (first, last) from 0 to 1"
            ) from None
        first, last = number("guidance_interval", start, 0, 1), number("guidance_interval", end, 0, 1)
        if first is None or last is None or first >= last:
            raise InvalidRequest(f"guidance_interval is ({start}, {end}); expected the first to be less than the last")
        self._set(guidance_interval=(first, last))

    def _check_names(self) -> None:
        if self.sampler is not None:
            sampler, schedule = canonical_sampler(self.sampler)
            self._set(sampler=sampler)
            if self.schedule is None:
                self._set(schedule=schedule)
        if self.schedule is not None:
            self._set(schedule=resolve_schedule(self.schedule, AUTOMATIC))

    def _check_pictures(self) -> None:
        if self.image is not None:
            self._set(image=open_picture(self.image, "image"))
        if self.depth is not None:
            self._set(depth=open_picture(self.depth, "depth"))
        if self.mask is None:
            return
        mask = open_picture(self.mask, "mask")
        if self.image is None:
            raise InvalidRequest("a mask was given without an image; give the image whose white parts are repainted")
        if mask.size != self.image.size:
            sizes = [f"{picture.width}x{picture.height}" for picture in (mask, self.image)]
            raise InvalidRequest(f"the mask is {sizes[0]} and the image {sizes[1]}; expected the same size")
        self._set(mask=mask)

    def _check_groups(self) -> None:
        for name, kind in GROUPS.items():
            value = getattr(self, name)
            if value is None:
                self._set(**{name: None if name in ABSENT else kind()})
            else:
                self._set(**{name: kind.of(value, name)})
        seed, outpaint = self.variation.seed, self.canvas.outpaint
        if seed is not None and seed > MAX_SEED - (self.count - 1):
            raise InvalidRequest(
                f"variation seed {seed} leaves no room for {self.count} pictures; expected at most 2^63 - {self.count}"
            )
        if self.hires is not None and (self.image is not None or outpaint is not None):
            raise InvalidRequest("hires starts from text alone; leave out image, or hires")
        if outpaint is not None and (self.mask is not None or self.inpaint.only_masked or self.inpaint.invert):
            raise InvalidRequest("outpaint makes its own mask; leave out mask, only_masked and invert")

    @property
    def task(self) -> Task:
        """What the request amounts to."""
        if self.image is None:
            return "txt2img"
        return "img2img" if self.mask is None and self.canvas.outpaint is None else "inpaint"

    def one(self, index: int) -> Request:
        """The request that makes picture `index` of this one alone: count 1, seed + index; with variations, the same
        seed and variation seed + index."""
        if self.variation.strength > 0:
            other = self.variation.seed
            varied = dataclasses.replace(self.variation, seed=None if other is None else other + index)
            return dataclasses.replace(self, count=1, variation=varied)
        seed = None if self.seed is None else self.seed + index
        return dataclasses.replace(self, count=1, seed=seed)

    def changed(self, **changes: Any) -> Request:
        """The request with `changes`; a mapping for a group changes the fields that it names."""
        for name, kind in GROUPS.items():
            given, base = changes.get(name), getattr(self, name)
            if given is not None:
                changes[name] = kind.of(given, name, base)
        return dataclasses.replace(self, **changes)

    @staticmethod
    def like(path: str | Path, **changes: Any) -> Request:
        """The request written in a picture file, with `changes`; warns of what could not be taken over."""
        from .metadata import request_like

        found: Request = request_like(path, **changes)
        return found


def canonical_sampler(name: str) -> tuple[str, str | None]:
    """(sampler, schedule or None) for any accepted name: the sampler's id, or the name of a preset of its options."""
    sampler, schedule, options = resolve_sampler(name)
    presets = SAMPLERS[sampler].presets
    preset = next((preset for preset, implied in presets.items() if dict(implied) == options), None)
    return (sampler if preset is None or not options else preset), schedule


def checked_text(name: str, value: object) -> str:
    """Text without outer white space and with plain line ends; InvalidRequest where it cannot be a prompt."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is a {type(value).__name__}; expected text")
    text = value.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > MAX_PROMPT:
        raise InvalidRequest(f"{name} has {len(text)} characters; expected at most {MAX_PROMPT}")
    wrong = next((c for c in text if (ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) <= 0xDFFF), None)
    if wrong is not None:
        raise InvalidRequest(f"{name} holds the character U+{ord(wrong):04X}, which is not text")
    return text


class Settings(TypedDict, total=False):
    """The fields of `Request` besides the prompt and the model, as keyword arguments take them."""

    negative_prompt: str
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    seed: int | None
    sampler: str | None
    schedule: str | None
    count: int
    image: Image.Image | str | Path | None
    mask: Image.Image | str | Path | None
    strength: float | None
    guidance_rescale: float
    guidance_interval: tuple[float, float] | None
    image_guidance: float | None
    depth: Image.Image | str | Path | None
    clip_skip: int | None
    background: str | None
    loras: Sequence[Any]
    lora_dir: str | Path | None
    embeddings_dir: str | Path | None
    controls: Sequence[Any]
    prompting: Prompting | Mapping[str, Any]
    noise: Noise | Mapping[str, Any]
    variation: VariationSeed | Mapping[str, Any]
    hires: Hires | Mapping[str, Any] | float | None
    refiner: Refiner | Mapping[str, Any] | str | Path | None
    told_size: SizeConditioning | Mapping[str, Any]
    inpaint: Inpaint | Mapping[str, Any]
    canvas: Canvas | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step is done. `index` of `total` steps, for picture `picture` (from 0) of `pictures`.

    `sigma` is the noise level at which the step began. `preview()` makes a small picture of what the model expects to
    come out; it costs something only when called.
    """

    index: int
    total: int
    sigma: float
    picture: int
    pictures: int
    preview: Callable[[], Image.Image]

    @property
    def fraction(self) -> float:
        """Share of the whole request that is done, 0 to 1."""
        return (self.picture + self.index / self.total) / self.pictures


@dataclass(frozen=True, kw_only=True)
class Images:
    """Finished pictures: numbers `first`, `first` + 1, ... of the request.

    `images` are Pillow pictures with the A1111 text in `info["parameters"]`; they are empty where the run was asked for
    tensors, which are then in `tensor` [B,C,H,W]. `requests` hold what made each one alone, and `notes` plain
    sentences on what was ignored or done otherwise than asked.
    """

    images: tuple[Image.Image, ...]
    first: int
    requests: tuple[Request, ...]
    notes: tuple[str, ...] = ()
    tensor: Tensor | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        return tuple(request.seed for request in self.requests if request.seed is not None)


Event = Progress | Images

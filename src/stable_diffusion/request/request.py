"""What is asked for, checked in plain sentences.

`None` means "not given": `resolve` puts the model's own setting there. What goes beyond the common settings is in
groups (`settings`), which can be given as mappings: `Request("a cat", hires={"scale": 1.5})`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from ..errors import InvalidRequest, unknown_choice
from .control import Control, checked_controls, listed_controls
from .fields import Choice, Colour, FilePath, Model, Named, Number, Picture, Text, Whole
from .group import (
    FORMER,
    Setting,
    SettingGroup,
    current_names,
    described,
    documented,
    every_setting,
    lines,
    own_settings,
    setting,
    subgroup,
    with_former_names,
)
from .left_out import from_text_alone, without_tags
from .lora import Lora, checked_loras
from .metadata_read import picture_text, read_text
from .names import AUTOMATIC, SAMPLERS, SCHEDULES, canonical_sampler, resolve_schedule
from .sequences import MAX_SIDE, Items, Span
from .settings import (
    ABSENT,
    BACKGROUNDS,
    GROUPS,
    MAX_SEED,
    MAX_STEPS,
    SPEEDS,
    Canvas,
    Hires,
    Inpaint,
    Noise,
    Prompting,
    Refiner,
    SizeConditioning,
    Speed,
    VariationSeed,
)

if TYPE_CHECKING:
    from PIL import Image

F = TypeVar("F", bound=Callable[..., Any])
Task = Literal["txt2img", "img2img", "inpaint"]

MAX_COUNT = 1000
MAX_GUIDANCE = 100.0
COMMON = "Common options"
START = "Start from a picture"
FOREIGN = {
    "size": "width and height",
    "prompts": "prompt",
    **dict.fromkeys(("batch", "n", "n_iter"), "count"),
    **dict.fromkeys(("callback_on_step_end", "step_callback", "on_step"), "callback"),
    **dict.fromkeys(("enable_hr", "hires_fix"), "hires={'scale': ...}"),
    **dict.fromkeys(("control_image", "controlnet", "controlnet_conditioning_scale"), "controls=[Control(...)]"),
    "output_type": "output (of `generate`)",
    "torch_dtype": "dtype (of `load`)",
    "ip_adapter_image": "controls=[Control(...)]",
    "cross_attention_kwargs": "loras=[(FILE, STRENGTH)]",
}
"""What other programs have and this one has under another name, where that is not one setting's `also`."""
ELSEWHERE = {
    **dict.fromkeys(("device", "dtype", "vae", "text_encoders"), "`load`"),
    **dict.fromkeys(("output", "engine", "preview_every"), "`generate`"),
    "callback": "`generate_image`",
}
"""What is asked of other functions of this package."""


def sampler_name(name: str) -> str:
    """The sampler's id, or the name of a preset of its options, for any accepted name."""
    return canonical_sampler(name)[0]


def schedule_name(name: str) -> str:
    """The schedule's id, or "automatic", for any accepted name."""
    return resolve_schedule(name, AUTOMATIC)


# fmt: off
@with_former_names
@documented
@dataclass(frozen=True)
class Request(SettingGroup):
    """One order of pictures. Raises InvalidRequest where a value is unusable whatever the model.

    Prompts are in A1111's grammar: weights, `BREAK`, `AND`, `[from:to:when]`, `[a|b]`, `{a|b}`. Sizes are multiples of
    the model's factor (8 for Stable Diffusion). Picture k of `count` has seed + k. A combined sampler name such as
    "DPM++ 2M Karras" sets the schedule too. Pictures may be Pillow images, paths, bytes, open files, numpy arrays or
    tensors. Without a background, things alone are cut out and scenes opaque; models without alpha have grounds of
    their own and no "transparent". Groups of further settings are given as their class or a mapping of its fields:
    prompting, noise, variation, hires (`Hires` or a factor), refiner (`Refiner` or a path),
    micro_conditioning (`SizeConditioning`), inpaint, canvas.
    """

    prompt: str = field(metadata=described(Text(), help="What the picture shows; empty for a picture of anything."))
    _: KW_ONLY
    negative_prompt: str = setting(
        Text(), "", flag="--negative --negative-prompt", section=COMMON, nullable=True, help="What to avoid.")
    model: str | None = setting(
        Model(), flag="-m --model", also="sd_model checkpoint", key="Model", section=COMMON, axis=False, metavar="PATH",
        usual="the built-in one", help="Model file, folder or name; embedded-fast needs 4 steps only.")
    width: int | None = setting(
        Whole(1, MAX_SIDE), flag="--width", usual="the model's own", section="Canvas", help="Width in pixels.")
    height: int | None = setting(
        Whole(1, MAX_SIDE), flag="--height", usual="the model's own", section="Canvas", help="Height in pixels.")
    steps: int | None = setting(
        Whole(1, MAX_STEPS), flag="-t --steps", key="Steps", also="num_inference_steps sampling_steps", section=COMMON,
        usual="the model's own", help="Number of denoising steps.")
    guidance: float | None = setting(
        Number(0, MAX_GUIDANCE), flag="--guidance --cfg", key="CFG scale", also="guidance_scale cfg_scale",
        section=COMMON, usual="the model's own", help="How closely to follow the prompt; 1 is off.")
    seed: int | None = setting(
        Whole(0, MAX_SEED, random=True), flag="-s --seed", key="Seed", also="generator", section=COMMON,
        usual="random", help="Seed of the first picture.")
    sampler: str | None = setting(
        Named(sampler_name, tuple(SAMPLERS)), flag="--sampler", key="Sampler", also="sampler_name sampler_index",
        section=COMMON, metavar="NAME", usual="the model's own", help="Sampler; see `stable-diffusion list`.")
    schedule: str | None = setting(
        Named(schedule_name, (*SCHEDULES, AUTOMATIC)), flag="--schedule", key="Schedule type", also="scheduler",
        section="Noise and guidance", metavar="NAME", usual="the sampler's own",
        help="Noise schedule; see `stable-diffusion list`.")
    count: int = setting(
        Whole(1, MAX_COUNT), 1, flag="-n --count", also="batch_size num_images_per_prompt num_images", section=COMMON,
        axis=False, usual="1", help="How many pictures; picture k has seed + k.")
    image: Image.Image | None = setting(
        Picture(), flag="--image", also="init_image", section=COMMON, help="Picture to start from.")
    mask: Image.Image | None = setting(
        Picture(), flag="--mask", also="mask_image", section=Inpaint.SECTION,
        help="White where --image is to be repainted.")
    strength: float | None = setting(
        Number(0, 1), flag="--strength", key="Denoising strength", also="denoising_strength", section=START,
        usual="0.75", help="How much of --image may change, from 0 to 1.")
    guidance_rescale: float = setting(
        Number(0, 1), 0.0, flag="--guidance-rescale", key="Guidance rescale", section="Noise and guidance", usual="0",
        help="Reduce the high contrast of strong guidance.")
    guidance_interval: tuple[float, float] | None = setting(
        Span(), flag="--guidance-interval", key="Guidance interval", section="Noise and guidance",
        metavar="FIRST,LAST", help="Guide only between these shares of the steps, such as 0.2,0.8.")
    image_guidance: float | None = setting(
        Number(0, MAX_GUIDANCE), flag="--image-guidance", key="Image CFG scale", also="image_guidance_scale",
        section=START, usual="1.5", help="How closely a model that edits pictures keeps to --image.")
    depth: Image.Image | None = setting(
        Picture(), flag="--depth", also="depth_map", section=START,
        help="Depth map for depth-guided models; near is white.")
    clip_skip: int | None = setting(
        Whole(1, 100), flag="--clip-skip", key="Clip skip", section="Prompts", usual="the model's own",
        help="Layer of the text encoder to read: 1 is the last, 2 the one before.")
    background: str | None = setting(
        Colour(BACKGROUNDS), flag="--background", key="Background", section="Canvas", metavar="GROUND",
        usual="as the prompt has it", help="Background: transparent, white, scene or #rrggbb.")
    loras: tuple[Lora, ...] = setting(
        Items(checked_loras, {"type": ["string", "array"]}, Lora.plain), (), flag="--lora", section="Prompts",
        nullable=True, metavar="FILE[:STRENGTH]", help="LoRA or relative; may be repeated.")
    lora_dir: Path | None = setting(
        FilePath(), flag="--lora-dir", section="Prompts", help="Folder for <lora:name:weight> in prompts.")
    embeddings_dir: Path | None = setting(
        FilePath(), flag="--embeddings-dir", section="Prompts",
        help="Folder of embeddings, which prompts use by file name.")
    controls: tuple[Control, ...] = setting(
        Items(listed_controls, {"type": "object"}), (), nullable=True,
        help="Pictures that guide through ControlNets, T2I-Adapters or IP-Adapters.")
    speed: Speed = setting(
        Choice(SPEEDS), "exact", flag="--speed", key="Speed", section=COMMON, usual="exact",
        help="Leave out work that changes the picture little: fast and fastest.")
    token_merging: float | None = setting(
        Number(0, 0.75), flag="--token-merging", key="Token merging ratio", also="token_merging_ratio",
        section="Noise and guidance", usual="as the speed has it",
        help="Share of like tokens that self-attention merges.")
    prompting: Prompting = subgroup(Prompting)
    noise: Noise = subgroup(Noise)
    variation: VariationSeed = subgroup(VariationSeed)
    hires: Hires | None = subgroup(Hires, absent=True)
    refiner: Refiner | None = subgroup(Refiner, absent=True)
    micro_conditioning: SizeConditioning = subgroup(SizeConditioning)
    inpaint: Inpaint = subgroup(Inpaint)
    canvas: Canvas = subgroup(Canvas)
# fmt: on

    def __post_init__(self) -> None:
        if self.sampler is not None and self.schedule is None:
            self._put(schedule=canonical_sampler(self.sampler)[1])
        super().__post_init__()

    def _check_together(self) -> None:
        for name, kind in GROUPS.items():
            value = getattr(self, name)
            if value is None:
                self._put(**{name: None if name in ABSENT else kind()})
            else:
                self._put(**{name: kind.of(value, name)})
        self._check_seeds()
        self._check_mask()
        outpaint = self.canvas.outpaint
        if self.hires is not None and (self.image is not None or outpaint is not None):
            raise InvalidRequest("hires starts from text alone; leave out image, or hires")
        if outpaint is not None and (self.mask is not None or self.inpaint.only_masked or self.inpaint.invert):
            raise InvalidRequest("outpaint makes its own mask; leave out mask, only_masked and invert")
        self._put(controls=checked_controls(self.controls, self.image, drawn=self.canvas.panorama))

    def _check_seeds(self) -> None:
        for name, seed in (("seed", self.seed), ("variation seed", self.variation.seed)):
            if seed is not None and seed > MAX_SEED - (self.count - 1):
                raise InvalidRequest(
                    f"{name} {seed} leaves no room for {self.count} pictures; expected at most 2^64 - {self.count}"
                )

    def _check_mask(self) -> None:
        if self.mask is None:
            return
        if self.image is None:
            raise InvalidRequest("a mask was given without an image; give the image whose white parts are repainted")

    @classmethod
    def _check_names(cls, given: Mapping[str, Any]) -> None:
        """InvalidRequest with our name for what other programs call otherwise, else with the nearest one."""
        known = cls._names()
        for name in given:
            if name not in known and name not in FORMER:
                raise unknown_setting("setting", name, known)

    @property
    def task(self) -> Task:
        """What the request amounts to."""
        if self.image is None:
            return "txt2img"
        return "img2img" if self.mask is None and self.canvas.outpaint is None else "inpaint"

    def single(self, index: int) -> Request:
        """The request that makes picture `index` of this one alone: count 1, seed + index; with variations, the same
        seed and variation seed + index."""
        if self.variation.strength > 0:
            other = None if self.variation.seed is None else self.variation.seed + index
            return replace(self, count=1, variation=replace(self.variation, seed=other))
        return replace(self, count=1, seed=None if self.seed is None else self.seed + index)

    def with_changes(self, **changes: Any) -> Request:
        """The request with `changes`; a mapping for a group changes the fields that it names."""
        changes = current_names(changes)
        for name, kind in GROUPS.items():
            given, base = changes.get(name), getattr(self, name)
            if given is not None:
                changes[name] = kind.of(given, name, base)
        return replace(self, **changes)

    def one(self, index: int) -> Request:
        """The old name of `single`."""
        warnings.warn("Request.one is now called Request.single", DeprecationWarning, stacklevel=2)
        return self.single(index)

    def changed(self, **changes: Any) -> Request:
        """The old name of `with_changes`."""
        warnings.warn("Request.changed is now called Request.with_changes", DeprecationWarning, stacklevel=2)
        return self.with_changes(**changes)

    @staticmethod
    def like(path: str | Path | Image.Image, **changes: Any) -> Request:
        """The request written in a picture file, with `changes`; warns of what could not be taken over."""
        found = read_text(Request, picture_text(path))
        request, notes = found.request, list(found.notes)
        if not found.ours and changes.get("image") is None:
            request, more = from_text_alone(request)
            notes += more
        if not found.ours and changes.get("lora_dir") is None:
            request, more = without_tags(request)
            notes += more
        for note in notes:
            warnings.warn(f"{path if isinstance(path, (str, Path)) else 'picture'}: {note}", stacklevel=2)
        return request.with_changes(**changes)


def all_settings() -> tuple[Setting, ...]:
    """Every setting of a request and of its groups, in order."""
    return every_setting(Request)


def _our_name(name: str) -> str | None:
    """What a request calls that which other programs, or our command line, call `name`."""
    if name in FOREIGN:
        return FOREIGN[name]
    for each in all_settings():
        if name in each.names or (each.group and name == each.name):
            return f"{each.group}={{{each.name!r}: ...}}" if each.group else each.name
    return None


def unknown_setting(what: str, name: str, known: Iterable[str]) -> InvalidRequest:
    """The error for a setting that there is not among those `known`: with our name for it where other programs have it
    or else the nearest."""
    if name in ELSEWHERE:
        return InvalidRequest(f"{name} is no setting of a picture; give it to {ELSEWHERE[name]}")
    ours = _our_name(name)
    if ours in (None, name):
        return unknown_choice(what, name, known)
    return InvalidRequest(f"{name} is called {ours} here")


def with_settings(function: F) -> F:
    """The function, whose `**settings` are the fields of a request: each by name in its signature, and in its help."""
    own, top = inspect.signature(function), {each.name: each for each in own_settings(Request)}
    given = (each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD)
    shown = [each.replace(annotation=_Hint(each.annotation)) for each in given]
    for name, kind in Settings.__annotations__.items():
        default = top[name].default if name in top else None
        hint = _Hint(getattr(kind, "__forward_arg__", kind))
        shown.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    named: Any = function
    named.__signature__ = own.replace(parameters=shown, return_annotation=_Hint(own.return_annotation))
    if function.__doc__ is not None:
        listed = lines(tuple(each for name, each in top.items() if name in Settings.__annotations__))
        groups = (f"    {name:{len('guidance_interval')}}  {_about(kind)}" for name, kind in GROUPS.items())
        function.__doc__ = "\n".join([function.__doc__.rstrip(), "", *listed, "", *groups])
    return function


class _Hint(str):
    """An annotation that signatures show without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _about(kind: type[Any]) -> str:
    """A group of settings in a line of help: its class, and the names in it."""
    return f"{kind.__name__}: {', '.join(each.name for each in own_settings(kind))}"


class Settings(TypedDict, total=False):
    """The fields of `Request` besides the prompt and the model, as keyword arguments take them.

    A picture may be a Pillow image, a path, bytes, an open file, a numpy array or a tensor.
    """

    negative_prompt: str | None
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    seed: int | None
    sampler: str | None
    schedule: str | None
    count: int
    image: Image.Image | Any
    mask: Image.Image | Any
    strength: float | None
    guidance_rescale: float
    guidance_interval: tuple[float, float] | None
    image_guidance: float | None
    depth: Image.Image | Any
    clip_skip: int | None
    background: str | None
    loras: Sequence[Any] | None
    lora_dir: str | Path | None
    embeddings_dir: str | Path | None
    controls: Sequence[Any] | None
    speed: Speed
    token_merging: float | None
    prompting: Prompting | Mapping[str, Any]
    noise: Noise | Mapping[str, Any]
    variation: VariationSeed | Mapping[str, Any]
    hires: Hires | Mapping[str, Any] | float | None
    refiner: Refiner | Mapping[str, Any] | str | Path | None
    micro_conditioning: SizeConditioning | Mapping[str, Any]
    inpaint: Inpaint | Mapping[str, Any]
    canvas: Canvas | Mapping[str, Any]

"""The way back from noise to a latent, guided by text, usable alone; the way into it is in `diffusion.forward`.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..diffusion.a1111 import a1111_sigmas
from ..diffusion.denoise import NetworkDenoiser
from ..diffusion.samplers import SOLVERS, Solver, solver
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule
from ..diffusion.sigmas import Table, grid_options, schedule_sigmas, truncate
from ..errors import InvalidRequest, unknown_choice, what_is
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..request.fields import Flag, Kind, Number, Whole
from ..request.group import SettingGroup
from ..request.names import automatic_schedule, resolve_sampler, resolve_schedule
from ..request.request import unknown_setting
from ..request.sequences import Span
from ..request.settings import FLAT, Compat, Noise, SizeConditioning, VariationSeed, Wrap
from ..text.encode import TextEncoder
from ..text.prompt_schedule import Timeline, encode_timeline
from ..types import Conditioning, Denoiser, NoiseSource, Step
from ..weights.parts import Defaults
from .codec import batched_latent
from .denoiser import AnySchedule, Expert, Final, Guidance, LatentNetwork, Pass, prompted
from .renamed import new_options, old_attribute
from .tasks.control import ControlUnit

Prompt: TypeAlias = str | Conditioning | Timeline
"""Text in A1111's grammar, or what the text encoder made of one."""
ANY_SEED, ANY_STEPS, ANY_GUIDANCE = Whole(0, 2**64 - 1), Whole(1, 10_000), Number(-1e6, 1e6)
KINDS: dict[str, Kind] = {
    "strength": Number(0, 1),
    "soft": Flag(),
    "rescale": Number(0, 1),
    "interval": Span(),
    "image_guidance": ANY_GUIDANCE,
    "shift": Number(0, 1e6),
    "window": Whole(0, 2**16),
    "overlap": Whole(0, 2**16),
}
"""What the plain ones of `DenoisingOptions` may be."""
GROUPS: dict[str, type[SettingGroup]] = {
    "noise": Noise,
    "variation": VariationSeed,
    "micro_conditioning": SizeConditioning,
}
"""Those that are groups of settings, and can be mappings."""
RENAMED = {"negative_prompt": "negative", "width": "size", "height": "size", "image": "latent", "count": "seed"}
"""What a request has, and the denoising process has under another name."""


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions:
    """Further settings of `DenoisingProcess`; the sampler's own can be given beside them.

    strength        0 to 1, how much of a `latent` may change (img2img); 0 does nothing
    mask, soft      [1,1,h,w]: repaint `latent` only where it is 1 (inpainting); `soft`: and how strongly
    rescale         0 to 1, of the guided estimate    interval   guidance acts between these fractions of the steps
    image_guidance  of a picture that is edited       shift      of the levels of a flow; None the model's own
    final           "sigma_min" ends on the first trained level (DDIM and PLMS of CompVis), in variance-preserving units
    wrap            edges that meet    window, overlap   of a large canvas: side and overlap of windows, in latents
    noise           where random numbers come from    variation   start noise between two seeds
    micro_conditioning   sizes for SDXL; None the picture's size, uncropped    controls   networks beside the U-Net
    """

    strength: float = 1.0
    mask: Tensor | None = None
    soft: bool = False
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    image_guidance: float | None = None
    shift: float | None = None
    final: Final = "zero"
    wrap: Wrap = FLAT
    window: int = 0
    overlap: int = 0
    noise: Noise = field(default_factory=Noise)
    variation: VariationSeed = field(default_factory=VariationSeed)
    micro_conditioning: SizeConditioning | None = None
    controls: tuple[ControlUnit, ...] = ()

    def __post_init__(self) -> None:
        """InvalidRequest where a value is of no use; None is what is meant where nothing is given."""
        values = {name: getattr(self, name) for name in KINDS}
        checked = {name: KINDS[name].check(name, value) for name, value in values.items() if value is not None}
        for name, group in GROUPS.items():
            value = getattr(self, name)
            if value is not None:
                checked[name] = group.of(value, name)
        for each in fields(self):
            if getattr(self, each.name) is None and each.default is not None:
                made = each.default if each.default_factory is MISSING else each.default_factory()
                checked[each.name] = made
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name, kind, expected in (("mask", Tensor, "a tensor [1,1,h,w]"), ("wrap", Wrap, "Wrap(x=True)")):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidRequest(f"{name} is {what_is(value)}; expected {expected}")
        controls = self.controls if isinstance(self.controls, (list, tuple)) else [self.controls]
        for control in controls:
            if not isinstance(control, ControlUnit):
                raise InvalidRequest(f"a control is {what_is(control)}; expected a ControlUnit (pictures: `generate`)")


class DenoisingProcess:
    """From noise to latent, step by step, guided by text: `denoising_process("a cat", seed=1)` yields `Step`s.

    The last step's `x` is the latent of the picture; every step's `denoised` is what the model expects by then.
    """

    def __init__(self, network: LatentNetwork, text_encoder: TextEncoder, defaults: Defaults, table: Table) -> None:
        """`defaults` are settings that the model was made for, `table` its column in schedules that are tables."""
        self.network, self.defaults, self.table = network, defaults, table
        self._text_encoder = text_encoder

    def with_networks(self, unet: UNet | MMDiT, text_encoder: TextEncoder) -> DenoisingProcess:
        """The same process over other networks of the same shape, for one run; this one stays as it is."""
        return DenoisingProcess(replace(self.network, unet=unet), text_encoder, self.defaults, self.table)

    def __getattr__(self, name: str) -> Any:
        return old_attribute(self, name)

    @property
    def unet(self) -> UNet | MMDiT:
        return self.network.unet

    @property
    def schedule(self) -> AnySchedule:
        return self.network.schedule

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The network as (x, sigma, conditioning) -> x0, in its own precision, given its own guidance if any."""
        return self.network.denoiser()[0]

    @property
    def guides_itself(self) -> bool:
        """Whether the network is given the guidance scale, so that no negative prompt is needed for guidance."""
        return self.network.guides_itself

    def sigmas(
        self,
        sampler: str,
        schedule: str | None,
        steps: int,
        final: Final = "zero",
        shift: float | None = None,
        compat: Compat | None = None,
    ) -> Tensor:
        """Noise levels of a run, descending, [steps + 1]; `shift` in place of the model's own, for flow models.

        Some samplers leave out the lowest level above the end, as A1111 has them do (`Solver.skips_last`). With
        `compat` there may be other levels, and not as many (`diffusion.a1111`)."""
        info = solver(resolve_sampler(sampler).id)
        automatic = automatic_schedule(info.id, flow=isinstance(self.schedule, FlowSchedule))
        name = resolve_schedule(schedule, automatic)
        options = {"table": self.table} if "table" in grid_options(name) else {}
        levels = self.schedule
        if shift is not None and isinstance(levels, FlowSchedule):
            levels = FlowSchedule(shift, levels.timesteps)
        sigmas: Tensor | None = None
        if compat == "a1111" and isinstance(levels, DiscreteSchedule) and final == "zero":
            sigmas = a1111_sigmas(name, levels, steps + info.skips_last, info.id)
        if sigmas is None:
            sigmas = schedule_sigmas(name, levels, steps + info.skips_last, final=final, **options)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if info.skips_last else sigmas

    def noise(
        self,
        sampler: Solver,
        seed: int | Sequence[int],
        size: tuple[int, int],
        noise: Noise | None = None,
        variations: Sequence[VariationSeed] = (),
    ) -> NoiseSource:
        """Start noise and later noise of one picture per seed, for latents of `size` (height, width)."""
        seeds = [seed] if isinstance(seed, int) else list(seed)
        return self.network.noise(sampler, seeds, size, Noise() if noise is None else noise, variations)

    def __call__(
        self,
        prompt: Prompt,
        negative: Prompt | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        schedule: str | None = None,
        latent: Tensor | None = None,
        **more: Any,
    ) -> Iterator[Step]:
        """Checks everything, then returns the generator of steps for one picture per seed.

        prompt  text, or what the text encoder gives; text may change while the picture is made (`[a:b:0.5]`,
                counted in `steps`) and be composed (`a AND b`)
        seed    one for each picture; 0 where it is left out
        size    (height, width) of the latent; the model's own where it is None
        latent  [1 or B,c,h,w]: start from it instead of from pure noise
        more    `DenoisingOptions`, and those of the sampler, such as `eta`
        """
        known, more = {each.name for each in fields(DenoisingOptions)}, new_options(more)
        _check_kinds(seed, steps, guidance)
        if size is not None:
            size = _checked_size(size)
        options = DenoisingOptions(**{name: value for name, value in more.items() if name in known})
        resolved = resolve_sampler(self.defaults.sampler if sampler is None else sampler)
        schedule = self.defaults.schedule if schedule is None and sampler is None else schedule or resolved.schedule
        steps = self.defaults.steps if steps is None else steps
        for name in more:
            if name not in known and name not in solver(resolved.id).options:
                raise _unknown(name, solver(resolved.id), known)
        if latent is not None:
            latent = batched_latent(latent, self.network.channels)
        levels = self.sigmas(resolved.id, schedule, steps, options.final, options.shift)
        place = (latent.shape[-2], latent.shape[-1]) if latent is not None else size or self._default_size
        seeds = [seed or 0] if seed is None or isinstance(seed, int) else list(seed)
        strength = 1.0 if latent is None else options.strength
        plan = replace(
            self._pass((prompt, negative), levels, place, guidance, solver(resolved.id), options),
            options=resolved.options | {name: value for name, value in more.items() if name not in known},
            sigmas=levels if strength == 0 else truncate(levels, strength),
            strength=strength,
        )
        source = self.noise(plan.sampler, seeds, plan.size, options.noise, [options.variation] * len(seeds))
        noise = source.start().to(self.network.device)
        x0 = None if latent is None else latent.to(noise.device, torch.float32).expand_as(noise)
        return plan.steps(source, noise, x0)

    def guided(
        self,
        prompt: str | Conditioning,
        negative: str | Conditioning | None = None,
        guidance: float | None = None,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        **more: Any,
    ) -> Denoiser:
        """The denoiser guided by a prompt, away from the negative one: (x, sigma) -> `Estimate`; `interval` in sigma.

        `more` are those of `DenoisingOptions` that change what the network answers: wrap, window, overlap,
        image_guidance. A prompt that changes while the picture is made is read as at its first step.
        """
        levels = torch.tensor([self.schedule.sigma_max, 0.0])
        options = DenoisingOptions(rescale=rescale, **new_options(more))
        plan = self._pass((prompt, negative), levels, self._default_size, guidance, solver("euler"), options)
        plan = replace(plan, guidance=replace(plan.guidance, interval=interval))
        return prompted(plan.base, plan)

    def _pass(
        self,
        prompts: tuple[Prompt, Prompt | None],
        levels: Tensor,
        size: tuple[int, int],
        guidance: float | None,
        sampler: Solver,
        options: DenoisingOptions,
    ) -> Pass:
        """A way down all `levels` [steps + 1], in which the prompts count."""
        read = []
        for prompt, away in zip(prompts, (False, True), strict=True):
            if prompt is None and away:
                prompt = ""
            if isinstance(prompt, str):
                prompt = encode_timeline(self._text_encoder, prompt, len(levels) - 1, negative=away).timeline
            if not isinstance(prompt, (Conditioning, Timeline)):
                raise InvalidRequest(
                    f"the {'negative ' if away else ''}prompt is {what_is(prompt)}; expected text, or what "
                    "text_encoder gives"
                )
            read.append(Timeline.of(prompt) if isinstance(prompt, Conditioning) else prompt)
        sizes = options.micro_conditioning or SizeConditioning()
        scale = (self.defaults.guidance if guidance is None else guidance) / sampler.unit
        return Pass(
            base=Expert.of(self.network, (read[0], read[1]), size, sizes, tuple(options.controls)),
            sampler=sampler,
            sigmas=levels,
            size=size,
            guidance=Guidance.of(levels, scale, options.rescale, options.interval, options.image_guidance),
            mask=options.mask,
            soft=options.soft,
            wrap=options.wrap,
            window=options.window,
            overlap=options.overlap,
            final=options.final,
        )

    @property
    def _default_size(self) -> tuple[int, int]:
        return self.defaults.height // self.network.downscale, self.defaults.width // self.network.downscale


def _check_kinds(seed: object, steps: object, guidance: object) -> None:
    """InvalidRequest where a setting of a run is no number."""
    for each in seed if isinstance(seed, (list, tuple, range)) else [seed]:
        if each is not None:
            ANY_SEED.check("seed", each)
    if steps is not None:
        ANY_STEPS.check("steps", steps)
    if guidance is not None:
        ANY_GUIDANCE.check("guidance", guidance)


def _checked_size(size: Any) -> tuple[int, int]:
    """(height, width) of a latent; InvalidRequest where it is none."""
    if not isinstance(size, (tuple, list, torch.Size)) or len(size) != 2:
        shown = size if isinstance(size, (tuple, list)) else what_is(size)
        raise InvalidRequest(f"size is {shown}; expected (height, width) of the latent, such as (32, 32)")
    for side in size:
        Whole(1, 2**16).check("a side of size", side)
    return int(size[0]), int(size[1])


def _unknown(name: str, sampler: Solver, known: Iterable[str]) -> InvalidRequest:
    """The error for a setting that the denoising process has not."""
    if name in RENAMED:
        return InvalidRequest(f"{name} is called {RENAMED[name]} here")
    return unknown_option("setting of the denoising process", name, sampler, [*OWN_SETTINGS, *known])


def unknown_option(what: str, name: str, sampler: Solver, known: Sequence[str]) -> InvalidRequest:
    """The error for a name that is neither among those `known` nor an option of this sampler."""
    if any(name in each.options for each in SOLVERS.values()):
        return unknown_choice(f"option of sampler {sampler.id!r}", name, sampler.options)
    return unknown_setting(what, name, [*known, *sampler.options])


OWN_SETTINGS = tuple(
    each.name
    for each in inspect.signature(DenoisingProcess.__call__).parameters.values()
    if each.name != "self" and each.kind is not each.VAR_KEYWORD
)
"""The arguments of `DenoisingProcess.__call__` that have names."""

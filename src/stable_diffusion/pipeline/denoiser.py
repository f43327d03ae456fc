"""The chain from a network to what a sampler asks, one wrapper a line, and the steps of a pass.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..diffusion.denoise import (
    IMAGE_GUIDANCE,
    NetworkDenoiser,
    by_step,
    guided,
    image_guided,
    is_plain,
    network_denoiser,
    sigma_interval,
)
from ..diffusion.inpaint import inpainting, soft_inpainting
from ..diffusion.noise import PerImageNoise
from ..diffusion.prediction import Prediction
from ..diffusion.samplers import Solver, noise_source
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, input_scale, per_image, start_state
from ..diffusion.step_cache import StepCache
from ..engine.base import Engine
from ..engine.shortcuts import EXACT, Shortcuts
from ..engine.torch import TORCH
from ..errors import InvalidRequest
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..request.settings import FLAT, Noise, SizeConditioning, VariationSeed, Wrap
from ..text.prompt_schedule import Timeline, aligned
from ..types import Blend, Conditioning, Denoiser, NoiseSource, Step
from .attention import unless_recorded
from .tasks.control import ControlUnit, controlled, mark_negative
from .tasks.sdxl import hand_over, with_size
from .tasks.variation import varied
from .tasks.windows import windowed

AnySchedule: TypeAlias = DiscreteSchedule | FlowSchedule
Final: TypeAlias = Literal["zero", "sigma_min"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentNetwork:
    """A denoising network, and what its answers mean.

    channels, downscale   of its latents: numbers at each place, and pixels on a side for each
    size_numbers          how many numbers on sizes it is given beside the text (SDXL 6, its refiner 5, others 0)
    guidance              the scale that the model was made for
    """

    unet: UNet | MMDiT
    schedule: AnySchedule
    prediction: Prediction
    channels: int
    downscale: int
    size_numbers: int
    guidance: float
    device: torch.device
    dtype: torch.dtype

    @property
    def guides_itself(self) -> bool:
        """Whether the network is given the guidance scale, so that no negative prompt is needed for guidance."""
        return isinstance(self.unet, UNet) and self.unet.config.guidance_dim is not None

    @property
    def edits(self) -> bool:
        """Whether the network edits a picture that it is given as a latent (instruct-pix2pix)."""
        return self.unet.config.in_channels == 2 * self.channels

    def denoiser(
        self, scale: float | None = None, engine: Engine = TORCH, cache: StepCache | None = None
    ) -> tuple[NetworkDenoiser, float]:
        """The network as (x, sigma, conditioning) -> x0, given the scale where it guides itself, and the scale of what
        is left to do outside it."""
        scale = self.guidance if scale is None else scale
        inside, outside = (scale, 1.0) if self.guides_itself else (None, scale)
        network = unless_recorded(engine, self.unet)
        made = network_denoiser(network, self.schedule, self.prediction, dtype=self.dtype, guidance=inside, cache=cache)
        return made, outside

    def conditioned(
        self, timeline: Timeline, size: tuple[int, int], sizes: SizeConditioning, *, negative: bool = False
    ) -> Timeline:
        """A prompt's conditioning for latents of `size` (h, w), with the sizes that the model is given of a picture."""
        vector_dim = self.unet.config.vector_dim
        if not self.size_numbers or vector_dim is None:
            return timeline
        pixels = (size[1] * self.downscale, size[0] * self.downscale)
        numbers = sizes.numbers(pixels, self.size_numbers, negative=negative)
        return timeline.map(lambda each: with_size(each, numbers, vector_dim))

    def noise(
        self,
        sampler: Solver,
        seeds: Sequence[int],
        size: tuple[int, int],
        noise: Noise,
        variations: Sequence[VariationSeed] = (),
    ) -> NoiseSource:
        """Start noise and later noise of one picture per seed, for latents of `size` (h, w)."""
        draw = partial(
            noise_source,
            sampler,
            schedule=self.schedule,
            kind=noise.source,
            device=self.device,
            seed_delta=noise.seed_delta,
        )
        return varied(draw, seeds, (self.channels, *size), variations, self.downscale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Expert:
    """A network with the prompts that it reads, the controls that act on it, and the engine that runs it."""

    network: LatentNetwork
    prompt: Timeline
    negative: Timeline
    controls: tuple[ControlUnit, ...] = ()
    engine: Engine = TORCH

    @classmethod
    def of(
        cls,
        network: LatentNetwork,
        prompts: tuple[Timeline, Timeline],
        size: tuple[int, int],
        sizes: SizeConditioning,
        controls: tuple[ControlUnit, ...] = (),
        engine: Engine = TORCH,
    ) -> Expert:
        """With a prompt and a negative prompt, for latents of `size` (h, w); `sizes` is what SDXL is given of them."""
        prompt, negative = prompts
        return cls(
            network=network,
            prompt=network.conditioned(prompt, size, sizes),
            negative=network.conditioned(negative, size, sizes, negative=True),
            controls=controls,
            engine=engine,
        )


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance as `diffusion.denoise.guided` does it: `interval` is (low, high) in sigma; `image` is the scale for the
    picture that is edited (`image_guided`)."""

    scale: float
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    image: float = IMAGE_GUIDANCE

    @classmethod
    def of(
        cls,
        levels: Tensor,
        scale: float,
        rescale: float,
        interval: tuple[float, float] | None,
        image: float | None,
    ) -> Guidance:
        """With `interval` as fractions of the steps of a schedule, `levels` [steps + 1]."""
        return cls(
            scale=scale,
            rescale=rescale,
            interval=None if interval is None else sigma_interval(levels, *interval),
            image=IMAGE_GUIDANCE if image is None else image,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Pass:
    """One way down from noise, at one size: all that its steps need but the noise itself and the latent to start from.

    base, refiner   the model, and the one that takes its place after the share `switch` of the steps
    sigmas          [steps + 1] noise levels, of which the first is where it starts
    size            (h, w) of the latent
    strength        0 to 1, of which only 0 matters here: no step is made
    mask, soft      [1,1,h,w], 1 where the latent is repainted; whether grey in it is strength
    window, overlap side and overlap of windows in latents; 0 for none    wrap   edges that meet
    final           "sigma_min" where the last level is no clean picture
    shortcuts       what work is left out
    """

    base: Expert
    sampler: Solver
    sigmas: Tensor
    size: tuple[int, int]
    guidance: Guidance
    options: Mapping[str, float] = field(default_factory=dict)
    refiner: Expert | None = None
    switch: float = 1.0
    strength: float = 1.0
    mask: Tensor | None = None
    soft: bool = False
    wrap: Wrap = FLAT
    window: int = 0
    overlap: int = 0
    final: Final = "zero"
    shortcuts: Shortcuts = EXACT

    def check(self) -> None:
        """Raises, before any work, what the steps would raise."""
        network = self.base.network
        blank = torch.zeros(1, network.channels, *self.size, device=network.device)
        self.steps(PerImageNoise([0], tuple(blank.shape[1:])), blank, None if self.mask is None else blank)

    def networks(self) -> Denoiser:
        """What of the denoiser is the same for every noise and latent, for whoever makes many pictures of one plan."""
        return handed_over(prompted(self.base, self), self)

    def steps(
        self, source: NoiseSource, noise: Tensor, latent: Tensor | None = None, networks: Denoiser | None = None
    ) -> Iterator[Step]:
        """The steps of pictures with this noise (`noise` is what `source` drew first), from a latent where one is
        given. The last step's `x` is the finished latent. `networks` are those of an earlier picture. Raises
        InvalidRequest at the call."""
        schedule = self.base.network.schedule
        denoise = inpainted(self.networks() if networks is None else networks, self, noise, latent)
        x = start_state(schedule, noise, float(self.sigmas[0]), latent)
        run = self.sampler(denoise, x, self.sigmas, schedule, noise=source, **self.options)
        if self.strength == 0:
            return iter(())
        return self._scaled(run) if self.final == "sigma_min" else run

    def _scaled(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The last state out of variance-exploding coordinates, where the run does not end on zero noise."""
        schedule = self.base.network.schedule
        for step in steps:
            if step.index + 1 < step.total:
                yield step
                continue
            sigma = torch.tensor([float(self.sigmas[-1])], device=step.x.device)
            yield replace(step, x=step.x * per_image(input_scale(schedule, sigma), step.x))


def prompted(expert: Expert, plan: Pass) -> Denoiser:
    """A network with its controls, on a canvas of this form, guided by its prompts at every step."""
    cache = step_cache(plan.shortcuts, plan.sigmas)
    merged = replace(expert.network, unet=plan.shortcuts.merged(expert.network.unet, plan.size))
    network, scale = merged.denoiser(plan.guidance.scale, expert.engine, cache)
    x0 = controlled(network, expert.controls, plan.sigmas, merged.unet)
    x0 = windowed(x0, plan.wrap, plan.window, plan.overlap)
    if plan.wrap and isinstance(expert.network.unet, MMDiT):
        raise InvalidRequest("edges cannot meet with this model: its transformer knows where every patch is")

    def guide(cond: Blend, uncond: Conditioning | None) -> Denoiser:
        made = guided_by(cond, uncond)
        return made if cache is None else cache.of(made)

    def guided_by(cond: Blend, uncond: Conditioning | None) -> Denoiser:
        if expert.controls and uncond is not None:
            cond, uncond = mark_negative(cond, uncond)
        g = plan.guidance
        if expert.network.edits and uncond is not None:
            return image_guided(x0, cond, uncond, scale, g.image)
        paired = plan.sampler.paired
        return guided(x0, cond, uncond, scale, rescale=g.rescale, interval=g.interval, space=network, paired=paired)

    composed = any(not is_plain(blend) for _, blend in expert.prompt.stretches)
    uses_negative = scale != 1 or plan.sampler.paired or composed or expert.network.edits
    return by_prompt(expert.prompt, expert.negative if uses_negative else None, guide, plan.sigmas)


def step_cache(shortcuts: Shortcuts, sigmas: Tensor) -> StepCache | None:
    """Where the deep features of a run with these levels are kept; None where every step is whole."""
    first = shortcuts.whole_at_first(len(sigmas) - 1)
    return None if first is None else StepCache(sigmas, first=first, every=shortcuts.every, shallow=shortcuts.shallow)


def by_prompt(
    prompt: Timeline,
    negative: Timeline | None,
    guide: Callable[[Blend, Conditioning | None], Denoiser],
    sigmas: Tensor,
) -> Denoiser:
    """The denoiser of each stretch of steps in which neither prompt changes, made once for each pair of them."""
    known: dict[tuple[int, ...], Denoiser] = {}
    parts: list[tuple[int, Denoiser]] = []
    for last, blend, other in aligned(prompt, prompt if negative is None else negative):
        uncond = None if negative is None else other[0][0]
        key = (*(id(each) for each, _ in blend), id(uncond))
        if key not in known:
            known[key] = guide(blend, uncond)
        parts.append((last, known[key]))
    return parts[0][1] if len(parts) == 1 else by_step(parts, sigmas)


def handed_over(denoise: Denoiser, plan: Pass) -> Denoiser:
    """The refiner for the last steps, where there is one."""
    if plan.refiner is None:
        return denoise
    return hand_over(denoise, prompted(plan.refiner, plan), plan.switch, plan.sigmas)


def inpainted(denoise: Denoiser, plan: Pass, noise: Tensor, latent: Tensor | None) -> Denoiser:
    """What is not masked kept, where there is a mask."""
    if plan.mask is None:
        return denoise
    if latent is None:
        raise InvalidRequest("a mask was given without a latent; expected the latent to repaint")
    known = (denoise, latent, plan.mask.to(latent), noise, plan.base.network.schedule)
    return soft_inpainting(*known, plan.sigmas) if plan.soft else inpainting(*known)

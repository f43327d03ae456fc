"""The two directions of diffusion, each usable alone: the Markov chain that adds noise, and the way back from noise.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..diffusion.a1111 import a1111_sigmas
from ..diffusion.denoise import NetworkDenoiser
from ..diffusion.noise import PerImageNoise
from ..diffusion.samplers import Solver, solver
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, add_gaussian_noise, input_scale
from ..diffusion.sigmas import Table, grid_options, schedule_sigmas, truncate
from ..errors import InvalidRequest
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..request.names import automatic_schedule, resolve_sampler, resolve_schedule
from ..request.settings import FLAT, Compat, Noise, SizeConditioning, VariationSeed, Wrap
from ..text.encode import TextEncoder
from ..text.prompt_schedule import Timeline, encode_timeline
from ..types import Conditioning, Denoiser, NoiseSource, Step
from ..weights.parts import Defaults
from .codec import ImageEncoder
from .denoiser import AnySchedule, Expert, Final, Guidance, LatentNetwork, Pass, prompted
from .tasks.control import ControlUnit

Picture: TypeAlias = Image.Image | str | Path | Tensor
Prompt: TypeAlias = str | Conditioning | Timeline
"""Text in A1111's grammar, or what the text encoder made of one."""


@dataclass(frozen=True)
class NoisyState:
    """One level of the forward chain: x = signal * x0 + spread * noise, at `timestep` (0 to 1000) and `sigma`."""

    timestep: float
    sigma: float
    signal: float
    spread: float
    x: Tensor


class DiffusionProcess:
    """What diffusion does to a picture: Gaussian noise, more at every timestep, until nothing else is left.

    States are in the classical coordinates that networks see: sqrt(abar) x0 + sqrt(1 - abar) noise for DDPM models
    (Ho et al. 2020, equation 4), (1 - t) x0 + t noise for flow models.
    """

    def __init__(self, schedule: AnySchedule, image_encoder: ImageEncoder) -> None:
        self.schedule = schedule
        self._image_encoder = image_encoder
        # state -> how many steps of the chain it is from the picture
        self._steps: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    def latent(self, image_or_latent: Picture) -> Tensor:
        """A tensor as it is (a latent, or pixels if you like); a picture or its path as its latent."""
        return image_or_latent if isinstance(image_or_latent, Tensor) else self._image_encoder(image_or_latent)

    def add_gaussian_noise(
        self, image_or_latent: Picture, t: float | Tensor | None = None, *, seed: int = 0, noise: Tensor | None = None
    ) -> Tensor:
        """Without `t`, one step of the forward chain: [B,c,h,w], a little noisier than what is given.

            for step in range(1000):
                image = process.add_gaussian_noise(image)

        A state made so knows its place in the chain; any other picture or tensor is taken as clean, and tensors that
        you compute from a state as well. With `t` (0 to 1000, one number or [B]) the state at that timestep in one
        jump, from a clean picture.

        Row k is noised by seed + k, or by the rows of `noise`. InvalidRequest beyond the last timestep.
        """
        x = self.latent(image_or_latent)
        if t is None:
            return self._step(x, seed, noise)
        times = torch.as_tensor(t, dtype=torch.float32)
        highest = self.schedule.timesteps
        if not bool(((times >= 0) & (times <= highest)).all()):
            raise InvalidRequest(f"the timestep is {times.tolist()}; expected numbers from 0 to {highest}")
        if noise is None:
            noise = _noise_like(x, seed).start().to(x)
        return add_gaussian_noise(self.schedule, x, times.to(x.device), noise, by="timestep", variance_preserving=True)

    @torch.no_grad()
    def _step(self, x: Tensor, seed: int, noise: Tensor | None) -> Tensor:
        """x_n = r x_(n-1) + fresh noise, where the state after n steps is that of timestep n - 1 (of flows: n)."""
        done = self._steps.get(x, 0)
        first = int(isinstance(self.schedule, FlowSchedule))
        if done >= self.schedule.timesteps:
            raise InvalidRequest(
                f"the state is {done} steps from the picture, and these are all: nothing but noise is left"
            )
        before = (1.0, 0.0) if done == 0 else self.levels(done - 1 + first)[1:]
        if noise is None:
            noise = _noise_like(x, seed, done).start().to(x)
        result = _noisier(x, noise, before, self.levels(done + first)[1:])
        self._steps[result] = done + 1
        return result

    def chain(self, image_or_latent: Picture, timesteps: Sequence[float], *, seed: int = 0) -> Iterator[NoisyState]:
        """The forward Markov chain through rising `timesteps`: each state is made from the one before by fresh noise.

        The step from s to t is x_t = r x_s + sqrt(spread_t^2 - r^2 spread_s^2) noise with r = signal_t / signal_s, so
        that every state has the same distribution as `add_gaussian_noise` gives in one jump.
        """
        levels = [float(t) for t in timesteps]
        rising = all(a < b for a, b in itertools.pairwise(levels))
        if not levels or not rising or not 0 <= levels[0] <= levels[-1] <= self.schedule.timesteps:
            raise InvalidRequest(
                f"the timesteps are {levels}; expected rising numbers from 0 to {self.schedule.timesteps}"
            )
        return self._chain(self.latent(image_or_latent), levels, seed)

    @torch.no_grad()
    def _chain(self, x: Tensor, timesteps: list[float], seed: int) -> Iterator[NoisyState]:
        source = _noise_like(x, seed)
        noise, before = source.start(), (1.0, 0.0)
        for timestep in timesteps:
            sigma, *after = self.levels(timestep)
            x = _noisier(x, noise.to(x), before, (after[0], after[1]))
            before, noise = (after[0], after[1]), source(sigma, sigma)
            yield NoisyState(timestep=timestep, sigma=sigma, signal=after[0], spread=after[1], x=x)

    def levels(self, t: float) -> tuple[float, float, float]:
        """(sigma, signal, spread) at timestep `t`: x_t = signal * x0 + spread * noise."""
        sigma = self.schedule.sigma(torch.tensor([t], dtype=torch.float64))
        scale = input_scale(self.schedule, sigma)
        return float(sigma), float(self.schedule.alpha(sigma) * scale), float(sigma * scale)


def _noise_like(x: Tensor, seed: int, step: int = 0) -> PerImageNoise:
    """Noise of seed + k for row k; for later steps of seeds that follow from these."""
    seeds = [seed + k for k in range(len(x))]
    if step:  # torch's generator knows 32 bits of a seed
        hashes = [hashlib.blake2b(f"{each}:{step}".encode(), digest_size=4) for each in seeds]
        seeds = [int.from_bytes(each.digest(), "little") for each in hashes]
    return PerImageNoise(seeds, tuple(x.shape[1:]))


def _noisier(x: Tensor, noise: Tensor, before: tuple[float, float], after: tuple[float, float]) -> Tensor:
    """A state at one (signal, spread) from that at another before it, by fresh noise."""
    ratio = after[0] / before[0] if before[0] > 0 else 0.0
    added: float = max(after[1] ** 2 - (ratio * before[1]) ** 2, 0.0) ** 0.5
    return ratio * x + added * noise


# --- the way back -----------------------------------------------------------------------------------------------------


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
    told_size       what SDXL is given; None the picture's size, uncropped    controls   networks beside the U-Net
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
    told_size: SizeConditioning | None = None
    controls: tuple[ControlUnit, ...] = ()


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
        negative: Prompt = "",
        *,
        seed: int | Sequence[int] = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        schedule: str | None = None,
        latent: Tensor | None = None,
        **more: Any,
    ) -> Iterator[Step]:
        """Checks everything, then returns the generator of steps for one picture per seed.

        prompt  text may change while the picture is made (`[a:b:0.5]`, counted in `steps`) and be composed (`a AND b`)
        size    (height, width) of the latent; the model's own where it is None
        latent  [1 or B,c,h,w]: start from it instead of from pure noise
        more    `DenoisingOptions`, and those of the sampler, such as `eta`
        """
        known = {each.name for each in fields(DenoisingOptions)}
        options = DenoisingOptions(**{name: value for name, value in more.items() if name in known})
        resolved = resolve_sampler(self.defaults.sampler if sampler is None else sampler)
        schedule = self.defaults.schedule if schedule is None and sampler is None else schedule or resolved.schedule
        steps = self.defaults.steps if steps is None else steps
        levels = self.sigmas(resolved.id, schedule, steps, options.final, options.shift)
        place = (latent.shape[-2], latent.shape[-1]) if latent is not None else size or self._default_size
        seeds = [seed] if isinstance(seed, int) else list(seed)
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
        negative: str | Conditioning = "",
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
        options = DenoisingOptions(rescale=rescale, **more)
        plan = self._pass((prompt, negative), levels, self._default_size, guidance, solver("euler"), options)
        plan = replace(plan, guidance=replace(plan.guidance, interval=interval))
        return prompted(plan.base, plan)

    def _pass(
        self,
        prompts: tuple[Prompt, Prompt],
        levels: Tensor,
        size: tuple[int, int],
        guidance: float | None,
        sampler: Solver,
        options: DenoisingOptions,
    ) -> Pass:
        """A way down all `levels` [steps + 1], in which the prompts count."""
        read = []
        for prompt, away in zip(prompts, (False, True), strict=True):
            if isinstance(prompt, str):
                prompt = encode_timeline(self._text_encoder, prompt, len(levels) - 1, negative=away).timeline
            read.append(Timeline.of(prompt) if isinstance(prompt, Conditioning) else prompt)
        sizes = SizeConditioning() if options.told_size is None else options.told_size
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

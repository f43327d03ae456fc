"""The two directions of diffusion, each usable alone: the forward chain that adds noise, and the way back.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..diffusion.denoise import NetworkDenoiser, guided, inpainting, network_denoiser, sigma_interval
from ..diffusion.image_guidance import IMAGE_GUIDANCE, image_guided
from ..diffusion.noise import PerImageNoise
from ..diffusion.prediction import Prediction
from ..diffusion.samplers import SamplerInfo, automatic_schedule, noise_source, resolve_sampler, sample
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, add_gaussian_noise, input_scale, per_image, start_state
from ..diffusion.sigmas import resolve_schedule, schedule_sigmas, truncate
from ..errors import InvalidRequest
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..text.encode import TextEncoder
from ..types import Conditioning, Denoiser, NoiseSource, Step
from .codec import ImageEncoder
from .masks import soft_inpainting
from .sides import Controlled, Side, controlled, told_apart
from .size import SizeConditioning, with_size
from .tiling import FLAT, Wrap, wrapping
from .variation import Variation, varied
from .windows import Windows, windowed

AnySchedule = DiscreteSchedule | FlowSchedule
Picture = Image.Image | str | Path | Tensor


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

    def latent(self, image_or_latent: Picture) -> Tensor:
        """A tensor as it is (a latent, or pixels if you like); a picture or its path as its latent."""
        return image_or_latent if isinstance(image_or_latent, Tensor) else self._image_encoder(image_or_latent)

    def add_gaussian_noise(
        self, image_or_latent: Picture, t: float | Tensor, *, seed: int = 0, noise: Tensor | None = None
    ) -> Tensor:
        """The state at timestep `t` (0 to 1000, one number or [B]), in one jump: [B,c,h,w].

        Row k is noised by seed + k, or by the rows of `noise`.
        """
        x0 = self.latent(image_or_latent)
        times = torch.as_tensor(t, dtype=torch.float32)
        highest = self.schedule.timesteps
        if not bool(((times >= 0) & (times <= highest)).all()):
            raise InvalidRequest(f"the timestep is {times.tolist()}; expected numbers from 0 to {highest}")
        if noise is None:
            noise = PerImageNoise([seed + k for k in range(len(x0))], tuple(x0.shape[1:])).start().to(x0)
        return add_gaussian_noise(
            self.schedule, x0, times.to(x0.device), noise, by="timestep", variance_preserving=True
        )

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
    def _chain(self, x0: Tensor, levels: list[float], seed: int) -> Iterator[NoisyState]:
        source = PerImageNoise([seed + k for k in range(len(x0))], tuple(x0.shape[1:]))
        noise, x, signal, spread = source.start(), x0, 1.0, 0.0
        for level in levels:
            sigma, signal_next, spread_next = self.levels(level)
            ratio = signal_next / signal if signal > 0 else 0.0
            added = max(spread_next**2 - (ratio * spread) ** 2, 0.0) ** 0.5
            x = ratio * x + added * noise.to(x)
            signal, spread, noise = signal_next, spread_next, source(sigma, sigma)
            yield NoisyState(timestep=level, sigma=sigma, signal=signal, spread=spread, x=x)

    def levels(self, t: float) -> tuple[float, float, float]:
        """(sigma, signal, spread) at timestep `t`: x_t = signal * x0 + spread * noise."""
        sigma = self.schedule.sigma(torch.tensor([t], dtype=torch.float64))
        scale = input_scale(self.schedule, sigma)
        return float(sigma), float(self.schedule.alpha(sigma) * scale), float(sigma * scale)


class DenoisingProcess:
    """From noise to latent, step by step, led by text: `denoising_process("a cat", seed=1)` yields `Step`s.

    The last step's `x` is the latent of the picture; every step's `denoised` is what the model expects by then.
    """

    def __init__(
        self,
        unet: UNet | MMDiT,
        schedule: AnySchedule,
        prediction: Prediction,
        text_encoder: TextEncoder,
        *,
        latent_channels: int,
        default_size: tuple[int, int],
        sampler: str,
        noise_schedule: str,
        steps: int,
        guidance: float,
        downscale: int = 8,
        size_numbers: int = 0,
    ) -> None:
        self.unet, self.schedule, self.prediction = unet, schedule, prediction
        self.latent_channels, self.default_size = latent_channels, default_size
        self.sampler, self.noise_schedule, self.steps, self.guidance = sampler, noise_schedule, steps, guidance
        self.downscale, self.size_numbers = downscale, size_numbers
        self._text_encoder = text_encoder

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The network as (x, sigma, conditioning) -> x0, in its own precision."""
        like = next(self.unet.parameters())
        return network_denoiser(self.unet, self.schedule, self.prediction, dtype=like.dtype)

    @property
    def edits(self) -> bool:
        """Whether the network edits a picture that it is told as a latent (instruct-pix2pix)."""
        return self.unet.config.in_channels == 2 * self.latent_channels

    def sigmas(self, sampler: str, schedule: str | None, steps: int, final: Literal["zero", "sigma_min"]) -> Tensor:
        """Noise levels of a run, descending, [steps + 1]."""
        info = resolve_sampler(sampler).sampler
        name = resolve_schedule(schedule, automatic_schedule(info, self.schedule))
        return schedule_sigmas(name, self.schedule, steps, final=final)

    def __call__(
        self,
        prompt: str | Conditioning,
        negative: str | Conditioning = "",
        *,
        seed: int | Sequence[int] = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        schedule: str | None = None,
        latent: Tensor | None = None,
        strength: float = 1.0,
        mask: Tensor | None = None,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        final: Literal["zero", "sigma_min"] = "zero",
        soft: bool = False,
        wrap: Wrap = FLAT,
        windows: Windows | None = None,
        variation: Variation | None = None,
        told_size: SizeConditioning | None = None,
        sides: Sequence[Side] = (),
        image_guidance: float | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """Checks everything, then returns the generator of steps for one picture per seed; `options` are the sampler's.

        size       (height, width) of the latent; the model's own where it is None
        latent     [1 or B,c,h,w]: start from it instead of from pure noise, at `strength` (img2img); 0 does nothing
        mask       [1,1,h,w]: repaint `latent` only where it is 1 (inpainting)
        interval   (first, last) fractions of the steps between which guidance acts
        final      "sigma_min" ends on the first trained level (DDIM and PLMS of CompVis), in variance-preserving units
        soft       the mask is the strength of each place, and not only where (see `soft_inpainting`)
        wrap       edges that meet    windows   paint a large canvas in these    variation   of the start noise
        image_guidance  how closely a picture that is edited is kept (instruct-pix2pix): 1.5 where it is None
        told_size  what SDXL is told; None the picture's size, uncropped    sides   networks that add to the features
        """
        if mask is not None and latent is None:
            raise InvalidRequest("a mask was given without a latent; expected the latent to repaint")
        resolved = resolve_sampler(self.sampler if sampler is None else sampler)
        named = self.noise_schedule if schedule is None and sampler is None else schedule or resolved.schedule
        info, count = resolved.sampler, self.steps if steps is None else steps
        full = self.sigmas(info.id, named, count, final)
        height, width = (self.default_size if size is None else size) if latent is None else latent.shape[-2:]
        scale = (self.guidance if guidance is None else guidance) / info.unit
        cond, away = self._sized_pair(
            prompt, negative, scale != 1 or info.paired or self.edits, (height, width), told_size
        )
        sigmas = full if latent is None or strength == 0 else truncate(full, strength)
        around: dict[str, Any] = {"wrap": wrap, "windows": windows, "paired": info.paired}
        around["image_guidance"] = image_guidance
        around["base"] = controlled(self.denoiser, sides, sigmas) if sides else self.denoiser
        denoise = self.guided(cond, away, scale, rescale, interval and sigma_interval(full, *interval), **around)
        if latent is not None and strength == 0:
            return iter(())
        source = self._noise(info, seed, (height, width), variation)
        noise = source.start().to(next(self.unet.parameters()).device)
        x0 = None if latent is None else latent.to(noise.device, torch.float32).expand_as(noise)
        if mask is not None and x0 is not None:
            known = (denoise, x0, mask.to(x0), noise, self.schedule)
            denoise = soft_inpainting(*known, sigmas) if soft else inpainting(*known)
        x = start_state(self.schedule, noise, float(sigmas[0]), x0)
        run = sample(info, denoise, x, sigmas, self.schedule, noise=source, **{**resolved.options, **options})
        return self._finished(run) if final == "sigma_min" else run

    def _noise(
        self, sampler: SamplerInfo, seed: int | Sequence[int], size: tuple[int, int], variation: Variation | None
    ) -> NoiseSource:
        """Start noise and later noise of one picture per seed, for latents of `size` (height, width)."""
        seeds = [seed] if isinstance(seed, int) else list(seed)
        draw = partial(noise_source, sampler, schedule=self.schedule)
        return varied(draw, seeds, (self.latent_channels, *size), variation)

    def _sized_pair(
        self,
        prompt: str | Conditioning,
        negative: str | Conditioning,
        both: bool,
        size: tuple[int, int],
        told: SizeConditioning | None,
    ) -> tuple[Conditioning, str | Conditioning]:
        """The prompt and, where it will be used (`both`), the negative prompt, each told the size of the picture."""
        cond = self._sized(prompt, False, size, told)
        return cond, self._sized(negative, True, size, told) if both else negative

    def guided(
        self,
        prompt: str | Conditioning,
        negative: str | Conditioning = "",
        guidance: float | None = None,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        *,
        wrap: Wrap = FLAT,
        windows: Windows | None = None,
        paired: bool = False,
        base: NetworkDenoiser | Controlled | None = None,
        image_guidance: float | None = None,
    ) -> Denoiser:
        """The denoiser led by a prompt, away from the negative one: (x, sigma) -> x0; `interval` in units of sigma.

        With `wrap` its edges meet, and with `windows` it paints canvases larger than the network's own size. `paired`
        keeps the negative prompt at guidance 1, for samplers that use the unguided estimate too. `base` is the network
        with side networks; None is the network alone.
        """
        scale = self.guidance if guidance is None else guidance
        away = None if scale == 1 and not paired and not self.edits else self._conditioning(negative, True)
        if wrap and isinstance(self.unet, MMDiT):
            raise InvalidRequest("edges cannot meet with this model: its transformer knows where every patch is")
        cond = self._conditioning(prompt, False)
        space = self.denoiser
        if isinstance(base, Controlled) and away is not None:
            cond, away = told_apart(cond, away)
        seen = space if base is None else base
        around = wrapping(seen, wrap) if windows is None else windowed(seen, windows, wrap)
        if self.edits and away is not None:
            return image_guided(around, cond, away, scale, IMAGE_GUIDANCE if image_guidance is None else image_guidance)
        return guided(around, cond, away, scale, rescale=rescale, interval=interval, space=space)

    def _finished(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The last state out of variance-exploding coordinates, where the run does not end on zero noise."""
        for step in steps:
            if step.index + 1 < step.total:
                yield step
                continue
            sigma = torch.tensor([self.schedule.sigma_min], device=step.x.device)
            scale = per_image(input_scale(self.schedule, sigma), step.x)
            yield Step(step.index, step.total, step.sigma, step.x * scale, step.denoised)

    def _conditioning(self, prompt: str | Conditioning, negative: bool) -> Conditioning:
        return self._sized(prompt, negative, self.default_size, None)

    def _sized(
        self, prompt: str | Conditioning, negative: bool, size: tuple[int, int], told: SizeConditioning | None
    ) -> Conditioning:
        """A prompt's conditioning; where the model is told sizes, with those of a latent of `size` (height, width)."""
        known = prompt
        if isinstance(known, str):
            known = self._text_encoder.encode(known, negative=negative).conditioning
        vector_dim = self.unet.config.vector_dim
        if not self.size_numbers or vector_dim is None:
            return known
        pixels = (size[1] * self.downscale, size[0] * self.downscale)
        told = SizeConditioning() if told is None else told
        return with_size(known, told.numbers(pixels, self.size_numbers, negative=negative), vector_dim)

"""The way back from noise, usable alone: the denoiser led by text, and the sampler that asks it (in: forward.py).

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

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
from ..diffusion.noise import NoiseKind
from ..diffusion.prediction import Prediction
from ..diffusion.samplers import Solver, noise_source, sample, solver
from ..diffusion.schedule import FlowSchedule, input_scale, per_image, start_state
from ..diffusion.sigmas import Table, grid_options, schedule_sigmas, truncate
from ..errors import InvalidRequest
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..request.names import ResolvedSampler, automatic_schedule, resolve_sampler, resolve_schedule
from ..text.encode import TextEncoder
from ..text.prompt_schedule import Timeline, aligned, encode_timeline
from ..types import Blend, Conditioning, Denoiser, NoiseSource, Step
from .forward import AnySchedule
from .micro_conditioning import SizeConditioning, with_size
from .tasks.control import Controlled, Side, controlled, told_apart
from .tasks.seamless import FLAT, Wrap, wrapping
from .tasks.variation import Variation, varied
from .tasks.windows import Windows, windowed

if TYPE_CHECKING:
    from .tasks.refiner import Handover

Prompt = str | Conditioning | Timeline
"""Text in A1111's grammar, or what the text encoder made of one."""


@dataclass(frozen=True)
class Random:
    """Where random numbers come from: see `diffusion.noise`; `seed_delta` is added to seeds after the start noise."""

    kind: NoiseKind = "cpu"
    seed_delta: int = 0


CPU = Random()


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
        table: Table = "sd15",
    ) -> None:
        self.unet, self.schedule, self.prediction = unet, schedule, prediction
        self.latent_channels, self.default_size = latent_channels, default_size
        self.sampler, self.noise_schedule, self.steps, self.guidance = sampler, noise_schedule, steps, guidance
        self.downscale, self.size_numbers, self.table = downscale, size_numbers, table
        self._text_encoder = text_encoder

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The network as (x, sigma, conditioning) -> x0, in its own precision, told the model's own guidance if any."""
        like = next(self.unet.parameters())
        told = self.guidance if self.guides_itself else None
        return network_denoiser(self.unet, self.schedule, self.prediction, dtype=like.dtype, guidance=told)

    @property
    def guides_itself(self) -> bool:
        """Whether the network is told the guidance scale, so that no negative prompt is needed for guidance."""
        return isinstance(self.unet, UNet) and self.unet.config.guidance_dim is not None

    def _denoiser(self, scale: float) -> tuple[NetworkDenoiser, float]:
        """The network, told the scale where it guides itself, and the scale of what is left to do outside it."""
        return (replace(self.denoiser, guidance=scale), 1.0) if self.guides_itself else (self.denoiser, scale)

    @property
    def edits(self) -> bool:
        """Whether the network edits a picture that it is told as a latent (instruct-pix2pix)."""
        return self.unet.config.in_channels == 2 * self.latent_channels

    def sigmas(
        self,
        sampler: str,
        schedule: str | None,
        steps: int,
        final: Literal["zero", "sigma_min"],
        shift: float | None = None,
    ) -> Tensor:
        """Noise levels of a run, descending, [steps + 1]; `shift` in place of the model's own, for flow models.

        Some samplers leave out the lowest level above the end, as A1111 has them do (`Solver.skips_last`)."""
        info = solver(resolve_sampler(sampler).id)
        automatic = automatic_schedule(info.id, flow=isinstance(self.schedule, FlowSchedule))
        name = resolve_schedule(schedule, automatic)
        options = {"table": self.table} if "table" in grid_options(name) else {}
        levels = self.schedule
        if shift is not None and isinstance(levels, FlowSchedule):
            levels = FlowSchedule(shift, levels.timesteps)
        sigmas = schedule_sigmas(name, levels, steps + info.skips_last, final=final, **options)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if info.skips_last else sigmas

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
        strength: float = 1.0,
        mask: Tensor | None = None,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        final: Literal["zero", "sigma_min"] = "zero",
        soft: bool = False,
        wrap: Wrap = FLAT,
        windows: Windows | None = None,
        variation: Variation | None = None,
        random: Random = CPU,
        told_size: SizeConditioning | None = None,
        sides: Sequence[Side] = (),
        image_guidance: float | None = None,
        shift: float | None = None,
        handover: Handover | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """Checks everything, then returns the generator of steps for one picture per seed; `options` are the sampler's.

        prompt     text may change while it is painted (`[a:b:0.5]`, counted in `steps`) and be composed (`a AND b`)
        size       (height, width) of the latent; the model's own where it is None
        latent     [1 or B,c,h,w]: start from it instead of from pure noise, at `strength` (img2img); 0 does nothing
        mask       [1,1,h,w]: repaint `latent` only where it is 1 (inpainting)    soft   where, and how strongly
        interval   guidance acts between these fractions of the steps    image_guidance   of a picture that is edited
        final      "sigma_min" ends on the first trained level (DDIM and PLMS of CompVis), in variance-preserving units
        wrap       edges that meet    windows   paint a large canvas in these    variation, random   of the noise
        told_size  what SDXL is told; None the picture's size, uncropped    sides   networks that add to the features
        shift      of the levels of a flow; None the model's own    handover   another model that paints the last steps
        """
        resolved, full = self._levels(sampler, schedule, steps, final, shift)
        height, width = latent.shape[-2:] if latent is not None else size or self.default_size
        info = solver(resolved.id)
        scale = (self.guidance if guidance is None else guidance) / info.unit
        sigmas = full if latent is None or strength == 0 else truncate(full, strength)
        around: dict[str, Any] = {"steps": len(full) - 1, "size": (height, width), "told_size": told_size}
        around |= {"wrap": wrap, "windows": windows, "paired": info.paired, "rescale": rescale}
        around |= {"interval": interval and sigma_interval(full, *interval), "image_guidance": image_guidance}
        denoise = self.led(prompt, negative, sigmas, scale, sides=sides, **around)
        denoise = denoise if handover is None else handover.after(denoise, sigmas, scale, **around)
        if latent is not None and strength == 0:
            return iter(())
        source = self.noise(info, seed, (height, width), variation, random)
        noise = source.start().to(next(self.unet.parameters()).device)
        x0 = None if latent is None else latent.to(noise.device, torch.float32).expand_as(noise)
        denoise = self._repainting(denoise, x0, mask, noise, sigmas, soft)
        x = start_state(self.schedule, noise, float(sigmas[0]), x0)
        run = sample(info, denoise, x, sigmas, self.schedule, noise=source, **{**resolved.options, **options})
        return self._finished(run) if final == "sigma_min" else run

    def _levels(
        self,
        sampler: str | None,
        schedule: str | None,
        steps: int | None,
        final: Literal["zero", "sigma_min"],
        shift: float | None,
    ) -> tuple[ResolvedSampler, Tensor]:
        """The sampler, and the noise levels of all its steps."""
        resolved = resolve_sampler(self.sampler if sampler is None else sampler)
        named = self.noise_schedule if schedule is None and sampler is None else schedule or resolved.schedule
        return resolved, self.sigmas(resolved.id, named, self.steps if steps is None else steps, final, shift)

    def _repainting(
        self, denoise: Denoiser, x0: Tensor | None, mask: Tensor | None, noise: Tensor, sigmas: Tensor, soft: bool
    ) -> Denoiser:
        if mask is None:
            return denoise
        if x0 is None:
            raise InvalidRequest("a mask was given without a latent; expected the latent to repaint")
        known = (denoise, x0, mask.to(x0), noise, self.schedule)
        return soft_inpainting(*known, sigmas) if soft else inpainting(*known)

    def noise(
        self,
        sampler: Solver,
        seed: int | Sequence[int],
        size: tuple[int, int],
        variation: Variation | None = None,
        random: Random = CPU,
    ) -> NoiseSource:
        """Start noise and later noise of one picture per seed, for latents of `size` (height, width)."""
        seeds = [seed] if isinstance(seed, int) else list(seed)
        device = next(self.unet.parameters()).device
        draw = partial(
            noise_source, sampler, schedule=self.schedule, kind=random.kind, device=device, seed_delta=random.seed_delta
        )
        return varied(draw, seeds, (self.latent_channels, *size), variation)

    def led(
        self,
        prompt: Prompt,
        negative: Prompt,
        sigmas: Tensor,
        scale: float,
        *,
        steps: int,
        size: tuple[int, int],
        told_size: SizeConditioning | None,
        sides: Sequence[Side] = (),
        **around: Any,
    ) -> Denoiser:
        """This model's part of a run with these levels: the denoiser led by its prompts, of which `steps` are all."""
        network, scale = self._denoiser(scale)
        told = partial(self._timeline, steps=steps, size=size, told=told_size)
        around["base"] = controlled(network, sides, sigmas) if sides else network
        return self._led(told(prompt), negative, told, scale, sigmas, **around)

    def _led(
        self,
        cond: Timeline,
        negative: Prompt,
        told: Callable[..., Timeline],
        scale: float,
        sigmas: Tensor,
        *,
        paired: bool,
        **settings: Any,
    ) -> Denoiser:
        """The denoiser led by a prompt at every step of a run; the negative prompt is read only where it is used."""
        composed = any(not is_plain(blend) for _, blend in cond.stretches)
        away = told(negative, negative=True) if scale != 1 or paired or composed or self.edits else None
        known: dict[tuple[int, ...], Denoiser] = {}
        parts: list[tuple[int, Denoiser]] = []
        for last, blend, other in aligned(cond, cond if away is None else away):
            uncond = None if away is None else other[0][0]
            key = (*(id(each) for each, _ in blend), id(uncond))
            if key not in known:
                known[key] = self._guided(blend, uncond, scale, paired=paired, **settings)
            parts.append((last, known[key]))
        return parts[0][1] if len(parts) == 1 else by_step(parts, sigmas)

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
        image_guidance: float | None = None,
    ) -> Denoiser:
        """The denoiser led by a prompt, away from the negative one: (x, sigma) -> `Estimate`; `interval` in sigma.

        With `wrap` its edges meet, and with `windows` it paints canvases larger than the network's own size. `paired`
        keeps the negative prompt at guidance 1, for samplers that use the unguided estimate too. A prompt that changes
        while it is painted is read as at its first step.
        """
        network, scale = self._denoiser(self.guidance if guidance is None else guidance)
        read = partial(self._timeline, steps=1, size=self.default_size, told=None)
        blend = read(prompt).at(1)
        away = scale != 1 or paired or self.edits or not is_plain(blend)
        uncond = read(negative, negative=True).at(1)[0][0] if away else None
        around: dict[str, Any] = {"wrap": wrap, "windows": windows, "image_guidance": image_guidance, "paired": paired}
        return self._guided(blend, uncond, scale, rescale=rescale, interval=interval, base=network, **around)

    def _guided(
        self,
        blend: Blend,
        uncond: Conditioning | None,
        scale: float,
        *,
        rescale: float,
        interval: tuple[float, float] | None,
        wrap: Wrap,
        windows: Windows | None,
        base: NetworkDenoiser | Controlled,
        image_guidance: float | None,
        paired: bool,
    ) -> Denoiser:
        if wrap and isinstance(self.unet, MMDiT):
            raise InvalidRequest("edges cannot meet with this model: its transformer knows where every patch is")
        if isinstance(base, Controlled) and uncond is not None:
            blend, uncond = told_apart(blend, uncond)
        around = wrapping(base, wrap) if windows is None else windowed(base, windows, wrap)
        if self.edits and uncond is not None:
            closeness = IMAGE_GUIDANCE if image_guidance is None else image_guidance
            return image_guided(around, blend, uncond, scale, closeness)
        return guided(
            around, blend, uncond, scale, rescale=rescale, interval=interval, space=self.denoiser, paired=paired
        )

    def _finished(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The last state out of variance-exploding coordinates, where the run does not end on zero noise."""
        for step in steps:
            if step.index + 1 < step.total:
                yield step
                continue
            sigma = torch.tensor([self.schedule.sigma_min], device=step.x.device)
            scale = per_image(input_scale(self.schedule, sigma), step.x)
            yield Step(step.index, step.total, step.sigma, step.x * scale, step.denoised)

    def _timeline(
        self,
        prompt: Prompt,
        *,
        steps: int,
        size: tuple[int, int],
        told: SizeConditioning | None,
        negative: bool = False,
    ) -> Timeline:
        """A prompt's conditioning by step; where the model is told sizes, with those of a latent of `size`."""
        if isinstance(prompt, str):
            prompt = encode_timeline(self._text_encoder, prompt, steps, negative=negative).timeline
        timeline = Timeline.of(prompt) if isinstance(prompt, Conditioning) else prompt
        vector_dim = self.unet.config.vector_dim
        if not self.size_numbers or vector_dim is None:
            return timeline
        pixels = (size[1] * self.downscale, size[0] * self.downscale)
        sizes = SizeConditioning() if told is None else told
        numbers = sizes.numbers(pixels, self.size_numbers, negative=negative)
        return timeline.map(lambda each: with_size(each, numbers, vector_dim))

"""The forward direction of diffusion, usable alone: the Markov chain that adds noise to a picture.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..diffusion.noise import PerImageNoise
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, add_gaussian_noise, input_scale
from ..errors import InvalidRequest
from .codec import ImageEncoder

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

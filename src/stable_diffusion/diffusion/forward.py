"""The forward chain: what diffusion does to a picture, step by step or in one jump, usable alone.

Shapes: B batch, c h w latent channels, height and width; x0 and noise [B,c,h,w], or [c,h,w] for one.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import InvalidRequest, what_is
from .noise import PerImageNoise
from .schedule import DiscreteSchedule, FlowSchedule, add_gaussian_noise, input_scale


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
    (Ho et al. 2020, equation 4), (1 - t) x0 + t noise for flow models. `image_encoder` makes the latent of a picture.
    """

    def __init__(self, schedule: DiscreteSchedule | FlowSchedule, image_encoder: Callable[[Any], Tensor]) -> None:
        self.schedule = schedule
        self._image_encoder = image_encoder
        # state -> how many steps of the chain it is from the picture
        self._steps: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    def latent(self, image_or_latent: Any) -> Tensor:
        """A tensor as it is (a latent, or pixels if you like); a picture, of any form, as its latent."""
        return image_or_latent if isinstance(image_or_latent, Tensor) else self._image_encoder(image_or_latent)

    def add_gaussian_noise(
        self,
        image_or_latent: Any,
        t: float | Tensor | None = None,
        *,
        seed: int | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Without `t`, one step of the forward chain: [B,c,h,w] or [c,h,w], a little noisier than what is given.

            for step in range(1000):
                image = process.add_gaussian_noise(image)

        A state made so knows its place in the chain; any other picture or tensor is taken as clean, and tensors that
        you compute from a state as well. With `t` (0 to 1000, one number or [B]) the state at that timestep in one
        jump, from a clean picture.

        Row k is noised by seed + k, or by the rows of `noise`. InvalidRequest beyond the last timestep.
        """
        x, seed = self.latent(image_or_latent), _whole(seed)
        if t is None:
            return self._step(x, seed, noise)
        times = self._times(t, len(x) if x.ndim == 4 else 1)
        if noise is None:
            noise = _noise_like(x, seed).start().reshape(x.shape).to(x)
        return add_gaussian_noise(self.schedule, x, times.to(x.device), noise, by="timestep", variance_preserving=True)

    def _times(self, t: float | Tensor, rows: int) -> Tensor:
        """A timestep, or one for each row, as a tensor."""
        highest = self.schedule.timesteps
        if isinstance(t, bool):
            raise InvalidRequest(f"the timestep is {t}; expected a number from 0 to {highest}")
        try:
            times = torch.as_tensor(t, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise InvalidRequest(f"the timestep is {what_is(t)}; expected a number from 0 to {highest}") from None
        if times.ndim > 1 or times.numel() not in (1, rows):
            raise InvalidRequest(f"the timestep is {what_is(times)}; expected one number, or one for each picture")
        if not bool(((times >= 0) & (times <= highest)).all()):
            raise InvalidRequest(f"the timestep is {times.tolist()}; expected numbers from 0 to {highest}")
        return times

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
            noise = _noise_like(x, seed, done).start().reshape(x.shape).to(x)
        result = _noisier(x, noise, before, self.levels(done + first)[1:])
        self._steps[result] = done + 1
        return result

    def chain(self, image_or_latent: Any, timesteps: Sequence[float], *, seed: int = 0) -> Iterator[NoisyState]:
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
            x = _noisier(x, noise.reshape(x.shape).to(x), before, (after[0], after[1]))
            before, noise = (after[0], after[1]), source(sigma, sigma)
            yield NoisyState(timestep=timestep, sigma=sigma, signal=after[0], spread=after[1], x=x)

    def levels(self, t: float) -> tuple[float, float, float]:
        """(sigma, signal, spread) at timestep `t`: x_t = signal * x0 + spread * noise."""
        sigma = self.schedule.sigma(torch.tensor([t], dtype=torch.float64))
        scale = input_scale(self.schedule, sigma)
        return float(sigma), float(self.schedule.alpha(sigma) * scale), float(sigma * scale)


def _whole(seed: object) -> int:
    try:
        return 0 if seed is None else operator.index(seed)  # type: ignore[arg-type]  # what is no index raises
    except TypeError:
        raise InvalidRequest(f"seed is {what_is(seed)}; expected a whole number") from None


def _noise_like(x: Tensor, seed: int, step: int = 0) -> PerImageNoise:
    """Noise of seed + k for row k of [B,c,h,w]; for later steps of seeds that follow from these. [c,h,w] is one row."""
    rows = x[None] if x.ndim == 3 else x
    seeds = [seed + k for k in range(len(rows))]
    if step:  # torch's generator knows 32 bits of a seed
        hashes = [hashlib.blake2b(f"{each}:{step}".encode(), digest_size=4) for each in seeds]
        seeds = [int.from_bytes(each.digest(), "little") for each in hashes]
    return PerImageNoise(seeds, tuple(rows.shape[1:]))


def _noisier(x: Tensor, noise: Tensor, before: tuple[float, float], after: tuple[float, float]) -> Tensor:
    """A state at one (signal, spread) from that at another before it, by fresh noise."""
    ratio = after[0] / before[0] if before[0] > 0 else 0.0
    added: float = max(after[1] ** 2 - (ratio * before[1]) ** 2, 0.0) ** 0.5
    return ratio * x + added * noise

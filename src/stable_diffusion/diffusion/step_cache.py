"""Steps that leave out the deep part of the network: its features change little from one step to the next.

Source: Ma et al. 2023, "DeepCache: accelerating diffusion models for free" (section 3.3: every N-th step is whole, the
steps between take the deep features of the last whole one).

The step of a call is found by its noise level, as in `denoise.by_step`: a sampler that calls the network twice in a
step has both calls whole, or neither. A run has a cache of its own.
"""

from __future__ import annotations

from torch import Tensor

from ..types import DeepFeatures, Denoiser, Estimate

_ROUNDING = 1e-5
"""Levels reach the denoiser in float32."""


class StepCache:
    """The deep features of a run's last whole step, one for each call of the network in a call of the denoiser.

    sigmas   [steps + 1] levels of the run, descending
    first    so many steps are whole at the start, where what the picture shows is decided
    every    after them every so many steps one is whole: 2 is every second one
    shallow  see `DeepFeatures`
    """

    def __init__(self, sigmas: Tensor, *, first: int, every: int, shallow: int) -> None:
        self._levels: list[float] = sigmas.double().tolist()
        self.first, self.every, self.shallow = max(1, first), every, shallow
        self._kept: dict[tuple[object, ...], tuple[int, DeepFeatures]] = {}
        self._step, self._calls, self._who, self._asking = 1, 0, 0, 0

    def step_of(self, sigma: Tensor) -> int:
        """The step, from 1, to which a call at this level belongs."""
        level = float(sigma[0]) * (1 - _ROUNDING)
        return max(1, sum(known > level for known in self._levels))

    def of(self, denoise: Denoiser) -> Denoiser:
        """The same denoiser, by which the cache knows step and call; what it keeps is for this one alone."""
        self._who += 1
        who = self._who

        def stepped(x: Tensor, sigma: Tensor) -> Estimate:
            self._step, self._calls, self._asking = self.step_of(sigma), 0, who
            return denoise(x, sigma)

        return stepped

    def features(self, x: Tensor) -> DeepFeatures:
        """Those for the next call of the network, with this input [B,C,H,W]."""
        self._calls += 1
        key = (self._asking, self._calls, *x.shape)
        made, deep = self._kept.get(key, (0, DeepFeatures(self.shallow)))
        whole = self._step <= self.first or (self._step - self.first) % self.every == 0
        deep.reuse = bool(deep.kept) and not whole and self._step - made <= self.every
        if not deep.reuse:
            self._kept[key] = (self._step, deep)
        return deep

"""Another denoiser for each stretch of steps: how prompts that change while painting reach the sampler.

The step is told by the noise level of the call, so that the denoiser stays a function of (x, sigma): step i of a run
covers the levels above sigmas[i] up to sigmas[i - 1]. What a sampler asks between two levels belongs to the step that
lies there, and what it asks on the next level already to the next step.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import InvalidRequest
from ..types import Denoiser, PairDenoiser

_ROUNDING = 1e-5
"""Levels reach the denoiser in float32."""


def by_step(parts: Sequence[tuple[int, Denoiser]], sigmas: Tensor) -> PairDenoiser:
    """The denoiser that is parts[k] up to and including its last step, counted from 1; the last one to the end.

    sigmas [steps + 1] are the levels of the run, descending. Raises InvalidRequest where last steps do not rise.
    """
    lasts = [last for last, _ in parts]
    if not parts or any(a >= b for a, b in itertools.pairwise(lasts)):
        raise InvalidRequest(f"the last steps are {lasts}; expected rising numbers, one at least")
    return _ByStep(tuple(lasts), tuple(denoise for _, denoise in parts), tuple(sigmas.double().tolist()))


@dataclass(frozen=True)
class _ByStep:
    """What `by_step` returns: a `PairDenoiser`."""

    lasts: tuple[int, ...]
    denoisers: tuple[Denoiser, ...]
    sigmas: tuple[float, ...]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._chosen(sigma)(x, sigma)

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self._chosen(sigma)
        if isinstance(chosen, PairDenoiser):
            return chosen.pair(x, sigma)
        x0 = chosen(x, sigma)
        return x0, x0

    def _chosen(self, sigma: Tensor) -> Denoiser:
        """By the level of the first image; all images of a run are at the same one."""
        level = float(sigma[0]) * (1 - _ROUNDING)
        step = sum(known > level for known in self.sigmas)  # how many levels of the run are not below this one
        return self.denoisers[min(bisect_left(self.lasts, max(step, 1)), len(self.denoisers) - 1)]

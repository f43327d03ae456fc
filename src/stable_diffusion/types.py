"""The nouns that every room shares.

Shapes: B batch, C latent channels, H W latent size, T tokens, D token width, P pooled width, V vector width.
The state `x` of the diffusion is always `x = alpha(sigma) * x0 + sigma * noise` (see `Schedule`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x [B,C,H,W], sigma [B]) -> estimate of the clean latent x0 [B,C,H,W]."""


@runtime_checkable
class PairDenoiser(Protocol):
    """A `Denoiser` that also tells its estimate without guidance."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...

    def pair(self, x: Tensor, sigma: Tensor, /) -> tuple[Tensor, Tensor]:
        """(x0 with guidance, x0 without), each [B,C,H,W]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What the denoiser is told besides the noisy latent.

    tokens [B,T,D] goes to cross-attention; pooled [B,P] is the sentence as one vector; vector [B,V] is added to the
    time embedding (pooled text, size conditioning); image [B,C,H,W] is concatenated to the latent (inpainting models).
    """

    tokens: Tensor
    pooled: Tensor | None = None
    vector: Tensor | None = None
    image: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same conditioning with `function` applied to every tensor it holds."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("tokens", "pooled", "vector", "image")}
        mapped: dict[str, Any] = {name: None if v is None else function(v) for name, v in values.items()}
        return replace(self, **mapped)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditioning:
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def at(self, index: int) -> Conditioning:
        """Row `index`, kept as a batch of one."""
        return self.map(lambda tensor: tensor[index : index + 1])

    def repeat(self, count: int) -> Conditioning:
        """Each row `count` times, rows kept together."""
        return self.map(lambda tensor: tensor.repeat_interleave(count, dim=0))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Concatenate along the batch; all parts must hold the same fields and token counts."""

        def join(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if all(tensor is None for tensor in tensors):
                return None
            assert all(tensor is not None for tensor in tensors), f"only some parts hold {name!r}"
            return torch.cat(tensors, dim=0)

        tokens = join("tokens")
        assert tokens is not None
        return Conditioning(tokens=tokens, pooled=join("pooled"), vector=join("vector"), image=join("image"))


CondDenoiser: TypeAlias = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""(x [B,C,H,W], sigma [B], conditioning of B rows) -> x0 [B,C,H,W]: a network wrapped once."""


class Schedule(Protocol):
    """How noise mixes with the picture: x = alpha(sigma) * x0 + sigma * noise.

    alpha is 1 for DDPM models, written in variance-exploding coordinates (sigma = sqrt((1 - abar) / abar)), and
    1 - sigma for flow models. `timestep` is what the network is told, and `sigma` its inverse.
    """

    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...
    def alpha(self, sigma: Tensor) -> Tensor: ...
    def timestep(self, sigma: Tensor) -> Tensor: ...
    def sigma(self, timestep: Tensor) -> Tensor: ...


class NoiseSource(Protocol):
    """Per-image noise: image k of a batch draws from its own generator and never sees its neighbours."""

    def start(self) -> Tensor:
        """Start noise [B,C,H,W], standard normal, the first draw of every image's generator."""
        ...

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        """Standard normal noise [B,C,H,W] for the stochastic step from `sigma` down to `sigma_next`."""
        ...


@dataclass(frozen=True)
class Step:
    """One sampler step: before it the state was at noise level `sigma`; `x` is the state after it."""

    index: int
    total: int
    sigma: float
    x: Tensor
    denoised: Tensor


class Sampler(Protocol):
    """Plain function that validates, then returns the generator of steps."""

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigmas: Tensor, schedule: Schedule, *, noise: NoiseSource, **options: Any
    ) -> Iterator[Step]: ...


@dataclass(frozen=True)
class Residuals:
    """Features that a side network (ControlNet, T2I-Adapter) adds to the U-Net's skips and middle block."""

    down: tuple[Tensor, ...] = field(default_factory=tuple)
    mid: Tensor | None = None

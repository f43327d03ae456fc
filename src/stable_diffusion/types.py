"""The nouns that every room shares.

Shapes: B batch, C latent channels, H W latent size, T tokens, D token width, P pooled width, V vector width.
The state `x` of the diffusion is always `x = alpha(sigma) * x0 + sigma * noise` (see `Schedule`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """What a denoiser expects the clean latent to be: with guidance, and without it. Each is [B,C,H,W].

    Both are one tensor where there is no guidance, or where nobody asked for the estimate without it.
    """

    x0: Tensor
    unguided: Tensor

    @classmethod
    def plain(cls, x0: Tensor) -> Estimate:
        """An estimate without guidance."""
        return cls(x0, x0)

    def map(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """`function` of both; it is called once where both are one tensor."""
        if self.unguided is self.x0:
            return Estimate.plain(function(self.x0))
        return Estimate(function(self.x0), function(self.unguided))


Denoiser: TypeAlias = Callable[[Tensor, Tensor], Estimate]
"""(x [B,C,H,W], sigma [B]) -> `Estimate` of the clean latent x0 [B,C,H,W]."""

PlainDenoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The same without guidance: (x, sigma) -> x0. Samplers take either."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What the denoiser is given besides the noisy latent.

    tokens [B,T,D] goes to cross-attention; pooled [B,P] is the sentence as one vector; vector [B,V] is added to the
    time embedding (pooled text, size conditioning); image [B,C,H,W] is concatenated to the latent (inpainting models);
    negative [B] is 1 for rows of a negative prompt and 0 for others, where side networks need to know.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    vector: Tensor | None = None
    image: Tensor | None = None
    negative: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same conditioning with `function` applied to every tensor it holds."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
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
        others = {item.name: join(item.name) for item in fields(Conditioning) if item.name != "tokens"}
        return Conditioning(tokens=tokens, **others)


Blend: TypeAlias = tuple[tuple[Conditioning, float], ...]
"""Conditionings whose guidance adds up, each with its weight; ((conditioning, 1.0),) is the plain case."""


CondDenoiser: TypeAlias = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""(x [B,C,H,W], sigma [B], conditioning of B rows) -> x0 [B,C,H,W]: a network wrapped once."""


class Schedule(Protocol):
    """How noise mixes with the picture: x = alpha(sigma) * x0 + sigma * noise.

    alpha is 1 for DDPM models, written in variance-exploding coordinates (sigma = sqrt((1 - abar) / abar)), and
    1 - sigma for flow models. `timestep` is what the network is given, and `sigma` its inverse.
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


@dataclass(frozen=True)
class Residuals:
    """Features that a side network (ControlNet, T2I-Adapter) adds to a U-Net's features.

    `down` are for the skips, in the order in which the way down makes them, and `mid` is for the middle; both are added
    after the way down. `stages` are for the features of each stage while they run down, so that later layers see them:
    after the last block of a stage that attends, and at the end of any other, after its downsampling.
    """

    down: tuple[Tensor, ...] = field(default_factory=tuple)
    mid: Tensor | None = None
    stages: tuple[Tensor, ...] = field(default_factory=tuple)

    @staticmethod
    def total(parts: Sequence[Residuals]) -> Residuals:
        """The sum of what several side networks add, each of which has all or none of a kind."""

        def summed(kind: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
            return tuple(sum(tensors[1:], tensors[0]) for tensors in zip(*filter(len, kind), strict=True))

        mids = [part.mid for part in parts if part.mid is not None]
        return Residuals(
            down=summed([part.down for part in parts]),
            mid=sum(mids[1:], mids[0]) if mids else None,
            stages=summed([part.stages for part in parts]),
        )


@dataclass(eq=False)
class DeepFeatures:
    """What the deep part of a network gave when it last ran, for calls that leave that part out.

    reuse      leave it out, and take what is in `kept`; otherwise run it, and put there what it gives
    shallow    how many blocks of a U-Net's finest stage run on the way down all the same
    residuals  what side networks added at the last whole call
    """

    shallow: int = 1
    reuse: bool = False
    kept: tuple[Tensor, ...] = ()
    residuals: Residuals | None = None

"""Side networks at work: the controls of a request as a step around the denoiser.

Shapes: B batch, C latent channels, H W latent size, N image tokens, D token width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ...diffusion.denoise import NetworkDenoiser, sigma_interval
from ...models.controlnet import ControlNet
from ...models.ip_adapter import ImagePromptedUNet, IPAdapter
from ...models.t2i_adapter import T2IAdapter
from ...models.unet import UNet
from ...types import Blend, Conditioning, Residuals

SOFT = 0.825
"""Control modes other than "balanced": the i-th residual of a ControlNet counts for SOFT ** (12 - i)."""
SOFT_STAGES = (0.25, 0.62, 0.825, 1.0)
"""The same for the features of a T2I-Adapter; both after A1111's ControlNet extension."""


Picture: TypeAlias = Callable[[int, int], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Side:
    """A loaded network with what it reads, and when and how much it acts.

    picture   of a ControlNet or T2I-Adapter: (width, height) in pixels -> [1,K,height,width] in [0, 1]. It is asked at
              the size of the latent, `factor` pixels for each, so that a second pass at another size has it anew
    stages    of a T2I-Adapter: how many the U-Net has
    tokens    of an IP-Adapter: image tokens [1,N,D] for the rows of prompts and for those of negative prompts
    span      first and last fraction of the steps
    soft      weaken fine features ("prompt" and "control" mode)    prompt_only  leave negative prompts alone
    task      of a union ControlNet
    """

    network: ControlNet | T2IAdapter | IPAdapter
    picture: Picture | None = None
    factor: int = 8
    stages: int = 0
    tokens: tuple[Tensor, Tensor] | None = None
    weight: float = 1.0
    span: tuple[float, float] = (0.0, 1.0)
    soft: bool = False
    prompt_only: bool = False
    task: int | None = None
    _made: dict[tuple[int, int], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    def residuals(self, x: Tensor, timestep: Tensor, told: Conditioning) -> Residuals:
        """What a ControlNet or T2I-Adapter adds for each row of the network's input x [B,C,H,W]."""
        rows = self._rows(told, x)
        if isinstance(self.network, ControlNet):
            found = self._controlnet(self.network, x, timestep, told)
            # The last residual, of the middle, is number 12 in Stable Diffusion 1; models of fewer count the same.
            scales = [SOFT ** (12 - i) if self.soft else 1.0 for i in range(len(found.down) + 1)]
            down = tuple(scale * rows * part for scale, part in zip(scales[:-1], found.down, strict=True))
            return Residuals(down=down, mid=None if found.mid is None else scales[-1] * rows * found.mid)
        assert isinstance(self.network, T2IAdapter)
        features = self._read(x, self.network)
        softened = SOFT_STAGES[: len(features)] if self.soft else (1.0,) * len(features)
        parts = tuple(scale * rows * part for scale, part in zip(softened, features, strict=True))
        # An adapter of XL has one map more than the U-Net has stages: it is for the middle.
        middle = parts[self.stages] if len(parts) > self.stages else None
        return Residuals(stages=parts[: self.stages], mid=middle)

    def image_tokens(self, told: Conditioning) -> Tensor:
        """An IP-Adapter's tokens for each row: [B,N,D]."""
        assert self.tokens is not None
        positive, negative = (each.to(told.tokens).expand(len(told.tokens), -1, -1) for each in self.tokens)
        if told.negative is None:
            return positive
        return torch.where(told.negative[:, None, None] > 0.5, negative, positive)

    def at(self, rows: Tensor, columns: Tensor, canvas: tuple[int, int]) -> Side:
        """The same for a window of a canvas of (height, width) latents, which has these rows and columns of it."""
        if self.picture is None:
            return self
        steps = torch.arange(self.factor)
        pixels = [(latents[:, None] * self.factor + steps).flatten() for latents in (rows, columns)]
        whole = self.picture(canvas[1] * self.factor, canvas[0] * self.factor)
        part = whole[..., pixels[0][:, None], pixels[1]]
        return replace(self, picture=lambda width, height: part, _made={})

    def _rows(self, told: Conditioning, like: Tensor) -> Tensor:
        """The weight of each row [B,1,1,1]."""
        rows = torch.full((len(like), 1, 1, 1), self.weight, dtype=like.dtype, device=like.device)
        if not self.prompt_only or told.negative is None:
            return rows
        return rows * (told.negative <= 0.5).to(rows)[:, None, None, None]

    def _controlnet(self, network: ControlNet, x: Tensor, timestep: Tensor, told: Conditioning) -> Residuals:
        (hint,) = self._read(x, lambda picture: (network.encode_hint(picture),))
        # An inpainting U-Net sees mask and picture too; a ControlNet was made for the latent alone.
        seen = x[:, : network.config.in_channels]
        found: Residuals = network(seen, timestep, told.tokens, hint, vector=told.vector, task=self.task)
        return found

    def _read(self, x: Tensor, read: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `read` makes of the picture at the size of x, once for each size."""
        assert self.picture is not None
        height, width = x.shape[-2:]
        if (height, width) not in self._made:
            picture = self.picture(width * self.factor, height * self.factor)
            self._made[height, width] = read(picture.to(x))
        return self._made[height, width]


@dataclass(frozen=True)
class Controlled:
    """A `CondDenoiser`: a network's denoiser with side networks that act in their ranges of sigma (low, high]."""

    base: NetworkDenoiser
    sides: tuple[tuple[float, float, Side], ...]
    _windows: dict[tuple[int, ...], Controlled] = field(default_factory=dict, repr=False)
    _unets: list[ImagePromptedUNet] = field(default_factory=list, repr=False)
    """The U-Net with image tokens, made when it is first asked for; this run's own, shared by its windows."""

    def at(self, rows: Tensor, columns: Tensor, canvas: tuple[int, int]) -> Controlled:
        """The same for a window of a canvas (see `Side.at`); windows are kept, since each step asks for them."""
        key = (int(rows[0]), int(columns[0]), len(rows), len(columns))
        if key not in self._windows:
            sides = tuple((low, high, side.at(rows, columns, canvas)) for low, high, side in self.sides)
            self._windows[key] = Controlled(self.base, sides, _unets=self._unets)
        return self._windows[key]

    def __call__(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        active = [side for low, high, side in self.sides if bool(((sigma > low) & (sigma <= high)).any())]
        active = [side for side in active if side.weight != 0]
        adding = [side for side in active if not isinstance(side.network, IPAdapter)]
        pictures = [side for side in active if isinstance(side.network, IPAdapter)]
        base = self._prompted(pictures, conditioning) if pictures else self.base
        return base(x, sigma, conditioning, side=_summed(adding) if adding else None)

    def _prompted(self, sides: Sequence[Side], conditioning: Conditioning) -> NetworkDenoiser:
        """The network's denoiser with the image tokens of IP-Adapters."""
        unet = self.base.network
        assert isinstance(unet, UNet)
        if not self._unets:
            self._unets.append(ImagePromptedUNet(unet))
        told = conditioning.to(dtype=self.base.dtype)
        read = [(side.network, side.image_tokens(told), side.weight) for side in sides]
        return replace(self.base, network=partial(self._unets[0], read))  # type: ignore[arg-type]  # all are IP-Adapters


def _summed(sides: Sequence[Side]) -> Callable[[Tensor, Tensor, Conditioning], Residuals]:
    def summed(x: Tensor, timestep: Tensor, told: Conditioning) -> Residuals:
        return Residuals.total([side.residuals(x, timestep, told) for side in sides])

    return summed


def controlled(base: NetworkDenoiser, sides: Sequence[Side], sigmas: Tensor) -> Controlled:
    """The denoiser with side networks; `sigmas` [steps + 1] are the noise levels of the whole run.

    Step i of n is in a side's range where start <= i / n < end. InvalidRequest where that is no step at all.
    """
    spans = []
    for side in sides:
        low, high = sigma_interval(sigmas, *side.span)
        # an open end, since samplers may ask for levels around those of the steps
        spans.append((low if side.span[1] < 1 else -1.0, high if side.span[0] > 0 else math.inf, side))
    return Controlled(base, tuple(spans))


def told_apart(blend: Blend, away: Conditioning) -> tuple[Blend, Conditioning]:
    """The conditionings of a prompt and of a negative prompt, marked as such for the side networks."""

    def marked(conditioning: Conditioning, mark: float) -> Conditioning:
        tokens = conditioning.tokens
        return replace(conditioning, negative=torch.full((len(tokens),), mark, device=tokens.device))

    return tuple((marked(cond, 0.0), weight) for cond, weight in blend), marked(away, 1.0)

"""Controls at work: networks beside the U-Net as a step around its denoiser.

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
from ...models.mmdit import MMDiT
from ...models.t2i_adapter import T2IAdapter
from ...models.unet import UNet
from ...request.control import Control
from ...types import Blend, CondDenoiser, Conditioning, Residuals

SOFT = 0.825
"""Control modes other than "balanced": the i-th residual of a ControlNet counts for SOFT ** (12 - i)."""
SOFT_STAGES = (0.25, 0.62, 0.825, 1.0)
"""The same for the features of a T2I-Adapter; both after A1111's ControlNet extension."""


Hint: TypeAlias = Callable[[int, int], Tensor]
"""(width, height) in pixels -> the picture that a control network reads, [1,K,height,width] in [0, 1]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ControlUnit:
    """A control of a request, ready: its network, and what that reads. Weight, steps and mode are those of `control`.

    hint      of a ControlNet or T2I-Adapter. It is asked at the size of the latent, `factor` pixels for each, so that a
              second pass at another size has its own
    stages    of a T2I-Adapter: how many the U-Net has
    tokens    of an IP-Adapter: image tokens [1,N,D] for the rows of prompts and for those of negative prompts
    task      of a union ControlNet
    """

    control: Control
    network: ControlNet | T2IAdapter | IPAdapter
    hint: Hint | None = None
    factor: int = 8
    stages: int = 0
    tokens: tuple[Tensor, Tensor] | None = None
    task: int | None = None
    _made: dict[tuple[int, int], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    @property
    def soft(self) -> bool:
        """Whether fine features are weakened ("prompt" and "control" mode)."""
        return self.control.mode != "balanced"

    @property
    def prompt_only(self) -> bool:
        """Whether negative prompts are left alone: in "control" mode, and by networks trained to act on what the prompt
        says alone, which are wrong on the negative prompt."""
        pooled = isinstance(self.network, ControlNet) and self.network.config.pooled
        return self.control.mode == "control" or pooled

    def residuals(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Residuals:
        """What a ControlNet or T2I-Adapter adds for each row of the network's input x [B,C,H,W]."""
        rows = self._rows(conditioning, x)
        if isinstance(self.network, ControlNet):
            found = self._controlnet(self.network, x, timestep, conditioning)
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

    def image_tokens(self, conditioning: Conditioning) -> Tensor:
        """An IP-Adapter's tokens for each row: [B,N,D]."""
        assert self.tokens is not None
        tokens = conditioning.tokens
        positive, negative = (each.to(tokens).expand(len(tokens), -1, -1) for each in self.tokens)
        if conditioning.negative is None:
            return positive
        return torch.where(conditioning.negative[:, None, None] > 0.5, negative, positive)

    def at(self, rows: Tensor, columns: Tensor, canvas: tuple[int, int]) -> ControlUnit:
        """The same for a window of a canvas of (height, width) latents, which has these rows and columns of it."""
        if self.hint is None:
            return self
        steps = torch.arange(self.factor)
        pixels = [(latents[:, None] * self.factor + steps).flatten() for latents in (rows, columns)]
        whole = self.hint(canvas[1] * self.factor, canvas[0] * self.factor)
        part = whole[..., pixels[0][:, None], pixels[1]]
        return replace(self, hint=lambda width, height: part, _made={})

    def _rows(self, conditioning: Conditioning, like: Tensor) -> Tensor:
        """The weight of each row [B,1,1,1]."""
        rows = torch.full((len(like), 1, 1, 1), self.control.weight, dtype=like.dtype, device=like.device)
        if not self.prompt_only or conditioning.negative is None:
            return rows
        return rows * (conditioning.negative <= 0.5).to(rows)[:, None, None, None]

    def _controlnet(self, network: ControlNet, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Residuals:
        (hint,) = self._read(x, lambda picture: (network.encode_hint(picture),))
        # An inpainting U-Net sees mask and picture too; a ControlNet was made for the latent alone.
        seen = x[:, : network.config.in_channels]
        found: Residuals = network(
            seen, timestep, conditioning.tokens, hint, vector=conditioning.vector, task=self.task
        )
        return found

    def _read(self, x: Tensor, read: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `read` makes of the picture at the size of x, once for each size."""
        assert self.hint is not None
        height, width = x.shape[-2:]
        if (height, width) not in self._made:
            picture = self.hint(width * self.factor, height * self.factor)
            self._made[height, width] = read(picture.to(x))
        return self._made[height, width]


@dataclass(frozen=True)
class ControlledDenoiser:
    """A `CondDenoiser`: a network's denoiser with controls that act in their ranges of sigma (low, high]."""

    base: NetworkDenoiser
    units: tuple[tuple[float, float, ControlUnit], ...]
    image_prompted: ImagePromptedUNet | None = None
    """The U-Net with image tokens, this run's own, where there are IP-Adapters."""
    _windows: dict[tuple[int, ...], ControlledDenoiser] = field(default_factory=dict, repr=False)

    def at(self, rows: Tensor, columns: Tensor, canvas: tuple[int, int]) -> ControlledDenoiser:
        """The same for a window of a canvas (see `ControlUnit.at`); windows are kept, since each step asks for them."""
        key = (int(rows[0]), int(columns[0]), len(rows), len(columns))
        if key not in self._windows:
            units = tuple((low, high, unit.at(rows, columns, canvas)) for low, high, unit in self.units)
            self._windows[key] = replace(self, units=units, _windows={})
        return self._windows[key]

    def __call__(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        active = [unit for low, high, unit in self.units if bool(((sigma > low) & (sigma <= high)).any())]
        active = [unit for unit in active if unit.control.weight != 0]
        adding = [unit for unit in active if not isinstance(unit.network, IPAdapter)]
        pictures = [unit for unit in active if isinstance(unit.network, IPAdapter)]
        base = self._with_image_tokens(pictures, conditioning) if pictures else self.base
        return base(x, sigma, conditioning, side=_total_of(adding) if adding else None)

    def _with_image_tokens(self, units: Sequence[ControlUnit], conditioning: Conditioning) -> NetworkDenoiser:
        """The network's denoiser with the image tokens of IP-Adapters."""
        assert self.image_prompted is not None
        cast = conditioning.to(dtype=self.base.dtype)
        read = [(unit.network, unit.image_tokens(cast), unit.control.weight) for unit in units]
        return replace(self.base, network=partial(self.image_prompted, read))  # type: ignore[arg-type]  # all are IP-Adapters


def _total_of(units: Sequence[ControlUnit]) -> Callable[[Tensor, Tensor, Conditioning], Residuals]:
    def total(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Residuals:
        return Residuals.total([unit.residuals(x, timestep, conditioning) for unit in units])

    return total


@dataclass(frozen=True)
class LoadedControls:
    """The controls of a request, ready; their entries for the picture's text, and notes on what has no effect."""

    units: tuple[ControlUnit, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def controlled(
    base: NetworkDenoiser, units: Sequence[ControlUnit], sigmas: Tensor, unet: UNet | MMDiT | None = None
) -> CondDenoiser:
    """The denoiser with controls, itself without any; `sigmas` [steps + 1] are the noise levels of the whole run.
    `unet` is the module that an engine made the denoiser's network of; None where that is the module itself. It is
    what runs where image tokens are read.

    A control acts in step i of n where start <= i / n < end. InvalidRequest where that is no step at all.
    """
    if not units:
        return base
    spans = []
    for unit in units:
        low, high = sigma_interval(sigmas, unit.control.start, unit.control.end)
        # an open end, since samplers may ask for levels around those of the steps
        low, high = low if unit.control.end < 1 else -1.0, high if unit.control.start > 0 else math.inf
        spans.append((low, high, unit))
    image_prompted = None
    if any(isinstance(unit.network, IPAdapter) for unit in units):
        module = base.network if unet is None else unet
        assert isinstance(module, UNet)  # checked when the controls were loaded
        image_prompted = ImagePromptedUNet(module)
    return ControlledDenoiser(base, tuple(spans), image_prompted)


def mark_negative(blend: Blend, uncond: Conditioning) -> tuple[Blend, Conditioning]:
    """The conditionings of a prompt and of a negative prompt, marked as such for the controls."""

    def marked(conditioning: Conditioning, mark: float) -> Conditioning:
        tokens = conditioning.tokens
        return replace(conditioning, negative=torch.full((len(tokens),), mark, device=tokens.device))

    return tuple((marked(cond, 0.0), weight) for cond, weight in blend), marked(uncond, 1.0)

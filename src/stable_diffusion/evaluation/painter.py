"""Paints the pictures that are judged, remembers each, and keeps a record of every order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidRequest, StableDiffusionError
from ..pipeline.generate import generate
from ..pipeline.model import StableDiffusion
from ..pipeline.request import Images, Request

Report = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many): called as work goes on."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One picture: who asked for it and everything that makes it again."""

    section: str
    prompt: str
    seed: int
    settings: Mapping[str, Any]


def silent(what: str, done: int, total: int) -> None:
    """A `Report` that shows nothing."""


@dataclass(eq=False, kw_only=True)
class Painter:
    """Straight pictures [C,H,W] from 0 to 1 as floats, by prompt, seed and settings; each is painted once."""

    model: StableDiffusion
    report: Report = silent
    orders: list[Order] = field(default_factory=list)
    overflowed: int = 0
    _done: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def paint(self, section: str, prompt: str, seed: int, **settings: Any) -> Tensor:
        """One picture [C,H,W]; mid-grey where the model's numbers overflowed, which is counted."""
        key = (prompt, seed, tuple(sorted(settings.items())))
        if key not in self._done:
            self.orders.append(Order(section=section, prompt=prompt, seed=seed, settings=settings))
            self._done[key] = self._painted(prompt, seed, settings)
        return self._done[key]

    def paint_all(self, section: str, prompts: Sequence[str], seeds: Sequence[int], **settings: Any) -> Tensor:
        """[N,C,H,W], one picture per prompt and seed, with progress."""
        pictures = []
        for done, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            self.report(section, done, len(prompts))
            pictures.append(self.paint(section, prompt, seed, **settings))
        self.report(section, len(prompts), len(prompts))
        return torch.stack(pictures)

    def _painted(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        try:
            return straight(self.model, prompt, seed, **settings)[0]
        except InvalidRequest:
            raise
        except StableDiffusionError:  # what `generate` raises for numbers that are not finite
            self.overflowed += 1
            request = self.model.defaults
            width, height = settings.get("width", request.width), settings.get("height", request.height)
            return torch.full((self.model.parts.vae.config.image_channels, height, width), 0.5)


def straight(
    model: StableDiffusion, prompt: str, seed: int, *, count: int = 1, batch: int | None = None, **settings: Any
) -> Tensor:
    """[count,C,H,W] from 0 to 1: the pictures of seeds seed, seed + 1, ... before rounding to 8 bits."""
    request = Request(prompt, seed=seed, count=count, **settings)
    events = generate(model, request, output="straight", batch=batch)
    parts = [event.tensor for event in events if isinstance(event, Images)]
    return torch.cat([part for part in parts if part is not None])


def eight_bit(pictures: Tensor) -> bytes:
    """The pixels as they are saved: what equality of pictures means."""
    return bytes((pictures.clamp(0, 1) * 255).round().to(torch.uint8).numpy().tobytes())

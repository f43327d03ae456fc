"""Paints the pictures that are judged, remembers each, and keeps a record of every order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidRequest, StableDiffusionError
from ..events import Images
from ..pipeline.generate import generate
from ..pipeline.models import StableDiffusion
from ..request.request import Request

Report = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many): called as work goes on."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request: who asked for it and everything that makes it again."""

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
    """How many of the orders held numbers that are not finite."""
    _done: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def paint(self, section: str, prompt: str, seed: int, **settings: Any) -> Tensor:
        """One picture [C,H,W]; mid-grey where the model's numbers overflowed, which is counted."""
        key = (prompt, seed, tuple(sorted(settings.items())))
        if key not in self._done:
            self.orders.append(Order(section=section, prompt=prompt, seed=seed, settings=settings))
            self._done[key] = self._painted(prompt, seed, **settings)[0]
        return self._done[key]

    def paint_all(self, section: str, prompts: Sequence[str], seeds: Sequence[int], **settings: Any) -> Tensor:
        """[N,C,H,W], one picture per prompt and seed, with progress."""
        pictures = []
        for done, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            self.report(section, done, len(prompts))
            pictures.append(self.paint(section, prompt, seed, **settings))
        self.report(section, len(prompts), len(prompts))
        return torch.stack(pictures)

    def repaint(
        self, section: str, prompt: str, seed: int, *, count: int = 1, batch: int | None = None, **settings: Any
    ) -> Tensor:
        """[count,C,H,W] of seeds seed, seed + 1, ..., `batch` at a time; never from memory."""
        together = {} if count == 1 else {"count": count, "batch": batch}
        self.orders.append(Order(section=section, prompt=prompt, seed=seed, settings={**settings, **together}))
        return self._painted(prompt, seed, count=count, batch=batch, **settings)

    def _painted(self, prompt: str, seed: int, *, count: int = 1, **settings: Any) -> Tensor:
        """[count,C,H,W], mid-grey in place of pictures that are not finite."""
        try:
            pictures = straight(self.model, prompt, seed, count=count, **settings)
        except InvalidRequest:
            raise
        except StableDiffusionError:  # what `generate` raises for latents that are not finite
            defaults = self.model.defaults
            width, height = settings.get("width", defaults.width), settings.get("height", defaults.height)
            pictures = torch.full((count, self.model.parts.vae.config.image_channels, height, width), torch.nan)
        finite = pictures.isfinite().flatten(1).all(dim=1)
        self.overflowed += int(not bool(finite.all()))
        return torch.where(finite[:, None, None, None], pictures, 0.5)


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

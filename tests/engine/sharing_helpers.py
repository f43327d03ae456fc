"""Runs that share calls: their engine, what they give, and many of them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from stable_diffusion.engine.sharing.engine import SharingEngine
from stable_diffusion.engine.sharing.mode import ShareMode
from stable_diffusion.engine.torch import TORCH
from stable_diffusion.events import Images
from stable_diffusion.models.unet import UNet
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request


def fixed(rows: int) -> SharingEngine:
    return SharingEngine(TORCH, ShareMode("fixed", rows))


def picture(model: StableDiffusion, request: Request, engine: Any) -> bytes:
    *_, last = generate(model, request, engine=engine)
    assert isinstance(last, Images)
    return last.images[0].tobytes()


def at_once(jobs: list[Callable[[], Any]], most: int | None = None) -> list[Any]:
    """What the jobs give, in their order; so many threads take them in turn. Errors are given as they are."""
    found: list[Any] = [None] * len(jobs)
    numbers, lock = iter(range(len(jobs))), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                found[number] = jobs[number]()
            except Exception as error:
                found[number] = error

    running = [threading.Thread(target=work, daemon=True) for _ in range(most or len(jobs))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive(), "a run waits for ever"
    return found


def calls_of(unet: UNet, rows: int, side: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    config = unet.config
    call = {
        "x": torch.randn(rows, config.in_channels, side, side, generator=generator),
        "timestep": torch.rand(rows, generator=generator) * 900,
        "tokens": torch.randn(rows, 9, config.context_dim, generator=generator),
    }
    if config.vector_dim is not None:
        call["vector"] = torch.randn(rows, config.vector_dim, generator=generator)
    return call

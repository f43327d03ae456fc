"""What batching pictures gains on this machine: calls of several pictures together, and as many calls of one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from .measure import Call
from .rows import Row, Side
from .steps import inferring


def calls(quarter: bool, together: int, count: int, side: int) -> Call:
    """Guided calls for `count` pictures, so many together, of the built-in model or one a quarter as wide as SD 1."""
    from stable_diffusion.embedded import MODEL
    from stable_diffusion.models.unet import UNet, UNetConfig
    from stable_diffusion.weights.load import load_parts

    torch.manual_seed(0)
    config = UNetConfig(channels=(96, 160, 320, 320), heads=8) if quarter else load_parts(MODEL).unet.config
    unet, rows = UNet(config).eval(), 2 * together  # type: ignore[arg-type]  # the built-in model is a U-Net
    x = torch.randn(rows, config.in_channels, side, side)
    tokens = torch.randn(rows, 77, config.context_dim)
    vector = None if config.vector_dim is None else torch.randn(rows, config.vector_dim)
    timestep = torch.full((rows,), 500.0)
    return inferring(lambda: [unet(x, timestep, tokens, vector=vector) for _ in range(count // together)])


def rows(quick: bool) -> Iterator[Row]:
    """batching, batching-quarter."""
    kinds = (("batching", False, 12, "the built-in model"), ("batching-quarter", True, 64, "a quarter of SD 1's width"))
    for name, quarter, side, title in kinds:
        if quick and quarter:
            continue
        yield Row(
            name,
            f"Guided calls for four pictures of {title}",
            tuple(Side(f"{n} together", partial(calls, quarter, n, 4, side)) for n in (1, 2, 4)),
            repeats=2 if quick else 5,
        )

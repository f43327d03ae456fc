"""What batching pictures gains on this machine: time of N pictures together over N times one picture alone.

    python benchmarks/batching.py [--device cuda] [--threads 2] [--repeats 5]

Below 1.00 a batch is faster. A denoiser call with guidance has two rows a picture, as in `generate`. Together and alone
take turns, and medians are compared, so that other work on the machine weighs on both alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from stable_diffusion.embedded import MODEL
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.weights.load import load_parts

SHAPES = {
    "the built-in model, 12x12 latent": (load_parts(MODEL).unet.config, 12),
    "Stable Diffusion 1 at a quarter of the width, 64x64 latent": (
        UNetConfig(channels=(96, 160, 320, 320), heads=8),
        64,
    ),
}


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def ratio(config: UNetConfig, side: int, count: int, device: torch.device, repeats: int) -> tuple[float, float]:
    """(seconds of one picture's call, time of `count` pictures together over `count` calls)."""
    torch.manual_seed(0)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    unet = UNet(config).eval().to(device, dtype)

    def rows(pictures: int) -> Callable[[], object]:
        x = torch.randn(2 * pictures, config.in_channels, side, side, device=device, dtype=dtype)
        tokens = torch.randn(2 * pictures, 77, config.context_dim, device=device, dtype=dtype)
        width = config.vector_dim
        vector = None if width is None else torch.randn(2 * pictures, width, device=device, dtype=dtype)
        timestep = torch.full((2 * pictures,), 500.0, device=device)
        return lambda: unet(x, timestep, tokens, vector=vector)

    one, together = rows(1), rows(count)
    seconds(one, device), seconds(together, device)
    pairs = [(sum(seconds(one, device) for _ in range(count)), seconds(together, device)) for _ in range(repeats)]
    alone, batched = (statistics.median(times) for times in zip(*pairs, strict=True))
    return alone / count, batched / alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own choice)")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    for name, (config, side) in SHAPES.items():
        for count in (2, 4):
            alone, together = ratio(config, side, count, device, given.repeats)
            line = f"{name}: {count} together / alone = {together:.2f} (one call {alone * 1000:.0f} ms)\n"
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()

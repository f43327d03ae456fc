"""How far a model's pictures in 8 bits are from its own, and which of its layers lose most.

The model denoises a few prompts with its own settings. On the way each layer that would be computed in 8 bits is also
computed so from the same input, and what its output loses is added up; the layers that lose most can then be kept in
the precision of the weights. Distances are peak signal-to-noise ratios (PSNR, in decibels) over whole runs, from the
first noise to the picture, so that what adds up from step to step is in them.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..atomic import whole_file
from ..engine.base import Engine
from ..engine.choose import engine_named
from ..engine.int8 import Int8Engine, kept_path
from ..engine.int8_layers import can_quantise, quantised
from ..engine.torch import TORCH
from ..events import Images
from ..pipeline.generate import decode, generate
from ..pipeline.models import StableDiffusion
from ..pipeline.prepare import prepare
from ..request.request import Request

PROMPTS = ("a red apple on a table", "a portrait of an old man", "mountains at sunset")
"""What is denoised where nothing else is asked for."""
KEPT = 0.05
"""Share of the layers that a calibration keeps in the precision of the weights."""


@dataclass(frozen=True)
class Calibration:
    """Distances of pictures in 8 bits from those in the precision of the weights.

    lost            layer -> error of its output in 8 bits, relative to the output, worst first
    kept            the layers that stay in the precision of the weights
    latents         PSNR of the finished latents, in dB, with those layers kept
    pictures        PSNR of the pictures, in dB
    pictures_all    the same with every layer in 8 bits
    """

    lost: dict[str, float]
    kept: tuple[str, ...]
    latents: float
    pictures: float
    pictures_all: float


def calibrate(
    model: StableDiffusion,
    prompts: Sequence[str] = PROMPTS,
    *,
    steps: int = 4,
    share: float = KEPT,
    width: int | None = None,
    height: int | None = None,
) -> Calibration:
    """Measure a model in 8 bits on its own denoising, and have the layers that lose most kept from now on.

    What is kept is written into the user's cache folder, where every later run with `dtype="int8"` finds it.
    InvalidRequest where this machine cannot compute in 8 bits.
    """
    engine = engine_named("torch", "int8")
    assert isinstance(engine, Int8Engine)
    size = {name: value for name, value in (("width", width), ("height", height)) if value is not None}
    requests = [Request(prompt, steps=steps, seed=number, **size) for number, prompt in enumerate(prompts)]  # type: ignore[arg-type]  # sizes are numbers
    with _losses(model.parts.unet) as lost:
        plain = _latents(model, requests, TORCH)
    order = dict(sorted(lost().items(), key=lambda item: -item[1]))
    kept = tuple(name for name in list(order)[: math.ceil(share * len(order))] if order[name] > 0)
    engine.keep(model.parts.unet, ())
    everything = _latents(model, requests, engine)
    engine.keep(model.parts.unet, kept)
    most = _latents(model, requests, engine)
    pictures = [_pictures(model, requests, latents) for latents in (plain, most, everything)]
    found = Calibration(
        lost=order,
        kept=kept,
        latents=psnr(plain, most, peak=float(plain.max() - plain.min())),
        pictures=psnr(pictures[0], pictures[1]),
        pictures_all=psnr(pictures[0], pictures[2]),
    )
    with whole_file(kept_path(model.parts.unet)) as file:
        file.write(json.dumps(asdict(found)).encode())
    return found


def psnr(reference: Tensor, other: Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal tensors."""
    error = float((reference.float() - other.float()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _latents(model: StableDiffusion, requests: Sequence[Request], engine: Engine) -> Tensor:
    """The finished latents [B,c,h,w]."""
    found = []
    for request in requests:
        *_, last = generate(model, request, output="latent", engine=engine)
        assert isinstance(last, Images) and last.tensor is not None
        found.append(last.tensor)
    return torch.cat(found)


def _pictures(model: StableDiffusion, requests: Sequence[Request], latents: Tensor) -> Tensor:
    """The decoded pictures [B,C,H,W] in [0, 1]."""
    plan = prepare(model, requests[0])
    return torch.cat([decode(plan, latent[None]) for latent in latents])


@contextmanager
def _losses(network: nn.Module) -> Iterator[Callable[[], Mapping[str, float]]]:
    """What each layer's output would lose in 8 bits over the calls inside the block, by calling what is given."""
    errors: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    handles = []

    def listen(name: str, layer: nn.Module) -> None:
        other = quantised(layer)

        def compare(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            errors[name] += float((other(*arguments).float() - output.float()).square().sum())
            sizes[name] += float(output.float().square().sum())

        handles.append(layer.register_forward_hook(compare))

    for name, layer in network.named_modules():
        if can_quantise(layer):
            listen(name, layer)
    try:
        yield lambda: {name: math.sqrt(errors[name] / max(sizes[name], 1e-30)) for name in errors}
    finally:
        for handle in handles:
            handle.remove()

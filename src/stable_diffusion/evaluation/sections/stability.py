"""Stability: equal requests give equal bytes, numbers stay finite, small changes of settings change little."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...data.similarity import over_white, psnr, ssim
from ...engine.precision import DTYPES
from ...errors import StableDiffusionError
from ...pipeline.models import BUILT_IN, StableDiffusion
from ...weights.containers.packing import pack, unpack
from ..again import Repainted, repaint
from ..bench import Bench
from ..painter import eight_bit, straight
from ..report import Equality, Sensitivity, Stability
from .diversity import PROMPTS

BATCH = 3
EXTREMES: tuple[Mapping[str, Any], ...] = (
    {"steps": 1},
    {"steps": 2},
    {"guidance": 0.0},
    {"guidance": 1.0},
    {"guidance": 30.0},
)


def measure(bench: Bench, restarted: Repainted | None) -> Stability:
    """`restarted` is the first prompt at the plan's seed, painted by another process (None where that is not known)."""
    equalities = [*_batches(bench), *_threads(bench)]
    if restarted is not None:
        first = bench.painter.paint("stability", PROMPTS[0], bench.plan.seed)
        equalities.append(equality("a new process", eight_bit(first), restarted.pixels))
    before = bench.painter.overflowed
    for settings in EXTREMES:
        bench.painter.paint("extreme settings", PROMPTS[0], bench.plan.seed, **settings)
    extreme = bench.painter.overflowed - before
    return Stability(
        equalities=tuple(equalities),
        extremes=len(EXTREMES),
        extremes_not_finite=extreme,
        sensitivity=tuple(_sensitivity(bench)),
        pictures=len(bench.painter.orders),
        not_finite=bench.painter.overflowed,
    )


def order_of(bench: Bench) -> dict[str, Any] | None:
    """The first prompt as an order for another process; None for a model that was built in code."""
    source, model = bench.model.parts.source, bench.model
    if source is None:
        return None
    return {
        "model": model.name if model.name in BUILT_IN else str(source.path),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "prompt": PROMPTS[0],
        "seed": bench.plan.seed,
        "settings": dataclasses.asdict(model.defaults),  # which may be others than the file's
    }


def restart(bench: Bench) -> Repainted | None:
    """The first prompt from another process, or None where that cannot be done."""
    order, what = order_of(bench), "restart, peak memory and loading time"
    if order is None:
        bench.skip(what, "the model is not read from a file, so no other process can load it")
        return None
    bench.painter.report("painting in a new process", 0, 1)
    try:
        return repaint(order)
    except StableDiffusionError as error:
        bench.skip(what, str(error))
        return None


def _batches(bench: Bench) -> Iterator[Equality]:
    """Pictures of one request, and of one tensor, against the same pictures made alone."""
    seed, prompt = bench.plan.seed, PROMPTS[0]
    alone = eight_bit(torch.stack([bench.painter.paint("stability", prompt, seed + k) for k in range(BATCH)]))
    bench.painter.report("batches", 0, 2)
    one_by_one = bench.painter.repaint("stability", prompt, seed, count=BATCH)
    yield equality(f"{BATCH} pictures in one request", alone, eight_bit(one_by_one))
    bench.painter.report("batches", 1, 2)
    together = bench.painter.repaint("stability", prompt, seed, count=BATCH, batch=BATCH)
    yield equality(f"{BATCH} pictures denoised together", alone, eight_bit(together))


def _threads(bench: Bench) -> Iterator[Equality]:
    """Other numbers of threads; a GPU does its work without them."""
    if bench.model.device.type != "cpu":
        bench.skip("byte equality over thread counts", "the model runs on a GPU")
        return
    usual = eight_bit(bench.painter.paint("stability", PROMPTS[0], bench.plan.seed))
    for count in (1, 2, 4):
        bench.painter.report("thread counts", count, 4)
        with threads(count):
            again = eight_bit(bench.painter.repaint("stability", PROMPTS[0], bench.plan.seed))
        yield equality(f"{count} thread{'s' if count > 1 else ''}", usual, again)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch works with so many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def equality(what: str, first: bytes, second: bytes) -> Equality:
    """Compare two pictures' bytes; pictures of other sizes differ by 255."""
    if len(first) != len(second):
        return Equality(what=what, equal=False, largest=255)
    a, b = (torch.frombuffer(bytearray(pixels), dtype=torch.uint8).int() for pixels in (first, second))
    largest = int((a - b).abs().max()) if len(a) else 0
    return Equality(what=what, equal=largest == 0, largest=largest)


def _sensitivity(bench: Bench) -> Iterator[Sensitivity]:
    """Every change of one setting, against the model's own."""
    prompts, seed = PROMPTS[: bench.plan.sensitive], bench.plan.seed
    usual = torch.stack([bench.painter.paint("sensitivity", prompt, seed) for prompt in prompts])
    for setting, value in _changes(bench):
        name = f"{setting} {value}"
        pictures = bench.painter.paint_all(name, prompts, [seed] * len(prompts), **{setting: value})
        yield distance(setting, str(value), pictures, usual)
    for precision in bench.plan.precisions:
        bench.painter.report(f"precision {precision}", 0, len(prompts))
        try:
            model = at_precision(bench.model, precision)
            pictures = torch.cat([straight(model, prompt, seed) for prompt in prompts])
        except (RuntimeError, StableDiffusionError) as error:  # an operation that this machine lacks, or an overflow
            bench.skip(f"precision {precision}", " ".join(str(error).split())[:200])
            continue
        yield distance("precision", precision, pictures, usual)


def _changes(bench: Bench) -> Iterator[tuple[str, Any]]:
    defaults = bench.model.defaults
    for steps in sorted({max(1, defaults.steps // 2), defaults.steps - 1, defaults.steps * 2} - {0, defaults.steps}):
        yield "steps", steps
    for sampler in bench.plan.samplers:
        if sampler != defaults.sampler:
            yield "sampler", sampler


def distance(setting: str, value: str, pictures: Tensor, usual: Tensor) -> Sensitivity:
    """Mean PSNR and SSIM over white of pictures [N,C,H,W] against the usual ones."""
    first, second = over_white(pictures), over_white(usual)
    return Sensitivity(
        setting=setting, value=value, psnr=float(psnr(first, second).mean()), ssim=float(ssim(first, second).mean())
    )


def at_precision(model: StableDiffusion, precision: str) -> StableDiffusion:
    """A copy with all networks at another precision; "int8" rounds the weights to it and computes as before."""
    parts = model.parts
    named = {item.name: getattr(parts, item.name) for item in dataclasses.fields(parts)}
    networks: dict[str, Any] = {
        name: _cast(value, precision) for name, value in named.items() if isinstance(value, nn.Module)
    }
    return StableDiffusion.from_parts(dataclasses.replace(parts, **networks), name=model.name)


def _cast(network: nn.Module, precision: str) -> nn.Module:
    twin = copy.deepcopy(network)
    if precision != "int8":
        return twin.to(DTYPES[precision])
    state = unpack(pack(network.state_dict(), "int8"))
    own = twin.state_dict()
    twin.load_state_dict({name: tensor.to(own[name]) for name, tensor in state.items()})
    return twin

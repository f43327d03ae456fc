"""For a machine with a GPU, at most eight minutes: `python -m benchmarks.gpu [--out gpu.json] [--rehearse]`.

    speed     SD 1.5 at 512x512 and SDXL at 1024x1024, 1 and 8 pictures: ours eager and captured, diffusers compiled
    batches   milliseconds of a call of n rows, n = 1 to 16, eager and captured in a CUDA graph
    bits      whether a row is the same bits at other places of a batch, beside other rows, and in other batches

`--rehearse` does the same with tiny networks on the CPU, where nothing is captured or compiled, to try the script. A
part starts only while there is time for it; what was left out is in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LIMIT = 450.0
"""Seconds after which no part starts."""
SIZES = {"sd15": 64, "sdxl": 128}


@dataclass(frozen=True)
class Place:
    """Where and in what precision it runs; `rehearse` means tiny networks."""

    device: str
    rehearse: bool
    started: float

    @property
    def left(self) -> float:
        return LIMIT - (time.perf_counter() - self.started)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def networks(place: Place, family: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(diffusers', ours), on the device; made there, so that gigabytes need not travel."""
    from . import networks as made

    with torch.device("meta"):
        theirs, ours = made._theirs(family, place.rehearse), made._ours(family, place.rehearse)
    for network in (theirs, ours):
        network.to_empty(device=place.device).to(dtype).eval().requires_grad_(False)
        generator = torch.Generator(place.device).manual_seed(0)
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
            if parameter.ndim > 1:
                parameter.mul_(parameter[0].numel() ** -0.5)
    layout = torch.channels_last
    return theirs.to(memory_format=layout), ours.to(memory_format=layout)


def arguments(place: Place, network: Any, family: str, rows: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """A call of our network."""
    generator, config = torch.Generator(place.device).manual_seed(1), network.config

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=place.device, dtype=dtype)

    side = min(side, 8) if place.rehearse else side
    given = {"x": drawn(rows, 4, side, side), "timestep": torch.full((rows,), 500.0, device=place.device)}
    given["tokens"] = drawn(rows, 77, config.context_dim)
    if config.vector_dim is not None:
        given["vector"] = drawn(rows, config.vector_dim)
    return given


def theirs_call(network: Any, given: dict[str, Any]) -> Callable[[], Any]:
    named: dict[str, Any] = {"encoder_hidden_states": given["tokens"], "return_dict": False}
    if "vector" in given:
        wide = network.config.addition_time_embed_dim
        numbers = 6 if given["vector"].shape[1] > 6 * 256 else 1
        pooled = given["vector"][:, : given["vector"].shape[1] - numbers * wide]
        ids = torch.ones(len(pooled), numbers, device=pooled.device, dtype=pooled.dtype)
        named["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
    return lambda: network(given["x"], given["timestep"], **named)[0]


def milliseconds(place: Place, call: Callable[[], Any], repeats: int) -> float:
    call()
    place.wait()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        place.wait()
        times.append(1000 * (time.perf_counter() - start))
    return float(f"{statistics.median(times):.4g}")


def captured(place: Place, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph; itself on a CPU."""
    if place.device != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def speed(place: Place, family: str) -> Iterator[dict[str, Any]]:
    """Guided steps of 1 and 8 pictures, in bfloat16."""
    dtype = torch.bfloat16
    theirs, ours = networks(place, family, dtype)
    compiled = torch.compile(theirs, mode="max-autotune-no-cudagraphs") if place.device == "cuda" else theirs
    for pictures in (1, 8):
        given = arguments(place, ours, family, 2 * pictures, SIZES[family], dtype)
        calls = {"ours, eager": lambda given=given: ours(**given)}
        calls["ours, captured"] = captured(place, calls["ours, eager"])
        calls["diffusers, eager"] = theirs_call(theirs, given)
        if place.left > 150 or place.rehearse:
            calls["diffusers, compiled"] = theirs_call(compiled, given)
        for name, call in calls.items():
            found = milliseconds(place, call, 3 if place.rehearse else 9)
            yield {"family": family, "pictures": pictures, "side": name, "ms": found}


def batches(place: Place, family: str, side: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of n rows."""
    _, ours = networks(place, family, torch.float16)
    for rows in (1, 2, 3, 4, 6, 8, 12, 16)[: 3 if place.rehearse else None]:
        given = arguments(place, ours, family, rows, side, torch.float16)

        def call(given: dict[str, Any] = given) -> Any:
            return ours(**given)

        eager, graph = milliseconds(place, call, 5), milliseconds(place, captured(place, call), 5)
        yield {"family": family, "latent": side, "rows": rows, "eager_ms": eager, "captured_ms": graph}


def bits(place: Place, family: str) -> Iterator[dict[str, Any]]:
    """For both half precisions: is a row the same bits elsewhere in the batch, beside others, among fewer or more?"""
    for dtype in (torch.float16, torch.bfloat16):
        _, ours = networks(place, family, dtype)
        given = arguments(place, ours, family, 8, 64, dtype)

        def answer(
            rows: list[int], given: dict[str, Any] = given, ours: Any = ours, dtype: torch.dtype = dtype
        ) -> torch.Tensor:
            found: torch.Tensor = ours(**{name: each[rows] for name, each in given.items()})
            return found

        alone = answer([0])[0]
        same = {
            "other place": torch.equal(answer([1, 2, 3, 0])[3], answer([0, 1, 2, 3])[0]),
            "other neighbours": torch.equal(answer([0, 4, 5, 6])[0], answer([0, 1, 2, 3])[0]),
        }
        same |= {f"{n} rows as alone": torch.equal(answer(list(range(n)))[0], alone) for n in (2, 3, 4, 8)}
        yield {"family": family, "dtype": str(dtype).removeprefix("torch."), "same": same}


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--out", type=Path, help="file of results (printed too)")
    options = parser.parse_args(given)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here; --rehearse tries the script on the CPU")
    place = Place("cpu" if options.rehearse else "cuda", options.rehearse, time.perf_counter())
    parts: list[tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = [
        ("bits", lambda: bits(place, "sd15")),
        ("speed", lambda: speed(place, "sd15")),
        ("speed", lambda: speed(place, "sdxl")),
        ("batches", lambda: batches(place, "sd15", 64)),
        ("batches", lambda: batches(place, "sd15", 128)),
        ("bits", lambda: bits(place, "sdxl")),
        ("batches", lambda: batches(place, "sdxl", 128)),
    ]
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if place.device == "cuda" else "rehearsal"}
    found |= {"torch": torch.__version__, "left_out": []}
    for name, part in parts:
        try:
            with torch.inference_mode():
                for row in part():
                    found.setdefault(name, []).append(row)
                    sys.stdout.write(f"{name} {json.dumps(row)}\n")
                    if place.left < 0:
                        break
        except (RuntimeError, torch.OutOfMemoryError) as error:
            found["left_out"].append(f"{name}: {str(error).splitlines()[0]}")
        if options.out is not None:  # after every part, in case the machine is taken away
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"left out: {found['left_out'] or 'nothing'}; {time.perf_counter() - place.started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

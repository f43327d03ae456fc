"""Shared network calls: rows do not see each other, bits do not depend on the load, and nobody waits for the gone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file
from sharing_helpers import at_once, calls_of, fixed, picture
from torch import nn

from stable_diffusion import SAMPLERS, load
from stable_diffusion.engine.sharing.engine import SharingEngine, shared
from stable_diffusion.engine.sharing.mode import ShareMode
from stable_diffusion.engine.torch import TORCH, TorchEngine
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.unet import UNet
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request
from stable_diffusion.runner import LocalRunner

SMALL = {"width": 32, "height": 32}


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fast() -> StableDiffusion:
    return load("embedded-fast")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", ["like Stable Diffusion", "built-in"])
def test_a_row_depends_on_the_number_of_rows_alone(
    name: str, count: int, tiny_unet: UNet, fast: StableDiffusion, threads: Callable[[int], None]
) -> None:
    """Its place and what stands beside it, numbers that are no numbers among them, change no bit of it."""
    threads(count)
    unet = tiny_unet if name.startswith("like") else fast.parts.unet
    assert isinstance(unet, UNet)
    with torch.no_grad():
        for rows in (2, 5):
            call = calls_of(unet, rows)
            known = unet(**call)
            turned = unet(**{key: each.roll(1, 0) for key, each in call.items()})
            assert torch.equal(turned, known.roll(1, 0))
            other = {key: each.clone() for key, each in call.items()}
            other["x"][1:] = float("nan")
            other["tokens"][1:] *= 100
            assert torch.equal(unet(**other)[0], known[0])


def test_where_places_differ_a_row_is_computed_by_itself(tiny_unet: UNet) -> None:
    """Whatever this machine's products do with odd sizes, bits depend on no neighbour."""

    def run(number: int, engine: SharingEngine) -> torch.Tensor:
        x, timestep, tokens = calls_of(tiny_unet, 2 + number % 2, 6).values()
        with torch.no_grad():
            found: torch.Tensor = engine.network(tiny_unet, "denoiser")(x + number, timestep, tokens)
        return found

    engine = fixed(5)
    found = at_once([lambda number=number: run(number, engine) for number in range(6)])
    assert all(torch.equal(each, run(number, fixed(5))) for number, each in enumerate(found))


def test_every_sampler_goes_through_the_rendezvous(tiny_model: StableDiffusion) -> None:
    """All at once, each with other steps, seed and guidance, as each in a rendezvous of its own."""
    guidances = itertools.cycle([1.0, 3.0, 7.5])
    requests = [
        Request("a cat", sampler=name, steps=2 + index % 2, seed=index, guidance=next(guidances), **SMALL)
        for index, name in enumerate(SAMPLERS)
    ]
    engine = fixed(8)
    found = at_once([lambda each=each: picture(tiny_model, each, engine) for each in requests], 8)
    alone = fixed(8)
    assert found == [picture(tiny_model, each, alone) for each in requests]
    assert engine.rendezvous.rows > 2 * engine.rendezvous.calls  # they did meet


@pytest.mark.parametrize("name", ["like Stable Diffusion", "built-in"])
def test_a_fixed_number_gives_the_same_bytes_in_every_order_and_load(
    name: str, tiny_model: StableDiffusion, fast: StableDiffusion, threads: Callable[[int], None]
) -> None:
    model, size = (tiny_model, SMALL) if name.startswith("like") else (fast, {"width": 64, "height": 64})
    samplers = ("euler", "heun", "dpmpp_2m", "euler_a", "ddim")
    requests = [
        Request(
            f"a cat {index}", sampler=samplers[index], steps=2 + index % 2, seed=index, guidance=1.0 + index, **size
        )
        for index in range(5)
    ]

    def run(order: list[int], most: int) -> list[bytes]:
        engine = fixed(4)
        found = at_once([lambda k=k: picture(model, requests[k], engine) for k in order], most)
        return [found[order.index(k)] for k in range(len(requests))]

    known = run([0, 1, 2, 3, 4], 1)
    assert len(set(known)) == 5
    for count, order, most in ((1, [4, 2, 0, 3, 1], 5), (2, [3, 4, 1, 0, 2], 3), (2, [0, 1, 2, 3, 4], 1)):
        threads(count)
        assert run(order, most) == known
        assert torch.get_num_threads() == count


def test_a_call_of_more_rows_than_the_fixed_number_is_parted(tiny_model: StableDiffusion) -> None:
    request = Request("a cat", steps=2, seed=5, count=3, **SMALL)
    *_, several = generate(tiny_model, request, engine=fixed(4), batch=3)  # six rows a call
    alone = picture(tiny_model, request.single(1), fixed(4))
    assert several.images[1].tobytes() == alone


def test_alone_is_the_engine_itself_and_free_by_itself_gives_its_bytes(tiny_model: StableDiffusion) -> None:
    assert shared(TORCH, ShareMode.parse("alone")) is TORCH
    assert LocalRunner(share="alone").together == LocalRunner().most_together == 1
    request = Request("a cat", seed=2, **SMALL)
    engine = SharingEngine(TORCH, ShareMode.parse("free"))
    assert engine.together == 1  # not measured yet
    assert picture(tiny_model, request, engine) == picture(tiny_model, request, TORCH)
    assert engine.together >= 1 and engine.rendezvous.rows == engine.rendezvous.calls * 2


def test_the_mode_is_in_the_picture(tiny_model: StableDiffusion) -> None:
    def text(engine: Any) -> str:
        *_, last = generate(tiny_model, Request("a cat", steps=1, **SMALL), engine=engine)
        return str(last.images[0].info["parameters"])

    assert "Sharing: fixed 4" in text(fixed(4))
    assert "Sharing: free" in text(SharingEngine(TORCH, ShareMode("free")))
    assert "Sharing" not in text(TORCH)


@pytest.mark.parametrize("mode", ["fixed:8", "free"])
def test_one_that_is_cancelled_holds_nobody_up(mode: str, tiny_model: StableDiffusion) -> None:
    engine = SharingEngine(TORCH, ShareMode.parse(mode))

    def cancelled() -> str:
        events = generate(tiny_model, Request("a dog", steps=50, **SMALL), engine=engine)
        next(events), next(events)
        events.close()
        return "closed"

    whole = [Request("a cat", steps=6, seed=seed, **SMALL) for seed in range(3)]
    began = time.monotonic()
    jobs = [cancelled, *(lambda each=each: picture(tiny_model, each, engine) for each in whole)]
    found = at_once(jobs)
    assert found[0] == "closed" and time.monotonic() - began < 30
    if mode != "free":
        assert found[1:] == [picture(tiny_model, each, fixed(8)) for each in whole]
    interval = Request("a cat", steps=6, guidance_interval=(0.3, 0.7), **SMALL)
    assert len(at_once([lambda: picture(tiny_model, interval, engine), jobs[1]])[0])


class Failing(TorchEngine):
    """Raises where a row's first number is above the limit."""

    def network(self, module: nn.Module, part: Any) -> Any:
        found = super().network(module, part)

        def run(x: torch.Tensor, *more: Any, **named: Any) -> Any:
            if part == "denoiser" and bool((x > 1e4).any()):
                raise RuntimeError("this one fails")
            time.sleep(0.01)  # so that the others come meanwhile
            return found(x, *more, **named)

        return run


@pytest.mark.parametrize("mode", ["fixed:8", "free"])
def test_the_error_of_one_is_its_own(mode: str, tiny_unet: UNet) -> None:
    engine = SharingEngine(Failing(), ShareMode.parse(mode))

    def call(number: int) -> Any:
        given = calls_of(tiny_unet, 2)
        if number == 2:
            given["x"][0, 0, 0, 0] = 1e5
        x, timestep, tokens = given.values()
        with torch.no_grad():
            return engine.network(tiny_unet, "denoiser")(x, timestep, tokens)

    found = at_once([lambda number=number: call(number) for number in range(6)])
    assert str(found[2]) == "this one fails"
    assert all(isinstance(each, torch.Tensor) for index, each in enumerate(found) if index != 2)
    assert isinstance(call(0), torch.Tensor)  # and the rendezvous goes on


def test_runs_share_where_their_weights_are_equal(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file(lora_state(tiny_model, ALL, kohya), path)
    requests = [
        Request("a cat", steps=4, seed=3, loras=loras, **SMALL)
        for loras in ([(path, 0.9)], [(path, 0.9)], [(path, 0.5)], [])
    ]
    engine = fixed(4)
    found = at_once([lambda each=each: picture(tiny_model, each, engine) for each in requests])
    assert found == [picture(tiny_model, each, fixed(4)) for each in requests]
    assert found[0] == found[1] and len(set(found)) == 3
    with torch.no_grad():
        first = engine.network(tiny_model.parts.unet, "denoiser")
    assert first.module is tiny_model.parts.unet


def test_what_cannot_be_shared_runs_alone_and_says_so(tiny_model: StableDiffusion) -> None:
    request = Request("a cat", steps=1, seed=4, canvas={"tiling": "both"}, **SMALL)
    *_, last = generate(tiny_model, request, engine=fixed(4))
    assert any("shares no network calls" in note for note in last.notes)
    assert "Sharing" not in last.images[0].info["parameters"]
    assert last.images[0].tobytes() == picture(tiny_model, request, TORCH)

    class RowByRow(TorchEngine):
        """As OpenVINO, which computes a row at a time at one shape."""

        name, one_row = "row by row", True

    *_, last = generate(
        tiny_model, Request("a cat", steps=1, **SMALL), engine=SharingEngine(RowByRow(), ShareMode("free"))
    )
    assert any("one row at a time" in note for note in last.notes)


@pytest.mark.parametrize("text", ["", "fixed", "fixed:0", "fixed:65", "FREE", "fixed:-1", "shared"])
def test_a_mode_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected alone, free, or fixed:N"):
        ShareMode.parse(text)
    assert str(ShareMode.parse("fixed:8")) == "fixed 8" and ShareMode.parse("fixed 8").rows == 8

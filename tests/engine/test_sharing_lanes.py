"""Lanes: calls side by side, of one thread each, where that costs less or bits must not depend on threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from sharing_helpers import at_once, calls_of, fixed, picture
from torch import nn

from stable_diffusion import load
from stable_diffusion.engine.sharing import cap, rendezvous
from stable_diffusion.engine.sharing.cap import Pays, what_pays
from stable_diffusion.engine.sharing.engine import SharingEngine
from stable_diffusion.engine.sharing.mode import ShareMode
from stable_diffusion.engine.threads import keep_threads, with_threads
from stable_diffusion.engine.torch import TorchEngine
from stable_diffusion.models.unet import UNet
from stable_diffusion.request.request import Request


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_pictures_and_side_networks_of_a_fixed_number_do_not_depend_on_threads(
    threads: Callable[[int], None],
) -> None:
    """What is computed by the run itself as well: the words, the given picture."""
    fast = load("embedded-fast")
    given = Image.effect_noise((64, 64), 80).convert("RGB")
    request = Request("a cat", image=given, strength=0.6, steps=3, seed=1, width=64, height=64)
    known = picture(fast, request, fixed(4))
    threads(2)
    assert picture(fast, request, fixed(4)) == known


def test_a_thread_keeps_its_number_to_itself(threads: Callable[[int], None]) -> None:
    threads(2)
    counts: list[int] = []

    def other() -> None:
        keep_threads(1)
        counts.append(torch.get_num_threads())

    def later() -> None:
        counts.append(torch.get_num_threads())

    def numbers() -> Generator[int, None, None]:
        yield torch.get_num_threads()
        yield torch.get_num_threads()

    for each in (other, later):
        thread = threading.Thread(target=each)
        thread.start()
        thread.join()
    assert counts == [1, 2] and torch.get_num_threads() == 2
    stream = with_threads(numbers(), 1)
    assert (next(stream), torch.get_num_threads(), next(stream)) == (1, 2, 1)
    assert list(stream) == []


class Met(TorchEngine):
    """Notes of each call of the denoising network its rows, torch's threads, and how many calls go on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.now = self.most = 0
        self.two = threading.Event()

    def network(self, module: nn.Module, part: Any) -> Any:
        found = super().network(module, part)

        def run(x: torch.Tensor, *more: Any, **named: Any) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            self.seen.append((len(x), torch.get_num_threads()))
            if self.now > 1:
                self.two.set()
            self.two.wait(0.05)
            try:
                return found(x, *more, **named)
            finally:
                self.now -= 1

        return run if part == "denoiser" else found


def test_runs_that_gain_by_it_are_computed_side_by_side(
    tiny_unet: UNet, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run alone has all threads; several have lanes of one each, and share each lane's calls."""
    threads(2)
    monkeypatch.setattr(rendezvous, "what_pays", lambda call, first, lanes: Pays(8, apart=lanes == 2))
    inner = Met()
    engine = SharingEngine(inner, ShareMode("free"))

    def run(calls: int) -> None:
        x, timestep, tokens = calls_of(tiny_unet, 2).values()
        network = engine.network(tiny_unet, "denoiser")
        with torch.no_grad():
            for _ in range(calls):
                network(x, timestep, tokens)

    run(2)
    assert set(inner.seen) == {(2, 2)} and engine.together == 8 and inner.most == 1
    inner.seen.clear()
    at_once([lambda: run(12)] * 4)
    assert inner.most == 2 and inner.two.is_set()
    assert (4, 1) in inner.seen and max(rows for rows, _ in inner.seen) <= 8


def test_rows_are_added_while_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "thread_time", lambda: now[0])

    def pays(seconds: Callable[[int], float], first: int = 1, lanes: int = 1) -> Pays:
        def call(rows: int) -> None:
            now[0] += seconds(rows)

        return what_pays(call, first, lanes)

    assert pays(lambda rows: 0.1 * rows) == Pays(1)  # nothing is gained
    assert pays(lambda rows: 0.1 + 0.1 * rows, 2) == Pays(8)  # 0.15, 0.125, 0.1125, 0.10625: less than a tenth
    assert pays(lambda rows: 1.0) == Pays(32)


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        (lambda rows: 0.02 * rows + 0.04, Pays(8, apart=True)),  # no more rows than 16 runs need in two lanes
        (lambda rows: 0.02 * rows + 0.002, Pays(2, apart=True)),  # a row is cheap at once
        (lambda rows: 0.03 * rows, Pays(4)),
    ],
)
def test_calls_are_computed_side_by_side_where_that_costs_less(
    apart: Callable[[int], float], expected: Pays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together a row costs 0.045, 0.0275 and from eight rows on 0.04."""

    def together(call: Callable[[int], object], rows: int) -> float:
        return 0.04 * rows if rows > 4 else 0.01 * rows + 0.07

    def beside(call: Callable[[int], object], rows: int, lanes: int) -> float:
        assert lanes == 2
        return apart(rows)

    monkeypatch.setattr(cap, "_seconds", together)
    monkeypatch.setattr(cap, "_seconds_apart", beside)
    assert what_pays(lambda rows: None, 2, 2) == expected

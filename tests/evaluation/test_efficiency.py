"""Efficiency: operations counted exactly, seconds of a clock that the test turns, memory that a process surely held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evaluation_fakes import FakePainter, identity_autoencoder, picture_of
from torch import Tensor, nn
from torch.nn import functional as F

from stable_diffusion.evaluation.again import Repainted
from stable_diffusion.evaluation.bench import Bench, Plan
from stable_diffusion.evaluation.sections import efficiency
from stable_diffusion.evaluation.sections.efficiency import count_flops, measure, peak_flops


def test_operations_of_known_layers() -> None:
    """Two for every multiplication with its addition; biases and norms are not counted."""
    linear, x = nn.Linear(7, 11), torch.zeros(3, 7)
    assert count_flops(lambda: linear(x)) == 2 * 3 * 7 * 11
    convolution, picture = nn.Conv2d(5, 6, 3, padding=1), torch.zeros(2, 5, 9, 10)
    assert count_flops(lambda: convolution(picture)) == 2 * 2 * 6 * 9 * 10 * 5 * 3 * 3
    query, key = torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 6, 8)
    attention = count_flops(lambda: F.scaled_dot_product_attention(query, key, key))
    assert attention == 2 * (2 * 4 * 6 * 8) + 2 * (2 * 4 * 6 * 8)
    assert count_flops(lambda: None) == 0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_every_number_of_the_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """A painter that takes 9 s at first and then 2, 4 and 3 s, each with one matrix product of 1000 operations."""
    clock, durations = Clock(), iter([9.0, 2.0, 4.0, 3.0, 50.0])
    monkeypatch.setattr(efficiency, "time", clock)
    monkeypatch.setattr(efficiency, "peak_flops", lambda device, dtype: 4000.0)

    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        clock.now += next(durations)
        torch.mm(torch.zeros(10, 5), torch.zeros(5, 10))
        return picture_of(prompt)

    model = identity_autoencoder()
    model.parts.latents = SimpleNamespace(channels=4)
    model.text_encoder = SimpleNamespace(encode=lambda prompt: torch.mm(torch.zeros(2, 3), torch.zeros(3, 4)))
    model.image_decoder = SimpleNamespace(straight=lambda latent: F.conv2d(latent, torch.zeros(3, 4, 1, 1)))
    bench = Bench(painter=FakePainter(make, model), plan=Plan(timed=3))
    restarted = Repainted(pixels=b"", load_seconds=1.5, seconds=2.0, peak_memory=123_456)
    found = measure(bench, restarted)
    assert found.seconds == 3.0 and found.timed == 3 and found.steps == 2  # the median, without the first
    assert found.flops == 1000 and found.flops_text == 2 * 2 * 3 * 4 and found.flops_decoder == 2 * 3 * 4 * 8 * 8
    assert found.peak_flops == 4000.0 and found.share == 1000 / 3.0 / 4000
    assert (found.load_seconds, found.peak_memory) == (1.5, 123_456)
    durations = iter([1.0] * 5)
    alone = measure(bench, None)
    assert alone.load_seconds is None and alone.peak_memory is None


def test_peak_is_that_of_the_best_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, durations = Clock(), iter([5.0, 0.5, 2.0])
    monkeypatch.setattr(efficiency, "time", clock)

    def product(left: Tensor, right: Tensor) -> Tensor:
        clock.now += next(durations)
        return left

    monkeypatch.setattr(efficiency.torch, "mm", product)
    assert peak_flops(torch.device("cpu"), torch.float32, side=4) == 2 * 4**3 / 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_peak_memory_counts_what_was_held_and_let_go() -> None:
    """A new process that touches 400 MiB: more than importing needed, and no more on top of that."""
    script = (
        "import json, sys\nfrom stable_diffusion.evaluation.again import peak_memory\nimport torch\n"
        "before = peak_memory()\nx = torch.ones(100 * 2**20)\ndel x\njson.dump([before, peak_memory()], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert max(before, 400 * 2**20) < after < before + 410 * 2**20

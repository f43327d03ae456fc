"""Stability: what is unequal, not finite or far away is reported so, on a painter and on a real tiny model."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from evaluation_fakes import GREY, SIDE, FakePainter, failing, identity_autoencoder, obedient
from torch import Tensor

from stable_diffusion.data.similarity import CEILING
from stable_diffusion.errors import StableDiffusionError
from stable_diffusion.evaluation.again import Repainted
from stable_diffusion.evaluation.bench import QUICK, Bench, Plan
from stable_diffusion.evaluation.painter import Painter, eight_bit
from stable_diffusion.evaluation.report import Equality
from stable_diffusion.evaluation.sections import stability
from stable_diffusion.evaluation.sections.efficiency import measure as measure_efficiency
from stable_diffusion.evaluation.sections.stability import at_precision, distance, equality, measure, restart
from stable_diffusion.pipeline.models import StableDiffusion

PLAN = Plan(sensitive=2, samplers=("heun",), precisions=())
FLAT = torch.full((4, SIDE, SIDE), GREY)


def bench(make: Any, plan: Plan = PLAN) -> Bench:
    return Bench(painter=FakePainter(make), plan=plan)


def equalities(make: Any, restarted: Repainted | None = None) -> dict[str, Equality]:
    return {item.what: item for item in measure(bench(make), restarted).equalities}


def repainted(picture: Tensor) -> Repainted:
    return Repainted(pixels=eight_bit(picture), load_seconds=1.0, seconds=1.0, peak_memory=None)


def test_a_painter_that_always_does_the_same() -> None:
    found = equalities(obedient, repainted(obedient(stability.PROMPTS[0], 0, {})))
    assert len(found) == 6 and all(item.equal and item.largest == 0 for item in found.values())


def test_an_unequal_batch_is_reported_unequal() -> None:
    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        return FLAT + (7 / 255 if settings["count"] > 1 and settings.get("batch") else 0.0)

    found = equalities(make)
    assert found["3 pictures in one request"] == Equality(what="3 pictures in one request", equal=True, largest=0)
    assert found["3 pictures denoised together"].largest == 7 and not found["3 pictures denoised together"].equal
    assert all(found[name].equal for name in ("1 thread", "2 threads", "4 threads"))
    assert "a new process" not in found


def test_threads_and_restarts_that_differ_are_reported() -> None:
    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        return FLAT + (3 / 255 if torch.get_num_threads() == 4 else 0.0)

    with stability.threads(2):
        found = equalities(make, repainted(FLAT + 5 / 255))
    assert found["1 thread"].equal and found["2 threads"].equal and found["4 threads"].largest == 3
    assert found["a new process"].largest == 5 and not found["a new process"].equal


def test_equality_of_bytes() -> None:
    assert equality("a", b"\x01\x05", b"\x01\x05") == Equality(what="a", equal=True, largest=0)
    assert equality("a", b"\x01\x05", b"\x01\x02") == Equality(what="a", equal=False, largest=3)
    assert equality("a", b"\x00\x00", b"\xff\x00").largest == 255
    assert not equality("a", b"\x01", b"").equal


# --- sensitivity ------------------------------------------------------------------------------------------------------


def test_sensitivity_of_known_changes() -> None:
    """A tenth of the whole range is 20 dB; what changes nothing stays at the ceiling, with an SSIM of 1."""

    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        picture = torch.ones(4, SIDE, SIDE)
        picture[:3] = 0.5 + (0.1 if settings.get("sampler") == "heun" else 0.0)
        return picture

    rows = {(row.setting, row.value): row for row in measure(bench(make), None).sensitivity}
    assert set(rows) == {("steps", "1"), ("steps", "4"), ("sampler", "heun")}  # of a model with 2 steps
    assert rows["steps", "1"].psnr == CEILING and math.isclose(rows["steps", "1"].ssim, 1.0, abs_tol=1e-9)
    assert math.isclose(rows["sampler", "heun"].psnr, 20.0, abs_tol=1e-3)
    expected = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    assert math.isclose(rows["sampler", "heun"].ssim, expected, rel_tol=1e-4)
    assert distance("a", "b", FLAT[None], FLAT[None]).psnr == CEILING


def test_precision_of_numbers_that_it_can_hold_changes_nothing(tiny_native_model: StableDiffusion) -> None:
    """bfloat16 holds 8 bits: weights of few bits come through; int8 keeps a row of -127 .. 127 over one scale."""
    model = StableDiffusion.from_parts(copy.deepcopy(tiny_native_model.parts))
    half = at_precision(model, "bfloat16")
    assert half.dtype == torch.bfloat16 and model.dtype == torch.float32
    weight = next(p for p in model.parts.unet.parameters() if p.ndim == 2 and p.numel() >= 4096)
    row = torch.arange(weight[0].numel(), dtype=torch.float32) % 255 - 127
    weight.data = row.expand_as(weight).reshape(weight.shape).clone()
    name = next(name for name, p in model.parts.unet.named_parameters() if p is weight)
    rounded = at_precision(model, "int8").parts.unet.state_dict()
    assert torch.equal(rounded[name], weight.data)


# --- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.fixture
def broken(tiny_native_model: StableDiffusion) -> StableDiffusion:
    """A model whose denoiser makes NaN."""
    parts = copy.deepcopy(tiny_native_model.parts)
    next(parts.unet.parameters()).data.fill_(torch.nan)
    return StableDiffusion.from_parts(parts, name="broken")


def test_a_model_that_makes_nan_is_reported_and_stops_nothing(broken: StableDiffusion) -> None:
    plan = dataclasses.replace(QUICK, sensitive=1, timed=1, samplers=("heun",), precisions=("int8",))
    made = Bench(painter=Painter(model=broken), plan=plan)
    found = measure(made, None)
    assert found.not_finite == found.pictures > 10
    assert found.extremes_not_finite == found.extremes == 5
    assert [item.what for item in made.left_out] == ["precision int8"]
    efficiency = measure_efficiency(made, None)
    assert efficiency.seconds > 0 and efficiency.flops > 0


def test_a_decoder_that_makes_nan_is_reported(tiny_native_model: StableDiffusion) -> None:
    parts = copy.deepcopy(tiny_native_model.parts)
    list(parts.vae.decoder.parameters())[-1].data.fill_(torch.nan)
    painter = Painter(model=StableDiffusion.from_parts(parts, name="broken decoder"))
    picture = painter.paint("here", "a cat", 0)
    assert painter.overflowed == 1 and torch.equal(picture, torch.full_like(picture, 0.5))


def test_only_extreme_settings_fail() -> None:
    """Guidance of 30 overflows, everything else is finite: one of the five."""

    class Overflowing(FakePainter):
        def _painted(self, prompt: str, seed: int, **settings: Any) -> Tensor:
            self.overflowed += settings.get("guidance") == 30.0
            return super()._painted(prompt, seed, **settings)

    found = measure(Bench(painter=Overflowing(obedient), plan=PLAN), None)
    assert (found.not_finite, found.extremes_not_finite, found.extremes) == (1, 1, 5)


def test_a_finite_model_has_none(tiny_native_model: StableDiffusion) -> None:
    painter = Painter(model=tiny_native_model)
    assert painter.repaint("here", "a cat", 3, count=2).shape == (2, 4, 24, 16)
    assert painter.overflowed == 0 and len(painter.orders) == 1


def test_a_restart_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(obedient)
    assert restart(made) is None and "not read from a file" in made.left_out[0].why
    made = Bench(painter=FakePainter(obedient, identity_autoencoder()), plan=PLAN)
    monkeypatch.setattr(stability, "order_of", lambda bench: {"model": "x"})
    monkeypatch.setattr(stability, "repaint", failing)
    assert restart(made) is None and "overflowed" in made.left_out[0].why
    with pytest.raises(StableDiffusionError):
        failing()

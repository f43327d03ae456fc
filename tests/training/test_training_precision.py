from __future__ import annotations

import pytest
import torch
from tiny_training import COMMON

from stable_diffusion.training import precision, stage
from stable_diffusion.training.config import load_config


@pytest.mark.parametrize(("bfloat16", "float32", "fast"), [(1.0, 2.0, True), (50.0, 1.0, False)])
def test_the_quicker_product_decides(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, float32: float, fast: bool
) -> None:
    times = {torch.bfloat16: bfloat16, torch.float32: float32}
    monkeypatch.setattr(precision, "product_seconds", times.__getitem__)
    precision.fast_bfloat16.cache_clear()
    assert precision.fast_bfloat16("cpu") is fast
    precision.fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("setting", "fast", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("float32", True, torch.float32),
    ],
)
def test_precision_of_a_stage(monkeypatch: pytest.MonkeyPatch, setting: str, fast: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(stage, "fast_bfloat16", lambda device: fast)
    config = load_config("vae", overrides={**COMMON, "precision": setting})
    with stage.autocast(torch.device("cpu"), config):
        assert (torch.ones(8, 8) @ torch.ones(8, 8)).dtype == dtype


def test_a_product_takes_time() -> None:
    assert 0 < precision.product_seconds(torch.float32) < 10

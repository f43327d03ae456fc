"""Requests that are to be made as A1111 makes them: how often and where the network is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from painting import speckled
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import parameters_text, parse_parameters
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import Noise

SIZE = {"width": 32, "height": 32}
BASE = Request("a cat", seed=3, steps=4, guidance=3.0, **SIZE)


def calls_of(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[float]:
    """The timesteps that the network is asked for."""
    asked: list[float] = []
    unet = model.denoising_process.unet
    forward = unet.forward

    def counted(x: torch.Tensor, timestep: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        asked.append(float(timestep[0]))
        return forward(x, timestep, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(unet, "forward", counted)
        generate_image("a cat", model=model, seed=1, guidance=1.0, **{**SIZE, **settings})
    return asked


A1111 = {"noise": Noise(compat="a1111")}


@pytest.mark.parametrize(
    ("settings", "ours", "theirs"),
    [
        ({"image": True, "strength": 0.5, "steps": 10, "sampler": "euler"}, 5, 6),
        ({"image": True, "strength": 0.75, "steps": 20, "sampler": "euler_ancestral"}, 15, 16),
        ({"image": True, "strength": 1.0, "steps": 10, "sampler": "euler"}, 10, 10),
        ({"image": True, "strength": 0.5, "steps": 10, "sampler": "ddim"}, 5, 4),
        ({"steps": 10, "sampler": "euler"}, 10, 10),
        ({"steps": 10, "sampler": "ddim"}, 10, 9),
        ({"steps": 7, "sampler": "euler", "schedule": "ddim_uniform"}, 7, 8),
    ],
)
def test_compat_makes_as_many_steps_as_a1111(
    settings: dict[str, Any],
    ours: int,
    theirs: int,
    tiny_model: StableDiffusion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if settings.get("image"):
        settings = {**settings, "image": speckled((32, 32))}
    assert len(calls_of(tiny_model, monkeypatch, **settings)) == ours
    assert len(calls_of(tiny_model, monkeypatch, **settings, **A1111)) == theirs


def test_compat_asks_at_the_timesteps_of_a1111(tiny_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = calls_of(tiny_model, monkeypatch, steps=4, sampler="euler", schedule="sgm_uniform", **A1111)
    assert asked == pytest.approx([999, 749.25, 499.5, 249.75], abs=1e-2)
    assert calls_of(tiny_model, monkeypatch, steps=4, sampler="euler", schedule="sgm_uniform") == [999, 749, 499, 249]
    assert calls_of(tiny_model, monkeypatch, steps=4, sampler="ddim", **A1111) == [751, 501, 251]


def test_a_picture_of_a1111_is_made_its_way_and_says_so() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, Version: v1.10.1"
    theirs = parse_parameters(text).request
    assert theirs.noise.compat == "a1111"
    again = parse_parameters(parameters_text(replace(theirs, count=1))).request
    assert again.noise.compat == "a1111"
    assert parse_parameters(parameters_text(BASE)).request.noise.compat is None
    assert parse_parameters(text.replace("v1.10.1", "ComfyUI")).request.noise.compat is None

"""Names of the last release: they do what they did, and name what to write now."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import stable_diffusion
from stable_diffusion import InvalidRequest, Noise, Progress, Request, generate
from stable_diffusion.diffusion.samplers import SOLVERS
from stable_diffusion.diffusion.sigmas import GRIDS
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.renamed import PROCESS

RUN: dict[str, Any] = {"steps": 2, "seed": 3, "size": (8, 12)}


def last(model: StableDiffusion, **settings: Any) -> torch.Tensor:
    *_, step = model.denoising_process("a cat", **RUN, **settings)
    return step.x


@pytest.mark.parametrize(
    "name", ["order", "calls", "stochastic", "brownian", "paired", "unit", "skips_last", "options"]
)
def test_a_sampler_still_says_what_it_is(name: str) -> None:
    for key, info in stable_diffusion.SAMPLERS.items():
        with pytest.warns(DeprecationWarning, match=rf"SOLVERS\['{key}'\]\.{name};"):
            assert getattr(info, name) == getattr(SOLVERS[key], name)


def test_a_sampler_and_a_schedule_still_have_their_functions() -> None:
    with pytest.warns(DeprecationWarning, match="is now stable_diffusion.diffusion.samplers.SOLVERS"):
        assert stable_diffusion.SAMPLERS["heun"].function is SOLVERS["heun"]  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=r"SAMPLERS\[...\].schedule"):
        assert stable_diffusion.SAMPLERS["dpmpp_2m"].automatic == "karras"  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=r"sigmas.GRIDS\['karras'\]"):
        assert stable_diffusion.SCHEDULES["karras"].levels is GRIDS["karras"]  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=r"grid_options\('karras'\)"):
        assert stable_diffusion.SCHEDULES["karras"].options == ("rho",)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'odrer'"):
        stable_diffusion.SAMPLERS["heun"].odrer  # type: ignore[attr-defined]  # noqa: B018
    assert pickle.loads(pickle.dumps(stable_diffusion.SAMPLERS["heun"])).label == "Heun"


def test_a_preview_can_still_be_called(tiny_model: StableDiffusion) -> None:
    request = Request("a cat", seed=1, steps=2)
    asked = [e.preview for e in generate(tiny_model, request, preview_every=1) if isinstance(e, Progress)]
    for event, picture in zip(generate(tiny_model, request), [*asked, None], strict=True):
        if not isinstance(event, Progress):
            continue
        late: Any = event.preview
        assert not late and pickle.loads(pickle.dumps(event)).preview is None
        with pytest.warns(DeprecationWarning, match="preview_every=1"):
            made = late()
        assert isinstance(made, Image.Image) and picture is not None and made.tobytes() == picture.tobytes()


def test_requests_have_their_old_methods() -> None:
    request = Request("a cat", seed=3, count=2)
    with pytest.warns(DeprecationWarning, match="Request.single"):
        assert request.one(1) == request.single(1)
    with pytest.warns(DeprecationWarning, match="Request.with_changes"):
        assert request.changed(steps=3) == request.with_changes(steps=3)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"windows": SimpleNamespace(height=6, width=6, overlap=2)}, {"window": 6, "overlap": 2}, "window and overlap"),
        ({"sides": ()}, {"controls": ()}, "controls"),
        ({"random": SimpleNamespace(kind="nv", seed_delta=4)}, {"noise": Noise(source="nv", seed_delta=4)}, "noise"),
        ({"windows": None, "random": None, "sides": ()}, {}, "noise"),
    ],
)
def test_the_denoising_process_takes_its_old_keywords(
    tiny_model: StableDiffusion, old: dict[str, Any], new: dict[str, Any], named: str
) -> None:
    with pytest.warns(DeprecationWarning, match=f"is now {named};"):
        made = last(tiny_model, **old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(made, last(tiny_model, **new))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("old", "match"),
    [
        ({"windows": SimpleNamespace(height=4, width=6, overlap=2)}, "windows is 4 x 6 latents; expected a square"),
        ({"windows": 8}, "windows is .*; expected window=SIDE"),
        ({"random": "nv"}, "random is .*; expected noise=Noise"),
    ],
)
def test_an_old_keyword_of_no_use_says_the_new_one(
    tiny_model: StableDiffusion, old: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        last(tiny_model, **old)


READ: dict[str, Callable[[StableDiffusion], object]] = {
    "sampler": lambda model: model.defaults.sampler,
    "noise_schedule": lambda model: model.defaults.schedule,
    "steps": lambda model: model.defaults.steps,
    "guidance": lambda model: model.defaults.guidance,
    "default_size": lambda model: (model.defaults.height // 8, model.defaults.width // 8),
    "prediction": lambda model: model.parts.prediction,
    "latent_channels": lambda model: model.parts.latents.channels,
    "downscale": lambda model: 8,
    "size_numbers": lambda model: 0,
    "edits": lambda model: False,
}


def test_the_denoising_process_has_its_old_attributes(tiny_model: StableDiffusion) -> None:
    assert READ.keys() == PROCESS.keys()
    for name, read in READ.items():
        with pytest.warns(DeprecationWarning, match=f"DenoisingProcess.{name} is now"):
            assert getattr(tiny_model.denoising_process, name) == read(tiny_model), name
    with pytest.raises(AttributeError, match="no attribute 'stepz'"):
        tiny_model.denoising_process.stepz  # noqa: B018

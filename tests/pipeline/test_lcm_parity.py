"""Latent consistency models that are told their guidance: four steps against diffusers' own pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline

import tiny_checkpoints as tiny
from painting import psnr, straight
from stable_diffusion.convert import convert
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.request.request import Request
from stable_diffusion.weights.checkpoints.few_step import GUIDED
from stable_diffusion.weights.describe import inspect

PROMPT, SEED, FLOOR = "a beautiful sunset over the ocean, oil on canvas", 1234, 55.0
LCM = tiny.Kind(
    name="lcm",
    unet={**tiny.SD1.unet, "time_cond_proj_dim": 24},
    ours=replace(tiny.SD1.ours, guidance_dim=24),
    activation="quick_gelu",
    pad=tiny.SD1.pad,
    scheduler=lambda: LCMScheduler(**tiny.NOISE, original_inference_steps=50),
)

Models = tuple[Any, dict[str, Path], dict[str, StableDiffusion]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    place = tmp_path_factory.mktemp("lcm")
    folder = tiny.write_folder(LCM, place)
    paths = {"folder": folder, "single file": tiny.write_single(LCM, folder, place / "quick.safetensors")}
    parts = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None).components
    theirs = LatentConsistencyModelPipeline(**{**parts, "requires_safety_checker": False})
    theirs.set_progress_bar_config(disable=True)
    return theirs, paths, {name: load(path, device="cpu") for name, path in paths.items()}


def reference(pipeline: Any, steps: int, guidance: float) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(SEED)
    return pipeline(
        PROMPT, num_inference_steps=steps, guidance_scale=guidance, height=64, width=48, generator=generator,
        output_type="pt",
    ).images  # fmt: skip


def painted(model: StableDiffusion, **settings: Any) -> torch.Tensor:
    return straight(model, Request(PROMPT, width=48, height=64, seed=SEED, **settings))


@pytest.mark.parametrize(("steps", "guidance"), [(4, GUIDED), (7, 2.0), (4, 1.0)])
def test_pictures_agree(models: Models, steps: int, guidance: float) -> None:
    pipeline, _, both = models
    expected = reference(pipeline, steps, guidance)
    assert float(expected.std()) > 0.02  # not a flat or clipped picture
    for layout, model in both.items():
        value = psnr(painted(model, steps=steps, guidance=guidance), expected)
        print(f"{steps} steps, guidance {guidance}, from {layout}: {value:.1f} dB")
        assert value > FLOOR, f"from {layout}: {value:.1f} dB"
    other = psnr(painted(model, steps=steps, guidance=guidance + 3), expected)
    assert other < FLOOR, f"another guidance is {other:.1f} dB away only"


def test_no_second_row_is_computed(models: Models) -> None:
    model = models[2]["folder"]
    rows: list[int] = []
    hook = model.parts.unet.register_forward_pre_hook(lambda network, told: rows.append(len(told[0])))
    try:
        painted(model)
    finally:
        hook.remove()
    assert rows == [1, 1, 1, 1]  # the model's own steps, one row each


def test_what_it_is_run_with(models: Models) -> None:
    _, paths, both = models
    for layout, path in paths.items():
        found = inspect(path)
        assert (found["steps"], found["guidance"], found["sampler"], found["guesses"]) == (4, GUIDED, "lcm", [])
        assert both[layout].defaults.schedule == "lcm" and found["family"] == "sd1"


def test_a_negative_prompt_is_said_to_be_ignored(models: Models) -> None:
    request = Request(PROMPT, negative_prompt="blurry", width=48, height=64, steps=1, seed=1)
    (done,) = (event for event in generate(models[2]["folder"], request) if isinstance(event, Images))
    assert done.notes == ("negative_prompt is ignored: the network reads its guidance",)


def test_the_guidance_is_asked_for_where_it_is_told(models: Models) -> None:
    unet = models[2]["folder"].parts.unet
    x, timestep, tokens = torch.randn(1, 4, 8, 6), torch.tensor([500.0]), torch.randn(1, 77, 64)
    with pytest.raises(InvalidRequest, match="reads it"):
        unet(x, timestep, tokens)


def test_convert_keeps_it(models: Models, tmp_path: Path) -> None:
    _, paths, both = models
    single = convert(paths["folder"], tmp_path / "one.safetensors").path
    back = convert(single, tmp_path / "back").path
    for made in (single, back):
        model = load(made, device="cpu")
        made_for = replace(model.defaults, width=64, height=64)  # a single file does not say the size
        assert made_for == both["folder"].defaults
        for name, tensor in both["folder"].parts.unet.state_dict().items():
            assert torch.equal(model.parts.unet.state_dict()[name], tensor), name
    assert LatentConsistencyModelPipeline.from_pretrained(back, safety_checker=None).unet.config.time_cond_proj_dim

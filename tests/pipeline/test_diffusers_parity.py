"""Ten steps of txt2img against diffusers' own pipeline: same noise, same settings, pictures before 8-bit rounding.

The tiny models are random, so that every error shows, and true in kind to Stable Diffusion 1 (eps) and 2 (v). Both run
from a diffusers folder and from the same weights in one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

import tiny_checkpoints as tiny
from painting import psnr
from stable_diffusion.pipeline.models import StableDiffusion, load

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry, low quality"
STEPS, GUIDANCE, SEED = 10, 7.5, 1234
FLOOR = 60.0  # dB

RUNS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    # name: (diffusers scheduler, its settings, ours)
    "ddim": (DDIMScheduler, {}, {"sampler": "ddim", "schedule": "ddim_uniform", "final": "sigma_min"}),
    "euler": (
        EulerDiscreteScheduler,
        {"timestep_spacing": "leading"},
        {"sampler": "euler", "schedule": "ddim_uniform"},
    ),
    "dpmpp_2m": (
        DPMSolverMultistepScheduler,
        {"timestep_spacing": "trailing", "final_sigmas_type": "zero"},
        {"sampler": "dpmpp_2m", "schedule": "sgm_uniform"},
    ),
    "plms": (
        PNDMScheduler,
        {"skip_prk_steps": True},
        {"sampler": "plms", "schedule": "ddim_uniform", "final": "sigma_min"},
    ),
}


@pytest.fixture(scope="module", params=[tiny.SD1, tiny.SMALL, tiny.SD2, tiny.SD2_BASE], ids=lambda kind: kind.name)
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StableDiffusionPipeline, dict[str, StableDiffusion]]:
    kind: tiny.Kind = request.param
    place: Path = tmp_path_factory.mktemp(kind.name)
    folder = tiny.write_folder(kind, place)
    single = tiny.write_single(kind, folder, place / "single.safetensors")
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    return theirs, {"folder": load(folder, device="cpu"), "single file": load(single, device="cpu")}


def as_epsilon(unet: Any, alphas_cumprod: torch.Tensor) -> Any:
    """The forward of a v network, answering with the eps it means.

    v = a eps - s x0 and x = a x0 + s eps give eps = a v + s x.
    """
    forward = unet.forward

    def answer(x: torch.Tensor, t: torch.Tensor, **keywords: Any) -> tuple[torch.Tensor]:
        v = forward(x, t, **{**keywords, "return_dict": False})[0]
        signal = alphas_cumprod[int(t)]
        return (signal**0.5 * v + (1 - signal) ** 0.5 * x,)

    return answer


@pytest.fixture
def scheduled(models: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Gives `run(name) -> picture [1,3,H,W]` of diffusers, and puts its pipeline back afterwards."""
    theirs, _ = models
    scheduler = theirs.scheduler

    def run(name: str) -> torch.Tensor:
        kind, settings, _ = RUNS[name]
        settings = {"steps_offset": 1, "prediction_type": scheduler.config.prediction_type, **settings}
        if kind in (DDIMScheduler, PNDMScheduler):
            settings["set_alpha_to_one"] = False
        noise = tiny.NOISE if kind is DDIMScheduler else {k: v for k, v in tiny.NOISE.items() if k != "clip_sample"}
        if kind is PNDMScheduler and settings["prediction_type"] == "v_prediction":
            # diffusers averages the v of different timesteps and turns the mean into an eps with the last timestep's
            # coefficients; the method is defined on eps (Liu et al. 2022), which is what it gets here.
            settings["prediction_type"] = "epsilon"
            monkeypatch.setattr(theirs.unet, "forward", as_epsilon(theirs.unet, scheduler.alphas_cumprod))
        theirs.scheduler = kind(**noise, **settings)
        result = theirs(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=64,
            width=48,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="pt",
        )
        return result.images

    yield run
    theirs.scheduler = scheduler


def ours(model: StableDiffusion, name: str) -> torch.Tensor:
    steps = model.denoising_process(
        PROMPT, NEGATIVE, seed=SEED, size=(8, 6), steps=STEPS, guidance=GUIDANCE, **RUNS[name][2]
    )
    *_, last = steps
    return model.image_decoder.straight(last.x)


@pytest.mark.parametrize("name", RUNS)
def test_ten_steps_agree(models: Any, scheduled: Any, name: str) -> None:
    reference = scheduled(name)
    assert reference.shape == (1, 3, 64, 48) and float(reference.std()) > 0.02  # not a flat or clipped picture
    for layout, model in models[1].items():
        value = psnr(ours(model, name), reference)
        print(f"{name} from {layout}: {value:.1f} dB")
        assert value > FLOOR, f"{name} from {layout}: {value:.1f} dB"


def test_the_comparison_can_fail(models: Any, scheduled: Any) -> None:
    """Another sampler on another grid is far below the floor."""
    reference = scheduled("ddim")
    model = models[1]["folder"]
    assert psnr(ours(model, "dpmpp_2m"), reference) < FLOOR - 20


def test_text_conditioning_agrees(models: Any) -> None:
    theirs, both = models
    expected = theirs.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    for model in both.values():
        tokens = model.text_encoder(PROMPT).tokens
        assert float((tokens - expected).norm() / expected.norm()) < 1e-5

"""Models of few steps with the settings that their names or folders tell, against diffusers' pipelines."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)

import tiny_checkpoints as tiny
import tiny_xl as xl
from convert_cases import FLOOR, Case, from_pretrained, make_case
from painting import psnr, straight
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.request.request import Request

PROMPT, SEED = "a beautiful sunset over the ocean, oil on canvas", 1234
TRAILING: dict[str, Any] = {**xl.NOISE, "timestep_spacing": "trailing"}


@dataclass(frozen=True)
class Quick:
    """A model of few steps: what it is called, what it was made from, how diffusers samples it.

    `ours` is what neither name nor folder tells, `run` what diffusers' pipeline is told besides.
    """

    name: str
    kind: Any
    scheduler: Any
    steps: int
    ours: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


def ddim() -> DDIMScheduler:
    return DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=True)


def tcd() -> TCDScheduler:
    return TCDScheduler(**tiny.NOISE, set_alpha_to_one=True)


TCD: dict[str, Any] = {"steps": 4, "sampler": "tcd", "schedule": "lcm", "guidance": 1.0, "noise": {"eta": 0.3}}
EULER = {"sampler": "euler", "schedule": "sgm_uniform"}
QUICK = [
    Quick("sd-turbo", tiny.SD2_BASE, lambda: EulerDiscreteScheduler(**TRAILING), 4, EULER),
    Quick("sd_xl_turbo_1.0", xl.BASE, lambda: EulerAncestralDiscreteScheduler(**TRAILING), 4),
    Quick("sdxl_lightning_4step", xl.BASE, lambda: EulerDiscreteScheduler(**TRAILING), 4),
    Quick("Hyper-SDXL-8steps", xl.BASE, ddim, 8),
    Quick("LCM_Dreamshaper_v7", tiny.SD1, lambda: LCMScheduler(**tiny.NOISE, original_inference_steps=50), 4),
    Quick("TCD-SDXL", xl.BASE, tcd, 4, TCD, {"eta": 0.3}),
]


@pytest.fixture(scope="module", params=QUICK, ids=lambda quick: quick.name)
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Quick, Any, dict[str, StableDiffusion]]:
    quick: Quick = request.param
    place: Path = tmp_path_factory.mktemp("quick")
    case: Case = make_case(quick.kind, place / "made")
    folder = Path(shutil.move(case.folder, place / quick.name))
    single = shutil.move(case.single, place / f"{quick.name}.safetensors")
    shutil.rmtree(folder / "scheduler")
    quick.scheduler().save_pretrained(folder / "scheduler")
    both = {"folder": load(folder, device="cpu"), "single file": load(single, device="cpu")}
    return quick, from_pretrained(case, folder, scheduler=quick.scheduler()), both


def reference(pipeline: Any, quick: Quick, sigma: float) -> torch.Tensor:
    """Diffusers' picture from a start of unit variance; on this grid its Euler starts from noise times sigma alone."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    noise = torch.randn(1, 4, 8, 6, generator=generator)
    if "Euler" in type(pipeline.scheduler).__name__:
        noise = noise * (1 + sigma**-2) ** 0.5
    pipeline.set_progress_bar_config(disable=True)
    made: torch.Tensor = pipeline(
        PROMPT, num_inference_steps=quick.steps, guidance_scale=0.0, height=64, width=48, latents=noise,
        generator=generator, output_type="pt", **quick.run,
    ).images  # fmt: skip
    return made


def painted(model: StableDiffusion, **settings: Any) -> torch.Tensor:
    return straight(model, Request(PROMPT, width=48, height=64, seed=SEED, **settings))


def test_pictures_agree(models: tuple[Quick, Any, dict[str, StableDiffusion]]) -> None:
    quick, pipeline, both = models
    for layout, model in both.items():
        expected = reference(pipeline, quick, model.parts.schedule.sigma_max)
        value = psnr(painted(model, **quick.ours), expected)
        print(f"{quick.name} from {layout}: {value:.1f} dB")
        assert float(expected.std()) > 0.02 and value > FLOOR, f"from {layout}: {value:.1f} dB"
        assert psnr(painted(model, **{**quick.ours, "steps": quick.steps + 1}), expected) < FLOOR

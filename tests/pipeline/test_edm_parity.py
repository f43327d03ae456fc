"""Models with the noise levels of EDM against diffusers: Playground 2.5, CosXL and its edit form, from folder and file.

The marks of the single files are those of the released ones, and the folders are saved by diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny_xl as xl
from painting import psnr
from stable_diffusion.convert import convert
from stable_diffusion.diffusion.schedule import EDMSchedule
from stable_diffusion.errors import BrokenModel
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.request.request import Request
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry, low quality"
SEED, STEPS = 1234, 6
FLOOR = 55.0  # dB
MEAN, STD = [-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]
PLAYGROUND = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
COSXL = {"sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0, "prediction_type": "v_prediction"}
MARKS = {
    "playground": {
        name: torch.tensor(each).reshape(1, 4, 1, 1) for name, each in (("edm_mean", MEAN), ("edm_std", STD))
    },
    "cosxl": {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)},
}
SCHEDULERS = {
    "playground": EDMDPMSolverMultistepScheduler(**PLAYGROUND),
    "cosxl": EDMEulerScheduler(sigma_schedule="exponential", **COSXL),
}
RUNS = [
    ("euler", "karras", EDMEulerScheduler, {}),
    ("euler", "exponential", EDMEulerScheduler, {"sigma_schedule": "exponential"}),
    ("dpmpp_2m", "karras", EDMDPMSolverMultistepScheduler, {}),
    ("dpmpp_2m", "exponential", EDMDPMSolverMultistepScheduler, {"sigma_schedule": "exponential"}),
]


def write(name: str, base: xl.Kind, place: Path) -> tuple[Path, Path]:
    """(folder, single file) of a tiny model of this kind."""
    folder = xl.write_folder(base, place)
    SCHEDULERS[name].save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(SCHEDULERS[name]).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    if name == "playground":
        config = json.loads((folder / "vae" / "config.json").read_text())
        config |= {"latents_mean": MEAN, "latents_std": STD, "scaling_factor": 0.5}
        (folder / "vae" / "config.json").write_text(json.dumps(config))
    save_file(xl.single_state(base, folder) | MARKS[name], place / f"{name}.safetensors")
    return folder, place / f"{name}.safetensors"


Models = tuple[str, Any, list[StableDiffusion], tuple[Path, Path]]


@pytest.fixture(scope="module", params=MARKS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    places = write(request.param, xl.BASE, tmp_path_factory.mktemp(request.param))
    pipeline = xl.read_folder(xl.BASE, places[0])
    return request.param, pipeline, [load(place, device="cpu") for place in places], places


@pytest.mark.parametrize(("sampler", "schedule", "scheduler", "more"), RUNS, ids=lambda each: str(each)[:12])
def test_a_run_agrees_with_diffusers(models: Models, sampler: str, schedule: str, scheduler: Any, more: Any) -> None:
    name, pipeline, both, _ = models
    words = {**(PLAYGROUND if name == "playground" else COSXL), **more}
    pipeline.scheduler = scheduler(**words)
    expected = pipeline(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=3.0, height=64, width=48,
        generator=torch.Generator("cpu").manual_seed(SEED), output_type="pt",
    ).images  # fmt: skip
    assert expected.shape == (1, 3, 64, 48) and float(expected.std()) > 0.02
    for model in both:
        *_, last = model.denoising_process(PROMPT, NEGATIVE, seed=SEED, steps=STEPS, guidance=3.0, sampler=sampler,
                                           schedule=schedule, size=(8, 6))  # fmt: skip
        value = psnr(model.image_decoder.straight(last.x), expected)
        print(f"{name}, {sampler}, {schedule}: {value:.1f} dB")
        assert value > FLOOR


def test_what_the_files_say(models: Models) -> None:
    name, _, both, places = models
    for model, place in zip(both, places, strict=True):
        parts, found = model.parts, inspect(place, hashes=False)
        assert isinstance(parts.schedule, EDMSchedule) and found["family"] == parts.family == "sdxl"
        levels = (parts.schedule.sigma_min, parts.schedule.sigma_max, parts.schedule.sigma_data)
        if name == "playground":
            assert levels == (0.002, 80.0, 0.5) and parts.prediction == found["prediction"] == "edm"
            assert (parts.defaults.guidance, parts.defaults.sampler, parts.defaults.schedule) == (
                3,
                "dpmpp_2m",
                "karras",
            )
            assert parts.latents.shift == pytest.approx(MEAN) and parts.latents.scale == pytest.approx(
                [0.5 / each for each in STD]
            )
        else:
            assert levels == (0.002, 120.0, 1.0) and parts.prediction == found["prediction"] == "v"
            assert (parts.defaults.sampler, parts.defaults.schedule) == ("euler", "exponential")
            assert parts.latents.scale == 0.13025
        assert not parts.guesses


def test_a_model_survives_being_written_both_ways(models: Models, tmp_path: Path) -> None:
    for k, source in enumerate(models[3]):
        for target_path in (tmp_path / f"there{k}", tmp_path / f"there{k}.safetensors"):
            convert(source, target_path)
            old, new = load_parts(source), load_parts(target_path)
            assert new.schedule.to_config() == old.schedule.to_config() and new.prediction == old.prediction  # type: ignore[attr-defined]
            assert new.latents.shift == pytest.approx(old.latents.shift)
            assert new.latents.scale == pytest.approx(old.latents.scale)
            assert (new.defaults.sampler, new.defaults.schedule, new.defaults.guidance) == (
                old.defaults.sampler, old.defaults.schedule, old.defaults.guidance)  # fmt: skip
            assert all(torch.equal(a, b) for a, b in zip(new.unet.parameters(), old.unet.parameters(), strict=True))


def test_the_edit_form_agrees_with_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given the latent of the picture at the scale of its own latents, unlike other models that edit."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    picture = Image.effect_noise((48, 64), 90).convert("RGB")
    places = write("cosxl", xl.EDIT, tmp_path)
    pipeline = xl.read_folder(xl.EDIT, places[0])
    pipeline.is_cosxl_edit = True
    expected = pipeline(
        PROMPT, negative_prompt=NEGATIVE, image=picture, num_inference_steps=STEPS, guidance_scale=5.0, height=64,
        image_guidance_scale=1.5, width=48, generator=torch.Generator("cpu").manual_seed(SEED), output_type="pt",
    ).images  # fmt: skip
    for place in places:
        model = load(place, device="cpu")
        request = Request(PROMPT, negative_prompt=NEGATIVE, seed=SEED, steps=STEPS, guidance=5.0, sampler="euler",
                          schedule="exponential", image=picture, width=48, height=64, image_guidance=1.5)  # fmt: skip
        (made,) = (event for event in generate(model, request, output="straight") if isinstance(event, Images))
        assert model.parts.family == "sdxl-pix2pix" and made.tensor is not None
        value = psnr(made.tensor, expected)
        print(f"edit: {value:.1f} dB")
        assert value > FLOOR


@pytest.mark.parametrize("models", ["cosxl"], indirect=True)
@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ({"edm_vpred.sigma_max": torch.tensor(float("nan"))}, "expected a number from"),
        ({"edm_vpred.sigma_max": torch.tensor([120.0, 1.0])}, "has 2 elements; expected 1"),
        ({"edm_vpred.sigma_max": torch.tensor(0.001)}, "expected the former to be smaller"),
        ({"edm_mean": torch.zeros(4), "edm_std": torch.zeros(4)}, "expected numbers above 0"),
        ({"edm_mean": torch.zeros(3), "edm_std": torch.ones(4)}, "expected 4 numbers"),
    ],
)
def test_marks_that_make_no_sense_are_refused(models: Models, marks: Any, says: str, tmp_path: Path) -> None:
    _, _, _, (_, single) = models
    state = {key: tensor for key, tensor in load_file(single).items() if not key.startswith("edm_")}
    save_file(state | marks, tmp_path / "odd.safetensors")
    with pytest.raises(BrokenModel, match=says):
        inspect(tmp_path / "odd.safetensors", hashes=False)

"""Models that edit a picture, or follow a depth map, against diffusers' pipelines: from folder and single file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

import tiny_checkpoints as tiny
import tiny_xl as xl
from convert_cases import (
    FLOOR,
    GUIDANCE,
    IMAGE_GUIDANCE,
    NEGATIVE,
    PROMPT,
    SEED,
    STEPS,
    depth_picture,
    euler,
    from_pretrained,
    make_case,
    paint,
    picture,
)
from painting import psnr
from stable_diffusion.diffusion.denoise import image_guided
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.pipeline.tasks.told_picture import scaled_depth
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Images, Request
from stable_diffusion.types import Conditioning


@pytest.fixture(scope="module", params=[tiny.EDIT, tiny.DEPTH, xl.EDIT], ids=lambda kind: kind.name)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, list]:
    case = make_case(request.param, tmp_path_factory.mktemp(request.param.name))
    theirs = euler(from_pretrained(case, case.folder))
    return case.name, theirs, [load(case.folder, device="cpu"), load(case.single, device="cpu")]


def ours(model: StableDiffusion, **settings: Any) -> torch.Tensor:
    request = Request(
        PROMPT, negative_prompt=NEGATIVE, seed=SEED, steps=STEPS, guidance=GUIDANCE, sampler="euler",
        schedule="ddim_uniform", image=picture(), width=48, height=64, **settings,
    )  # fmt: skip
    made = [event for event in generate(model, request, output="straight") if isinstance(event, Images)]
    assert made[0].tensor is not None
    return made[0].tensor


def test_a_run_agrees_with_diffusers(models: tuple[str, Any, list], monkeypatch: pytest.MonkeyPatch) -> None:
    # diffusers starts from a sample of the encoder's distribution, drawn before the noise; we start from its mean
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    family, theirs, both = models
    depth = family == "sd2-depth"
    told = {"depth": depth_picture(), "strength": 1.0} if depth else {"image_guidance": IMAGE_GUIDANCE}
    expected = paint(theirs)
    for model in both:
        assert model.parts.family == family
        value = psnr(ours(model, **told), expected)
        print(f"{family}: {value:.1f} dB")
        assert float(expected.std()) > 0.02 and value > FLOOR
    other = {"strength": 0.9} if depth else {"image_guidance": IMAGE_GUIDANCE + 0.5}
    assert psnr(ours(model, **{**told, **other}), expected) < FLOOR


def test_settings_that_are_filled_in_make_the_same_picture(models: tuple[str, Any, list]) -> None:
    family, _, (model, _) = models
    depth = {"depth": depth_picture()} if family == "sd2-depth" else {}
    event = next(event for event in generate(model, Request(PROMPT, image=picture(), seed=3, steps=2, **depth))
                 if isinstance(event, Images))  # fmt: skip
    found = read_metadata(event.images[0]).request
    assert (found.image_guidance, found.strength) == ((None, 0.75) if family == "sd2-depth" else (1.5, 1.0))
    (again,) = (each for each in generate(model, found.changed(image=picture(), **depth)) if isinstance(each, Images))
    assert again.images[0].tobytes() == event.images[0].tobytes()


def test_masks_and_composed_prompts_go_together_with_it(models: tuple[str, Any, list]) -> None:
    family, _, (model, _) = models
    mask = Image.new("L", (48, 64))
    mask.paste(255, (16, 24, 40, 48))
    told: dict[str, Any] = {"depth": depth_picture()} if family == "sd2-depth" else {}
    request = Request(
        "a [cat:dog:0.5] AND a hat :0.7", image=picture(), mask=mask, seed=3, steps=2, inpaint={"only_masked": True},
        width=48, height=64, **told,
    )  # fmt: skip
    made = next(event for event in generate(model, request) if isinstance(event, Images)).images[0]
    kept = Image.composite(made, picture(), mask)  # what was not masked is the picture's
    assert kept.tobytes() == made.tobytes() != picture().tobytes()


def test_what_has_no_effect_is_noted(models: tuple[str, Any, list]) -> None:
    family, _, (model, _) = models
    given: dict[str, Any] = {"depth": depth_picture(), "image_guidance": 2.0, "guidance_rescale": 0.5}
    event = next(event for event in generate(model, Request(PROMPT, image=picture(), steps=1, **given))
                 if isinstance(event, Images))  # fmt: skip
    names = {note.split(" ")[0] for note in event.notes}
    assert names == ({"image_guidance"} if family == "sd2-depth" else {"depth", "guidance_rescale"})


def test_what_the_network_needs_is_asked_for(models: tuple[str, Any, list]) -> None:
    family, _, (model, _) = models
    request = Request(PROMPT, image=picture() if family == "sd2-depth" else None)
    with pytest.raises(InvalidRequest, match="depth map" if family == "sd2-depth" else "give the picture"):
        generate(model, request)


def test_equation_three_with_known_answers() -> None:
    """A denoiser that answers 1 for a picture and 10 for text: no picture 0, picture 1, both 11."""

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, told: Conditioning) -> torch.Tensor:
        assert told.image is not None
        return told.image.mean() + 10 * told.tokens.mean() + 0 * x

    image = torch.ones(1, 4, 2, 2)
    cond, away = (Conditioning(tokens=torch.full((1, 3, 2), value), image=image) for value in (1.0, 0.0))
    x, sigma = torch.zeros(2, 4, 2, 2), torch.ones(2)
    guided, pictured = image_guided(denoiser, cond, away, 7.0, 1.5)(x, sigma)
    assert torch.allclose(guided, torch.full_like(x, 1.5 * 1 + 7 * 10)) and torch.allclose(pictured, torch.ones_like(x))
    blend = ((cond, 0.5), (away, 3.0), (cond, -0.25))
    composed, _ = image_guided(denoiser, blend, away, 7.0, 1.5)(x, sigma)
    assert torch.allclose(composed, torch.full_like(x, 1.5 * 1 + 7 * 0.25 * 10))
    with pytest.raises(InvalidRequest, match="finite"):
        image_guided(denoiser, cond, away, 7.0, float("nan"))
    with pytest.raises(InvalidRequest, match="in both"):
        image_guided(denoiser, cond, replace(away, image=None), 7.0, 1.5)


def test_depth_is_stretched_to_its_range() -> None:
    depth = torch.linspace(0.2, 0.5, 16 * 24).reshape(1, 1, 16, 24)
    made = scaled_depth(depth, 8)
    assert made.shape == (1, 1, 2, 3) and float(made.min()) == -1 and float(made.max()) == 1
    assert not scaled_depth(torch.ones(1, 1, 16, 16), 8).any()

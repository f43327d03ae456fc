"""Stable Diffusion 3 and 3.5 against diffusers' own pipelines: from folder and single file, with T5 and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline
from PIL import Image

import tiny_sd3 as sd3
from painting import psnr, relative
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.pipeline.attention import record_attention
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.pipeline.tasks.control_files import _unet
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import Wrap

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry, low quality"
STEPS, GUIDANCE, SEED = 5, 5.0, 1234
FLOOR = 55.0  # dB
OURS: dict[str, Any] = {"seed": SEED, "steps": STEPS, "guidance": GUIDANCE}

Models = tuple[sd3.Kind, Path, Any, dict[str, StableDiffusion]]


@pytest.fixture(scope="module", params=sd3.KINDS, ids=lambda kind: kind.name)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    kind: sd3.Kind = request.param
    place: Path = tmp_path_factory.mktemp(kind.name)
    folder = sd3.write_folder(kind, place)
    single = sd3.write_single(kind, folder, place / "single" / "model.safetensors")
    parts = {"folder": load(folder, device="cpu"), "single file": load(single, device="cpu")}
    return kind, folder, sd3.read_folder(folder), parts


def theirs(pipeline: Any, **settings: Any) -> torch.Tensor:
    return pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        **{"output_type": "pt", **settings},
    ).images


def compare(reference: torch.Tensor, both: dict[str, StableDiffusion], **run: Any) -> None:
    assert reference.shape == (1, 3, 64, 48) and float(reference.std()) > 0.02  # not a flat or clipped picture
    for layout, model in both.items():
        *_, last = model.denoising_process(PROMPT, NEGATIVE, **{**OURS, **run})
        value = psnr(model.image_decoder.straight(last.x), reference)
        print(f"from {layout}: {value:.1f} dB")
        assert value > FLOOR, f"from {layout}: {value:.1f} dB"


def test_text_and_network_agree(models: Models) -> None:
    kind, _, pipeline, both = models
    tokens, away, pooled, pooled_away = pipeline.encode_prompt(
        PROMPT, None, None, negative_prompt=NEGATIVE, device="cpu"
    )
    assert tokens.shape == (1, 77 + 256, sd3.CONTEXT)
    x, timestep = torch.randn(1, 16, 8, 6), torch.tensor([481.0])
    with torch.no_grad():
        answer = pipeline.transformer(x, tokens, pooled, timestep).sample
    for model in both.values():
        made = model.text_encoder.encode(PROMPT).conditioning
        against = model.text_encoder.encode(NEGATIVE, negative=True).conditioning
        assert made.vector is not None and against.vector is not None
        assert relative(made.tokens, tokens) < 1e-5 and relative(made.vector, pooled) < 1e-5
        assert relative(against.tokens, away) < 1e-5 and relative(against.vector, pooled_away) < 1e-5
        assert bool(made.tokens[:, 77:].any()) == kind.t5 and not made.tokens[:, :77, sd3.WIDTH + sd3.WIDTH_G :].any()
        with torch.no_grad():
            assert relative(model.parts.unet(x, timestep, made.tokens, vector=made.vector), answer) < 1e-5


def test_pictures_agree(models: Models) -> None:
    _, _, pipeline, both = models
    compare(theirs(pipeline, height=64, width=48), both, size=(8, 6))


def test_image_to_image_and_inpainting_agree(models: Models) -> None:
    kind, folder, _, both = models
    if kind is not sd3.MEDIUM:
        pytest.skip("the same code for all")
    latent = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(3))
    reference = theirs(
        sd3.read_folder(folder, StableDiffusion3Img2ImgPipeline), image=latent, strength=0.6, height=64, width=48
    )
    compare(reference, both, latent=latent, strength=0.6)
    mask = torch.zeros(1, 1, 8, 6)
    mask[..., 2:6, 1:5] = 1
    pixels = Image.fromarray((mask[0, 0] * 255).byte().numpy()).resize((48, 64), Image.Resampling.NEAREST)
    painted = theirs(
        sd3.read_folder(folder, StableDiffusion3InpaintPipeline),
        image=latent,
        mask_image=pixels,
        masked_image_latents=latent,
        strength=0.6,
        height=64,
        width=48,
        output_type="latent",
    )
    # Its latent and not its picture: that pipeline decodes without the shift of the latent space (diffusers 0.42).
    reference = both["folder"].image_decoder.straight(painted)
    compare(reference, both, latent=latent, mask=mask, strength=0.6)


def test_a_request_paints_the_same_picture(models: Models) -> None:
    kind, _, pipeline, both = models
    request = Request(PROMPT, negative_prompt=NEGATIVE, width=48, height=64, steps=STEPS, guidance=GUIDANCE, seed=SEED)
    *_, images = generate(both["folder"], request, output="straight")
    assert isinstance(images, Images) and images.tensor is not None
    assert psnr(images.tensor, theirs(pipeline, height=64, width=48)) > FLOOR
    told = read_metadata(images.images[0]).request
    assert (told.sampler, told.schedule, told.seed) == ("euler", "normal", SEED)
    assert both["folder"].defaults.width == 64 and both["single file"].defaults.width == 1024
    if kind is sd3.MEDIUM:
        picture = images.images[0]
        mask = Image.new("L", picture.size, 0)
        mask.paste(255, (16, 16, 32, 48))
        settings: dict[str, Any] = {"model": both["folder"], "image": picture, "steps": 2, "seed": 1, "strength": 1.0}
        painted = generate_image("the ocean", mask=mask, width=48, height=64, **settings)
        assert painted.crop((0, 0, 48, 16)).tobytes() == picture.crop((0, 0, 48, 16)).tobytes()
        assert painted.tobytes() != picture.tobytes()


def test_any_multiple_of_eight_and_what_a_transformer_cannot_do(models: Models) -> None:
    _, _, _, both = models
    model = both["folder"]
    assert generate_image("the ocean", model=model, width=40, height=56, steps=1, seed=1).size == (40, 56)
    with pytest.raises(InvalidRequest, match="the latent is 26x2; this model has positions for at most 24x24"):
        generate_image("the ocean", model=model, width=208, height=16, steps=1, seed=1)
    with pytest.raises(InvalidRequest, match=r"family 'sd3.*control networks are run with U-Nets only"):
        _unet(model)
    with pytest.raises(InvalidRequest, match="edges cannot meet with this model"):
        model.denoising_process("the ocean", wrap=Wrap(x=True))
    with pytest.raises(InvalidRequest, match="no cross-attention to record"), record_attention(model.parts.unet):
        pass

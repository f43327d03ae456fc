"""Stable Diffusion XL against diffusers' own pipelines: base, pruned, inpainting, refiner; from folder and file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny_xl as xl
from painting import psnr, relative
from stable_diffusion.diffusion.sigmas import AYS_TABLES, GITS_TABLES
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.request.settings import SizeConditioning
from stable_diffusion.text.prompt_schedule import Timeline

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry, low quality"
STEPS, GUIDANCE, SEED = 5, 5.0, 1234
FLOOR = 55.0  # dB
OURS = {"seed": SEED, "steps": STEPS, "guidance": GUIDANCE, "sampler": "euler", "schedule": "ddim_uniform"}
KINDS = [xl.BASE, xl.PRUNED, xl.VEGA, xl.KOALA, xl.V_PLAIN, xl.V_ZERO, xl.INPAINT, xl.REFINER]

Models = tuple[xl.Kind, Any, dict[str, StableDiffusion]]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    kind: xl.Kind = request.param
    place: Path = tmp_path_factory.mktemp(kind.name)
    folder = xl.write_folder(kind, place)
    single = xl.write_single(kind, folder, place / "single.safetensors")
    parts = {"folder": load(folder, device="cpu"), "single file": load(single, device="cpu")}
    return kind, xl.read_folder(kind, folder), parts


def theirs(pipeline: Any, **settings: Any) -> torch.Tensor:
    return pipeline(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="pt",
        **settings,
    ).images


def compare(reference: torch.Tensor, both: dict[str, StableDiffusion], prompt: Any, negative: Any, **run: Any) -> None:
    assert reference.shape == (1, 3, 64, 48) and float(reference.std()) > 0.02  # not a flat or clipped picture
    for layout, model in both.items():
        *_, last = model.denoising_process(prompt, negative, **{**OURS, **run})
        value = psnr(model.image_decoder.straight(last.x), reference)
        print(f"from {layout}: {value:.1f} dB")
        assert value > FLOOR, f"from {layout}: {value:.1f} dB"


def test_text_and_network_agree(models: Models) -> None:
    kind, pipeline, both = models
    for negative in (NEGATIVE, None):
        tokens, away, pooled, pooled_away = pipeline.encode_prompt(PROMPT, negative_prompt=negative)
        for model in both.values():
            made = model.text_encoder.encode(PROMPT).conditioning
            against = model.text_encoder.encode(negative or "", negative=True).conditioning
            assert made.vector is not None and against.vector is not None
            assert relative(made.tokens, tokens) < 1e-5 and relative(made.vector, pooled) < 1e-5
            if negative is None and kind is not xl.REFINER:
                assert not away.any() and not against.tokens.any() and not against.vector.any()
            else:
                assert relative(against.tokens, away) < 1e-5 and relative(against.vector, pooled_away) < 1e-5
    x, timestep = torch.randn(1, kind.in_channels, 8, 6), torch.tensor([481.0])
    numbers = SizeConditioning(original=(640, 512), crop=(32, 16)).numbers((48, 64), kind.numbers, negative=False)
    told = {"text_embeds": pooled, "time_ids": torch.tensor([numbers])}
    with torch.no_grad():
        expected = pipeline.unet(x, timestep, tokens, added_cond_kwargs=told).sample
        for model in both.values():
            told = SizeConditioning(original=(640, 512), crop=(32, 16))
            network = model.denoising_process.network
            timeline = network.conditioned(Timeline.of(model.text_encoder(PROMPT)), (8, 6), told)
            sized = timeline.at(1)[0][0]
            made = model.parts.unet(x, timestep, sized.tokens, vector=sized.vector)
            assert relative(made, expected) < 1e-5


def test_pictures_agree(models: Models) -> None:
    kind, pipeline, both = models
    if kind is xl.REFINER:
        latent = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(3))
        reference = theirs(pipeline, negative_prompt=NEGATIVE, image=latent, strength=0.6)
        compare(reference, both, PROMPT, NEGATIVE, latent=latent, strength=0.6)
        return
    if kind is xl.INPAINT:
        inpaint(pipeline, both)
        return
    grid = {"schedule": "sgm_uniform"} if kind is xl.V_ZERO else {}  # counted from the last timestep, which is noise
    for negative in (NEGATIVE, None):
        reference = theirs(pipeline, negative_prompt=negative, height=64, width=48)
        compare(reference, both, PROMPT, negative or "", size=(8, 6), **grid)


def inpaint(pipeline: Any, both: dict[str, StableDiffusion]) -> None:
    """Nine channels: the mask and the picture without what it covers are what the network is told."""
    picture = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1
    mask = torch.zeros(1, 1, 64, 48)
    mask[..., 16:48, 8:40] = 1
    model = both["folder"]
    hidden = model.image_encoder(picture * (1 - mask))
    image = Image.fromarray(((picture[0].permute(1, 2, 0) + 1) * 127.5).byte().numpy())
    reference = theirs(
        pipeline, negative_prompt=NEGATIVE, image=image, mask_image=Image.fromarray((mask[0, 0] * 255).byte().numpy()),
        masked_image_latents=hidden, height=64, width=48, strength=1.0,
    )  # fmt: skip
    told = torch.cat([mask[..., ::8, ::8], hidden], dim=1)
    cond = replace(model.text_encoder(PROMPT), image=told)
    compare(reference, both, cond, replace(model.text_encoder(NEGATIVE), image=told), size=(8, 6))


@pytest.mark.parametrize(("name", "tables"), [("ays", AYS_TABLES), ("gits", GITS_TABLES)])
def test_schedules_with_tables_take_that_of_xl(models: Models, name: str, tables: dict[str, tuple[float, ...]]) -> None:
    kind, _, both = models
    if kind is xl.V_ZERO:
        with pytest.raises(InvalidRequest, match="this model's go from 4096"):
            both["folder"].denoising_process.sigmas("euler", name, 11, "zero")
        return
    sigmas = both["folder"].denoising_process.sigmas("euler", name, 11, "zero")
    assert sigmas.tolist() == pytest.approx([*tables["sdxl"], 0]) and tables["sdxl"] != tables["sd15"]


def test_sizes_matter_and_agree(models: Models) -> None:
    kind, pipeline, both = models
    if kind is not xl.BASE:
        pytest.skip("the same code for all")
    sizes = {"original_size": (512, 640), "crops_coords_top_left": (16, 32), "target_size": (768, 1024)}
    reference = theirs(pipeline, negative_prompt=NEGATIVE, height=64, width=48, **sizes, **{
        "negative_" + name: value for name, value in sizes.items()
    })  # fmt: skip
    told = SizeConditioning(original=(640, 512), crop=(32, 16), target=(1024, 768))
    compare(reference, both, PROMPT, NEGATIVE, size=(8, 6), micro_conditioning=told)
    with pytest.raises(AssertionError, match="dB"):
        compare(reference, both, PROMPT, NEGATIVE, size=(8, 6))

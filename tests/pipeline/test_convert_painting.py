"""Networks that are told a picture, written anew: they answer and paint as before, and as diffusers' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import convert_cases as cases
import tiny_checkpoints as tiny
import tiny_xl as xl
from convert_cases import FLOOR, NEGATIVE, PROMPT, Case
from painting import psnr, relative, straight
from stable_diffusion.convert import convert
from stable_diffusion.nn.embeddings import timestep_embedding
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.pipeline.prepare import prepare
from stable_diffusion.request.request import Request

TOLD = [tiny.INPAINT, tiny.EDIT, tiny.INPAINT_2, tiny.DEPTH, xl.INPAINT, xl.EDIT]
RUN: dict[str, Any] = {"sampler": "euler", "schedule": "ddim_uniform", "steps": cases.STEPS, "seed": cases.SEED}


@dataclass(frozen=True)
class Anew:
    """A model as it was, and its folder and single file as they are written from the other form."""

    case: Case
    folder: Path
    single: Path

    def pipelines(self) -> Iterator[Any]:
        """Diffusers' readings of both."""
        yield cases.euler(cases.from_pretrained(self.case, self.folder))
        yield cases.euler(cases.from_single_file(self.case, self.single, self.folder))

    def models(self) -> Iterator[StableDiffusion]:
        """Our readings of both."""
        yield from (load(place, device="cpu") for place in (self.folder, self.single))


@pytest.fixture(scope="module", params=TOLD, ids=lambda kind: kind.name)
def anew(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Anew:
    place = tmp_path_factory.mktemp(request.param.name)
    case = cases.make_case(request.param, place)
    folder = convert(case.single, place / "written").path
    return Anew(case, folder, convert(case.folder, place / "written.safetensors").path)


def asked(family: str, **settings: Any) -> Request:
    """What a model of this family is for."""
    told: dict[str, Any] = {"mask": cases.mask_picture()}
    if family.endswith("pix2pix"):
        told = {"image_guidance": cases.IMAGE_GUIDANCE}
    elif family.endswith("depth"):
        told = {"depth": cases.depth_picture(), "strength": 1.0}
    told |= {"negative_prompt": NEGATIVE, "guidance": cases.GUIDANCE, "image": cases.picture(), **RUN, **settings}
    return Request(PROMPT, width=48, height=64, **told)


def test_the_same_picture_bit_for_bit(anew: Anew, tmp_path: Path) -> None:
    """Of float16 weights: float32 ones are used where they lie in their file, on which the order of sums depends."""
    single = cases.single_in(anew.case, torch.float16, tmp_path)
    folder = convert(single, tmp_path / "folder").path
    again = convert(folder, tmp_path / "again.safetensors").path
    original, *models = (load(place, device="cpu") for place in (single, folder, again))
    assert {model.parts.family for model in models} == {anew.case.name}
    for settings in ({}, {"sampler": "dpmpp_2m_sde", "schedule": "karras"}):
        request = asked(anew.case.name, **settings)
        before = straight(original, request)
        assert all(torch.equal(straight(model, request), before) for model in models)
        assert not torch.equal(straight(models[-1], request.with_changes(image=cases.picture().rotate(180))), before)


@torch.no_grad()
def test_networks_agree_with_diffusers(anew: Anew) -> None:
    for model, pipeline in zip(anew.models(), anew.pipelines(), strict=True):
        parts = model.parts
        x, timestep = torch.randn(2, parts.unet.config.in_channels, 8, 6), torch.tensor([481.0, 20.0])
        tokens, told, vector = torch.randn(2, 77, parts.unet.config.context_dim), {}, None
        if parts.size_numbers:
            pooled, numbers = torch.randn(2, xl.POOLED), torch.rand(2, parts.size_numbers) * 64
            told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": numbers}}
            vector = torch.cat([pooled, timestep_embedding(numbers.flatten(), 256).reshape(2, -1)], dim=1)
        expected = pipeline.unet(x, timestep, tokens, **told).sample
        assert relative(parts.unet(x, timestep, tokens, vector=vector), expected) < 1e-5
        image, latent = torch.rand(1, 3, 64, 48) * 2 - 1, torch.randn(1, 4, 8, 6)
        assert relative(parts.full_vae.encode(image).mean, pipeline.vae.encode(image).latent_dist.mean) < 1e-5
        assert relative(parts.full_vae.decode(latent), pipeline.vae.decode(latent).sample) < 1e-5
        made = model.text_encoder.encode(PROMPT).conditioning
        if parts.size_numbers:
            tokens, _, pooled, _ = pipeline.encode_prompt(PROMPT)
            assert made.vector is not None and relative(made.vector, pooled) < 1e-5
        else:
            ids = pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
            tokens = pipeline.text_encoder(ids).last_hidden_state
        assert relative(made.tokens, tokens) < 1e-5


def unblended(model: StableDiffusion) -> torch.Tensor:
    """An inpainting network led by what it is told alone, as in diffusers: ours keeps the rest of the picture, too."""
    (told,) = prepare(model, asked(model.parts.family)).channels
    prompt, negative = (replace(model.text_encoder(text), image=told) for text in (PROMPT, NEGATIVE))
    *_, last = model.denoising_process(prompt, negative, guidance=cases.GUIDANCE, size=(8, 6), **RUN)
    return model.image_decoder.straight(last.x)


def test_pictures_agree_with_diffusers(anew: Anew, monkeypatch: pytest.MonkeyPatch) -> None:
    # diffusers tells a sample of the encoder's distribution, drawn before the noise; we tell its mean
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    family = anew.case.name
    for model, pipeline in zip(anew.models(), anew.pipelines(), strict=True):
        expected = cases.paint(pipeline)
        made = unblended(model) if family.endswith("inpaint") else straight(model, asked(family))
        value = psnr(made, expected)
        print(f"{family}: {value:.1f} dB")
        assert float(expected.std()) > 0.02 and value > FLOOR
        assert psnr(cases.paint(pipeline, guidance_scale=cases.GUIDANCE + 2), expected) < FLOOR

"""Stable Diffusion XL, base and refiner: the hand-over against diffusers' two pipelines, and as a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tiny_xl as xl
from painting import psnr
from stable_diffusion.adapters.textual_inversion import read_embedding
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.loras import request_adapters
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.pipeline.prompts import encode_prompts
from stable_diffusion.request.metadata import parse_parameters
from stable_diffusion.request.request import Request

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry, low quality"
STEPS, GUIDANCE, SEED, FLOOR = 10, 5.0, 1234, 55.0
OURS: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED, "width": 48, "height": 64}
OURS |= {"sampler": "euler", "schedule": "ddim_uniform", "negative_prompt": NEGATIVE}

Models = tuple[Any, Any, StableDiffusion, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Diffusers' base and refiner, our base, and the refiner's file."""
    place = tmp_path_factory.mktemp("refiner")
    base, refiner = xl.write_folder(xl.BASE, place / "one"), xl.write_folder(xl.REFINER, place / "two")
    single = xl.write_single(xl.REFINER, refiner, place / "refiner.safetensors")
    theirs = xl.read_folder(xl.BASE, base), xl.read_folder(xl.REFINER, refiner)
    theirs[1].vae = theirs[0].vae  # released ones have the same; ours decodes with the base's
    return *theirs, load(base, device="cpu"), single


def reference(
    base: Any, refiner: Any, switch: float, scores: Mapping[str, float] | None = None, **sizes: Any
) -> torch.Tensor:
    common = {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    latent = base(
        PROMPT, height=64, width=48, denoising_end=switch, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(SEED), **common, **sizes,
    ).images  # fmt: skip
    sizes.pop("target_size", None), sizes.pop("negative_target_size", None)
    common |= scores or {}
    return refiner(PROMPT, image=latent, denoising_start=switch, output_type="pt", **common, **sizes).images


def painted(model: StableDiffusion, **settings: Any) -> Images:
    request = Request(PROMPT, **{**OURS, **settings})
    (done,) = (event for event in generate(model, request, output="straight") if isinstance(event, Images))
    return done


@pytest.mark.parametrize("switch", [0.8, 0.5])
def test_the_hand_over_agrees(models: Models, switch: float) -> None:
    base, refiner, model, path = models
    expected = reference(base, refiner, switch)
    done = painted(model, refiner={"model": path, "switch": switch})
    value = psnr(done.tensor, expected)
    print(f"switch at {switch}: {value:.1f} dB")
    assert float(expected.std()) > 0.02 and value > FLOOR
    for other in ({}, {"refiner": {"model": path, "switch": 0.6}}):
        assert psnr(painted(model, **other).tensor, expected) < FLOOR


def test_sizes_and_scores_reach_both(models: Models) -> None:
    base, refiner, model, path = models
    sizes = {"original_size": (512, 640), "crops_coords_top_left": (16, 32)}
    sizes |= {"negative_" + name: value for name, value in sizes.items()}
    sizes |= {"target_size": (64, 48), "negative_target_size": (64, 48)}
    told = {"original": (640, 512), "crop": (32, 16), "target": (48, 64)}
    done = painted(model, refiner=path, micro_conditioning=told)
    value = psnr(done.tensor, reference(base, refiner, 0.8, **sizes))
    print(f"with sizes: {value:.1f} dB")
    assert value > FLOOR
    scored = painted(
        model, refiner=path, micro_conditioning={**told, "aesthetic_score": 9, "negative_aesthetic_score": 1}
    )
    expected = reference(base, refiner, 0.8, {"aesthetic_score": 9, "negative_aesthetic_score": 1}, **sizes)
    assert psnr(scored.tensor, expected) > psnr(done.tensor, expected) + 10


def test_the_ends_are_one_model_alone(models: Models) -> None:
    _, _, model, path = models
    never = painted(model, refiner={"model": path, "switch": 1})
    assert torch.equal(never.tensor, painted(model).tensor)
    alone = painted(load(path, device="cpu", vae=model.parts.source.path / "vae"))
    assert torch.equal(painted(model, refiner={"model": path, "switch": 0}).tensor, alone.tensor)


def test_with_hires_it_paints_the_end_of_the_second_pass(models: Models) -> None:
    _, _, model, path = models
    seen: list[int] = []
    second = painted(model, refiner=path, hires={"scale": 2, "steps": 5, "strength": 0.8}).requests[0]
    assert second.refiner is not None and second.refiner.model == "refiner"
    hook = model.cache.refiner(str(path), model).parts.unet.register_forward_pre_hook(
        lambda network, told: seen.append(told[0].shape[-1])
    )
    try:
        painted(model, refiner=path, hires={"scale": 2, "steps": 5, "strength": 0.8})
    finally:
        hook.remove()
    assert seen == [12]  # one step of five, at twice the width of 6 latents


def test_the_text_says_it_and_is_read_back(models: Models) -> None:
    _, _, model, path = models
    told = {"original": (640, 512), "crop": (32, 16), "target": (1024, 768), "aesthetic_score": 7}
    request = Request(PROMPT, **OURS, refiner={"model": path, "switch": 0.7}, micro_conditioning=told, count=1)
    (done,) = (event for event in generate(model, request) if isinstance(event, Images))
    image: Image.Image = done.images[0]
    text = image.info["parameters"]
    digits = load(path, device="cpu").hash
    assert f"Refiner: refiner [{digits}], Refiner switch at: 0.7" in text
    assert "Original size: 640x512, Target size: 1024x768, Crop top left: 16 32, Aesthetic score: 7" in text
    read = parse_parameters(text).request
    assert read.refiner == done.requests[0].refiner and read.micro_conditioning == request.micro_conditioning


def test_new_words_reach_the_refiner(models: Models, tmp_path: Path) -> None:
    """The refiner reads a word as the base's second encoder does, from `clip_g` alone."""
    _, _, base, path = models
    refiner = load(path, device="cpu", vae=base.parts.source.path / "vae", dtype=torch.float32)
    assert base.parts.clip2 is not None
    weights = {name: tensor.clone() for name, tensor in base.parts.clip2.state_dict().items()}
    (tmp_path / "words").mkdir()
    vectors = {"clip_l": torch.randn(2, xl.WIDTH), "clip_g": torch.randn(2, xl.WIDTH_G)}
    save_file(vectors, tmp_path / "words" / "moonish.safetensors")
    request = Request("a (moonish:1.3) castle", **OURS, embeddings_dir=tmp_path / "words", refiner={"model": path})
    own = {name: tensor.clone() for name, tensor in refiner.parts.clip.state_dict().items()}
    refiner.parts.clip.load_state_dict(weights)
    try:
        ready = encode_prompts(base, request, [(STEPS, 0)], refiner)
        plain = encode_prompts(base, replace(request, embeddings_dir=None), [(STEPS, 0)], refiner)
        added = base.add_embedding(tmp_path / "words" / "moonish.safetensors")
        again = encode_prompts(base, replace(request, embeddings_dir=None), [(STEPS, 0)], refiner)
    finally:
        refiner.parts.clip.load_state_dict(own)
        base.text_encoder.embeddings = {}
        base._embeddings.remove(added)
    assert ready.refiner is not None and plain.refiner is not None and again.refiner is not None
    ((of_base, _),) = ready.passes[0][0].at(1)
    ((of_refiner, _),), ((as_text, _),) = ready.refiner[0].at(1), plain.refiner[0].at(1)
    torch.testing.assert_close(of_refiner.tokens, of_base.tokens[..., xl.WIDTH :])
    torch.testing.assert_close(of_refiner.vector, of_base.vector)
    assert not torch.allclose(of_refiner.tokens, as_text.tokens, atol=1e-2)
    assert torch.equal(again.refiner[0].at(1)[0][0].tokens, of_refiner.tokens)
    assert not refiner.text_encoder.embeddings and not any("moonish" in note for note in ready.notes)


def test_a_word_without_vectors_for_the_refiner_is_told(models: Models, tmp_path: Path) -> None:
    _, _, base, path = models
    refiner = load(path, device="cpu", vae=base.parts.source.path / "vae")
    save_file({"emb_params": torch.randn(1, xl.WIDTH)}, tmp_path / "narrow.safetensors")
    found = {"narrow": read_embedding(tmp_path / "narrow.safetensors")}
    adapters = replace(request_adapters(base, Request("a narrow castle", **OURS)), embeddings=found)
    assert adapters.words_for(refiner) == (
        {}, ["the refiner reads 'narrow' as text: the embedding has no vectors for its text encoder"]
    )  # fmt: skip


def test_what_does_not_fit_is_refused(models: Models, tmp_path: Path) -> None:
    model = models[2]
    inpaint = xl.write_folder(xl.INPAINT, tmp_path)
    with pytest.raises(InvalidRequest, match="sdxl-inpaint, which reads a picture too"):
        generate(model, Request(PROMPT, **OURS, refiner=inpaint))
    with pytest.raises(InvalidRequest, match="there is no model 'nowhere'"):
        generate(model, Request(PROMPT, **OURS, refiner="nowhere"))


def test_what_has_no_effect_is_said(models: Models) -> None:
    model = models[2]
    assert painted(model, noise={"shift": 2}).notes == ("shift is ignored: the model is no flow model",)

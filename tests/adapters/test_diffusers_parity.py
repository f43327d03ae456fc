"""The same adapter files in diffusers' own loader and here: networks' answers, Stable Diffusion 1, 2, XL and 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import factors
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

import tiny_checkpoints as tiny
import tiny_sd3
import tiny_xl
from stable_diffusion.pipeline.models import StableDiffusion, load

PROMPT = "a beautiful sunset over the ocean"
JOINT = ("add_k_proj", "to_add_out", "ff_context.net.0.proj", "norm1.linear", "norm_out.linear", "context_embedder")
"""Layers of joint blocks; the shift and scale of `norm_out.linear` are the other way round here."""
TEXT = ("text_model.encoder.layers.1.self_attn.v_proj", "text_model.encoder.layers.0.mlp.fc1")


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl", "sd3"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StableDiffusion]:
    place: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "sdxl":
        folder = tiny_xl.write_folder(tiny_xl.BASE, place)
        return tiny_xl.read_folder(tiny_xl.BASE, folder), load(folder, device="cpu")
    if request.param == "sd3":
        folder = tiny_sd3.write_folder(tiny_sd3.MEDIUM, place)
        return tiny_sd3.read_folder(folder), load(folder, device="cpu")
    folder = tiny.write_folder({"sd1": tiny.SD1, "sd2": tiny.SD2}[request.param], place)
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    return theirs, load(folder, device="cpu")


def layers(theirs: Any) -> dict[str, tuple[int, ...]]:
    """Every attention layer and projection, some convolutions, and two layers of each text encoder."""
    found = {}
    part = "transformer" if hasattr(theirs, "transformer") else "unet"
    for name, module in getattr(theirs, part).named_modules():
        wanted = name.endswith(
            ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.2", "resnets.0.conv1", *JOINT)
        )
        if wanted and hasattr(module, "weight"):
            found[f"{part}.{name}"] = tuple(module.weight.shape)
    for part in ("text_encoder", "text_encoder_2"):
        encoder = getattr(theirs, part, None)
        for path in TEXT if encoder is not None else ():
            # transformers 5 lacks the first part of these names
            modules = dict(encoder.named_modules())
            found[f"{part}.{path}"] = tuple(
                modules.get(path, modules.get(path.removeprefix("text_model."))).weight.shape
            )
    return found


def write(path: Path, sizes: dict[str, tuple[int, ...]], style: str) -> Path:
    """The same LoRA in PEFT's style, or in kohya's with alpha 2 at rank 4."""
    state = {}
    for seed, (name, shape) in enumerate(sizes.items()):
        up, down = factors(shape, seed, rank=4, size=0.1)
        if style == "peft":
            state |= {f"{name}.lora_B.weight": up * 0.5, f"{name}.lora_A.weight": down}
            continue
        part, _, layer = name.partition(".")
        both = any(each.startswith("text_encoder_2.") for each in sizes)
        prefix = {
            "unet": "lora_unet_",
            "transformer": "lora_transformer_",
            "text_encoder": "lora_te1_" if both else "lora_te_",
            "text_encoder_2": "lora_te2_",
        }
        stem = prefix[part] + layer.replace(".", "_")
        state |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(2.0)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def answers(theirs: Any, ours: StableDiffusion) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(theirs, ours): the prompt's tokens and the U-Net's answer to noise under them."""
    if hasattr(theirs, "transformer"):
        return _joint_answers(theirs, ours)
    unet, xl = ours.parts.unet, ours.parts.clip2 is not None
    generator = torch.Generator().manual_seed(3)
    x, t = torch.randn(2, 4, 8, 6, generator=generator), torch.tensor([700, 30])
    with torch.no_grad():
        encoded = theirs.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        tokens = encoded[0]
        told: dict[str, Any] = {}
        vector = None
        if xl:
            sizes = torch.tensor([[64.0, 48, 0, 0, 64, 48]]).expand(2, -1)
            told = {"added_cond_kwargs": {"text_embeds": encoded[2].expand(2, -1), "time_ids": sizes}}
            vector = _vector(theirs, told["added_cond_kwargs"])
        first = theirs.unet(x, t, tokens.expand(2, -1, -1), **told).sample
        conditioning = ours.text_encoder(PROMPT)
        second = unet(x, t, conditioning.tokens.expand(2, -1, -1), vector=vector)
    return [tokens, first], [conditioning.tokens, second]


def _joint_answers(theirs: Any, ours: StableDiffusion) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The same of Stable Diffusion 3."""
    x, t = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(3)), torch.tensor([700.0])
    with torch.no_grad():
        tokens, _, pooled, _ = theirs.encode_prompt(PROMPT, None, None, do_classifier_free_guidance=False)
        first = theirs.transformer(x, tokens, pooled, t).sample
        conditioning = ours.text_encoder(PROMPT)
        assert conditioning.vector is not None
        second = ours.parts.unet(x, t, conditioning.tokens, vector=conditioning.vector)
    return [tokens, pooled, first], [conditioning.tokens, conditioning.vector, second]


def _vector(theirs: Any, told: dict[str, torch.Tensor]) -> torch.Tensor:
    """The vector as diffusers' U-Net makes it: the pooled text and the sinusoids of the six numbers."""
    numbers = theirs.unet.add_time_proj(told["time_ids"].flatten()).reshape(2, -1)
    return torch.cat([told["text_embeds"], numbers], dim=-1)


@pytest.mark.parametrize("style", ["peft", "kohya"])
def test_answers_agree(style: str, models: tuple[Any, StableDiffusion], tmp_path: Path) -> None:
    theirs, ours = models
    sizes = layers(theirs)
    path = write(tmp_path / f"{style}.safetensors", sizes, style)
    plain, _ = answers(theirs, ours)
    # Always the PEFT style for diffusers: its conversion of kohya's text layers gives names that transformers 5 lacks.
    theirs.load_lora_weights(str(tmp_path), weight_name=write(tmp_path / "peft.safetensors", sizes, "peft").name)
    try:
        with ours.attach(path) as attachment:
            assert attachment.kinds == {"LoRA": len(sizes)} and attachment.unmatched == ()
            reference, found = answers(theirs, ours)
    finally:
        theirs.unload_lora_weights()
    for before, one, other in zip(plain, reference, found, strict=True):
        assert float((one - before).abs().max()) > 0.05, "the adapter changes nothing"
        torch.testing.assert_close(other, one, rtol=1e-4, atol=2e-5 * float(one.abs().max()))

"""Tiny random models, built in code: every shape is small, every axis has another size, nothing is read from disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.latents import LatentFormat
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.text.tokenizer import END, START, WORD_END, Tokenizer, byte_letters
from stable_diffusion.weights.parts import Defaults, Parts, TokenizerSource


def pytest_configure(config: pytest.Config) -> None:
    """Workers that run side by side get a thread each, and so do the processes that they start."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def randomised(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill layers that start at zero, so that every part of the network matters to its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval().requires_grad_(False)


def byte_tokenizer_json() -> str:
    """A byte-level tokenizer without merges, with CLIP-like marks: 256 letters, 256 word ends, 2 marks, one merge."""
    letters = byte_letters()
    tokens = [*letters, *(letter + WORD_END for letter in letters), "th", START, END]
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = Backend(models.BPE(vocab=vocab, merges=[("t", "h")], end_of_word_suffix=WORD_END, unk_token=END))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in (START, END)])
    return str(backend.to_str())


@pytest.fixture(scope="session")
def tiny_clip() -> CLIPText:
    """CLIP's vocabulary and context, 3 layers of width 24."""
    torch.manual_seed(1)
    config = CLIPTextConfig(width=24, layers=3, heads=2, mlp_width=40, eos_token_id=49407)
    return randomised(CLIPText(config), 1)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_native_tokenizer() -> Tokenizer:
    return Tokenizer.from_json(byte_tokenizer_json(), context_length=32)


@pytest.fixture(scope="session")
def tiny_native_clip(tiny_native_tokenizer: Tokenizer) -> CLIPText:
    """Context 32 and a pooled vector of width 12, as the embedded model has."""
    torch.manual_seed(2)
    vocab, eos = tiny_native_tokenizer.vocab_size, tiny_native_tokenizer.eos
    config = CLIPTextConfig(
        vocab_size=vocab,
        width=24,
        layers=2,
        heads=3,
        mlp_width=40,
        context_length=32,
        activation="gelu",
        projection_dim=12,
        eos_token_id=eos,
    )
    return randomised(CLIPText(config), 2)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_unet() -> UNet:
    """Four latent channels, two stages."""
    torch.manual_seed(3)
    config = UNetConfig(
        channels=(16, 24), blocks_per_stage=1, transformer_depth=(1, 0), heads=2, context_dim=24, groups=8
    )
    return randomised(UNet(config), 3)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_native_unet() -> UNet:
    """Six latent channels and a vector of width 12 added to the time embedding."""
    torch.manual_seed(4)
    config = UNetConfig(
        in_channels=6,
        out_channels=6,
        channels=(16, 24),
        blocks_per_stage=1,
        transformer_depth=(0, 1),
        heads=2,
        context_dim=24,
        vector_dim=12,
        groups=8,
    )
    return randomised(UNet(config), 4)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_vae() -> VAE:
    """RGB, four latent channels, eight pixels per latent."""
    torch.manual_seed(5)
    config = VAEConfig(channels=(8, 16), blocks_per_stage=1, patch_size=4, groups=4)
    return randomised(VAE(config), 5)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_native_vae() -> VAE:
    """RGBA, six latent channels, eight pixels per latent."""
    torch.manual_seed(6)
    config = VAEConfig(
        image_channels=4,
        latent_channels=6,
        channels=(8, 16),
        blocks_per_stage=1,
        patch_size=4,
        groups=4,
        quant_conv=False,
    )
    return randomised(VAE(config), 6)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def tiny_model(tiny_unet: UNet, tiny_vae: VAE, tiny_clip: CLIPText) -> StableDiffusion:
    """Like Stable Diffusion 1: RGB, eps prediction, CLIP's vocabulary; 48 x 32 pixels by default."""
    parts = Parts(
        unet=tiny_unet,
        vae=tiny_vae,
        clip=tiny_clip,
        tokenizer=TokenizerSource(),
        latents=LatentFormat(channels=4, downscale=8, scale=0.5, preview=((0.3, 0.2, 0.2),) * 4),
        schedule=ddpm_schedule(),
        prediction="eps",
        family="sd1",
        defaults=Defaults(width=48, height=32, steps=3, guidance=5.0, sampler="euler", schedule="karras"),
    )
    return StableDiffusion.from_parts(parts, name="tiny")


@pytest.fixture(scope="session")
def tiny_native_parts(tiny_native_unet: UNet, tiny_native_vae: VAE, tiny_native_clip: CLIPText) -> Parts:
    """Like the embedded model: RGBA, flow prediction, its own tokenizer, pooled vector; 16 x 24 pixels by default."""
    return Parts(
        unet=tiny_native_unet,
        vae=tiny_native_vae,
        clip=tiny_native_clip,
        tokenizer=TokenizerSource(json=byte_tokenizer_json()),
        latents=LatentFormat(channels=6, downscale=8, scale=(0.5, 1.0, 2.0, 1.5, 0.7, 0.9), shift=0.1),
        schedule=FlowSchedule(),
        prediction="flow",
        family="embedded",
        defaults=Defaults(width=16, height=24, steps=3, guidance=2.0, sampler="euler", schedule="sgm_uniform"),
    )


@pytest.fixture(scope="session")
def tiny_native_model(tiny_native_parts: Parts) -> StableDiffusion:
    return StableDiffusion.from_parts(tiny_native_parts, name="tiny native")


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a tiny Stable Diffusion 3 medium, not to be changed."""
    import tiny_sd3  # not above, since diffusers takes long to import

    return tiny_sd3.write_folder(tiny_sd3.MEDIUM, tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="session")
def sd3_single(sd3_folder: Path) -> Path:
    """The same as one file, with T5's vocabulary beside it; not to be changed, nor anything put there."""
    import tiny_sd3

    return tiny_sd3.write_single(tiny_sd3.MEDIUM, sd3_folder, sd3_folder.parent / "single" / "sd3.safetensors")

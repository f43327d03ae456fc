"""The OpenVINO engine: the same pictures as torch's, within a tolerance; alone as in a batch; LoRAs; what it keeps."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_checkpoints
import tiny_sd3
import tiny_xl
import torch
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file
from torch import nn

from stable_diffusion.engine.base import Features
from stable_diffusion.engine.choose import choose, unavailable
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.mmdit import MMDiT
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request

pytest.importorskip("openvino", reason="OpenVINO is not installed (the extra `cpu`)")

from stable_diffusion.engine.openvino.engine import OpenVINOEngine
from stable_diffusion.engine.openvino.store import Store

FLOAT32, BFLOAT16 = 2e-4, 0.04
"""Tolerance: the length of the difference from torch in float32, over the length of torch's answer. bfloat16 has eight
bits of mantissa; a network of random weights, whose signals are not damped, adds its roundings up."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"), 10**9)


def random(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network whose every part matters."""
    torch.manual_seed(seed)
    network = build().eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            parameter.normal_(std=0.05)
    return network


def inputs(network: Any, rows: int, height: int, width: int, tokens: int = 77) -> dict[str, torch.Tensor]:
    """One call's arguments for a denoiser."""
    generator, config = torch.Generator().manual_seed(7), network.config
    given = {
        "x": torch.randn(rows, config.in_channels, height, width, generator=generator),
        "timestep": torch.linspace(20, 900, rows),
        "tokens": torch.randn(rows, tokens, config.context_dim, generator=generator),
    }
    if config.vector_dim is not None:
        given["vector"] = torch.randn(rows, config.vector_dim, generator=generator)
    return given


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return float((found.float() - expected.float()).norm() / expected.float().norm())


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "sd1": lambda: UNet(tiny_checkpoints.SD1.ours),
    "sd1-small": lambda: UNet(tiny_checkpoints.SMALL.ours),
    "sd1-inpaint": lambda: UNet(tiny_checkpoints.INPAINT.ours),
    "sd2": lambda: UNet(tiny_checkpoints.SD2.ours),
    "sd2-depth": lambda: UNet(tiny_checkpoints.DEPTH.ours),
    "sdxl": lambda: UNet(tiny_xl.BASE.config),
    "sdxl-refiner": lambda: UNet(tiny_xl.REFINER.config),
    "sd3": lambda: MMDiT(tiny_sd3.MEDIUM.config),
    "sd3.5-medium": lambda: MMDiT(tiny_sd3.MEDIUM_35.config),
    "sd3.5-large": lambda: MMDiT(tiny_sd3.LARGE_35.config),
    "patches": lambda: UNet(
        UNetConfig(channels=(32, 64), transformer_depth=(0, 1), heads=2, context_dim=64, patch_size=2, patch_detail=0.5)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_parity_of_denoisers(family: str, store: Store) -> None:
    """Float32 and bfloat16, on a size that is odd on every level."""
    network = random(FAMILIES[family])
    given = inputs(network, 2, 7, 10)
    with torch.no_grad():
        expected = network(**given)
    for precision, tolerance in ((torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)):
        found = OpenVINOEngine(precision, store).network(network, "denoiser")(**given)
        assert distance(found, expected) < tolerance, precision


@pytest.mark.parametrize("config", [tiny_checkpoints.VAE_CONFIG, tiny_sd3.VAE, VAEConfig(channels=(32, 64), patch_size=2)])
def test_parity_of_decoders(config: VAEConfig, store: Store) -> None:
    vae = random(lambda: VAE(config))
    latent = torch.randn(1, config.latent_channels, 5, 6, generator=torch.Generator().manual_seed(1))
    found = OpenVINOEngine(store=store).network(vae, "image_decoder")(latent)
    with torch.no_grad():
        assert distance(found, vae.decode(latent)) < FLOAT32


def test_weights_in_half_precision(store: Store) -> None:
    """Stored in bfloat16 or float16 they are computed with in bfloat16, and answers are in the precision of the call."""
    network = random(FAMILIES["sd1"])
    given = inputs(network, 1, 8, 8)
    with torch.no_grad():
        expected = network(**given)
    for dtype in (torch.bfloat16, torch.float16):
        half = random(FAMILIES["sd1"]).to(dtype)
        halved = {name: each if name == "timestep" else each.to(dtype) for name, each in given.items()}
        found = OpenVINOEngine(store=store).network(half, "denoiser")(**halved)
        assert found.dtype == dtype and distance(found.float(), expected) < BFLOAT16

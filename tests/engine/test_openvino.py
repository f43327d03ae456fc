"""The OpenVINO engine: the same pictures as torch's, within a tolerance; alone as in a batch; LoRAs; what it keeps."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file
from torch import nn

import tiny_checkpoints
import tiny_sd3
import tiny_xl
from stable_diffusion.engine.base import Features
from stable_diffusion.engine.choose import choose, unavailable
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.mmdit import MMDiT
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request

if unavailable("openvino") is not None:
    pytest.skip(str(unavailable("openvino")), allow_module_level=True)

from stable_diffusion.engine.openvino import engine as engine_module
from stable_diffusion.engine.openvino.convert import convert
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
    "sd2": lambda: UNet(replace(tiny_checkpoints.SD2.ours, blocks_per_stage=1)),
    "sdxl": lambda: UNet(replace(tiny_xl.BASE.config, blocks_per_stage=1)),
    "sd3": lambda: MMDiT(tiny_sd3.MEDIUM.config),
    "sd3.5-medium": lambda: MMDiT(tiny_sd3.MEDIUM_35.config),
    "patches": lambda: UNet(
        UNetConfig(
            channels=(32, 64),
            blocks_per_stage=1,
            transformer_depth=(0, 1),
            heads=2,
            context_dim=64,
            patch_size=2,
            patch_detail=0.5,
        )
    ),
}


def test_converting_calls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's telemetry would start processes that connect to the network, at every import and conversion."""
    started: list[object] = []
    monkeypatch.setattr(multiprocessing.Process, "start", started.append)
    vae = random(lambda: VAE(VAEConfig(channels=(32,), patch_size=2, blocks_per_stage=1)))
    OpenVINOEngine(store=Store(tmp_path, 10**9)).network(vae, "image_decoder")(torch.zeros(1, 4, 2, 2))
    assert sys.modules["openvino_telemetry"] is None and not started


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


@pytest.mark.parametrize(
    "config", [tiny_checkpoints.VAE_CONFIG, tiny_sd3.VAE, VAEConfig(channels=(32, 64), patch_size=2)]
)
def test_parity_of_decoders(config: VAEConfig, store: Store) -> None:
    vae = random(lambda: VAE(config))
    latent = torch.randn(1, config.latent_channels, 5, 6, generator=torch.Generator().manual_seed(1))
    found = OpenVINOEngine(store=store).network(vae, "image_decoder")(latent)
    with torch.no_grad():
        assert distance(found, vae.decode(latent)) < FLOAT32


def test_weights_in_half_precision(store: Store) -> None:
    """Stored in bfloat16 or float16 they are computed with in bfloat16; answers are in the precision of the call."""
    network = random(FAMILIES["sd1"])
    given = inputs(network, 1, 8, 8)
    with torch.no_grad():
        expected = network(**given)
    for dtype in (torch.bfloat16, torch.float16):
        half = random(FAMILIES["sd1"]).to(dtype)
        halved = {name: each if name == "timestep" else each.to(dtype) for name, each in given.items()}
        found = OpenVINOEngine(store=store).network(half, "denoiser")(**halved)
        assert found.dtype == dtype and distance(found.float(), expected) < BFLOAT16


def test_a_row_is_the_same_alone_and_in_a_batch(store: Store) -> None:
    network = random(FAMILIES["sd1"])
    given = inputs(network, 4, 7, 10)
    for precision in (torch.float32, torch.bfloat16):
        run = OpenVINOEngine(precision, store).network(network, "denoiser")
        together = run(**given)
        for row in range(4):
            assert torch.equal(run(**{name: each[row : row + 1] for name, each in given.items()})[0], together[row])


def pictures(model: StableDiffusion, engine: OpenVINOEngine, batch: int | None = None, **settings: Any) -> list[bytes]:
    request = Request("a red cat", **{"steps": 2, "seed": 3, "sampler": "euler_a", **settings})
    events = list(generate(model, request, engine=engine, batch=batch))
    assert all(event.notes == () for event in events if hasattr(event, "images"))
    return [image.tobytes() for event in events if hasattr(event, "images") for image in event.images]


def test_pictures_are_the_same_in_batches_and_after_restarts(tiny_model: StableDiffusion, store: Store) -> None:
    engine = OpenVINOEngine(store=store)
    alone = pictures(tiny_model, engine, count=3)
    assert len(set(alone)) == 3
    assert pictures(tiny_model, engine, count=3, batch=3) == alone
    assert pictures(tiny_model, engine, seed=4) == alone[1:2]
    entries = {each.name for each in store.folder.iterdir()}
    assert pictures(tiny_model, OpenVINOEngine(store=Store(store.folder)), count=3) == alone
    assert {each.name for each in store.folder.iterdir()} == entries


def test_the_first_graph_is_read_back_as_later_ones_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenVINO makes of a graph that went through a file rounds differently, so that every graph goes through one,
    on a disk that refuses too."""
    made: list[Any] = []
    monkeypatch.setattr(engine_module, "convert", lambda *given: made.append(convert(*given)) or made[-1])
    (tmp_path / "file").touch()
    network = random(FAMILIES["sd1"])
    shapes = {name: tuple(each.shape) for name, each in inputs(network, 1, 8, 8).items()}
    for folder in ("whole", "file"):
        graph = OpenVINOEngine(store=Store(tmp_path / folder, 10**9))._graph(network, "forward", shapes)
        assert len(made) == 1 and graph is not made.pop()


def close(found: bytes, expected: bytes, levels: float = 1.0) -> bool:
    """Whether two pictures differ by so many levels of 255 at most on average."""
    difference = np.frombuffer(found, np.uint8).astype(int) - np.frombuffer(expected, np.uint8)
    return bool(np.abs(difference).mean() <= levels)


def lora(model: StableDiffusion, path: Path) -> Path:
    save_file(lora_state(model, ALL, kohya), path)
    return path


def test_loras_change_the_picture_as_they_do_with_torch(
    tiny_model: StableDiffusion, store: Store, tmp_path: Path
) -> None:
    """A LoRA of a request, another strength, none again, one that is attached: never the picture of other weights."""
    engine, path = OpenVINOEngine(store=store), lora(tiny_model, tmp_path / "style.safetensors")
    cases: list[dict[str, Any]] = [{}, {"loras": [(path, 1.0)]}, {"loras": [(path, -1.0)]}, {}]
    found = [pictures(tiny_model, engine, **case)[0] for case in cases]
    for case, ours in zip(cases, found, strict=True):
        request = Request("a red cat", steps=2, seed=3, sampler="euler_a", **case)
        *_, last = generate(tiny_model, request)
        assert close(ours, last.images[0].tobytes())
    assert found[0] == found[3] and len(set(found)) == 3
    with tiny_model.attach(path):
        assert pictures(tiny_model, engine)[0] == found[1]
    assert pictures(tiny_model, engine)[0] == found[0]


def test_what_it_refuses_it_says(tiny_model: StableDiffusion, store: Store) -> None:
    engine = OpenVINOEngine(store=store)
    for name in ("seamless", "image_prompt", "residuals", "attention_maps"):
        assert "openvino" in (engine.refuses(Features(**{name: True})) or "")
    assert engine.refuses(Features(weight_patches=True)) is None
    events = list(generate(tiny_model, Request("a cat", steps=1, canvas={"tiling": "x"}), engine=engine))
    assert events[-1].notes == ("this run uses torch: the engine openvino does not have joined edges",)


def test_it_is_found_by_its_name() -> None:
    assert unavailable("openvino") is None
    assert isinstance(choose("openvino").engine, OpenVINOEngine)
    with pytest.raises(InvalidRequest, match="'int8'; expected 'stored'"):
        choose("openvino", precision="int8")


def resident() -> int:
    """Bytes of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system does not say how much memory a process has")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_memory_stays_flat(
    tiny_model: StableDiffusion, tiny_native_model: StableDiffusion, store: Store, tmp_path: Path
) -> None:
    """Pictures with changing LoRAs, sizes and models; `SD_TEST_PICTURES=200` makes so many."""
    engine, total = OpenVINOEngine(store=store), int(os.environ.get("SD_TEST_PICTURES", "12"))
    path = lora(tiny_model, tmp_path / "style.safetensors")
    marks = []
    for index in range(total):
        if index % 4 == 3:
            pictures(tiny_native_model, engine, seed=index)
        else:
            size = {"width": 48, "height": 32 if index % 2 else 48}
            pictures(tiny_model, engine, seed=index, loras=[(path, 0.5 + index % 3)], **size)
        gc.collect()
        marks.append(resident())
        assert len(engine._compiled) <= 3
    grown = max(marks[-4:]) - max(marks[total // 2 - 2 : total // 2 + 2])
    assert grown < 32e6, f"memory grew by {grown / 1e6:.0f} MB over {total // 2} pictures"


def test_a_network_that_is_gone_is_forgotten(store: Store) -> None:
    network, engine = random(FAMILIES["sd1"]), OpenVINOEngine(store=store)
    engine.network(network, "denoiser")(**inputs(network, 1, 7, 10))
    assert len(engine._compiled) == 1
    with torch.no_grad():
        network.conv_out.weight.mul_(2)  # without word to the engine
    given = inputs(network, 1, 7, 10)
    assert distance(engine.network(network, "denoiser")(**given), network(**given)) < FLOAT32
    network.load_state_dict({name: each / 2 for name, each in network.state_dict().items()}, assign=True)
    network.requires_grad_(False)
    assert distance(engine.network(network, "denoiser")(**given), network(**given)) < FLOAT32
    del network
    gc.collect()
    assert len(engine._compiled) == 0

"""Networks of full size with random weights: diffusers' and ours over the same tensors, made once for a process."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch

from .rows import Absent, installed

sys.path.append(str(Path(__file__).parents[1] / "scripts"))  # where the makers of random networks are

TINY = {"block_out_channels": (32, 64), "layers_per_block": 1}
BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def dtype_of(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _theirs(family: str, quick: bool) -> Any:
    """A U-Net of diffusers on no device."""
    installed("diffusers")
    from diffusers import UNet2DConditionModel
    from full_size_configs import unet

    if family == "sdxl" and not quick:
        return unet("xl")
    if family == "sdxl":
        vector = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        return UNet2DConditionModel(
            **TINY, **BLOCKS, cross_attention_dim=64, attention_head_dim=(2, 4), use_linear_projection=True, **vector,
            projection_class_embeddings_input_dim=64,
        )  # fmt: skip
    if quick:
        return UNet2DConditionModel(**TINY, **BLOCKS, cross_attention_dim=64, attention_head_dim=8)
    return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)


def _ours(family: str, quick: bool) -> Any:
    from stable_diffusion.models.unet import UNet, UNetConfig

    small: dict[str, Any] = {"channels": (32, 64), "blocks_per_stage": 1, "transformer_depth": (1, 0), "mid_depth": 1}
    small["context_dim"] = 64
    if family == "sdxl":
        config = UNetConfig(
            channels=(320, 640, 1280), transformer_depth=(0, 2, 10), mid_depth=10, head_dim=64, context_dim=2048,
            vector_dim=2816, linear_projection=True,
        )  # fmt: skip
        return UNet(UNetConfig(**small, head_dim=16, vector_dim=64, linear_projection=True) if quick else config)
    return UNet(UNetConfig(**small, heads=8) if quick else UNetConfig())


def random(build: Any, dtype: str) -> Any:
    """A network with random weights that keep its signals alive. One draw of a million numbers serves all weights, at
    another place in each, since drawing gigabytes takes longer than what is measured."""
    with torch.device("meta"):
        network = build().to(dtype_of(dtype)).eval().requires_grad_(False)
    network.to_empty(device="cpu")
    drawn = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for place, (name, parameter) in enumerate(network.named_parameters()):
        values = drawn.roll(7919 * place)
        values = values * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else values * 0.3
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            values = values + 1
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(values)):
            part = flat[start : start + len(values)]
            part.copy_(values[: len(part)])
    return network


@functools.cache
def unets(family: str, dtype: str, quick: bool) -> tuple[Any, Any]:
    """(diffusers', ours) of one family, over the same tensors where their layout is the same."""
    from stable_diffusion.weights.networks.unet import unet_diffusers

    ours = random(lambda: _ours(family, quick), dtype)
    table = unet_diffusers(ours.config)
    return _with(lambda: _theirs(family, quick), table.invert(ours.state_dict())), ours


@functools.cache
def autoencoders(dtype: str, quick: bool) -> tuple[Any, Any]:
    """(diffusers', ours): the autoencoder of Stable Diffusion 1."""
    installed("diffusers")
    from diffusers import AutoencoderKL

    from stable_diffusion.models.vae import VAE, VAEConfig
    from stable_diffusion.weights.networks.vae import vae_diffusers

    channels = (32, 32) if quick else (128, 256, 512, 512)
    ours = random(lambda: VAE(VAEConfig(channels=channels)), dtype)
    count = len(channels)
    build = functools.partial(
        AutoencoderKL, block_out_channels=channels, layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * count, up_block_types=("UpDecoderBlock2D",) * count,
    )  # fmt: skip
    return _with(build, vae_diffusers(ours.config).invert(ours.state_dict())), ours


def _with(build: Any, state: dict[str, torch.Tensor]) -> Any:
    """A network of diffusers with these weights."""
    with torch.device("meta"):
        network = build()
    network.load_state_dict(state, strict=False, assign=True)
    missing = [name for name, each in network.named_parameters() if each.is_meta]
    if missing:
        raise Absent(f"the weights of {missing[0]} are unknown")
    return network.eval().requires_grad_(False)


def engine(name: str, precision: str = "stored") -> Any:
    """One of our engines. Raises Absent."""
    from stable_diffusion.engine.choose import choose
    from stable_diffusion.errors import InvalidRequest

    try:
        found, stored = (choose(name, precision=each).engine for each in (precision, "stored"))  # type: ignore[arg-type]
    except (InvalidRequest, ImportError) as error:
        raise Absent(str(error)) from error
    if precision != "stored" and found is stored:
        raise Absent(f"the engine {found.name} does not compute in {precision}")
    return found


def raw_openvino(module: Any, example: dict[str, Any], traced: dict[str, Any], precision: str = "bf16") -> Any:
    """A network of diffusers as OpenVINO's own guide converts it: all at once, one static batch. `traced` are smaller
    arguments to convert it with, which takes less time and gives the same graph."""
    installed("openvino", "OpenVINO")
    from stable_diffusion.engine.openvino.library import openvino

    ov = openvino()
    graph = ov.convert_model(module, example_input=traced)
    for place, value in zip(graph.inputs, example.values(), strict=True):
        place.get_node().set_partial_shape(ov.PartialShape(list(value.shape)))
    graph.validate_nodes_and_infer_types()
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    given = [value.numpy() for value in example.values()]
    return lambda: request.infer(given)

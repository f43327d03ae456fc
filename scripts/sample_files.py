"""Model files of every kind at full size without their weights: true names and shapes, and a hole for the numbers.

They take no room on a disk with sparse files, and `stable-diffusion info --no-hash` reads them as it reads real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from released_shapes import CLIP_L, OPENCLIP_G, OPENCLIP_H, SD3_VAE, SD_VAE, T5
from torch import Tensor, nn

from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.families import FAMILIES
from stable_diffusion.weights.checkpoints.folder import INDEX
from stable_diffusion.weights.checkpoints.save_folder import components, index_words
from stable_diffusion.weights.checkpoints.save_ldm import ldm_state
from stable_diffusion.weights.checkpoints.scheduler import schedule_to_words
from stable_diffusion.weights.containers.safetensors import DTYPE_NAMES
from stable_diffusion.weights.parts import Parts, TokenizerSource

TEXTS = {"sd1": (CLIP_L,), "sd2": (OPENCLIP_H,), "sdxl": (CLIP_L, OPENCLIP_G), "sd3": (CLIP_L, OPENCLIP_G)}
KINDS: dict[type, Any] = {
    UNetConfig: UNet,
    MMDiTConfig: MMDiT,
    VAEConfig: VAE,
    CLIPTextConfig: CLIPText,
    T5Config: T5Encoder,
}


@cache
def network(config: Any) -> Any:
    """The network of a config without memory."""
    return empty(KINDS[type(config)], config)


def empty(kind: Any, *arguments: Any, **settings: Any) -> Any:
    """A module of names and shapes alone."""
    with torch.device("meta"):
        made: nn.Module = kind(*arguments, **settings)
    return made


def model(family: str, denoiser: UNetConfig | MMDiTConfig, *, t5: bool = False, **changes: Any) -> Parts:
    """A whole model of a family, without weights; `changes` are fields of `Parts`."""
    preset, flow = FAMILIES[family], isinstance(denoiser, MMDiTConfig)
    texts = (OPENCLIP_G,) if family == "sdxl-refiner" else TEXTS[family.partition("-")[0].partition(".")[0]]
    clips = [network(config) for config in texts]
    fields = {
        "unet": network(denoiser),
        "vae": network(SD3_VAE if flow else SD_VAE),
        "clip": clips[0],
        "clip2": clips[1] if len(clips) > 1 else None,
        "t5": network(T5) if t5 else None,
        "tokenizer": TokenizerSource(),
        "latents": preset.latents,
        "schedule": FlowSchedule(preset.shift) if flow else ddpm_schedule(),
        "prediction": preset.prediction,
        "family": family,
        "defaults": preset.defaults,
        "clip_layer": preset.clip_layer,
        "text_norm": preset.text_norm,
        "size_numbers": preset.size_numbers,
        "zero_empty": preset.zero_empty,
    }
    return Parts(**{**fields, **changes})


def write_header(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16, **metadata: str) -> None:
    """A .safetensors file of these names and shapes, whose numbers are a hole that reads as zeros."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, tensor in state.items():
        end = position + tensor.numel() * dtype.itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [position, end]
        }  # fmt: skip
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)


def of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The second copy of the denoiser that training leaves in some files (EMA), under its names there."""
    prefix = "model.diffusion_model."
    short = {name: "diffusion_model" + name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    return {f"model_ema.{flat.replace('.', '')}": state[name] for name, flat in short.items()}


def write_checkpoint(path: Path, parts: Parts, **extra: Any) -> None:
    """A .ckpt of the released layout: a pickle in which the tensors are below `state_dict`, with all their numbers."""
    torch.save({"state_dict": {name: tensor.half() for name, tensor in ldm_state(parts).items()}, **extra}, path)


def write_gguf(path: Path, state: Mapping[str, Tensor], architecture: str) -> None:
    """A GGUF file whose matrices are Q8_0 (34 bytes for 32 numbers), its convolutions float16, the rest float32."""
    import gguf
    import numpy as np

    kinds, end = gguf.GGMLQuantizationType, 0
    writer = gguf.GGUFWriter(path, architecture)
    for name, tensor in state.items():
        kind = kinds.F32 if tensor.ndim < 2 else kinds.F16 if tensor.shape[-1] % 32 else kinds.Q8_0
        size = {kinds.F32: tensor.numel() * 4, kinds.F16: tensor.numel() * 2}.get(kind, tensor.numel() // 32 * 34)
        writer.add_tensor_info(name, list(tensor.shape), np.dtype(np.float32), size, kind)
        end += size + -size % writer.data_alignment
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = path.stat().st_size
    with path.open("ab") as file:
        file.truncate(start + -start % 32 + end)


def write_folder(place: Path, parts: Parts, *, variants: tuple[str | None, ...] = (None,), shards: int = 1) -> None:
    """A diffusers folder; a variant of its weights is float16, and the denoiser may be in several files."""
    networks = components(parts)
    scheduler = schedule_to_words(parts)
    write_json(place / "scheduler" / "scheduler_config.json", scheduler)
    write_json(place / INDEX, index_words(parts, networks, str(scheduler["_class_name"]), ("tokenizer",)))
    for part in [part for part in networks if part.startswith("text_encoder")]:
        write_json(place / part.replace("text_encoder", "tokenizer") / "tokenizer.json", {})
    for part, made in networks.items():
        write_json(place / part / "config.json", made.config)
        for variant in variants:
            dotted, dtype = (f".{variant}", torch.float16) if variant else ("", torch.float32)
            if shards > 1 and part in ("unet", "transformer"):
                write_shards(place / part, made.stem + dotted, made.state, shards, dtype)
            else:
                write_header(place / part / f"{made.stem}{dotted}.safetensors", made.state, dtype)


def write_shards(folder: Path, stem: str, state: Mapping[str, Tensor], count: int, dtype: torch.dtype) -> None:
    """Several files of one network, and the index that says which tensor is where."""
    names = list(state)
    files = [f"{stem}-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    place = {name: files[index * count // len(names)] for index, name in enumerate(names)}
    for file in files:
        write_header(folder / file, {name: state[name] for name in names if place[name] == file}, dtype)
    write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": place})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")

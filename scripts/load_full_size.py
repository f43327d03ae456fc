"""Load time and peak memory of Stable Diffusion XL and 3 medium at full size: bfloat16, random weights, one step.

    python scripts/load_full_size.py write xl.safetensors --family xl     7 GB, tensor by tensor, in little memory
    python scripts/load_full_size.py paint xl.safetensors [--side 64]
    python scripts/load_full_size.py peer xl.safetensors --family xl      the same with diffusers' single-file loader

The file has the denoising network, the autoencoder and both CLIP encoders; that of 3 medium is without T5. Peak memory
is that of the process, with the pages of the mapped file that it touched. Each action runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from released_shapes import CLIP_L, OPENCLIP_G, SD3, SD3_VAE, SD_VAE, SDXL
from torch import Tensor

from stable_diffusion.models.clip import CLIPText
from stable_diffusion.models.mmdit import MMDiT
from stable_diffusion.models.unet import UNet
from stable_diffusion.models.vae import VAE
from stable_diffusion.weights.checkpoints.families import SD3_CLIP_G, SD3_CLIP_L, UNET, XL_CLIP_G, XL_CLIP_L
from stable_diffusion.weights.checkpoints.families import VAE as VAE_PREFIX
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.mmdit import mmdit_ldm
from stable_diffusion.weights.networks.unet import unet_ldm
from stable_diffusion.weights.networks.vae import vae_ldm


def networks(family: str) -> tuple[tuple[str, Any, Any], ...]:
    """(prefix in the file, key table, network without memory)."""
    clip, vae = CLIP_L, SD3_VAE if family == "sd3" else SD_VAE
    with torch.device("meta"):
        shared = (VAE_PREFIX, vae_ldm(vae), VAE(vae))
        if family == "sd3":
            return (
                (UNET, mmdit_ldm(SD3), MMDiT(SD3)),
                shared,
                (SD3_CLIP_L.prefix, clip_transformers(clip), CLIPText(clip)),
                (SD3_CLIP_G.prefix, clip_transformers(OPENCLIP_G), CLIPText(OPENCLIP_G)),
            )
        return (
            (UNET, unet_ldm(SDXL), UNet(SDXL)),
            shared,
            (XL_CLIP_L.prefix, clip_transformers(clip), CLIPText(clip)),
            (XL_CLIP_G.prefix, clip_openclip(OPENCLIP_G), CLIPText(OPENCLIP_G)),
        )


def shapes(family: str) -> Iterator[tuple[str, torch.Size]]:
    """Names and shapes of all tensors of the file."""
    for prefix, table, network in networks(family):
        for name, tensor in table.invert(network.state_dict()).items():
            yield prefix + name, tensor.shape


def random_tensor(name: str, shape: torch.Size, drawn: Tensor) -> Tensor:
    """The normal numbers in `drawn`, from the start and over again, at a scale that keeps signals alive."""
    count = shape.numel()
    values = drawn.repeat(count // len(drawn) + 1)[:count].view(shape)
    if len(shape) > 1:
        return values * values[0].numel() ** -0.5
    return 0.1 * values + (1.0 if name.endswith("weight") else 0.0)


def write(path: Path, family: str) -> None:
    header: dict[str, object] = {}
    listed, position = list(shapes(family)), 0
    for name, shape in listed:
        end = position + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    drawn = torch.randn(2**20 - 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in listed:
            tensor = random_tensor(name, shape, drawn)
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    print(f"{path}: {position / 2**30:.2f} GiB")


def paint(path: Path, side: int) -> None:
    from stable_diffusion.pipeline.generate import generate_image
    from stable_diffusion.pipeline.models import load

    start = time.perf_counter()
    model = load(path, device="cpu", dtype="bfloat16")
    print(f"{model}: loaded in {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB", flush=True)
    start = time.perf_counter()
    print(f"hash {model.hash}, which is written into the picture: {time.perf_counter() - start:.1f} s", flush=True)
    start = time.perf_counter()
    image = generate_image("a lighthouse", model=model, width=side, height=side, steps=1, guidance=1.0, seed=1)
    print(f"one step at {image.size}: {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB")


def peer(path: Path, family: str, side: int) -> None:
    """The same with diffusers: its pipeline from the file, with configs as its folders have them."""
    from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline
    from full_size_configs import write_configs

    kind: Any = StableDiffusion3Pipeline if family == "sd3" else StableDiffusionXLPipeline
    extra = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {"add_watermarker": False}
    with tempfile.TemporaryDirectory() as place:
        write_configs(Path(place), family)
        start = time.perf_counter()
        pipeline = kind.from_single_file(path, config=place, local_files_only=True, torch_dtype=torch.bfloat16, **extra)
    print(f"{kind.__name__}: loaded in {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB", flush=True)
    start = time.perf_counter()
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "height": side, "width": side}
    image = pipeline("a lighthouse", generator=torch.Generator().manual_seed(1), **settings).images[0]
    print(f"one step at {image.size}: {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB")


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "paint", "peer"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--family", choices=("xl", "sd3"), default="sd3", help="XL, or 3 medium (default)")
    parser.add_argument("--side", type=int, default=64, help="pixels of the square picture (default 64)")
    arguments = parser.parse_args()
    if arguments.action == "write":
        write(arguments.path, arguments.family)
    elif arguments.action == "peer":
        peer(arguments.path, arguments.family, arguments.side)
    else:
        paint(arguments.path, arguments.side)


if __name__ == "__main__":
    main()

"""Load time and peak memory of Stable Diffusion 3 medium at full size: bfloat16, random weights, one step.

    python scripts/load_full_size.py write sd3.safetensors        6 GB, tensor by tensor, so that little memory is used
    python scripts/load_full_size.py paint sd3.safetensors [--side 64]

The file has the transformer, the autoencoder and both CLIP encoders, without T5. Peak memory is that of the process,
with the pages of the mapped file that it touched.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.diffusers import clip_transformers
from stable_diffusion.weights.families import SD3_CLIP_G, SD3_CLIP_L
from stable_diffusion.weights.ldm import vae_ldm
from stable_diffusion.weights.recognise import UNET
from stable_diffusion.weights.recognise import VAE as VAE_PREFIX
from stable_diffusion.weights.sd3_keys import mmdit_ldm

OPENCLIP_G = CLIPTextConfig(width=1280, layers=32, heads=20, mlp_width=5120, activation="gelu", projection_dim=1280)
SD3_VAE = VAEConfig(latent_channels=16, quant_conv=False)


def shapes() -> Iterator[tuple[str, torch.Size]]:
    """Names and shapes of all tensors of the file."""
    mmdit, clip = MMDiTConfig(), CLIPTextConfig()
    with torch.device("meta"):
        networks = (
            (UNET, mmdit_ldm(mmdit), MMDiT(mmdit)),
            (VAE_PREFIX, vae_ldm(SD3_VAE), VAE(SD3_VAE)),
            (SD3_CLIP_L.prefix, clip_transformers(clip), CLIPText(clip)),
            (SD3_CLIP_G.prefix, clip_transformers(OPENCLIP_G), CLIPText(OPENCLIP_G)),
        )
    for prefix, table, network in networks:
        for name, tensor in table.invert(network.state_dict()).items():
            yield prefix + name, tensor.shape


def random_tensor(name: str, shape: torch.Size, drawn: Tensor) -> Tensor:
    """The normal numbers in `drawn`, from the start and over again, at a scale that keeps signals alive."""
    count = shape.numel()
    values = drawn.repeat(count // len(drawn) + 1)[:count].view(shape)
    if len(shape) > 1:
        return values * values[0].numel() ** -0.5
    return 0.1 * values + (1.0 if name.endswith("weight") else 0.0)


def write(path: Path) -> None:
    header: dict[str, object] = {}
    listed, position = list(shapes()), 0
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
    from stable_diffusion.pipeline.model import load

    start = time.perf_counter()
    model = load(path, device="cpu", dtype="bfloat16")
    print(f"{model}: loaded in {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB", flush=True)
    start = time.perf_counter()
    image = generate_image("a lighthouse", model=model, width=side, height=side, steps=1, guidance=1.0, seed=1)
    print(f"one step at {image.size}: {time.perf_counter() - start:.1f} s, peak memory {peak():.2f} GiB")


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "paint"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", type=int, default=64, help="pixels of the square picture (default 64)")
    arguments = parser.parse_args()
    if arguments.action == "write":
        write(arguments.path)
    else:
        paint(arguments.path, arguments.side)


if __name__ == "__main__":
    main()

"""Load time and peak memory of Stable Diffusion 1.5, XL and 3 medium at full size, with random weights.

    python scripts/load_full_size.py write xl.safetensors --family xl     7 GB, tensor by tensor, in little memory
    python scripts/load_full_size.py paint xl.safetensors [--side 64]     loaded, and one step
    python scripts/load_full_size.py convert xl.safetensors               the file that later loads are mapped from
    python scripts/load_full_size.py peer xl.safetensors --family xl      the same with diffusers' single-file loader

The file has the denoising network, the autoencoder and the CLIP encoders; that of 3 medium is without T5. Peak memory
is that of the process, with the pages of the mapped file that it touched. Each action runs in a process of its own, and
prints one line of JSON: seconds from the call that loads to the loaded model and to the end of the first step, and GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from released_shapes import CLIP_L, OPENCLIP_G, SD1, SD3, SD3_VAE, SD_VAE, SDXL
from torch import Tensor

from stable_diffusion.models.clip import CLIPText
from stable_diffusion.models.mmdit import MMDiT
from stable_diffusion.models.unet import UNet
from stable_diffusion.models.vae import VAE
from stable_diffusion.weights.checkpoints.families import CLIP_L as SD1_CLIP_L
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
        if family == "sd15":
            return (
                (UNET, unet_ldm(SD1), UNet(SD1)),
                shared,
                (SD1_CLIP_L.prefix, clip_transformers(clip), CLIPText(clip)),
            )
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


def write(path: Path, family: str, dtype: torch.dtype) -> None:
    header: dict[str, object] = {}
    listed, position = list(shapes(family)), 0
    for name, shape in listed:
        end = position + 2 * shape.numel()
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    drawn = torch.randn(2**20 - 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in listed:
            tensor = random_tensor(name, shape, drawn)
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    print(f"{path}: {position / 2**30:.2f} GiB")


def convert(path: Path, dtype: str) -> None:
    """What a first load writes in the background, written now."""
    from stable_diffusion.engine.precision import LARGE, resolve_dtype
    from stable_diffusion.weights.load import load_parts

    load_parts(path, dtype=resolve_dtype(dtype, torch.device("cpu"), LARGE), mapped=True)


def paint(path: Path, side: int, steps: int, dtype: str, guidance: float) -> None:
    from stable_diffusion.pipeline.generate import generate
    from stable_diffusion.pipeline.models import load
    from stable_diffusion.request.request import Request

    start = time.perf_counter()
    model = load(path, device="cpu", dtype=dtype)
    loaded, first = time.perf_counter() - start, 0.0
    request = Request("a lighthouse", width=side, height=side, steps=steps, guidance=guidance, seed=1, sampler="euler")
    for _ in generate(model, request, preview_every=0):
        first = first or time.perf_counter() - start
    report(loaded, first, time.perf_counter() - start)


def peer(path: Path, family: str, side: int, steps: int, dtype: str, guidance: float) -> None:
    """The same with diffusers: its pipeline from the file, with configs as its folders have them."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # not needed, and one built for another torch is fatal
    from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
    from full_size_configs import write_configs

    kind: Any = {"sd15": StableDiffusionPipeline, "sd3": StableDiffusion3Pipeline, "xl": StableDiffusionXLPipeline}
    extra: dict[str, Any] = {
        "sd15": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
        "sd3": {"text_encoder_3": None, "tokenizer_3": None},
        "xl": {"add_watermarker": False},
    }
    times: list[float] = []

    def stepped(pipeline: Any, index: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        times.append(time.perf_counter())
        return given

    with tempfile.TemporaryDirectory() as place:
        write_configs(Path(place), family)
        precision = {} if dtype == "auto" else {"torch_dtype": getattr(torch, dtype)}
        start = time.perf_counter()
        pipeline = kind[family].from_single_file(
            path, config=place, local_files_only=True, **precision, **extra[family]
        )
        loaded = time.perf_counter() - start
    pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, "height": side, "width": side}
    drawn = torch.Generator().manual_seed(1)
    pipeline("a lighthouse", generator=drawn, callback_on_step_end=stepped, **settings)
    report(loaded, times[0] - start, time.perf_counter() - start)


def report(loaded: float, first: float, done: float) -> None:
    """One line of JSON: seconds since loading began, and the peak of memory in GiB."""
    cpu = time.process_time()
    found = {"loaded": loaded, "first_step": first, "picture": done, "cpu": cpu, "peak_gib": peak()}
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "convert", "paint", "peer"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--family", choices=("sd15", "xl", "sd3"), default="sd3", help="1.5, XL, or 3 medium (default)")
    parser.add_argument("--side", type=int, default=64, help="pixels of the square picture (default 64)")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--dtype", default="bfloat16", help="of the file, or in which it runs (default bfloat16)")
    arguments = parser.parse_args()
    path, family, dtype = arguments.path, arguments.family, arguments.dtype
    if arguments.action == "write":
        write(path, family, getattr(torch, dtype))
        return
    if arguments.action == "convert":
        convert(path, dtype)
        return
    settings = (arguments.side, arguments.steps, dtype, arguments.guidance)
    if arguments.action == "peer":
        peer(path, family, *settings)
    else:
        paint(path, *settings)


if __name__ == "__main__":
    main()

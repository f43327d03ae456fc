"""Models in both forms as other tools write them, and diffusers' pictures of them, for the tests of writing anew."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
import tiny_sd3 as sd3
import tiny_xl as xl

PROMPT, NEGATIVE = "a beautiful sunset over the ocean", "blurry"
STEPS, GUIDANCE, IMAGE_GUIDANCE, SEED = 5, 5.0, 1.7, 11
FLOOR = 55.0  # dB
KINDS: tuple[Any, ...] = (
    tiny.SD1, tiny.SMALL, tiny.INPAINT, tiny.EDIT, tiny.SD2, tiny.SD2_BASE, tiny.INPAINT_2, tiny.DEPTH, xl.BASE,
    xl.PRUNED, xl.KOALA, xl.V_ZERO, xl.INPAINT, xl.EDIT, xl.REFINER, *sd3.KINDS,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model in both forms as other tools write them."""

    name: str
    folder: Path
    single: Path
    pipeline: Any

    @property
    def extra(self) -> dict[str, Any]:
        """What diffusers wants to be told besides the path."""
        if "Diffusion3" in self.pipeline.__name__:
            absent = [part for part in ("text_encoder_3", "tokenizer_3") if not (self.folder / part).is_dir()]
            return dict.fromkeys(absent)
        return {"add_watermarker": False} if "XL" in self.pipeline.__name__ else tiny.absent_parts(self.pipeline)


def make_case(kind: Any, place: Path) -> Case:
    if isinstance(kind, xl.Kind):
        folder = xl.write_folder(kind, place)
        return Case(kind.name, folder, xl.write_single(kind, folder, place / "single.safetensors"), kind.pipeline)
    if isinstance(kind, sd3.Kind):
        folder = sd3.write_folder(kind, place)
        single = sd3.write_single(kind, folder, place / "single" / "single.safetensors")
        return Case(kind.name, folder, single, diffusers.StableDiffusion3Pipeline)
    folder = tiny.write_folder(kind, place)
    return Case(kind.name, folder, tiny.write_single(kind, folder, place / "single.safetensors"), kind.pipeline)


def cast(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def single_in(case: Case, dtype: torch.dtype, place: Path) -> Path:
    """The single file of a case in another dtype, with what lies beside it."""
    with safe_open(case.single, "pt") as file:
        save_file(cast(load_file(case.single), dtype), place / "a.safetensors", metadata=file.metadata())
    if (case.single.parent / "tokenizer_3").is_dir():
        shutil.copytree(case.single.parent / "tokenizer_3", place / "tokenizer_3")
    return place / "a.safetensors"


def from_pretrained(case: Case, folder: Path, **settings: Any) -> Any:
    return case.pipeline.from_pretrained(folder, local_files_only=True, **case.extra, **settings)


def from_single_file(case: Case, file: Path, folder: Path) -> Any:
    """Diffusers' pipeline of a file, with the configs of a folder; its networks one by one where it has no reader."""
    told: dict[str, Any] = {"local_files_only": True}
    if hasattr(case.pipeline, "from_single_file"):
        return case.pipeline.from_single_file(file, config=str(folder), **told, **case.extra)
    networks = {
        "unet": diffusers.UNet2DConditionModel.from_single_file(file, config=str(folder), subfolder="unet", **told),
        "vae": diffusers.AutoencoderKL.from_single_file(file, config=str(folder), subfolder="vae", **told),
    }
    return from_pretrained(case, folder, **networks)


def picture() -> Image.Image:
    """48 x 64 pixels."""
    pixels = torch.rand(8, 6, 3, generator=torch.Generator().manual_seed(5)) * 255
    return Image.fromarray(pixels.byte().numpy()).resize((48, 64), Image.Resampling.BICUBIC)


def depth_picture() -> Image.Image:
    """Near is white."""
    return picture().convert("L")


def mask_picture() -> Image.Image:
    """White is painted; its edges lie on those of latents."""
    mask = Image.new("L", (48, 64))
    mask.paste(255, (8, 16, 40, 48))
    return mask


def depth_map() -> torch.Tensor:
    """The same depth as diffusers takes it: [1,H,W]."""
    return torch.frombuffer(bytearray(depth_picture().tobytes()), dtype=torch.uint8).reshape(1, 64, 48) / 255


def euler(pipeline: Any) -> Any:
    """The pipeline with the sampler that "euler" on the grid "ddim_uniform" is here."""
    noise = {name: value for name, value in tiny.NOISE.items() if name != "clip_sample"}
    pipeline.scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **noise)
    return pipeline


def paint(pipeline: Any, **settings: Any) -> torch.Tensor:
    """Diffusers' picture [1,3,64,48] in [0, 1] of what the pipeline is for."""
    pipeline.set_progress_bar_config(disable=True)
    name = type(pipeline).__name__
    run: dict[str, Any] = {"height": 64, "width": 48}
    shared: dict[str, Any] = {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    if "Depth2Img" in name:
        run = {"image": picture(), "depth_map": depth_map(), "strength": 1.0}
    elif "Img2Img" in name:
        run = {"image": torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(3)), "strength": 0.7}
    elif "Inpaint" in name:
        run |= {"image": picture(), "mask_image": mask_picture(), "strength": 1.0}
    elif "Pix2Pix" in name:
        run = {"image": picture(), "image_guidance_scale": IMAGE_GUIDANCE}
        run |= {"height": 64, "width": 48} if "XL" in name else {}
    generator = torch.Generator("cpu").manual_seed(SEED)
    made: torch.Tensor = pipeline(PROMPT, generator=generator, output_type="pt", **{**shared, **run, **settings}).images
    return made

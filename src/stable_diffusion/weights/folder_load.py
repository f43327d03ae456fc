"""Loading a diffusers folder: what its configs say, and its networks, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..diffusion.prediction import Prediction
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule
from ..errors import BrokenModel
from ..latents import LatentFormat
from ..models.clip import CLIPText, CLIPTextConfig
from ..models.unet import UNet, UNetConfig
from ..models.vae import VAE, VAEConfig
from .assemble import Under, build
from .diffusers import clip_transformers, unet_diffusers, vae_diffusers
from .families import FAMILIES, Family
from .few_step import few_step_defaults, scheduler_defaults
from .folder import component, read_config, read_index, text_folders
from .folder_configs import clip_config, latent_format, noise_schedule, size_numbers, unet_config, vae_config
from .keys import KeyTable
from .parts import Defaults, Parts, Source, TokenizerSource
from .plausible import using_config
from .tensors import TensorFile


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A diffusers folder understood: everything but the tensors' values. `files` are by the name of their folder."""

    path: Path
    files: Mapping[str, TensorFile]
    unet: UNetConfig
    vae: VAEConfig
    clips: Mapping[str, CLIPTextConfig]
    latents: LatentFormat
    schedule: DiscreteSchedule | FlowSchedule
    prediction: Prediction
    family: Family
    defaults: Defaults
    size_numbers: int
    zero_empty: bool
    guesses: tuple[str, ...]


def understand(folder: Path, variant: str | None) -> Folder:
    """Read all configs and headers of a folder. UnknownModel or BrokenModel where it is none that we run."""
    index = read_index(folder)
    texts = text_folders(index)
    configs = {part: read_config(folder / part / "config.json") for part in ("unet", "vae", *texts)}
    files = {part: component(folder / part, variant) for part in configs}
    with using_config(folder):
        unet = unet_config(configs["unet"], folder / "unet" / "config.json")
        vae = vae_config(configs["vae"], folder / "vae" / "config.json")
        clips = {
            part: clip_config(
                configs[part],
                folder / part / "config.json",
                # the pooled vector of the first of two is never used
                projection="text_projection.weight" in files[part] and part == texts[-1],
            )
            for part in texts
        }
        latents = latent_format(configs["vae"], vae)
        numbers = size_numbers(configs["unet"], clips[texts[-1]], folder / "unet" / "config.json")
    schedule, prediction, guesses = _schedule_of(folder)
    family = FAMILIES[family_of_folder(next(iter(clips.values())).activation, unet.in_channels, prediction, texts)]
    defaults, hurry = _defaults(folder, family, configs["unet"].get("sample_size"), vae.downscale)
    return Folder(
        path=folder,
        files=files,
        unet=unet,
        vae=vae,
        clips=clips,
        latents=latents,
        schedule=schedule,
        prediction=prediction,
        family=family,
        defaults=defaults,
        size_numbers=numbers,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
        guesses=guesses + hurry,
    )


def load_folder(folder: Path, variant: str | None, dtype: torch.dtype | None, device: torch.device | str) -> Parts:
    """The model of a diffusers folder."""
    found = understand(folder, variant)

    def read(kind: Any, config: Any, table: KeyTable, tensors: TensorFile) -> Any:
        what = f"{tensors.path}"
        return build(lambda: kind(config), Under(tensors, ""), table, what=what, dtype=dtype, device=device)

    clips, tokenizers, guesses = [], [], found.guesses
    for part, config in found.clips.items():
        clips.append(read(CLIPText, config, clip_transformers(config), found.files[part]))
        tokenizer, guess = _tokenizer_of(folder, part, config, found.family)
        tokenizers.append(tokenizer)
        guesses += guess
    return Parts(
        unet=read(UNet, found.unet, unet_diffusers(found.unet), found.files["unet"]),
        vae=read(VAE, found.vae, vae_diffusers(found.vae), found.files["vae"]),
        clip=clips[0],
        tokenizer=tokenizers[0],
        clip2=clips[1] if len(clips) > 1 else None,
        tokenizer2=tokenizers[1] if len(clips) > 1 else None,
        latents=found.latents,
        schedule=found.schedule,
        prediction=found.prediction,
        family=found.family.name,
        defaults=found.defaults,
        # folders of Stable Diffusion 2 leave the unused last layer out; those of XL have all
        clip_layer=found.family.clip_layer if found.size_numbers else -1,
        text_norm=found.family.text_norm,
        size_numbers=found.size_numbers,
        zero_empty=found.zero_empty,
        source=Source(folder),
        guesses=guesses,
    )


def family_of_folder(activation: str, in_channels: int, prediction: str, texts: tuple[str, ...] = ()) -> str:
    """The family's name for a folder, whose configs say nearly all that matters."""
    if texts == ("text_encoder_2",):
        return "sdxl-refiner"
    base = "sdxl" if "text_encoder_2" in texts else "sd1" if activation == "quick_gelu" else "sd2"
    named = base + VARIANTS.get(in_channels, "")
    if named in FAMILIES and named != "sd2":
        return named
    return base if base != "sd2" or prediction == "v" else "sd2-base"


VARIANTS = {9: "-inpaint", 8: "-pix2pix", 5: "-depth"}
"""Channels that a U-Net takes -> the end of the family's name."""


def _defaults(folder: Path, family: Family, size: Any, downscale: int) -> tuple[Defaults, tuple[str, ...]]:
    """The family's, at the size of the U-Net's config; those of a few-step model where scheduler or name say so."""
    # folders of before the size was written are 512 pixels wide
    pixels = size * downscale if isinstance(size, int) and size > 0 else 512 if not family.size_numbers else family.size
    defaults = replace(family.defaults, width=pixels, height=pixels)
    file = folder / "scheduler" / "scheduler_config.json"
    told = scheduler_defaults(defaults, read_config(file)) if file.is_file() else None
    if told is not None:
        return told, ()
    named, guesses = few_step_defaults(defaults, folder.name)
    return replace(named, width=pixels, height=pixels), guesses


def _schedule_of(folder: Path) -> tuple[DiscreteSchedule | FlowSchedule, Prediction, tuple[str, ...]]:
    file = folder / "scheduler" / "scheduler_config.json"
    if file.is_file():
        return *noise_schedule(read_config(file), file), ()
    guess = "the noise schedule and prediction 'eps' are those of Stable Diffusion 1: the folder has no scheduler"
    return ddpm_schedule(), "eps", (guess,)


def _tokenizer_of(
    folder: Path, text: str, config: CLIPTextConfig, family: Family
) -> tuple[TokenizerSource, tuple[str, ...]]:
    """The tokenizer of a text encoder's folder; CLIP's own where there is none."""
    name = text.replace("text_encoder", "tokenizer")
    place = folder / name
    if any((place / file).is_file() for file in ("vocab.json", "tokenizer.json")):
        return TokenizerSource(folder=place), ()
    if config.vocab_size != 49408:
        raise BrokenModel(f"{folder} has no {name}, and its text encoder does not have CLIP's 49408 tokens")
    pad = 0 if config.activation == "gelu" and family.size_numbers else None
    return TokenizerSource(pad_token_id=pad), (f"the {name} is CLIP's own: the folder has none",)

"""Loading a diffusers folder: what its configs say, and its networks, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...diffusion.prediction import Prediction
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule
from ...errors import BrokenModel
from ...latents import LatentFormat
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT, MMDiTConfig
from ...models.t5 import T5Config, T5Encoder
from ...models.unet import UNet, UNetConfig
from ...models.vae import VAE, VAEConfig
from ..build import Under, build
from ..containers.limits import using_config
from ..containers.tensors import TensorFile
from ..keys import KeyTable
from ..networks.diffusers import clip_transformers, unet_diffusers, vae_diffusers
from ..networks.mmdit import mmdit_diffusers, t5_transformers
from ..parts import Defaults, Parts, Source, TokenizerSource
from .beside import TOKENIZER, TOKENIZER_FILES
from .families import FAMILIES, Family
from .few_step import NOTE, few_step_defaults, noted_defaults, scheduler_defaults, told_defaults
from .folder import component, has_part, read_config, read_index, text_folders
from .folder_configs import clip_config, latent_format, noise_schedule, size_numbers, unet_config, vae_config
from .folder_configs_sd3 import mmdit_config, t5_config
from .single_sd3 import T5_LEFTOVERS, check_texts, family_of_mmdit

T5 = "text_encoder_3"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A diffusers folder understood: everything but the tensors' values. `files` are by the name of their folder."""

    path: Path
    files: Mapping[str, TensorFile]
    unet: UNetConfig | MMDiTConfig
    vae: VAEConfig
    clips: Mapping[str, CLIPTextConfig]
    t5: T5Config | None
    latents: LatentFormat
    schedule: DiscreteSchedule | FlowSchedule
    prediction: Prediction
    family: Family
    defaults: Defaults
    size_numbers: int
    zero_empty: bool
    guesses: tuple[str, ...]

    @property
    def network(self) -> str:
        """The folder of the denoising network."""
        return "unet" if isinstance(self.unet, UNetConfig) else "transformer"

    @property
    def parts(self) -> dict[str, str]:
        """Name of each folder -> name of the network in it."""
        texts = dict(zip(self.clips, ("clip", "clip2"), strict=False))
        return {self.network: self.family.network, "vae": "vae", **texts, **({T5: "t5"} if self.t5 else {})}


def understand(folder: Path, variant: str | None, *, t5: bool = True) -> Folder:
    """Read all configs and headers of a folder. UnknownModel or BrokenModel where it is none that we run.

    `t5` False leaves out T5.
    """
    index = read_index(folder)
    texts = text_folders(index)
    network = "unet" if has_part(index, "unet") else "transformer"
    third = (T5,) if t5 and network == "transformer" and has_part(index, T5) else ()
    configs = {part: read_config(folder / part / "config.json") for part in (network, "vae", *texts, *third)}
    files = {part: component(folder / part, variant) for part in configs}
    place = folder / network / "config.json"
    with using_config(folder):
        unet = (unet_config if network == "unet" else mmdit_config)(configs[network], place)
        vae = vae_config(configs["vae"], folder / "vae" / "config.json")
        clips = {
            part: clip_config(
                configs[part],
                folder / part / "config.json",
                # the pooled vector of the first of two is used by Stable Diffusion 3 alone
                projection="text_projection.weight" in files[part] and (part == texts[-1] or network == "transformer"),
            )
            for part in texts
        }
        encoder = t5_config(configs[T5], folder / T5 / "config.json") if third else None
        latents = latent_format(configs["vae"], vae)
        numbers = 0
        if isinstance(unet, MMDiTConfig):
            _check_texts(folder, unet, clips, encoder)
        else:
            numbers = size_numbers(configs["unet"], clips[texts[-1]], place)
    schedule, prediction, guesses = _schedule_of(folder, unet)
    family = FAMILIES[_family_of(unet, next(iter(clips.values())).activation, prediction, texts)]
    defaults, hurry = _defaults(folder, family, unet, configs[network].get("sample_size"), vae.downscale)
    return Folder(
        path=folder,
        files=files,
        unet=unet,
        vae=vae,
        clips=clips,
        t5=encoder,
        latents=latents,
        schedule=schedule,
        prediction=prediction,
        family=family,
        defaults=defaults,
        size_numbers=numbers,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
        guesses=guesses + hurry,
    )


def load_folder(
    folder: Path, variant: str | None, dtype: torch.dtype | None, device: torch.device | str, *, t5: bool = True
) -> Parts:
    """The model of a diffusers folder; `t5` False leaves out T5."""
    return load_understood(understand(folder, variant, t5=t5), dtype, device)


def load_understood(found: Folder, dtype: torch.dtype | None, device: torch.device | str) -> Parts:
    """The model of a folder whose configs and headers were read."""
    folder = found.path

    def read(kind: Any, config: Any, table: KeyTable, part: str, drop: tuple[str, ...] = ()) -> Any:
        tensors = found.files[part]
        what = f"{tensors.path}"
        return build(lambda: kind(config), Under(tensors, "", drop), table, what=what, dtype=dtype, device=device)

    clips, tokenizers, guesses = [], [], found.guesses
    for part, config in found.clips.items():
        clips.append(read(CLIPText, config, clip_transformers(config), part))
        tokenizer, guess = _tokenizer_of(folder, part, config, found.family)
        tokenizers.append(tokenizer)
        guesses += guess
    t5_source = None if found.t5 is None else _t5_tokenizer_of(folder)
    if isinstance(found.unet, UNetConfig):
        unet = read(UNet, found.unet, unet_diffusers(found.unet), "unet")
    else:
        unet = read(MMDiT, found.unet, mmdit_diffusers(found.unet), "transformer")
    return Parts(
        unet=unet,
        vae=read(VAE, found.vae, vae_diffusers(found.vae), "vae"),
        clip=clips[0],
        tokenizer=tokenizers[0],
        clip2=clips[1] if len(clips) > 1 else None,
        tokenizer2=tokenizers[1] if len(clips) > 1 else None,
        t5=None if found.t5 is None else read(T5Encoder, found.t5, t5_transformers(found.t5), T5, T5_LEFTOVERS),
        tokenizer3=t5_source,
        latents=found.latents,
        schedule=found.schedule,
        prediction=found.prediction,
        family=found.family.name,
        defaults=found.defaults,
        # folders of Stable Diffusion 2 leave the unused last layer out; those of XL and 3 have all
        clip_layer=-1 if found.family.text_norm else found.family.clip_layer,
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


def _family_of(network: UNetConfig | MMDiTConfig, activation: str, prediction: str, texts: tuple[str, ...]) -> str:
    if isinstance(network, MMDiTConfig):
        return family_of_mmdit(network)
    return family_of_folder(activation, network.in_channels, prediction, texts)


def _check_texts(folder: Path, mmdit: MMDiTConfig, clips: Mapping[str, CLIPTextConfig], t5: T5Config | None) -> None:
    try:
        check_texts(mmdit, tuple(clips.values()), t5)
    except BrokenModel as error:
        raise BrokenModel(f"{folder} does not fit together: {error}") from None


def _defaults(
    folder: Path, family: Family, network: UNetConfig | MMDiTConfig, size: Any, downscale: int
) -> tuple[Defaults, tuple[str, ...]]:
    """The family's, at the size of the U-Net's config; those of a few-step model where scheduler or name say so."""
    # folders of before the size was written are 512 pixels wide
    written = isinstance(size, int) and size > 0
    pixels = size * downscale if written else family.size if not family.text_norm else 512
    defaults = replace(family.defaults, width=pixels, height=pixels)
    file = folder / "scheduler" / "scheduler_config.json"
    name = Source(folder).name
    scheduler = read_config(file) if file.is_file() else {}
    with using_config(file):
        noted = noted_defaults(defaults, scheduler.get(NOTE))
    if noted is not None:
        return noted, ()
    scheduled = scheduler_defaults(defaults, scheduler, name)
    if scheduled is None:
        named, guesses = few_step_defaults(defaults, name, flow=family.prediction == "flow")
        scheduled = replace(named, width=pixels, height=pixels), guesses
    told = told_defaults(scheduled[0], network)
    return scheduled if told is None else (told, ())


def _schedule_of(
    folder: Path, network: UNetConfig | MMDiTConfig
) -> tuple[DiscreteSchedule | FlowSchedule, Prediction, tuple[str, ...]]:
    file = folder / "scheduler" / "scheduler_config.json"
    if file.is_file():
        return *noise_schedule(read_config(file), file), ()
    if isinstance(network, MMDiTConfig):
        shift = FAMILIES["sd3"].shift
        return FlowSchedule(shift), "flow", (f"the shift {shift:g} of noise levels: the folder has no scheduler",)
    guess = "the noise schedule and prediction 'eps' are those of Stable Diffusion 1: the folder has no scheduler"
    return ddpm_schedule(), "eps", (guess,)


def _t5_tokenizer_of(folder: Path) -> TokenizerSource:
    place = folder / TOKENIZER
    if not any((place / name).is_file() for name in TOKENIZER_FILES):
        expected = " or ".join(TOKENIZER_FILES)
        raise BrokenModel(f"{folder} has {T5} but no {TOKENIZER} with {expected}; t5=False leaves T5 out")
    return TokenizerSource(folder=place)


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
    pad = 0 if config.activation == "gelu" and not family.text_norm else None
    return TokenizerSource(pad_token_id=pad), (f"the {name} is CLIP's own: the folder has none",)

"""A model as a diffusers folder, complete: configs, weights, tokenizers, scheduler and the index that names them.

The folder is made beside its place under a temporary name and takes its name when all of it is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT
from ..containers.atomic import atomic_folder
from ..containers.safetensors import write_safetensors
from ..networks.diffusers import clip_transformers, unet_diffusers, vae_diffusers
from ..networks.mmdit import mmdit_diffusers, t5_transformers
from ..parts import Parts, TokenizerSource
from .beside import TOKENIZER
from .families import family_named
from .folder import INDEX, TRANSFORMER
from .folder_load import T5
from .save_configs import VERSION, clip_words, scheduler_words, unet_words, vae_words
from .save_configs_sd3 import mmdit_words, t5_words

PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd1-inpaint": "StableDiffusionInpaintPipeline",
    "sd1-pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "sd2": "StableDiffusionPipeline",
    "sd2-base": "StableDiffusionPipeline",
    "sd2-inpaint": "StableDiffusionInpaintPipeline",
    "sd2-depth": "StableDiffusionDepth2ImgPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-inpaint": "StableDiffusionXLInpaintPipeline",
    "sdxl-pix2pix": "StableDiffusionXLInstructPix2PixPipeline",
    "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3.5-medium": "StableDiffusion3Pipeline",
    "sd3.5-large": "StableDiffusion3Pipeline",
}
"""Family -> class of the pipeline in `model_index.json`."""

TOKENIZERS = {TOKENIZER: "T5TokenizerFast"}
"""Folder -> class of its tokenizer; all others are CLIP's."""
PROJECTION = "projection.weight"

WriteTokenizer = Callable[[Path, TokenizerSource], None]
"""(folder to write, where the tokenizer comes from)."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network of a folder: its library and class, its config, its tensors, and the name of its weights' file."""

    library: str
    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    stem: str = "diffusion_pytorch_model"


def write_folder(
    place: Path,
    parts: Parts,
    write_tokenizer: WriteTokenizer,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> None:
    """Write `parts` to the new folder `place`; `dtype` None keeps each tensor's own, `variant` goes into file names.

    `scheduler` is a scheduler_config.json to keep; None writes that of the model's family.

    InvalidRequest where diffusers has no words for the model, ModelFileError where the disk refuses.
    """
    networks = components(parts)
    scheduler = scheduler_words(parts) if scheduler is None else scheduler
    tokenizers = {part.replace("text_encoder", "tokenizer"): source for part, _, source in _texts(parts)}
    if parts.t5 is not None and parts.tokenizer3 is not None:
        tokenizers[TOKENIZER] = parts.tokenizer3
    dotted = "" if variant is None else f".{variant}"
    with atomic_folder(place) as folder:
        for part, network in networks.items():
            _write_json(folder / part / "config.json", network.config)
            file = folder / part / f"{network.stem}{dotted}.safetensors"
            write_safetensors(file, network.state, {"format": "pt"}, dtype=dtype)
        for part, source in tokenizers.items():
            write_tokenizer(folder / part, source)
        _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        _write_json(folder / INDEX, index_words(parts, networks, str(scheduler["_class_name"]), tuple(tokenizers)))


def components(parts: Parts) -> dict[str, Component]:
    """Folder name -> network."""
    if parts.family not in PIPELINES:
        raise InvalidRequest(
            f"a model of family {parts.family!r} cannot be written as a diffusers folder; "
            f"only {', '.join(PIPELINES)} can"
        )
    vae = parts.full_vae
    made = {
        **_denoiser(parts),
        "vae": Component(
            library="diffusers",
            kind="AutoencoderKL",
            config=vae_words(vae.config, parts),
            state=vae_diffusers(vae.config).invert(vae.state_dict()),
        ),
    }
    for part, clip, source in _texts(parts):
        config = _folder_clip(clip, parts)
        words = clip_words(config, projected=config.projection_dim is not None, pad_token_id=source.pad_token_id)
        table, kind = clip_transformers(config), str(words["architectures"][0])
        state = table.invert(_folder_weights(clip, config, set(table.our_names())))
        made[part] = Component(library="transformers", kind=kind, config=words, state=state, stem="model")
    if parts.t5 is not None:
        t5 = parts.t5
        state = t5_transformers(t5.config).invert(t5.state_dict())
        made[T5] = Component(
            library="transformers", kind="T5EncoderModel", config=t5_words(t5.config), state=state, stem="model"
        )
    return made


def _denoiser(parts: Parts) -> dict[str, Component]:
    """The U-Net or transformer, by the name of its folder."""
    network, side = parts.unet, parts.defaults.width // parts.latents.downscale
    if isinstance(network, MMDiT):
        words = mmdit_words(network.config, version=VERSION, size=side)
        state = mmdit_diffusers(network.config).invert(network.state_dict())
        return {"transformer": Component(library="diffusers", kind=TRANSFORMER, config=words, state=state)}
    last = parts.clip if parts.clip2 is None else parts.clip2
    words = unet_words(network.config, pooled=last.config.projection_dim, size_numbers=parts.size_numbers, size=side)
    state = unet_diffusers(network.config).invert(network.state_dict())
    return {"unet": Component(library="diffusers", kind="UNet2DConditionModel", config=words, state=state)}


def _texts(parts: Parts) -> Iterator[tuple[str, CLIPText, TokenizerSource]]:
    """(folder, CLIP encoder, tokenizer); the refiner's one encoder is the second of the base model."""
    alone = parts.clip2 is None and parts.size_numbers > 0
    yield "text_encoder_2" if alone else "text_encoder", parts.clip, parts.tokenizer
    if parts.clip2 is not None:
        yield "text_encoder_2", parts.clip2, parts.tokenizer2 or parts.tokenizer


def _folder_clip(clip: CLIPText, parts: Parts) -> CLIPTextConfig:
    """The config of a text encoder in a folder.

    Those of Stable Diffusion 1 and 2 end with the layer that is used and have no projection; those of XL are whole, the
    last with its projection; those of 3 both have one.
    """
    config = clip.config
    if parts.text_norm:
        layer = parts.clip_layer
        return replace(config, projection_dim=None, layers=config.layers + 1 + layer if layer < 0 else layer)
    if parts.clip_layer != family_named(parts.family).clip_layer:
        raise InvalidRequest(
            f"clip_layer is {parts.clip_layer}; a diffusers folder of this family is always read at "
            f"{family_named(parts.family).clip_layer}"
        )
    if isinstance(parts.unet, MMDiT):
        return replace(config, projection_dim=config.projection_dim or config.width)
    last = parts.clip if parts.clip2 is None else parts.clip2
    return config if clip is last else replace(config, projection_dim=None)


def _folder_weights(clip: CLIPText, config: CLIPTextConfig, names: set[str]) -> dict[str, Tensor]:
    """The tensors of `names`; a projection that a text encoder lacks is one that changes nothing."""
    weights = {name: tensor for name, tensor in clip.state_dict().items() if name in names}
    if PROJECTION in names and PROJECTION not in weights:
        weights[PROJECTION] = torch.eye(config.width).to(weights["token_embedding.weight"].dtype)
    return weights


def index_words(
    parts: Parts, networks: Mapping[str, Component], scheduler: str, tokenizers: tuple[str, ...]
) -> dict[str, Any]:
    """`model_index.json`; components that the pipeline can do without are written as [null, null]."""
    index: dict[str, Any] = {"_class_name": PIPELINES[parts.family], "_diffusers_version": VERSION}
    absent: tuple[str, ...]
    if isinstance(parts.unet, MMDiT):
        absent = (T5, TOKENIZER, "image_encoder", "feature_extractor")
    elif parts.size_numbers:
        index["force_zeros_for_empty_prompt"] = parts.zero_empty
        absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "image_encoder", "feature_extractor")
    elif parts.family == "sd2-depth":
        absent = ("depth_estimator", "feature_extractor")
    else:
        absent = ("safety_checker", "feature_extractor", "image_encoder")
        index["requires_safety_checker"] = False
    if "refiner" in parts.family:
        index["requires_aesthetics_score"] = True
    index |= {part: [None, None] for part in absent}
    index |= {part: [network.library, network.kind] for part, network in networks.items()}
    index |= {part: ["transformers", TOKENIZERS.get(part, "CLIPTokenizer")] for part in tokenizers}
    index["scheduler"] = ["diffusers", scheduler]
    return dict(sorted(index.items()))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

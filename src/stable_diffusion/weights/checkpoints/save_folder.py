"""What a diffusers folder of a model holds: the configs and tensors of its networks, and the index that names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT
from ..networks.clip import clip_to_words, clip_transformers
from ..networks.mmdit import mmdit_diffusers, mmdit_to_words
from ..networks.t5 import t5_to_words, t5_transformers
from ..networks.unet import unet_diffusers
from ..networks.unet_words import unet_to_words
from ..networks.vae import vae_diffusers, vae_to_words
from ..networks.words import VERSION
from ..parts import Parts, TokenizerSource
from .families import family_named
from .folder import T5, TOKENIZER, TRANSFORMER

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


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network of a folder: its library and class, its config, its tensors, and the name of its weights' file."""

    library: str
    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    stem: str = "diffusion_pytorch_model"


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
            config=vae_to_words(
                vae.config,
                parts.latents,
                size=parts.defaults.width,
                upcast=bool(parts.size_numbers),  # the autoencoder of XL overflows in float16
            ),
            state=vae_diffusers(vae.config).invert(vae.state_dict()),
        ),
    }
    for part, clip, source in text_folders_of(parts):
        config = _folder_clip(clip, parts)
        words = clip_to_words(config, projected=config.projection_dim is not None, pad_token_id=source.pad_token_id)
        table, kind = clip_transformers(config), str(words["architectures"][0])
        state = table.invert(_folder_weights(clip, config, set(table.our_names())))
        made[part] = Component(library="transformers", kind=kind, config=words, state=state, stem="model")
    if parts.t5 is not None:
        t5 = parts.t5
        state = t5_transformers(t5.config).invert(t5.state_dict())
        made[T5] = Component(
            library="transformers", kind="T5EncoderModel", config=t5_to_words(t5.config), state=state, stem="model"
        )
    return made


def _denoiser(parts: Parts) -> dict[str, Component]:
    """The U-Net or transformer, by the name of its folder."""
    network, side = parts.unet, parts.defaults.width // parts.latents.downscale
    if isinstance(network, MMDiT):
        words = mmdit_to_words(network.config, size=side)
        state = mmdit_diffusers(network.config).invert(network.state_dict())
        return {"transformer": Component(library="diffusers", kind=TRANSFORMER, config=words, state=state)}
    last = parts.clip if parts.clip2 is None else parts.clip2
    words = unet_to_words(network.config, pooled=last.config.projection_dim, size_numbers=parts.size_numbers, size=side)
    state = unet_diffusers(network.config).invert(network.state_dict())
    return {"unet": Component(library="diffusers", kind="UNet2DConditionModel", config=words, state=state)}


def text_folders_of(parts: Parts) -> Iterator[tuple[str, CLIPText, TokenizerSource]]:
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

"""Autoencoders and text encoders in files of their own: told by their tensors, and put where a model has its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT
from ...models.t5 import T5Encoder
from ...models.tiny_vae import TinyVAE
from ...models.vae import VAE, VAEConfig
from ..build import Under, build
from ..containers.limits import using_config
from ..containers.open import existing, read_tensors
from ..containers.tensors import TensorFile, TensorInfo
from ..keys import KeyTable
from ..networks.diffusers import clip_transformers, vae_diffusers
from ..networks.ldm import vae_ldm
from ..networks.mmdit import t5_transformers
from ..networks.openclip import clip_openclip
from ..networks.shapes import Shapes, clip_fields, openclip_fields, vae_fields, vae_fields_diffusers
from ..networks.tiny_vae import tiny_config, tiny_layout, tiny_table
from ..parts import Parts, TokenizerSource
from .beside import holds_texts, t5_tokenizer
from .canonical import CPP_FIRST, SD2_TEXT, UNET, XL_FIRST, XL_SECOND, as_openclip, merged
from .families import SD3_CLIP_G, SD3_CLIP_L, SD3_T5
from .folder import INDEX, component
from .single_sd3 import FIRST, T5_LEFTOVERS, t5_config

LDM_VAE = "first_stage_model."
REFINER_TEXT = "conditioner.embedders.0.model."
VAE_PREFIXES = (LDM_VAE, "vae.", "")
DROPPED = ("loss.", "model_ema.")
"""Training's leftovers in autoencoders."""
TEXT_PREFIXES = ("cond_stage_model.transformer.", "cond_stage_model.model.", "text_encoder.", "")

AnyPath = str | os.PathLike[str]


def as_paths(paths: AnyPath | Sequence[AnyPath]) -> tuple[AnyPath, ...]:
    """One path or several, as several."""
    return (paths,) if isinstance(paths, str | os.PathLike) else tuple(paths)


def read_part(path: AnyPath, part: str) -> TensorFile:
    """The tensors of a file, of a component's folder, or of the component `part` of a diffusers folder."""
    place = existing(path)
    if not place.is_dir():
        return read_tensors(place)[0]
    return component(place / part if (place / INDEX).is_file() else place)


def _shapes(tensors: TensorFile, prefix: str, drop: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    names = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    return {short: tensors.info(name).shape for short, name in names.items() if not short.startswith(drop)}


# --- autoencoders ---------------------------------------------------------------------------------------------------


def load_vae(
    path: AnyPath, *, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> VAE | TinyVAE:
    """The autoencoder at `path`: a file (released, diffusers' or TAESD's names; a whole checkpoint has one too), or a
    diffusers folder. UnknownModel where there is none, BrokenModel where it is not whole."""
    tensors = read_part(path, "vae")
    prefix = next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    shapes = _shapes(tensors, prefix, DROPPED)
    with using_config(tensors.path):
        kind, config, table = vae_kind(tensors.path, shapes)
    theirs = Under(tensors, prefix, DROPPED)
    what = f"{tensors.path} looks like an autoencoder, but it"
    made: VAE | TinyVAE = build(lambda: kind(config), theirs, table, what=what, dtype=dtype, device=device)
    return made


def vae_kind(path: Path, shapes: Shapes) -> tuple[Any, Any, KeyTable]:
    """(class, config, key table) of an autoencoder of these shapes."""
    layout = tiny_layout(shapes)
    if layout is not None:
        tiny = tiny_config(shapes, layout)
        return TinyVAE, tiny, tiny_table(tiny, layout)
    if "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes:
        config = VAEConfig(**vae_fields_diffusers(shapes))
        return VAE, config, vae_diffusers(config)
    if "encoder.down.0.block.0.conv1.weight" in shapes:
        config = VAEConfig(**vae_fields(shapes))
        return VAE, config, vae_ldm(config)
    raise UnknownModel(f"{path} holds no autoencoder that this version knows: AutoencoderKL or TAESD is expected")


def with_vae(parts: Parts, vae: VAE | TinyVAE) -> Parts:
    """`parts` with another autoencoder of the same latent space; InvalidRequest where it is of another."""
    found = (vae.config.latent_channels, vae.downscale)
    expected = (parts.latents.channels, parts.latents.downscale)
    if found != expected:
        raise InvalidRequest(
            f"the autoencoder makes latents of {found[0]} channels, {found[1]} pixels each; "
            f"the model expects {expected[0]} channels, {expected[1]} pixels each"
        )
    # tiny autoencoders were trained on latents of unit scale
    latents = replace(parts.latents, scale=1.0, shift=0.0) if isinstance(vae, TinyVAE) else parts.latents
    return replace(parts, vae=vae, latents=latents)


def vae_as_ldm(path: AnyPath) -> TensorFile | None:
    """The autoencoder at `path` under the names of a single file; None where it is a tiny one."""
    vae = load_vae(path, dtype=None)
    if isinstance(vae, TinyVAE):
        return None
    state = vae_ldm(vae.config).invert(vae.state_dict())
    return held(existing(path), {LDM_VAE + name: tensor for name, tensor in state.items()})


def held(path: Path, state: Mapping[str, Tensor]) -> TensorFile:
    """Tensors in memory as if they were a file's."""
    infos = {name: TensorInfo(tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    return TensorFile(path, infos, lambda name: state[name], kind="memory")


# --- text encoders --------------------------------------------------------------------------------------------------


def text_places(paths: Sequence[AnyPath]) -> tuple[list[AnyPath], AnyPath | None]:
    """(text encoders, where the others of Stable Diffusion 3 and T5's vocabulary lie): a folder of them, or beside."""
    folders = [path for path in paths if Path(path).is_dir() and holds_texts(Path(path))]
    if len(folders) > 1:
        raise InvalidRequest(f"{folders[0]} and {folders[1]} are both folders of text encoders; one is expected")
    files = [path for path in paths if path not in folders]
    return files, folders[0] if folders else Path(files[0]).parent if files else None


def read_text(path: AnyPath) -> tuple[TensorFile, str]:
    """(tensors of a text encoder without a prefix, "transformers", "openclip" or "t5"); else UnknownModel."""
    tensors = read_part(path, "text_encoder")
    for prefix in TEXT_PREFIXES:
        shapes = _shapes(tensors, prefix)
        bare = {short: prefix + short for short in shapes}
        if "text_model.embeddings.token_embedding.weight" in shapes or "embeddings.token_embedding.weight" in shapes:
            return tensors.renamed(bare), "transformers"
        if "token_embedding.weight" in shapes and "positional_embedding" in shapes:
            return tensors.renamed(bare), "openclip"
        if any("layer.0.SelfAttention.q.weight" in name for name in shapes) and "shared.weight" in shapes:
            return tensors.renamed(bare), "t5"
    raise UnknownModel(f"{tensors.path} holds no text encoder: CLIP, OpenCLIP or T5 is expected")


def _width(tensors: TensorFile) -> int:
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    return int(tensors.info(name).shape[-1])


def complete(tensors: TensorFile, vae: AnyPath | None, texts: Sequence[AnyPath]) -> TensorFile:
    """A single file with the autoencoder and text encoders of other files in it, under the names it would have."""
    given = [read_text(path) for path in texts]
    for (text, layout), (prefix, wanted) in zip(given, _places(tensors, given), strict=True):
        if layout == wanted:
            placed = text.renamed({prefix + name: name for name in text})
        elif (layout, wanted) == ("transformers", "openclip"):
            placed = as_openclip(text, "", prefix)
        else:
            kind = {"openclip": "OpenCLIP", "t5": "T5"}.get(layout, "CLIP")
            expected = "CLIP in the layout of transformers" if wanted == "transformers" else "CLIP or OpenCLIP"
            raise ModelFileError(f"{text.path} is a text encoder of kind {kind}; this model expects {expected}")
        kept = {name: name for name in tensors if not name.startswith(prefix)}
        tensors = merged(tensors.renamed(kept), placed)
    ready = None if vae is None else vae_as_ldm(vae)
    if ready is not None:
        kept = {name: name for name in tensors if not name.startswith(LDM_VAE)}
        tensors = merged(tensors.renamed(kept), ready)
    return tensors


def _places(tensors: TensorFile, given: Sequence[tuple[TensorFile, str]]) -> list[tuple[str, str]]:
    """(prefix, layout) where each of the given text encoders belongs in a single file with this denoiser."""
    shapes = _shapes(tensors, UNET)
    if not given:
        return []
    if FIRST in shapes:
        return [_sd3_place(text, layout) for text, layout in given]
    texts = [text for text, _ in given]
    context = next((shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    if "label_emb.0.0.weight" in shapes:
        if len(texts) == 1 and _width(texts[0]) == context:
            return [(REFINER_TEXT, "openclip")]
        return [(XL_FIRST, "transformers") if _is_first(text) else (XL_SECOND, "openclip") for text in texts]
    projection = next((shape for name, shape in shapes.items() if name.endswith(".proj_in.weight")), ())
    return [(SD2_TEXT, "openclip") if len(projection) == 2 else (CPP_FIRST, "transformers")] * len(texts)


def _sd3_place(text: TensorFile, layout: str) -> tuple[str, str]:
    """Where a text encoder of Stable Diffusion 3 belongs in its single file, and in which layout."""
    if layout == "t5":
        return SD3_T5, "t5"
    return (SD3_CLIP_L if _is_first(text) else SD3_CLIP_G).prefix, "transformers"


def _is_first(text: TensorFile) -> bool:
    """Whether a text encoder is the smaller one of XL or 3: by its width, or because its vector is not projected."""
    width = _width(text)
    return width == 768 or (width != 1280 and not any(name.startswith("text_projection") for name in text))


def with_text(parts: Parts, path: AnyPath, *, dtype: torch.dtype | None, device: torch.device | str) -> Parts:
    """`parts` of a diffusers folder with the text encoder at `path` in the place of the one that has its width."""
    tensors, layout = read_text(path)
    if layout == "t5":
        return _with_t5(parts, tensors, dtype=dtype, device=device)
    width = _width(tensors)
    slots = {"clip": parts.clip, "clip2": parts.clip2}
    name = next((name for name, clip in slots.items() if clip is not None and clip.config.width == width), None)
    old = slots.get(name or "")
    if name is None or old is None:
        raise InvalidRequest(f"{tensors.path} is a text encoder of width {width}, which this model does not have")
    shapes = _shapes(tensors, "")
    try:
        fields = clip_fields(shapes) if layout == "transformers" else openclip_fields(shapes)
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} looks like a text encoder, but {error}") from error
    fields |= {"heads": old.config.heads, "activation": old.config.activation}
    fields["projection_dim"] = fields["projection_dim"] if old.config.projection_dim is not None else None
    config = CLIPTextConfig(**fields)
    table = clip_transformers(config) if layout == "transformers" else clip_openclip(config)
    theirs = Under(tensors, "")
    what = f"{tensors.path} looks like a text encoder, but it"
    made = build(lambda: CLIPText(config), theirs, table, what=what, dtype=dtype, device=device)
    # an encoder with the layers that a folder leaves out is read at the same layer as before
    layer = parts.clip_layer - (config.layers - old.config.layers) if not parts.size_numbers else parts.clip_layer
    parts = replace(parts, clip_layer=layer)
    return replace(parts, clip=made) if name == "clip" else replace(parts, clip2=made)


def _with_t5(parts: Parts, tensors: TensorFile, *, dtype: torch.dtype | None, device: torch.device | str) -> Parts:
    """`parts` of a diffusers folder of Stable Diffusion 3 with this T5; its vocabulary lies beside it, or is theirs."""
    beside = t5_tokenizer(tensors.path, None)
    source = parts.tokenizer3 if beside is None else TokenizerSource(folder=beside)
    if not isinstance(parts.unet, MMDiT):
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder, which this model does not have")
    with using_config(tensors.path):
        config = t5_config(_shapes(tensors, "", T5_LEFTOVERS))
    if config is None or source is None or config.width != parts.unet.config.context_dim:
        why = "has no vocabulary beside it" if source is None else "makes tokens of another width than the model reads"
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder that {why}")
    theirs = Under(tensors, "", T5_LEFTOVERS)
    what = f"{tensors.path} looks like T5, but it"
    made = build(lambda: T5Encoder(config), theirs, t5_transformers(config), what=what, dtype=dtype, device=device)
    return replace(parts, t5=made, tokenizer3=source)

"""CLIP image towers on disk: a transformers folder, or one file in the layout of transformers or of OpenCLIP.

Sources: the module trees of transformers' CLIPVisionModelWithProjection and of open_clip's VisionTransformer, as their
checkpoints name them. A file may hold a whole CLIP; what belongs to its text encoder is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import UnknownModel
from ...models.clip_vision import CLIPVision, CLIPVisionConfig
from ..build import Prefixed, build
from ..checkpoints.folder import component, read_config
from ..containers.limits import using_config
from ..containers.open import existing, read_tensors
from ..containers.tensors import TensorFile
from ..keys import KeyTable, Op, Rule, module, modules
from .clip import CLIP_LAYER, openclip_layer
from .layout import Shapes, length, need

CONFIG = "config.json"
TRANSFORMERS_MARK = "vision_model.embeddings.patch_embedding.weight"
OPENCLIP = "visual."
HEADS = {768: 12}
"""Number of heads by width, where no config says it; all larger towers (L, H, g, G) have 16."""
QUICK_GELU_WIDTHS = (768, 1024)
"""Widths of the towers that OpenAI released; those of OpenCLIP in use (1280, 1664) have the plain GELU."""


def clip_vision_transformers(config: CLIPVisionConfig) -> KeyTable:
    """The layout of transformers (`vision_model.` and `visual_projection`), in which diffusers has `image_encoder/`."""
    rules = [
        Rule(("class_embedding",), ("vision_model.embeddings.class_embedding",)),
        Rule(("patch_embedding.weight",), ("vision_model.embeddings.patch_embedding.weight",)),
        Rule(("position_embedding",), ("vision_model.embeddings.position_embedding.weight",)),
        *module("norm_in", "vision_model.pre_layrnorm"),  # spelled so in every checkpoint
    ]
    for index in range(config.layers):
        rules += modules(f"layers.{index}", f"vision_model.encoder.layers.{index}", CLIP_LAYER)
    rules += module("norm_out", "vision_model.post_layernorm")
    rules += module("projection", "visual_projection", bias=False)
    return KeyTable(tuple(rules), ignored=frozenset({"vision_model.embeddings.position_ids", "logit_scale"}))


def clip_vision_openclip(config: CLIPVisionConfig) -> KeyTable:
    """The layout of OpenCLIP, without its leading `visual.`."""
    rules = [
        Rule(("class_embedding",), ("class_embedding",)),
        Rule(("patch_embedding.weight",), ("conv1.weight",)),
        Rule(("position_embedding",), ("positional_embedding",)),
        *module("norm_in", "ln_pre"),
    ]
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"transformer.resblocks.{index}"
        rules += openclip_layer(ours, theirs)
    rules += module("norm_out", "ln_post")
    rules.append(Rule(("projection.weight",), ("proj",), Op.TRANSPOSE))
    return KeyTable(tuple(rules))


def clip_vision_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPVisionConfig` from either layout, that of OpenCLIP without its leading `visual.`."""
    if "conv1.weight" in shapes:
        layers, mlp = "transformer.resblocks", "mlp.c_fc"
        patch, positions = need(shapes, "conv1.weight"), need(shapes, "positional_embedding")
        projection_dim = need(shapes, "proj")[1]
    else:
        layers, mlp, embeddings = "vision_model.encoder.layers", "mlp.fc1", "vision_model.embeddings"
        patch = need(shapes, f"{embeddings}.patch_embedding.weight")
        positions = need(shapes, f"{embeddings}.position_embedding.weight")
        projection_dim = need(shapes, "visual_projection.weight")[0]
    return {
        "width": patch[0],
        "layers": length(shapes, layers),
        "mlp_width": need(shapes, f"{layers}.0.{mlp}.weight")[0],
        "image_size": patch[-1] * round(max(positions[0] - 1, 1) ** 0.5),
        "patch_size": patch[-1],
        "projection_dim": projection_dim,
    }


def load_clip_vision(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> CLIPVision:
    """The image tower at `path`: a transformers folder (`image_encoder/`), or a single file.

    Shape comes from the tensors; heads and activation from the `config.json` beside them, or else from the width as
    the released towers have it. Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where
    it is no image tower, BrokenModel where tensors are missing, unexpected or of the wrong shape.
    """
    place = existing(path)
    tensors = component(place) if place.is_dir() else read_tensors(place)[0]
    layout = clip_vision_layout(tensors)
    if layout is None:
        raise UnknownModel(
            f"{tensors.path} is not a CLIP image tower; expected {TRANSFORMERS_MARK} (transformers) or "
            f"{OPENCLIP}conv1.weight (OpenCLIP) in it"
        )
    prefix, drop = layout
    theirs = Prefixed(tensors, prefix, drop)
    shapes = {name: theirs.shape(name) for name in theirs}
    with using_config(place):
        fields = clip_vision_fields(shapes)
        folder = place if place.is_dir() else place.parent
        config = CLIPVisionConfig(**fields, **clip_vision_settings(folder, fields["width"]))
    table = clip_vision_openclip(config) if prefix else clip_vision_transformers(config)
    return build(lambda: CLIPVision(config), theirs, table, what=f"{place}", dtype=dtype, device=device)


def clip_vision_layout(tensors: TensorFile) -> tuple[str, tuple[str, ...]] | None:
    """(prefix of the tower's tensors, prefixes of the rest of a whole CLIP); None where there is no tower."""
    if TRANSFORMERS_MARK in tensors:
        return "", ("text_model.", "text_projection.")
    return (OPENCLIP, ()) if f"{OPENCLIP}conv1.weight" in tensors and f"{OPENCLIP}class_embedding" in tensors else None


def clip_vision_settings(folder: Path, width: int) -> dict[str, Any]:
    """Heads and activation, from a config of transformers where one is in the folder."""
    config: Mapping[str, Any] = read_config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    config = config.get("vision_config", config)  # a config of a whole CLIP
    if not isinstance(config, Mapping) or config.get("hidden_size") != width:
        config = {}  # of another network that lies in the same folder
    activation = config.get("hidden_act", "quick_gelu" if width in QUICK_GELU_WIDTHS else "gelu")
    return {"heads": config.get("num_attention_heads", HEADS.get(width, 16)), "activation": activation}

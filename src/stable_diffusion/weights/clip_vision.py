"""CLIP image encoders from files: transformers' layout (folder or single file) and OpenCLIP's.

Sources: the module trees of transformers' CLIPVisionModelWithProjection and of open_clip's VisionTransformer.
Two facts are not in the tensors of a single file: heads are 64 wide but in ViT-H (80), g (88) and bigG (104), and the
models of OpenAI (B, L) have the quick GELU, the larger ones the exact one; a config.json says both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import BrokenModel, UnknownModel
from ..models.clip_vision import CLIPVision, CLIPVisionConfig
from .assemble import Under, build
from .diffusers import CLIP_LAYER
from .files import existing, read_tensors
from .folder import component, read_config
from .keys import KeyTable, Op, Rule, module, modules
from .openclip import LAYER
from .plausible import using_config
from .tensors import TensorFile

HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Width of a model -> width of its attention heads, where that is not 64."""
EXACT_GELU = (1280, 1408, 1664)
OTHER_HALF = ("text_model.", "text_projection.", "logit_scale", "logit_bias")


def clip_vision_transformers(config: CLIPVisionConfig) -> KeyTable:
    """`image_encoder/` of transformers, with `vision_model.` before all names but the projection's."""
    rules = [
        Rule(("class_embedding",), ("vision_model.embeddings.class_embedding",)),
        Rule(("patch_embedding.weight",), ("vision_model.embeddings.patch_embedding.weight",)),
        Rule(("position_embedding",), ("vision_model.embeddings.position_embedding.weight",)),
        *module("first_norm", "vision_model.pre_layrnorm"),  # their spelling
    ]
    for index in range(config.layers):
        rules += modules(f"layers.{index}", f"vision_model.encoder.layers.{index}", CLIP_LAYER)
    rules += module("final_norm", "vision_model.post_layernorm")
    rules += module("projection", "visual_projection", bias=False)
    return KeyTable(tuple(rules), ignored=frozenset({"vision_model.embeddings.position_ids"}))


def clip_vision_openclip(config: CLIPVisionConfig) -> KeyTable:
    """The part of an OpenCLIP or original CLIP file below `visual.`."""
    rules = [
        Rule(("class_embedding",), ("class_embedding",)),
        Rule(("patch_embedding.weight",), ("conv1.weight",)),
        Rule(("position_embedding",), ("positional_embedding",)),
        *module("first_norm", "ln_pre"),
    ]
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"transformer.resblocks.{index}"
        for part in ("weight", "bias"):
            split = tuple(f"{ours}.attention.{name}.{part}" for name in ("query", "key", "value"))
            rules.append(Rule(split, (f"{theirs}.attn.in_proj_{part}",), Op.SPLIT))
        rules += modules(ours, theirs, LAYER)
    rules += module("final_norm", "ln_post")
    rules.append(Rule(("projection.weight",), ("proj",), Op.TRANSPOSE))
    return KeyTable(tuple(rules))


def load_clip_vision(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> CLIPVision:
    """The image encoder of a transformers folder (config.json beside its weights) or of one file of either layout.

    A file or folder that holds the text encoder too is welcome. ModelFileError where nothing is at the path,
    UnknownModel where it is no CLIP image encoder, BrokenModel where tensors are missing or do not fit.
    """
    where = existing(path)
    settings = read_config(where / "config.json") if where.is_dir() else None
    tensors = component(where, None) if where.is_dir() else read_tensors(where)[0]
    openclip = "visual.conv1.weight" in tensors
    if not openclip and "vision_model.embeddings.patch_embedding.weight" not in tensors:
        raise UnknownModel(f"{where} holds no CLIP image encoder, neither transformers' (vision_model.) nor OpenCLIP's")
    own: Mapping[str, torch.Tensor] = Under(tensors, "visual.") if openclip else Under(tensors, "", OTHER_HALF)
    config = _from_shapes(tensors, where, openclip) if settings is None else _from_config(settings, where, tensors)
    table = clip_vision_openclip(config) if openclip else clip_vision_transformers(config)
    what = f"the image encoder of {where}"
    return build(lambda: CLIPVision(config), own, table, what=what, dtype=dtype, device=device)


def _from_config(settings: Mapping[str, Any], where: Path, tensors: TensorFile) -> CLIPVisionConfig:
    """From config.json of the image encoder alone, or of both encoders (its `vision_config`)."""
    vision = settings.get("vision_config", settings)
    projection = _shape(tensors, "visual_projection.weight", where)[0]
    if vision.get("layer_norm_eps", 1e-5) != 1e-5:
        raise BrokenModel(f"{where} has layer_norm_eps {vision['layer_norm_eps']!r}; this version runs 1e-05 only")
    with using_config(where):
        return CLIPVisionConfig(
            image_size=vision.get("image_size", 224),
            patch_size=vision.get("patch_size", 32),
            width=vision.get("hidden_size", 768),
            layers=vision.get("num_hidden_layers", 12),
            heads=vision.get("num_attention_heads", 12),
            mlp_width=vision.get("intermediate_size", 3072),
            activation=vision.get("hidden_act", "quick_gelu"),
            projection_dim=projection,
        )


def _from_shapes(tensors: TensorFile, where: Path, openclip: bool) -> CLIPVisionConfig:
    """From the shapes of a single file, heads and activation by the width (see above)."""
    patch, position, up, projection = (
        ("visual.conv1.weight", "visual.positional_embedding", "visual.transformer.resblocks.0.mlp.c_fc.weight",
         "visual.proj")
        if openclip
        else ("vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding.weight",
              "vision_model.encoder.layers.0.mlp.fc1.weight", "visual_projection.weight")
    )  # fmt: skip
    layer = up.partition("0.")[0]
    with using_config(where):
        width, _, side, _ = _shape(tensors, patch, where)
        rows = round((_shape(tensors, position, where)[0] - 1) ** 0.5)
        return CLIPVisionConfig(
            image_size=rows * side,
            patch_size=side,
            width=width,
            layers=len({name[len(layer) :].partition(".")[0] for name in tensors if name.startswith(layer)}),
            heads=max(1, width // HEAD_WIDTHS.get(width, 64)),
            mlp_width=_shape(tensors, up, where)[0],
            activation="gelu" if width in EXACT_GELU else "quick_gelu",
            projection_dim=_shape(tensors, projection, where)[1 if openclip else 0],
        )


def _shape(tensors: TensorFile, name: str, where: Path) -> tuple[int, ...]:
    shape = tensors.shape(name)
    if shape is None:
        raise BrokenModel(f"the image encoder of {where} does not fit: 1 tensor is missing: {name}")
    return shape

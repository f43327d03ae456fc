"""CLIP's text encoder: the config that its tensors tell, its key tables, and its settings as transformers writes them.

In the names of transformers it is in `text_encoder/`, in single files of Stable Diffusion 1 and 3 and as the first
encoder of XL; in those of OpenCLIP in single files of Stable Diffusion 2 and as the second encoder of XL. There the
matrices of query, key and value are one, and the projection of the pooled vector multiplies from the right.

Sources: the module trees of transformers' CLIPTextModel and CLIPTextModelWithProjection and of open_clip's CLIP model
(Cherti et al. 2023), as their checkpoints name them; the documented fields of transformers' CLIPTextConfig.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...models.clip import CLIPTextConfig
from ..keys import KeyTable, Op, Rule, module, modules
from .layout import Layout, Shapes, layouts, length, marks, need
from .words import Fixed, Word, Words, check_fixed, constant, read_words, write_words

CLIP_LAYER = {
    "attention_norm": "layer_norm1",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "mlp_norm": "layer_norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
OPENCLIP_LAYER = {
    "attention_norm": "ln_1",
    "attention.out": "attn.out_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
CPP_PROJECTION = "text_model.text_projection"
CLIP_LEFTOVERS = ("vision_model.", "visual_projection.", "visual.")
"""Tensors of a whole CLIP that its text encoder does not need: the image tower."""
CLIP_WORDS = (
    Word("vocab_size", "vocab_size", 49408),
    Word("hidden_size", "width"),
    Word("num_hidden_layers", "layers"),
    Word("num_attention_heads", "heads"),
    Word("intermediate_size", "mlp_width"),
    Word("max_position_embeddings", "context_length", 77),
    Word("hidden_act", "activation", "quick_gelu"),
    Word("projection_dim", lambda config: config.width if config.projection_dim is None else config.projection_dim),
    constant("layer_norm_eps", 1e-05),
    Word("bos_token_id", lambda config: config.eos_token_id - 1),
    Word("eos_token_id", lambda config: config.eos_token_id),
)
FIXED: Fixed = {"layer_norm_eps": (1e-5,)}


def clip_transformers(config: CLIPTextConfig) -> KeyTable:
    """Names begin with `text_model.`; those of files that leave it out are accepted. A projection is ignored where the
    config has none."""
    embeddings = {"token_embedding.weight": "token_embedding.weight", "position_embedding": "position_embedding.weight"}
    rules = [Rule((ours,), (f"embeddings.{theirs}",)) for ours, theirs in embeddings.items()]
    for index in range(config.layers):
        rules += modules(f"layers.{index}", f"encoder.layers.{index}", CLIP_LAYER)
    rules += module("final_norm", "final_layer_norm")
    bare = KeyTable(tuple(rules), ignored=frozenset({"embeddings.position_ids"}))
    table = bare.prefixed("text_model.")
    top = frozenset({"text_projection.weight", "logit_scale"})
    projection: tuple[Rule, ...] = ()
    if config.projection_dim is not None:
        projection = tuple(module("projection", "text_projection", bias=False))
        top -= {"text_projection.weight"}
    return KeyTable(
        table.rules + projection,
        dict(zip(bare.their_names(), table.their_names(), strict=True)),
        table.ignored | bare.ignored | top,
    )


def clip_cpp(config: CLIPTextConfig) -> KeyTable:
    """The layout of transformers as stable-diffusion.cpp writes it: a projection keeps OpenCLIP's orientation."""
    table = clip_transformers(replace(config, projection_dim=None))
    if config.projection_dim is None:
        return replace(table, ignored=table.ignored | {CPP_PROJECTION})
    return replace(table, rules=(*table.rules, Rule(("projection.weight",), (CPP_PROJECTION,), Op.TRANSPOSE)))


def clip_openclip(config: CLIPTextConfig) -> KeyTable:
    """A projection is ignored where the config has none."""
    rules = [
        Rule(("token_embedding.weight",), ("token_embedding.weight",)),
        Rule(("position_embedding",), ("positional_embedding",)),
    ]
    for index in range(config.layers):
        rules += openclip_layer(f"layers.{index}", f"transformer.resblocks.{index}")
    rules += module("final_norm", "ln_final")
    # ComfyUI once left the position numbers of its own layout in the files that it wrote, and merges still carry them.
    ignored = {"logit_scale", "attn_mask", "text_projection", "transformer.text_model.embeddings.position_ids"}
    if config.projection_dim is not None:
        rules.append(Rule(("projection.weight",), ("text_projection",), Op.TRANSPOSE))
        ignored.remove("text_projection")
    return KeyTable(tuple(rules), ignored=frozenset(ignored))


def openclip_layer(ours: str, theirs: str) -> Iterator[Rule]:
    """A layer of OpenCLIP's transformers, those of pictures as well."""
    for part in ("weight", "bias"):
        split = tuple(f"{ours}.attention.{name}.{part}" for name in ("query", "key", "value"))
        yield Rule(split, (f"{theirs}.attn.in_proj_{part}",), Op.SPLIT)
    yield from modules(ours, theirs, OPENCLIP_LAYER)


def clip_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPTextConfig` from the layout of transformers, with or without the leading `text_model.`."""
    base = "text_model." if any(name.startswith("text_model.") for name in shapes) else ""
    vocabulary, width = need(shapes, f"{base}embeddings.token_embedding.weight")
    projection = shapes.get("text_projection.weight")
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, f"{base}encoder.layers"),
        "mlp_width": need(shapes, f"{base}encoder.layers.0.mlp.fc1.weight")[0],
        "context_length": need(shapes, f"{base}embeddings.position_embedding.weight")[0],
        "projection_dim": None if projection is None else projection[0],
        "eos_token_id": vocabulary - 1,
    }


def cpp_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPTextConfig` from the layout of stable-diffusion.cpp."""
    return {**clip_fields(shapes), "projection_dim": need(shapes, CPP_PROJECTION)[1]}


def openclip_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPTextConfig` from the layout of OpenCLIP."""
    vocabulary, width = need(shapes, "token_embedding.weight")
    projection = shapes.get("text_projection")
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, "transformer.resblocks"),
        "mlp_width": need(shapes, "transformer.resblocks.0.mlp.c_fc.weight")[0],
        "context_length": need(shapes, "positional_embedding")[0],
        "projection_dim": None if projection is None else projection[1],
        "eos_token_id": vocabulary - 1,
    }


CLIP_LAYOUTS = layouts(
    Layout("cpp", marks(f"text_model.embeddings.token_embedding.weight {CPP_PROJECTION}"), cpp_fields, clip_cpp),
    Layout(
        "transformers",
        marks("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"),
        clip_fields,
        clip_transformers,
    ),
    Layout("openclip", marks("token_embedding.weight positional_embedding"), openclip_fields, clip_openclip),
)


def clip_from_words(words: Words, where: Path, *, projection: bool) -> CLIPTextConfig:
    """`text_encoder/config.json` -> `CLIPTextConfig`; `projection` says whether the weights have one."""
    check_fixed(words, FIXED, where)
    fields = read_words(CLIP_WORDS, words, where)
    last = fields["vocab_size"] - 1
    end = words.get("eos_token_id", last)
    fields["projection_dim"] = words.get("projection_dim", 512) if projection else None
    # Old configs say 2, by mistake; transformers then takes the highest id of the text, which is the end token.
    return CLIPTextConfig(**fields, eos_token_id=last if end is None or end == 2 else end)


def clip_to_words(config: CLIPTextConfig, *, projected: bool, pad_token_id: int | None) -> dict[str, Any]:
    """`text_encoder/config.json`, for transformers' CLIPTextModel (or CLIPTextModelWithProjection)."""
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        **write_words(CLIP_WORDS, config),
        "pad_token_id": 1 if pad_token_id is None else pad_token_id,
    }

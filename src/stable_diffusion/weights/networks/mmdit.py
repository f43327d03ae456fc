"""The transformer of Stable Diffusion 3: the config that its tensors tell, its key tables, and its settings as
diffusers writes them.

Single files have the names of the released code of Esser et al. 2024 (below `model.diffusion_model.`), in which query,
key and value are one matrix, and the shift of an AdaLN comes before its scale. The folder `transformer/` has those of
diffusers' SD3Transformer2DModel, which has the scale first where a stream ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import BrokenModel
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ..keys import KeyTable, Op, Rule, module, modules
from .layout import Layout, Shapes, layouts, length, marks, need
from .words import VERSION, Word, Words, read_words, write_words

JOINT = "joint_blocks.0.context_block.adaLN_modulation.1.weight"
JOINT_DIFFUSERS = "transformer_blocks.0.norm1_context.linear.weight"
"""The tensor of a block of two streams by which both layouts are known."""
QKV = ("query", "key", "value")
DIFFUSERS_MLP = {
    "time_mlp.linear1": "time_text_embed.timestep_embedder.linear_1",
    "time_mlp.linear2": "time_text_embed.timestep_embedder.linear_2",
    "vector_mlp.linear1": "time_text_embed.text_embedder.linear_1",
    "vector_mlp.linear2": "time_text_embed.text_embedder.linear_2",
}
IMAGE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
IMAGE_NORMS = {"query_norm": "norm_q", "key_norm": "norm_k"}
TEXT_ATTENTION = {"query": "add_q_proj", "key": "add_k_proj", "value": "add_v_proj", "out": "to_add_out"}
TEXT_NORMS = {"query_norm": "norm_added_q", "key_norm": "norm_added_k"}


def mmdit_ldm(config: MMDiTConfig) -> KeyTable:
    """Single files, below `model.diffusion_model.`."""
    rules = [
        *module("patches", "x_embedder.proj"),
        Rule(("positions",), ("pos_embed",)),
        *modules("time_mlp", "t_embedder.mlp", {"linear1": "0", "linear2": "2"}),
        *modules("vector_mlp", "y_embedder.mlp", {"linear1": "0", "linear2": "2"}),
        *module("context_in", "context_embedder"),
        *modules("", "final_layer", {"modulation_out": "adaLN_modulation.1", "out": "linear"}),
    ]
    for index in range(config.depth):
        for stream, theirs in (("image", "x_block"), ("text", "context_block")):
            rules += _ldm_stream(config, index, stream, f"joint_blocks.{index}.{theirs}")
    return KeyTable(tuple(rules))


def _ldm_stream(config: MMDiTConfig, index: int, stream: str, theirs: str) -> Iterator[Rule]:
    ours, ends = f"blocks.{index}.{stream}", _is_last(config, index, stream)
    yield from module(f"{ours}.modulation", f"{theirs}.adaLN_modulation.1")
    for attention, name in _attentions(config, index, stream):
        for part in ("weight", "bias"):
            split = tuple(f"{ours}.{attention}.{each}.{part}" for each in QKV)
            yield Rule(split, (f"{theirs}.{name}.qkv.{part}",), Op.SPLIT)
        if config.qk_norm:
            for each, norm in (("query_norm", "ln_q"), ("key_norm", "ln_k")):
                yield from module(f"{ours}.{attention}.{each}", f"{theirs}.{name}.{norm}", bias=False)
        if not ends:
            yield from module(f"{ours}.{attention}.out", f"{theirs}.{name}.proj")
    if not ends:
        yield from modules(f"{ours}.mlp", f"{theirs}.mlp", {"up": "fc1", "down": "fc2"})


def mmdit_diffusers(config: MMDiTConfig) -> KeyTable:
    """`transformer/`."""
    rules = [
        *module("patches", "pos_embed.proj"),
        Rule(("positions",), ("pos_embed.pos_embed",)),
        *modules("", "", DIFFUSERS_MLP),
        *module("context_in", "context_embedder"),
        *_swapped("modulation_out", "norm_out.linear"),
        *module("out", "proj_out"),
    ]
    for index in range(config.depth):
        for stream in ("image", "text"):
            rules += _diffusers_stream(config, index, stream)
    return KeyTable(tuple(rules))


def _diffusers_stream(config: MMDiTConfig, index: int, stream: str) -> Iterator[Rule]:
    ours, theirs = f"blocks.{index}.{stream}", f"transformer_blocks.{index}"
    ends, context = _is_last(config, index, stream), "_context" if stream == "text" else ""
    modulation = (f"{ours}.modulation", f"{theirs}.norm1{context}.linear")
    yield from _swapped(*modulation) if ends else module(*modulation)
    linears, norms = (TEXT_ATTENTION, TEXT_NORMS) if context else (IMAGE_ATTENTION, IMAGE_NORMS)
    for attention, name in _attentions(config, index, stream):
        for our_name, their_name in linears.items():
            if not (ends and our_name == "out"):
                yield from module(f"{ours}.{attention}.{our_name}", f"{theirs}.{name}.{their_name}")
        for our_name, their_name in norms.items() if config.qk_norm else ():
            yield from module(f"{ours}.{attention}.{our_name}", f"{theirs}.{name}.{their_name}", bias=False)
    if not ends:
        yield from modules(f"{ours}.mlp", f"{theirs}.ff{context}", {"up": "net.0.proj", "down": "net.2"})


def _swapped(ours: str, theirs: str) -> Iterator[Rule]:
    """A modulation of two parts whose order differs: shift and scale here, scale and shift there."""
    for part in ("weight", "bias"):
        yield Rule((f"{ours}.{part}",), (f"{theirs}.{part}",), Op.SWAP_HALVES)


def _is_last(config: MMDiTConfig, index: int, stream: str) -> bool:
    """Whether a stream is only read in this block."""
    return stream == "text" and index == config.depth - 1


def _attentions(config: MMDiTConfig, index: int, stream: str) -> Iterator[tuple[str, str]]:
    """(our name, theirs) of the attentions of a stream in a block."""
    yield "attention", "attn"
    if stream == "image" and index in config.dual_attention:
        yield "second_attention", "attn2"


# --- the config ------------------------------------------------------------------------------------------------------


def mmdit_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `MMDiTConfig` from the layout of single files; heads are known only where queries are normed, and
    are 64 wide elsewhere."""
    return _fields_of(
        shapes, "x_embedder.proj.weight", "pos_embed", "joint_blocks.{}.x_block.attn.ln_q.weight",
        "joint_blocks.{}.x_block.attn2.qkv.weight", "final_layer.linear.weight", "y_embedder.mlp.0.weight",
    )  # fmt: skip


def mmdit_fields_diffusers(shapes: Shapes) -> dict[str, Any]:
    """The same fields from the layout of diffusers."""
    return _fields_of(
        shapes, "pos_embed.proj.weight", "pos_embed.pos_embed", "transformer_blocks.{}.attn.norm_q.weight",
        "transformer_blocks.{}.attn2.to_q.weight", "proj_out.weight",
        "time_text_embed.text_embedder.linear_1.weight",
    )  # fmt: skip


def _fields_of(
    shapes: Shapes, first: str, positions: str, norm: str, dual: str, last: str, vector: str
) -> dict[str, Any]:
    """The fields from the names of the tensors that tell them; `{}` is the number of a block."""
    width, in_channels, patch = need(shapes, first)[:3]
    depth = length(shapes, norm.split(".")[0])
    table = shapes.get(positions, ())
    side = math.isqrt(table[-2]) if len(table) >= 2 else 0
    if not side or side**2 != table[-2]:
        raise BrokenModel(f"the table of positions ({positions}) has the shape {list(table)}; expected n^2 rows")
    normed = shapes.get(norm.format(0))
    return {
        "in_channels": in_channels,
        "out_channels": need(shapes, last)[0] // max(1, patch) ** 2,
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "heads": max(1, width // (normed[0] if normed and normed[0] else 64)),
        "context_dim": need(shapes, "context_embedder.weight")[1],
        "vector_dim": need(shapes, vector)[1],
        "positions": side,
        "qk_norm": normed is not None,
        "dual_attention": tuple(block for block in range(depth) if dual.format(block) in shapes),
    }


MMDIT_LAYOUTS = layouts(
    Layout("ldm", marks(f"x_embedder.proj.weight {JOINT}"), mmdit_fields, mmdit_ldm),
    Layout("diffusers", marks(f"pos_embed.proj.weight {JOINT_DIFFUSERS}"), mmdit_fields_diffusers, mmdit_diffusers),
)


def check_texts(mmdit: MMDiTConfig, clips: tuple[CLIPTextConfig, ...], t5: T5Config | None) -> None:
    """BrokenModel where the tokens or the pooled vectors of the text encoders are not what the transformer reads."""
    pooled = [clip.projection_dim or clip.width for clip in clips]
    if sum(pooled) != mmdit.vector_dim:
        given = " + ".join(map(str, pooled))
        raise BrokenModel(
            f"its transformer takes a vector of {mmdit.vector_dim} numbers; the text encoders give {given}"
        )
    widths = {"CLIP": sum(clip.width for clip in clips), "T5": 0 if t5 is None else t5.width}
    if widths["CLIP"] > mmdit.context_dim or widths["T5"] not in (0, mmdit.context_dim):
        made = ", ".join(f"{name} {width}" for name, width in widths.items() if width)
        raise BrokenModel(f"its transformer expects tokens of width {mmdit.context_dim}; the text encoders make {made}")


# --- diffusers' words ------------------------------------------------------------------------------------------------

QK_NORM = {None: False, "rms_norm": True}
MMDIT_WORDS = (
    Word("patch_size", "patch_size", 2, "number"),
    Word("in_channels", "in_channels", 16, "number"),
    Word("out_channels", "out_channels", 16),
    Word("num_layers", "depth", 18, "number"),
    Word("num_attention_heads", "heads", 18, "number"),
    Word("attention_head_dim", "head_dim", 64, "number"),
    Word("joint_attention_dim", "context_dim", 4096, "number"),
    Word("caption_projection_dim", "width", 1152, "number"),
    Word("pooled_projection_dim", "vector_dim", 2048, "number"),
    Word("pos_embed_max_size", "positions", 96, "number"),
    Word("dual_attention_layers", "dual_attention", (), "list"),
    Word("qk_norm", lambda config: "rms_norm" if config.qk_norm else None),
)


def mmdit_from_words(words: Words, where: Path) -> MMDiTConfig:
    """`transformer/config.json` -> `MMDiTConfig`, with diffusers' defaults; BrokenModel names what we do not have."""
    norm = words.get("qk_norm")
    if norm not in QK_NORM:
        raise BrokenModel(f"{where} has qk_norm {norm!r}; this version runs 'rms_norm' or none")
    fields = read_words(MMDIT_WORDS, words, where)
    width = fields["heads"] * fields.pop("head_dim")
    if fields["width"] != width:
        raise BrokenModel(f"{where} has caption_projection_dim {words.get('caption_projection_dim')}; expected {width}")
    if fields["out_channels"] is None:
        fields["out_channels"] = fields["in_channels"]
    return MMDiTConfig(**fields, qk_norm=QK_NORM[norm])


def mmdit_to_words(config: MMDiTConfig, *, size: int) -> dict[str, Any]:
    """`transformer/config.json`. `size` is the side of the latents that the model was made for."""
    words: dict[str, Any] = {"_class_name": "SD3Transformer2DModel", "_diffusers_version": VERSION}
    words |= {"sample_size": size, **write_words(MMDIT_WORDS, config)}
    assert mmdit_from_words(words, Path("transformer/config.json")) == config, "every setting has a word"
    return words

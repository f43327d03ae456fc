"""Key tables of Stable Diffusion 3: its transformer in both layouts, and T5, whose names are the same everywhere.

Single files have the names of the released code of Esser et al. 2024 (below `model.diffusion_model.`), in which query,
key and value are one matrix, and the shift of an AdaLN comes before its scale. The folder `transformer/` has those of
diffusers' SD3Transformer2DModel, which has the scale first where a stream ends. T5 has the names of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ..keys import KeyTable, Op, Rule, module, modules

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

SECOND_EMBEDDING = "encoder.embed_tokens.weight"
T5_LAYER = {
    "attention_norm": "layer.0.layer_norm",
    "attention.query": "layer.0.SelfAttention.q",
    "attention.key": "layer.0.SelfAttention.k",
    "attention.value": "layer.0.SelfAttention.v",
    "attention.out": "layer.0.SelfAttention.o",
    "mlp_norm": "layer.1.layer_norm",
    "mlp.gate": "layer.1.DenseReluDense.wi_0",
    "mlp.up": "layer.1.DenseReluDense.wi_1",
    "mlp.down": "layer.1.DenseReluDense.wo",
}


def mmdit_ldm(config: MMDiTConfig) -> KeyTable:
    """`joint_blocks` of single files."""
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
    ours, ends = f"blocks.{index}.{stream}", _ends(config, index, stream)
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
    ends, context = _ends(config, index, stream), "_context" if stream == "text" else ""
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


def _ends(config: MMDiTConfig, index: int, stream: str) -> bool:
    """Whether a stream is only read in this block."""
    return stream == "text" and index == config.depth - 1


def _attentions(config: MMDiTConfig, index: int, stream: str) -> Iterator[tuple[str, str]]:
    """(our name, theirs) of the attentions of a stream in a block."""
    yield "attention", "attn"
    if stream == "image" and index in config.dual_attention:
        yield "second_attention", "attn2"


def t5_transformers(config: T5Config) -> KeyTable:
    """T5's encoder, in folders and single files; many files hold the token embedding under two names."""
    theirs = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    rules = [*module("token_embedding", "shared", bias=False), *module("position_bias", theirs, bias=False)]
    for index in range(config.layers):
        for our_name, their_name in T5_LAYER.items():
            rules += module(f"layers.{index}.{our_name}", f"encoder.block.{index}.{their_name}", bias=False)
    rules += module("final_norm", "encoder.final_layer_norm", bias=False)
    return KeyTable(tuple(rules), {SECOND_EMBEDDING: "shared.weight"}, tied=frozenset({SECOND_EMBEDDING}))

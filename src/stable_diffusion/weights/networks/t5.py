"""T5's encoder: the config that its tensors tell, its key tables, and its settings as transformers writes them.

Its names are those of transformers in folders (`text_encoder_3/`), in single files, and in files of T5 alone; GGUF
files that llama.cpp's converter wrote have its own. Sources: the module tree of transformers' T5EncoderModel, as its
checkpoints name it, and its T5Config; the tensor names of the library gguf for the architectures t5 and t5encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...models.t5 import EPS, T5Config
from ..keys import KeyTable, module
from .layout import Layout, Shapes, layouts, length, marks, need
from .words import Fixed, Word, Words, check_fixed, constant, read_words, write_words

SECOND_EMBEDDING = "encoder.embed_tokens.weight"
"""The name under which many files hold the token embedding once more."""
T5_LEFTOVERS = ("decoder.", "lm_head.", "dec.", "output.")
"""Tensors of a whole T5 that the encoder does not need."""
LAYER = {
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
LLAMA_LAYER = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.out": "attn_o",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
T5_WORDS = (
    Word("vocab_size", "vocab_size", 32128, "number"),
    Word("d_model", "width", 512, "number"),
    Word("d_kv", "head_dim", 64, "number"),
    Word("d_ff", "mlp_width", 2048, "number"),
    Word("num_layers", "layers", 6, "number"),
    Word("num_heads", "heads", 8, "number"),
    Word("relative_attention_num_buckets", "buckets", 32, "number"),
    Word("relative_attention_max_distance", "max_distance", 128, "number"),
    constant("feed_forward_proj", "gated-gelu"),
    constant("dropout_rate", 0.0),  # diffusers 0.42 leaves the T5 of single files in training mode, where it would drop
    constant("layer_norm_epsilon", EPS),
    constant("is_encoder_decoder", False),
    constant("tie_word_embeddings", False),
    constant("use_cache", False),
    constant("pad_token_id", 0),
    constant("eos_token_id", 1),
)
FIXED: Fixed = {"feed_forward_proj": ("gated-gelu",), "layer_norm_epsilon": (EPS,)}


def t5_transformers(config: T5Config) -> KeyTable:
    """The layout of transformers; many files hold the token embedding under two names."""
    theirs = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    rules = [*module("token_embedding", "shared", bias=False), *module("position_bias", theirs, bias=False)]
    for index in range(config.layers):
        for our_name, their_name in LAYER.items():
            rules += module(f"layers.{index}.{our_name}", f"encoder.block.{index}.{their_name}", bias=False)
    rules += module("final_norm", "encoder.final_layer_norm", bias=False)
    return KeyTable(tuple(rules), {SECOND_EMBEDDING: "shared.weight"}, tied=frozenset({SECOND_EMBEDDING}))


def t5_llama(config: T5Config) -> KeyTable:
    """The layout of llama.cpp."""
    bias = "enc.blk.0.attn_rel_b"
    rules = [*module("token_embedding", "token_embd", bias=False), *module("position_bias", bias, bias=False)]
    for index in range(config.layers):
        for our_name, their_name in LLAMA_LAYER.items():
            rules += module(f"layers.{index}.{our_name}", f"enc.blk.{index}.{their_name}", bias=False)
    rules += module("final_norm", "enc.output_norm", bias=False)
    return KeyTable(tuple(rules))


def t5_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `T5Config` as far as shapes tell them; all public models have the same largest distance."""
    attention = "encoder.block.0.layer.0.SelfAttention"
    return _fields_of(
        shapes,
        "shared.weight" if "shared.weight" in shapes else SECOND_EMBEDDING,
        "encoder.block",
        f"{attention}.relative_attention_bias.weight",
        f"{attention}.q.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    )


def t5_fields_llama(shapes: Shapes) -> dict[str, Any]:
    """The same fields from the layout of llama.cpp."""
    names = ("attn_rel_b", "attn_q", "ffn_gate")
    return _fields_of(shapes, "token_embd.weight", "enc.blk", *(f"enc.blk.0.{name}.weight" for name in names))


def _fields_of(shapes: Shapes, embedding: str, layers: str, bias: str, query: str, gate: str) -> dict[str, Any]:
    buckets, heads = need(shapes, bias)
    vocabulary, width = need(shapes, embedding)
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, layers),
        "heads": heads,
        "head_dim": need(shapes, query)[0] // max(1, heads),
        "mlp_width": need(shapes, gate)[0],
        "buckets": buckets,
    }


T5_LAYOUTS = layouts(
    Layout(
        "t5",
        marks(
            "shared.weight encoder.block.0.layer.0.SelfAttention.q.weight",
            f"{SECOND_EMBEDDING} encoder.block.0.layer.0.SelfAttention.q.weight",
        ),
        t5_fields,
        t5_transformers,
    ),
    Layout("t5-llama", marks("token_embd.weight enc.blk.0.attn_q.weight"), t5_fields_llama, t5_llama),
)


def t5_from_words(words: Words, where: Path) -> T5Config:
    """`text_encoder_3/config.json` -> `T5Config`; BrokenModel where it is not a T5 v1.1."""
    check_fixed(words, FIXED, where)
    return T5Config(**read_words(T5_WORDS, words, where))


def t5_to_words(config: T5Config) -> dict[str, Any]:
    """`text_encoder_3/config.json`, for transformers' T5EncoderModel."""
    words = {"architectures": ["T5EncoderModel"], "model_type": "t5", **write_words(T5_WORDS, config)}
    assert t5_from_words(words, Path("text_encoder_3/config.json")) == config, "every setting has a word"
    return words

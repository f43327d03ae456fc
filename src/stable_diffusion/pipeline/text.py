"""The text encoder of a loaded model: one, two or three networks with their tokenizers, as its parts say."""

from __future__ import annotations

from ..errors import BrokenModel
from ..models.clip import CLIPText
from ..models.unet import UNetConfig
from ..text.encode import TextEncoder
from ..text.encode_three import TripleTextEncoder
from ..text.encode_two import PairedTextEncoder
from ..text.t5_tokenizer import t5_tokenizer
from ..text.tokenizer import Tokenizer
from ..weights.parts import Parts, TokenizerSource


def text_encoder(parts: Parts) -> TextEncoder:
    """The text encoder of a model; BrokenModel where the network's vector is not what it gives."""
    if not isinstance(parts.unet.config, UNetConfig):
        return _three(parts)
    return _one_or_two(parts, parts.unet.config.vector_dim)


def _one_or_two(parts: Parts, vector_dim: int | None) -> TextEncoder:
    clip, clip2 = parts.clip, parts.clip2
    tokenizer = clip_tokenizer(parts.tokenizer, clip)
    last = (clip if clip2 is None else clip2).config
    pooled = last.projection_dim or last.width
    if parts.size_numbers:
        if vector_dim is None or vector_dim <= pooled or (vector_dim - pooled) % (2 * parts.size_numbers):
            raise BrokenModel(
                f"the text encoder gives {pooled} pooled numbers and the size {parts.size_numbers}; "
                f"the U-Net's vector has {vector_dim}"
            )
        others = [] if clip2 is None else [(clip2, clip_tokenizer(parts.tokenizer2 or parts.tokenizer, clip2))]
        return PairedTextEncoder([(clip, tokenizer), *others], layer=parts.clip_layer, zero_empty=parts.zero_empty)
    if vector_dim is not None and pooled != vector_dim:
        raise BrokenModel(f"the text encoder gives {pooled} pooled numbers, the U-Net takes {vector_dim}")
    return TextEncoder(
        clip,
        tokenizer,
        layer=parts.clip_layer,
        vector=vector_dim is not None,
        emphasis="restore_mean" if parts.family.startswith("sd") else "from_empty",
        final_norm=parts.text_norm,
        zero_empty=parts.zero_empty,
    )


def _three(parts: Parts) -> TripleTextEncoder:
    """Two CLIP encoders and, where it is there, T5; that they fit the network was checked when they were loaded."""
    if parts.clip2 is None:
        raise BrokenModel(f"a model of family {parts.family!r} needs two CLIP text encoders; it has one")
    towers = [(parts.clip, parts.tokenizer), (parts.clip2, parts.tokenizer2 or parts.tokenizer)]
    t5 = None
    if parts.t5 is not None and parts.tokenizer3 is not None and parts.tokenizer3.folder is not None:
        tokenizer = t5_tokenizer(parts.tokenizer3.folder)
        _check_vocabulary(tokenizer, parts.t5.config.vocab_size)
        t5 = (parts.t5, tokenizer)
    return TripleTextEncoder(
        [(clip, clip_tokenizer(source, clip)) for clip, source in towers],
        t5,
        width=parts.unet.config.context_dim,
        layer=parts.clip_layer,
    )


def clip_tokenizer(source: TokenizerSource, clip: CLIPText) -> Tokenizer:
    """The tokenizer of a CLIP text encoder; BrokenModel where it has more tokens than the encoder."""
    context = clip.config.context_length
    if source.json is not None:
        tokenizer = Tokenizer.from_json(source.json, context_length=context)
    elif source.folder is not None:
        tokenizer = Tokenizer.from_folder(source.folder, context_length=context)
    else:
        tokenizer = Tokenizer.clip(context_length=context)
    if source.pad_token_id is not None:
        tokenizer.pad = source.pad_token_id
    _check_vocabulary(tokenizer, clip.config.vocab_size)
    return tokenizer


def _check_vocabulary(tokenizer: Tokenizer, most: int) -> None:
    if tokenizer.vocab_size > most:
        raise BrokenModel(f"the tokenizer has {tokenizer.vocab_size} tokens, the text encoder only {most}")
    if tokenizer.highest >= most:
        raise BrokenModel(f"the tokenizer has a token of id {tokenizer.highest}, the text encoder only {most} tokens")

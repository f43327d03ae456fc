"""Tiny autoencoders in files: which tensors they have, in the numbering of the first release and in that of diffusers.

Both number the layers of one long list. The first release counts the bending of latents as layer 0 of the decoder;
layers without weights (ReLU, enlarging) are counted by both.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import BrokenModel
from ...models.tiny_vae import TinyVAEConfig
from ..keys import KeyTable, Rule, module, modules
from .layout import Shapes

BLOCK = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4"}
LAYOUTS: tuple[tuple[str, str, int], ...] = (
    ("encoder.layers.", "decoder.layers.", 0),
    ("taesd_encoder.", "taesd_decoder.", 1),
    ("encoder.", "decoder.", 1),
    ("-", "", 1),
)
"""(names of the encoder begin with, those of the decoder, number of the decoder's first convolution); the last is a
file of a decoder alone."""


def tiny_layout(shapes: Shapes) -> tuple[str, str, int] | None:
    """The layout of a file that is a tiny autoencoder or its decoder; None for other files."""
    for layout in LAYOUTS:
        _, decoder, first = layout
        conv, block = f"{decoder}{first}.weight", f"{decoder}{first + 2}.conv.0.weight"
        if len(shapes.get(conv, ())) == 4 and len(shapes.get(block, ())) == 4:
            return layout
    return None


def tiny_config(shapes: Shapes, layout: tuple[str, str, int]) -> TinyVAEConfig:
    """The config of a file of that layout; BrokenModel where tensors that decide it are missing."""
    encoder, decoder, first = layout
    down = _stages(shapes, encoder, 1, enlarging=False)
    up = _stages(shapes, decoder, first + 2, enlarging=True)
    width, latents = shapes[f"{decoder}{first}.weight"][:2]
    last = first + 2 + sum(up) + 2 * (len(up) - 1)
    out = shapes.get(f"{decoder}{last}.weight")
    if out is None or len(out) != 4:
        raise BrokenModel(f"the tiny autoencoder has no {decoder}{last}.weight, so its shape cannot be determined")
    return TinyVAEConfig(
        image_channels=out[0], latent_channels=latents, width=width, encoder_blocks=down, decoder_blocks=up
    )


def _stages(shapes: Shapes, prefix: str, number: int, *, enlarging: bool) -> tuple[int, ...]:
    """Residual blocks of each stage, counted from layer `number`; a convolution without bias parts two stages."""
    stages: list[int] = []
    blocks = 0
    while True:
        if f"{prefix}{number}.conv.0.weight" in shapes:
            blocks, number = blocks + 1, number + 1
            continue
        between = number + (1 if enlarging else 0)
        if not blocks and not stages:
            return ()
        stages.append(blocks)
        if f"{prefix}{between}.weight" not in shapes or f"{prefix}{between}.bias" in shapes:
            return tuple(stages)
        blocks, number = 0, between + 1


def tiny_table(config: TinyVAEConfig, layout: tuple[str, str, int]) -> KeyTable:
    """The key table of a tiny autoencoder in a layout."""
    encoder, decoder, first = layout
    rules = list(_encoder(config, encoder)) if config.encoder_blocks else []
    return KeyTable((*rules, *_decoder(config, decoder, first)))


def _encoder(config: TinyVAEConfig, prefix: str) -> Iterator[Rule]:
    yield from module("encoder.conv_in", f"{prefix}0")
    number = 1
    for stage, blocks in enumerate(config.encoder_blocks):
        if stage:
            yield from module(f"encoder.downsamples.{stage - 1}", f"{prefix}{number}", bias=False)
            number += 1
        for block in range(blocks):
            yield from modules(f"encoder.stages.{stage}.{block}", f"{prefix}{number}", BLOCK)
            number += 1
    yield from module("encoder.conv_out", f"{prefix}{number}")


def _decoder(config: TinyVAEConfig, prefix: str, first: int) -> Iterator[Rule]:
    yield from module("decoder.conv_in", f"{prefix}{first}")
    number = first + 2  # after the convolution and its ReLU
    for stage, blocks in enumerate(config.decoder_blocks):
        if stage:
            yield from module(f"decoder.upsamples.{stage - 1}", f"{prefix}{number + 1}", bias=False)
            number += 2
        for block in range(blocks):
            yield from modules(f"decoder.stages.{stage}.{block}", f"{prefix}{number}", BLOCK)
            number += 1
    yield from module("decoder.conv_out", f"{prefix}{number}")

"""Where the networks of a single file stand, whoever wrote it, and the same tensors at the released files' places.

Only prefixes are changed here: which layout a network is in is decided afterwards, for each network on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..build import Prefixed
from ..containers.tensors import TensorFile
from ..networks.clip import CLIP_LAYOUTS
from ..networks.layout import Layout, Shapes, layout_of
from ..networks.mmdit import MMDIT_LAYOUTS
from ..networks.t5 import T5_LAYOUTS
from ..networks.unet import UNET_LAYOUTS
from ..networks.vae import VAE_LAYOUTS
from .families import (
    CLIP_L,
    FAMILIES,
    OPENCLIP_H,
    REFINER_CLIP_G,
    SD3_CLIP_G,
    SD3_CLIP_L,
    SD3_T5,
    UNET,
    VAE,
    XL_CLIP_G,
    XL_CLIP_L,
    TextPlace,
)

Text = tuple[TensorFile, str]
"""A text encoder without a prefix, and its layout."""
Known = Mapping[str, Layout[Any]]

UNET_PREFIXES = (UNET, "diffusion_model.", "unet.", "transformer.", "model.", "denoiser.", f"{UNET}model.", "")
"""Where the denoising network stands; the names of a whole model go on behind it."""
VAE_PREFIXES = (VAE, "vae.", "autoencoder.", f"{VAE}model.", f"{VAE}vae.", "")
TEXT_PREFIXES = (CLIP_L.prefix, OPENCLIP_H.prefix, "text_encoder.", "")
BARE: dict[str, tuple[str, ...]] = {
    "input_blocks.0.0.weight": (
        *("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out."),
    ),
    "conv_in.weight": (
        *("conv_in.", "time_embedding.", "add_embedding.", "class_embedding.", "down_blocks.", "mid_block."),
        *("up_blocks.", "conv_norm_out.", "conv_out."),
    ),
    "x_embedder.proj.weight": (
        *(f"{name}_embedder." for name in ("x", "t", "y", "context")),
        *("joint_blocks.", "final_layer.", "pos_embed"),
    ),
    "pos_embed.proj.weight": (
        *("pos_embed.", "time_text_embed.", "context_embedder.", "transformer_blocks.", "norm_out.", "proj_out."),
    ),
    "encoder.conv_in.weight": (
        *(f"{side}.{part}" for side in ("encoder", "decoder") for part in ("conv_", "norm_out.", "mid")),
        *("encoder.down", "decoder.up", "quant_conv.", "post_quant_conv."),
    ),
}
"""First tensor of a network -> how its names begin where nothing stands before them."""
CPP_SECOND = "cond_stage_model.1.transformer."
"""Where stable-diffusion.cpp has the second text encoder of XL; all others are where Stable Diffusion 1 has its own."""
HOMES = (*(text.prefix for family in FAMILIES.values() for text in family.texts), SD3_T5)
"""Where the text encoders of the released files stand."""


def rename_to_ldm(tensors: TensorFile) -> TensorFile:
    """The same tensors with the prefixes of the released checkpoints; a file that has those is returned as it is.

    Files that hold a denoiser alone leave its prefix out, others have the folders of diffusers as prefixes, and
    stable-diffusion.cpp has text encoders at places of its own.
    """
    tensors = _moved_network(tensors, UNET_PREFIXES, UNET, UNET_LAYOUTS, MMDIT_LAYOUTS)
    tensors = _moved_network(tensors, VAE_PREFIXES, VAE, VAE_LAYOUTS)
    if any(name.startswith(CPP_SECOND) for name in tensors):
        return _moved(tensors, {CLIP_L.prefix: XL_CLIP_L.prefix, CPP_SECOND: XL_CLIP_G.prefix})
    projection = next((name for name in tensors if name.startswith(UNET) and name.endswith(".proj_in.weight")), None)
    # matrices and not convolutions: the U-Net of Stable Diffusion 2
    if projection is not None and len(tensors.info(projection).shape) == 2:
        tensors = _moved(tensors, {CLIP_L.prefix: OPENCLIP_H.prefix})
    return _moved_texts(tensors)


def denoiser_layout(network: Shapes) -> tuple[str, Layout[Any]] | None:
    """("unet" or "mmdit", its layout) of a network of these tensors, None where it is neither."""
    kinds: tuple[tuple[str, Mapping[str, Layout[Any]]], ...] = (("unet", UNET_LAYOUTS), ("mmdit", MMDIT_LAYOUTS))
    for kind, known in kinds:
        layout = layout_of(known, network)
        if layout is not None:
            return kind, layout
    return None


def network_prefix(names: Iterable[str], prefixes: Sequence[str], *known: Known) -> str | None:
    """The first of some prefixes below which a network of a known layout stands, None where there is none."""
    there = frozenset(names)
    for prefix in prefixes:
        for layout in (layout for layouts in known for layout in layouts.values()):
            if any(all(prefix + name in there for name in mark) for mark in layout.marks):
                return prefix
    return None


def _moved_network(tensors: TensorFile, prefixes: Sequence[str], home: str, *known: Known) -> TensorFile:
    prefix = network_prefix(tensors, prefixes, *known)
    if prefix is None or prefix == home:
        return tensors
    if prefix:
        return _moved(tensors, {prefix: home})
    starts = next((starts for first, starts in BARE.items() if first in tensors), ())
    return tensors.renamed({home + name if name.startswith(starts) else name: name for name in tensors})


def _moved(tensors: TensorFile, prefixes: Mapping[str, str]) -> TensorFile:
    """The tensors under some prefixes {old: new} under others."""
    if not any(name.startswith(tuple(prefixes)) for name in tensors):
        return tensors
    names: dict[str, str] = {}
    for name in tensors:
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        names[name if old is None else prefixes[old] + name.removeprefix(old)] = name
    return tensors.renamed(names)


# --- text encoders ---------------------------------------------------------------------------------------------------

T5_ENDS = ("shared.weight", "token_embd.weight", "encoder.embed_tokens.weight")
CLIP_END = "token_embedding.weight"


def _moved_texts(tensors: TensorFile) -> TensorFile:
    """The same file with text encoders that stand nowhere a released file has one moved to where it would have them."""
    towers = {prefix: name for prefix, name in text_towers(tensors).items() if prefix not in HOMES}
    if not towers or not any(name.startswith(UNET) for name in tensors):
        return tensors
    texts = [(_below(tensors, prefix), layout) for prefix, layout in towers.items()]
    places = [SD3_T5 if place is None else place.prefix for place in text_places(tensors, texts)]
    taken = any(name.startswith(tuple(places)) for name in tensors)
    if taken or len(set(places)) < len(places):  # which of them belongs there is not for us to say
        return tensors
    moves = {prefix: place for prefix, place in zip(towers, places, strict=True) if prefix}
    moved = _moved(tensors, moves)
    if "" in towers:
        home, bare = places[list(towers).index("")], set(texts[list(towers).index("")][0])
        moved = moved.renamed({home + name if name in bare else name: name for name in moved})
    return moved


def text_towers(tensors: TensorFile) -> dict[str, str]:
    """Prefix -> layout of every text encoder of a file, in the order of the file."""
    found: dict[str, str] = {}
    known: tuple[Layout[Any], ...] = (*CLIP_LAYOUTS.values(), *T5_LAYOUTS.values())
    for name in tensors:
        if not name.endswith((CLIP_END, *T5_ENDS)):
            continue
        for layout in known:
            prefix = _prefix_of(tensors, name, layout.marks)
            if prefix is not None:
                found.setdefault(prefix, layout.name)
                break
    return found


def _prefix_of(tensors: TensorFile, name: str, marks: Iterable[frozenset[str]]) -> str | None:
    """What stands before the marks of a layout of which `name` is one, None where it is of another layout."""
    for mark in marks:
        for own in mark:
            prefix = name.removesuffix(own)
            whole = prefix != name and (not prefix or prefix.endswith("."))
            if whole and all(prefix + other in tensors for other in mark):
                return prefix
    return None


BARE_TEXT = (
    *("text_model.", "text_projection", "embeddings.", "encoder.layers.", "final_layer_norm.", "logit_scale"),
    *("token_embedding.", "positional_embedding", "transformer.resblocks.", "ln_final.", "attn_mask"),
    *("vision_model.", "visual", "shared.", "encoder.block.", "encoder.final_layer_norm.", "encoder.embed_tokens."),
    *("decoder.block.", "lm_head.", "token_embd.", "enc.", "dec."),
)
"""How the names of text encoders begin where nothing stands before them."""


def _below(tensors: TensorFile, prefix: str) -> TensorFile:
    """The tensors below a prefix without it; those of a text encoder for an empty one."""
    if not prefix:
        return tensors.renamed({name: name for name in tensors if name.startswith(BARE_TEXT)})
    return tensors.renamed({name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)})


def text_places(tensors: TensorFile, given: Sequence[Text]) -> list[TextPlace | None]:
    """Where each of the given text encoders belongs in a single file with this denoiser; None for T5."""
    shapes: Shapes = Prefixed(tensors, UNET).shapes()
    texts = [text for text, layout in given if layout not in T5_LAYOUTS]
    found = denoiser_layout(shapes)
    if found is not None and found[0] == "mmdit":
        place: Callable[[TensorFile], TextPlace] = lambda text: SD3_CLIP_L if is_first(text) else SD3_CLIP_G  # noqa: E731
    elif any(name in shapes for name in ("label_emb.0.0.weight", "add_embedding.linear_1.weight")):
        context = next((shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
        if len(texts) == 1 and width_of(texts[0]) == context:
            place = lambda text: REFINER_CLIP_G  # noqa: E731
        else:
            place = lambda text: XL_CLIP_L if is_first(text) else XL_CLIP_G  # noqa: E731
    else:
        projection = next((shape for name, shape in shapes.items() if name.endswith(".proj_in.weight")), ())
        place = lambda text: OPENCLIP_H if len(projection) == 2 else CLIP_L  # noqa: E731
    return [None if layout in T5_LAYOUTS else place(text) for text, layout in given]


def width_of(text: TensorFile) -> int:
    """Width of a CLIP text encoder."""
    name = next(name for name in text if name.endswith(CLIP_END))
    return int(text.info(name).shape[-1])


def is_first(text: TensorFile) -> bool:
    """Whether a text encoder is the smaller one of XL or 3: by its width, or because its vector is not projected."""
    width = width_of(text)
    return width == 768 or (width != 1280 and not any(name.startswith("text_projection") for name in text))

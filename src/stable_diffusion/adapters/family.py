"""Which models an adapter file is for: what its header says, or what the shapes and names of its layers show.

The keys and values of cross-attention read tokens, whose width is another one in Stable Diffusion 1.x, 2.x and XL. A
LoRA, a LoHa and a full difference show that width as it is; of LoKr, GLoRA and OFT it follows from several sides, and
where an adapter shows rows alone (OFT, BOFT, IA3) only the names of its layers and the width of its text encoder are
left. What is not shown as it is counts as a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..weights.checkpoints.families import TOKEN_WIDTHS, family_of_width
from ..weights.containers.tensors import TensorFile
from ..weights.foreign import foreign_adapter

Groups = Mapping[str, Mapping[str, str]]
"""Stem -> what -> name in the file, as `keys.group_names` makes them."""

SD1, SD2, XL, SD3 = (f"Stable Diffusion {version}" for version in ("1.x", "2.x", "XL", "3"))
ARCHITECTURES = {
    "sd_v1": SD1,
    "sd_v2": SD2,
    "sdxl": XL,
    "sd3": SD3,
    "stable-diffusion-v1": SD1,
    "stable-diffusion-v2": SD2,
    "stable-diffusion-xl": XL,
    "stable-diffusion-3": SD3,
    "flux": "Flux",
}
CROSS_KEYS = (
    *(f"{start}{part}" for start in ("attn2_to_", "attn2.to_", "attn2.processor.to_") for part in "kv"),
    *("cross_attention.key", "cross_attention.value"),
)
"""How the stems of the layers end that read tokens."""
TEXT_STARTS = (
    *("lora_te", "text_encoder", "text.", "text_2.", "text_3.", "te.", "te1.", "te2.", "te3.", "cond_stage_model"),
    *("conditioner.", "text_model.", "lycoris_te", "clip_l", "clip_g", "clip_h", "t5", "lora_clip_", "lora_t5"),
)
SECOND = re.compile(r"(lora_te[12]_|lycoris_te[12]_|lycoris_text_encoder_2_|te[12]_|text_encoder_2_|text_2_)")
"""How flat stems of text encoders begin where a model has two; kohya calls the first one te1 then."""
DEEP = re.compile(r"(attentions|input_blocks|middle_block|output_blocks)_.*transformer_blocks_[1-9]")
"""A transformer of more than one block, which of these U-Nets only those of XL have."""
FINE = re.compile(
    r"down_blocks_0_attentions|up_blocks_3_|down_blocks_3_|input_blocks_[12]_1_|(in|out)put_blocks_(9|1\d)_"
)
"""Layers that a U-Net of XL does not have: attention at the finest size, and a fourth size."""


def is_text(stem: str) -> bool:
    """Whether a stem is a layer of a text encoder, by its name."""
    plain = stem.removeprefix("base_model.model.")
    return plain.startswith(TEXT_STARTS) or "text_model" in plain or ".SelfAttention." in plain


def adapter_family(tensors: TensorFile, groups: Groups, metadata: Mapping[str, str]) -> tuple[str, str]:
    """(the models that an adapter is for, a sentence where that is a guess)."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        value = metadata.get(key, "").lower()
        written = next((family for start, family in ARCHITECTURES.items() if value.startswith(start)), None)
        if written is not None:
            return written, ""
    foreign = foreign_adapter(tensors)
    if foreign is not None:
        return f"{foreign}, which is not run here", ""
    crossing = {stem: names for stem, names in groups.items() if stem.endswith(CROSS_KEYS)}
    for shown in (True, False):
        for names in crossing.values():
            width = shown_columns(tensors, names) if shown else derived_columns(tensors, names)
            if width is not None:
                family = family_of_width(width)
                return family, "" if shown else _guess(family, "shapes")
    flat = [stem.replace(".", "_") for stem in groups]
    if any("joint_blocks" in stem or "joint_transformer" in stem for stem in flat):
        return SD3, ""
    if any("double_blocks" in stem or "single_transformer_blocks" in stem for stem in flat):
        return "Flux", ""
    if any(stem.startswith(("transformer_transformer_blocks_", "lora_transformer_transformer_")) for stem in flat):
        return SD3, _guess(SD3, "names")
    return _from_names(flat, _text_width(tensors, groups))


def _guess(family: str, source: str) -> str:
    return f"that it is for {family} is a guess from the {source} of its layers"


def _from_names(flat: list[str], text: int | None) -> tuple[str, str]:
    """The family by which layers there are, and by the width of a text encoder."""
    if any(map(DEEP.search, flat)):
        return XL, _guess(XL, "names")
    if any(map(SECOND.match, flat)):
        family = f"{XL} or 3"
        return family, _guess(family, "names")
    if text in (768, 1024):
        return TOKEN_WIDTHS[text], _guess(TOKEN_WIDTHS[text], "shapes")
    if any(map(FINE.search, flat)):
        family = f"{SD1} or 2.x"
        return family, _guess(family, "names")
    return "", "nothing in the file says which models it is for"


def shown_columns(tensors: TensorFile, names: Mapping[str, str]) -> int | None:
    """The columns of a layer's weight where a tensor of its group has as many; None for other kinds."""
    name = next((names[what] for what in ("down", "hada_w1_b", "diff", "set_weight") if what in names), None)
    return None if name is None else _side(tensors, name, 1)


def derived_columns(tensors: TensorFile, names: Mapping[str, str]) -> int | None:
    """The columns of a layer's weight where they follow from several sides: LoKr, GLoRA, OFT of columns, IA3."""
    if "oft_columns" in names:
        return _rotated(tensors.info(names["oft_columns"]).shape)
    if "a1" in names:  # [I,r] or [r,I], and the rank is the smaller one
        sides = tensors.info(names["a1"]).shape[:2]
        return max(sides) if len(sides) == 2 else None
    if "ia3" in names and _on_input(tensors, names):
        return tensors.info(names["ia3"]).count
    first, second = (_side(tensors, _first(names, f"lokr_{w}", f"lokr_{w}_b"), 1) for w in ("w1", "w2"))
    return None if first is None or second is None else first * second


def derived_rows(tensors: TensorFile, names: Mapping[str, str]) -> int | None:
    """The rows of a layer's weight by an adapter that acts on rows: OFT, BOFT, IA3; by LoKr too."""
    blocks = _first(names, "oft_blocks", "oft_diag")
    if blocks is not None:
        shape = tensors.info(blocks).shape
        return shape[-3] * shape[-2] if len(shape) in (3, 4) else None
    if "ia3" in names and not _on_input(tensors, names):
        return tensors.info(names["ia3"]).count
    first, second = (_side(tensors, _first(names, f"lokr_{w}", f"lokr_{w}_a"), 0) for w in ("w1", "w2"))
    return None if first is None or second is None else first * second


def _text_width(tensors: TensorFile, groups: Groups) -> int | None:
    """The width of the text encoder, whose attention projects from it to it; None where no group shows it."""
    for stem, names in groups.items():
        if stem.startswith(TEXT_STARTS) and stem.endswith(("q_proj", "k_proj", "v_proj", "out_proj")):
            sides = (look(tensors, names) for look in (shown_columns, derived_columns, derived_rows))
            width = next((side for side in sides if side is not None), None)
            if width is not None:
                return width
    return None


def _rotated(shape: tuple[int, ...]) -> int | None:
    """n blocks of size b, of which b (b - 1) / 2 numbers are stored, turn n b columns; one block alone may be shared
    by all and shows nothing."""
    if len(shape) != 2 or shape[0] < 2:
        return None
    size = (1 + math.isqrt(1 + 8 * shape[1])) // 2
    return shape[0] * size if size * (size - 1) // 2 == shape[1] else None


def _on_input(tensors: TensorFile, names: Mapping[str, str]) -> bool:
    """Whether an IA3 scales columns; its file says so in a number of its own."""
    name = names["on_input"]
    return tensors.info(name).count == 1 and bool(tensors[name].reshape(()).item())


def _first(names: Mapping[str, str], *wanted: str) -> str | None:
    return next((names[what] for what in wanted if what in names), None)


def _side(tensors: TensorFile, name: str | None, axis: int) -> int | None:
    shape = () if name is None else tensors.info(name).shape
    return shape[axis] if len(shape) >= 2 else None

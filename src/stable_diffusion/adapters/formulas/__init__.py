"""The formulas of adapters: each a pure function in its own file, and `delta`, which chooses by what a group holds.

All differences are those at strength 1; a strength s adds s times the difference, whatever the kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ...errors import BrokenModel
from ..keys import kind_of
from .boft import boft
from .dora import dora
from .glora import glora
from .ia3 import ia3
from .loha import loha
from .lokr import lokr, lokr_factor
from .lora import lora
from .oft import oft
from .oft_columns import TERMS, oft_columns

__all__ = [
    "bias_delta",
    "boft",
    "delta",
    "dora",
    "glora",
    "ia3",
    "label",
    "loha",
    "lokr",
    "lora",
    "oft",
    "oft_columns",
    "rank",
]

Tensors = Mapping[str, Tensor]
"""What -> tensor of one layer, as `keys` names them; without `alpha` and `on_input`, which are numbers."""


def delta(
    group: Tensors, weight: Tensor, *, alpha: float | None = None, on_input: bool = False, terms: int = TERMS
) -> Tensor | None:
    """The difference of a weight in the layout of the file [O,I,k..], or None where the group has none for it.

    Works on `meta`, so that a shape can be checked before anything is computed. BrokenModel where shapes do not fit.
    """
    try:
        if "oft_columns" in group:
            return oft_columns(weight, group["oft_columns"], terms=terms, limit=alpha)
        found = _plain(group, weight, alpha, on_input)
        if found is None:
            return None
        if found.numel() != weight.numel():
            raise BrokenModel(
                f"it gives a difference of shape {list(found.shape)}, the weight has {list(weight.shape)}"
            )
        found = found.reshape(weight.shape)
        magnitude = group.get("magnitude_rows", group.get("magnitude"))
        if magnitude is None:
            return found
        rows = "magnitude_rows" in group or magnitude.shape[0] == weight.shape[0]
        return dora(weight, found, magnitude, rows=rows)
    except (RuntimeError, IndexError, TypeError) as error:
        shapes = ", ".join(f"{what} {list(tensor.shape)}" for what, tensor in group.items())
        raise BrokenModel(f"its tensors {shapes} do not fit a weight {list(weight.shape)}") from error


def _plain(group: Tensors, weight: Tensor, alpha: float | None, on_input: bool) -> Tensor | None:
    """The difference without a magnitude."""
    kind, get = kind_of(group if not {"ia3"} & set(group) else {*group, "on_input"}), group.get
    if kind == "LoRA":
        return lora(group["up"], group["down"], get("mid")) * _scale(group, alpha)
    if kind == "LoHa":
        w1_a, w1_b, w2_a, w2_b = (group[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
        return loha(w1_a, w1_b, w2_a, w2_b, get("hada_t1"), get("hada_t2")) * _scale(group, alpha)
    if kind == "LoKr":
        w1 = lokr_factor(get("lokr_w1"), get("lokr_w1_a"), get("lokr_w1_b"))
        w2 = lokr_factor(get("lokr_w2"), get("lokr_w2_a"), get("lokr_w2_b"), get("lokr_t2"))
        return lokr(w1, w2) * _scale(group, alpha)
    if kind == "GLoRA":
        a1, a2, b1, b2 = (group[name] for name in ("a1", "a2", "b1", "b2"))
        return glora(weight, a1, a2, b1, b2, get("bm")) * _scale(group, alpha)
    if kind == "OFT":
        blocks = group["oft_blocks"] if "oft_blocks" in group else group["oft_diag"]
        limit = None if not alpha else alpha * weight.shape[0]
        return (boft if blocks.dim() == 4 else oft)(weight, blocks, limit=limit, rescale=get("rescale"))
    if kind == "IA3":
        return ia3(weight, group["ia3"], on_input=on_input)
    if "set_weight" in group:
        return group["set_weight"].reshape(weight.shape) - weight
    return get("diff", get("w_norm"))


def bias_delta(group: Tensors, bias: Tensor, *, alpha: float | None = None) -> Tensor | None:
    """The difference of a layer's bias [O], or None where the group has none for it."""
    if "set_bias" in group:
        found = group["set_bias"].reshape(-1) - bias if group["set_bias"].numel() == bias.numel() else group["set_bias"]
    elif "up_bias" in group:
        found = group["up_bias"] * _scale(group, alpha)
    else:
        difference = group.get("diff_b", group.get("b_norm"))
        if difference is None:
            return None
        found = difference
    if found.numel() != bias.numel():
        raise BrokenModel(f"it has a bias of {found.numel()} numbers, the layer's has {bias.numel()}")
    return found.reshape(bias.shape)


def rank(group: Tensors) -> int | None:
    """r of a low-rank group; None where nothing in it is low rank."""
    for what, axis in (("down", 0), ("hada_w1_b", 0), ("lokr_w1_b", 0), ("lokr_w2_b", 0)):
        if what in group:
            return int(group[what].shape[axis])
    if {"a1", "a2"} <= set(group):
        return int(min(group["a1"].shape[:2]))
    return None


def label(group: Tensors) -> str:
    """The kind of a group as people call it."""
    kind = kind_of(group if "ia3" not in group else {*group, "on_input"})
    blocks = group.get("oft_blocks", group.get("oft_diag"))
    if kind == "OFT" and blocks is not None and blocks.dim() == 4:
        kind = "BOFT"
    if {"magnitude", "magnitude_rows"} & set(group):
        return "DoRA" if kind == "LoRA" else f"DoRA on {kind}"
    return kind or "unknown"


def _scale(group: Tensors, alpha: float | None) -> float:
    """alpha / rank; 1 where alpha is missing or 0, which both mean "equal to the rank"."""
    found = rank(group)
    return 1.0 if not alpha or found is None or not math.isfinite(alpha) else alpha / max(found, 1)

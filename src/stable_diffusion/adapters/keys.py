"""The tensors of an adapter file, grouped by the layer that they change, whatever tool wrote the file.

Every name is STEM + SUFFIX. The suffix says what the tensor is and comes from the closed list below; the stem names the
layer in one of several spellings, which `targets` looks up. Sources: the files of sd-scripts ("kohya"), LyCORIS,
diffusers (old and new) and PEFT, as they name their tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

LOW_RANK = {
    **dict.fromkeys((".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora_A"), "down"),
    **dict.fromkeys((".lora_up.weight", ".lora_B.weight", ".lora_B.default.weight", ".lora_B"), "up"),
    **dict.fromkeys((".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight"), "down"),
    **dict.fromkeys((".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight"), "up"),
    ".lora_mid.weight": "mid",
    ".lora_B.bias": "up_bias",
    **dict.fromkeys((".lora_magnitude_vector", ".lora_magnitude_vector.weight"), "magnitude_rows"),
    ".lora_magnitude_vector.default.weight": "magnitude_rows",
    ".dora_scale": "magnitude",
    **dict.fromkeys((".alpha", "_lora.alpha", ".lora.alpha", ".network_alpha"), "alpha"),
}
LYCORIS = {
    f".{name}": name
    for name in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        *("oft_blocks", "oft_diag", "rescale", "on_input"),
        *("diff", "diff_b", "w_norm", "b_norm", "set_weight", "set_bias"),
    )
} | {f".{name}.weight": name for name in ("a1", "a2", "b1", "b2", "bm")}
LYCORIS |= dict.fromkeys((".oft_R.weight", ".oft_R.default.weight"), "oft_columns")
SUFFIXES = {
    suffix: {**LOW_RANK, **LYCORIS}[suffix] for suffix in sorted({**LOW_RANK, **LYCORIS}, key=len, reverse=True)
}
"""Suffix of a name -> what the tensor is; longer suffixes first, since some end in others."""

KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("LoHa", frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})),
    ("LoKr", frozenset({"lokr_w1", "lokr_w2"})),
    ("LoKr", frozenset({"lokr_w1_a", "lokr_w1_b", "lokr_w2"})),
    ("LoKr", frozenset({"lokr_w1", "lokr_w2_a", "lokr_w2_b"})),
    ("LoKr", frozenset({"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"})),
    ("GLoRA", frozenset({"a1", "a2", "b1", "b2"})),
    ("OFT", frozenset({"oft_blocks"})),
    ("OFT", frozenset({"oft_diag"})),
    ("OFT", frozenset({"oft_columns"})),
    ("IA3", frozenset({"on_input", "ia3"})),
    ("LoRA", frozenset({"up", "down"})),
    ("full difference", frozenset({"diff"})),
    ("full difference", frozenset({"diff_b"})),
    ("norm", frozenset({"w_norm"})),
    ("norm", frozenset({"b_norm"})),
    ("replacement", frozenset({"set_weight"})),
    ("replacement", frozenset({"set_bias"})),
)
"""(kind, tensors that a group of it must have), the first that fits."""


@dataclass(frozen=True)
class Grouped:
    """`groups`: stem -> what -> name in the file; `leftovers`: names that are no part of an adapter known here."""

    groups: dict[str, dict[str, str]]
    leftovers: tuple[str, ...]


def group_names(names: Iterable[str]) -> Grouped:
    """Names of an adapter file by stem. A stem's plain `.weight` belongs to it only beside an `.on_input` (IA3)."""
    groups: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    for name in names:
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        if suffix is None or len(name) == len(suffix):
            rest.append(name)
        else:
            groups.setdefault(name[: -len(suffix)], {})[SUFFIXES[suffix]] = name
    leftovers = []
    for name in rest:
        stem = name.removesuffix(".weight")
        if stem != name and "on_input" in groups.get(stem, {}):
            groups[stem]["ia3"] = name
        else:
            leftovers.append(name)
    return Grouped(groups, tuple(leftovers))


def kind_of(what: Collection[str]) -> str | None:
    """The kind of a group by the tensors that it has, or None where it is incomplete."""
    return next((kind for kind, needs in KINDS if needs.issubset(what)), None)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether most tensors of a file are parts of an adapter: a model has none of these suffixes."""
    grouped = group_names(names)
    count = sum(kind_of(group) is not None for group in grouped.groups.values())
    return count > 0 and sum(map(len, grouped.groups.values())) >= len(grouped.leftovers)

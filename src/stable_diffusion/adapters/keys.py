"""The tensors of an adapter file, grouped by the layer that they change, whatever tool wrote the file.

Every name is STEM + SUFFIX. The suffix says what the tensor is and comes from the closed list below; the stem names the
layer in one of several spellings, which `targets` looks up. Wrappers around a module, and the name of the adapter that
PEFT puts into the names of tensors, are taken off first. Sources: the files of sd-scripts ("kohya"), LyCORIS, diffusers
(old and new), PEFT and OneTrainer, as they name their tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..weights.containers.wrappers import bare_name

NAMED = re.compile(
    r"\.(lora_[ABE]|lora_embedding_[AB]|lora_magnitude_vector|ranknum|oft_R|ia3_l|modules_to_save"
    r"|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?)\.(?!(?:weight|bias)$)([^.]+)(?=$|\.weight$|\.bias$)"
)
"""A tensor of PEFT under the name of its adapter, which is "default" where nobody gave another."""

LOW_RANK = {
    **dict.fromkeys((".lora_down.weight", ".lora_A.weight", ".lora_A"), "down"),
    **dict.fromkeys((".lora_up.weight", ".lora_B.weight", ".lora_B"), "up"),
    **dict.fromkeys((".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight"), "down"),
    **dict.fromkeys((".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight"), "up"),
    **dict.fromkeys((".lora_E", ".lora_E.weight"), "singular"),
    ".ranknum": "ranknum",
    **dict.fromkeys((".lora_embedding_A", ".lora_embedding_A.weight"), "embedding_down"),
    **dict.fromkeys((".lora_embedding_B", ".lora_embedding_B.weight"), "embedding_up"),
    ".lora_mid.weight": "mid",
    ".lora_B.bias": "up_bias",
    **dict.fromkeys((".lora_magnitude_vector", ".lora_magnitude_vector.weight"), "magnitude_rows"),
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
LYCORIS |= {
    **dict.fromkeys((".oft_R.weight", ".oft_R"), "oft_columns"),
    ".ia3_l": "ia3_l",
    ".modules_to_save.weight": "set_weight",
    ".modules_to_save.bias": "set_bias",
}
SUFFIXES = {
    suffix: {**LOW_RANK, **LYCORIS}[suffix] for suffix in sorted({**LOW_RANK, **LYCORIS}, key=len, reverse=True)
}
"""Suffix of a name -> what the tensor is; longer suffixes first, since some end in others."""

IP_ADAPTER = ("ip_adapter.", "image_proj.")
"""How the names of an IP-Adapter begin."""
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
    ("IA3", frozenset({"ia3_l"})),
    ("AdaLoRA", frozenset({"up", "down", "singular"})),
    ("LoRA", frozenset({"up", "down"})),
    ("LoRA", frozenset({"embedding_up", "embedding_down"})),
    ("full difference", frozenset({"diff"})),
    ("full difference", frozenset({"diff_b"})),
    ("norm", frozenset({"w_norm"})),
    ("norm", frozenset({"b_norm"})),
    ("replacement", frozenset({"set_weight"})),
    ("replacement", frozenset({"set_bias"})),
)
"""(kind, tensors that a group of it must have), the first that fits."""


FOREIGN: tuple[tuple[str, str], ...] = (
    (r"^(unet|text_encoder):\d+:(up|down)$", "a LoRA of lora_diffusion, whose layers have numbers and no names"),
    (r"\.vera_lambda_[bd]", "a VeRA adapter"),
    (r"\.fourierft_spectrum", "a FourierFT adapter"),
    (r"\.vblora_", "a VB-LoRA adapter"),
    (r"\.randlora_", "a RandLoRA adapter"),
    (r"\.(boft_R|boft_s)\b", "a BOFT adapter of PEFT"),
    (r"\.(hra_u|bone_|miss_|lora_xs|shira_weight|c3a_kernel|waveft_spectrum)", "an adapter of PEFT of another kind"),
    (r"^(prompt_embeddings|base_model\.prompt_encoder)", "a learned prompt of PEFT"),
)
"""Names of kinds of adapters that are known and not run -> what to call them."""


@dataclass(frozen=True)
class Grouped:
    """`groups`: stem -> what -> name in the file; `leftovers`: names that are no part of an adapter known here;
    `adapters`: the names that PEFT gave, of which a file has one at most."""

    groups: dict[str, dict[str, str]]
    leftovers: tuple[str, ...]
    adapters: tuple[str, ...] = ()


def plain_name(name: str) -> str:
    """The name of a tensor without wrappers and without the name of PEFT's adapter."""
    return NAMED.sub(r".\1", bare_name(name))


def group_names(names: Iterable[str]) -> Grouped:
    """Names of an adapter file by stem. A stem's plain `.weight` belongs to it only beside an `.on_input` (IA3). Of two
    names of one tensor, with and without a wrapper, the first counts."""
    groups: dict[str, dict[str, str]] = {}
    rest: list[tuple[str, str]] = []
    adapters: dict[str, None] = {}
    for name in names:
        plain, given = plain_name(name), NAMED.search(name)
        if given is not None:
            adapters[given[2]] = None
        suffix = next((suffix for suffix in SUFFIXES if plain.endswith(suffix)), None)
        if suffix is None or len(plain) == len(suffix):
            rest.append((plain, name))
            continue
        there = groups.setdefault(plain[: -len(suffix)], {})
        if SUFFIXES[suffix] in there:
            rest.append((plain, name))
        else:
            there[SUFFIXES[suffix]] = name
    leftovers = []
    for plain, name in rest:
        stem = plain.removesuffix(".weight")
        if stem != plain and "on_input" in groups.get(stem, {}):
            groups[stem]["ia3"] = name
        else:
            leftovers.append(name)
    return Grouped(groups, tuple(leftovers), tuple(adapters))


def kind_of(what: Collection[str]) -> str | None:
    """The kind of a group by the tensors that it has, or None where it is incomplete."""
    return next((kind for kind, needs in KINDS if needs.issubset(what)), None)


def foreign_kind(names: Iterable[str]) -> str | None:
    """What a file of a kind of adapter is called that is known and not run; None for other files."""
    known = tuple((re.compile(pattern), kind) for pattern, kind in FOREIGN)
    return next((kind for name in names for pattern, kind in known if pattern.search(name)), None)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether most tensors of a file are parts of an adapter: a model has none of these suffixes, and an IP-Adapter,
    whose FaceID form brings LoRAs, is recognised by its projection."""
    names = tuple(names)
    if any(name.startswith(IP_ADAPTER) for name in names):
        return False
    grouped = group_names(names)
    count = sum(kind_of(group) is not None for group in grouped.groups.values())
    return count > 0 and sum(map(len, grouped.groups.values())) >= len(grouped.leftovers)

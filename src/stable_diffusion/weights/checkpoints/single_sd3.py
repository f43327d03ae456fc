"""What of a single file is particular to Stable Diffusion 3: its transformer, its three text encoders."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import BrokenModel
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ..networks.shapes import Shapes, mmdit_fields, t5_fields
from .families import Family

FIRST = "x_embedder.proj.weight"
JOINT = "joint_blocks.0.context_block.adaLN_modulation.1.weight"
T5_LEFTOVERS = ("decoder.", "lm_head.")
"""Tensors of a whole T5 that the encoder does not need."""


def mmdit_mismatch(family: Family, shapes: Shapes) -> str | None:
    """Why a network (names without prefix) is not the transformer of this family, or None where it is."""
    first = shapes.get(FIRST)
    if first is None or len(first) != 4 or JOINT not in shapes:
        return "it has no transformer of joint blocks"
    if first[1] != family.in_channels:
        return f"its transformer takes {first[1]} channels instead of {family.in_channels}"
    normed = any(name.endswith("attn.ln_q.weight") for name in shapes)
    if normed != family.qk_norm:
        return f"its transformer {'norms' if normed else 'does not norm'} queries and keys"
    dual = any(".attn2." in name for name in shapes)
    if dual != family.dual_attention:
        return f"its transformer has {'a' if dual else 'no'} second attention"
    return None


def mmdit_config(shapes: Shapes, heads: int | None = None, head_dim: int | None = None) -> MMDiTConfig:
    """The config of a transformer; heads are 64 wide where neither normed queries nor the caller tell."""
    fields = mmdit_fields(shapes)
    if head_dim is not None:
        heads = fields["width"] // max(1, head_dim)
    return MMDiTConfig(**fields if heads is None else {**fields, "heads": heads})


def t5_config(shapes: Shapes) -> T5Config | None:
    """The config of T5's encoder, or None where the file has none."""
    return T5Config(**t5_fields(shapes)) if shapes else None


def family_of_mmdit(config: MMDiTConfig) -> str:
    """The family's name for a transformer of this shape."""
    if not config.qk_norm:
        return "sd3"
    return "sd3.5-medium" if config.dual_attention else "sd3.5-large"


def check_texts(mmdit: MMDiTConfig, clips: tuple[CLIPTextConfig, ...], t5: T5Config | None) -> None:
    """BrokenModel where the tokens or the pooled vectors of the text encoders are not what the transformer reads."""
    pooled = [clip.projection_dim or clip.width for clip in clips]
    if sum(pooled) != mmdit.vector_dim:
        told = " + ".join(map(str, pooled))
        raise BrokenModel(
            f"its transformer takes a vector of {mmdit.vector_dim} numbers; the text encoders give {told}"
        )
    widths = {"CLIP": sum(clip.width for clip in clips), "T5": 0 if t5 is None else t5.width}
    if widths["CLIP"] > mmdit.context_dim or widths["T5"] not in (0, mmdit.context_dim):
        made = ", ".join(f"{name} {width}" for name, width in widths.items() if width)
        raise BrokenModel(f"its transformer expects tokens of width {mmdit.context_dim}; the text encoders make {made}")


def lacking(family: Family, prefixes: Mapping[str, bool]) -> str:
    """What a file without some text encoders needs, in words; `prefixes` says which are there."""
    names = [text.prefix.split(".")[1] for text in family.texts if not prefixes[text.prefix]]
    files = " and ".join(f"{name}.safetensors" for name in names)
    return f"has a transformer of Stable Diffusion 3 but lacks text encoders; {files} would be found beside it"

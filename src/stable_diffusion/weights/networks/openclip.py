"""Key table of OpenCLIP's text encoder: single files of Stable Diffusion 2, below `cond_stage_model.model.`.

Source: the module tree of open_clip's CLIP model (Cherti et al. 2023), in which the matrices of query, key and value
are one, and the projection of the pooled vector multiplies from the right.
"""

from __future__ import annotations

from ...models.clip import CLIPTextConfig
from ..keys import KeyTable, Op, Rule, module, modules

LAYER = {
    "attention_norm": "ln_1",
    "attention.out": "attn.out_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def clip_openclip(config: CLIPTextConfig) -> KeyTable:
    """The table of a text encoder; a projection is ignored where the config has none."""
    rules = [
        Rule(("token_embedding.weight",), ("token_embedding.weight",)),
        Rule(("position_embedding",), ("positional_embedding",)),
    ]
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"transformer.resblocks.{index}"
        for part in ("weight", "bias"):
            split = tuple(f"{ours}.attention.{name}.{part}" for name in ("query", "key", "value"))
            rules.append(Rule(split, (f"{theirs}.attn.in_proj_{part}",), Op.SPLIT))
        rules += modules(ours, theirs, LAYER)
    rules += module("final_norm", "ln_final")
    # ComfyUI once left the position numbers of its own layout in the files that it wrote, and merges still carry them.
    ignored = {"logit_scale", "attn_mask", "text_projection", "transformer.text_model.embeddings.position_ids"}
    if config.projection_dim is not None:
        rules.append(Rule(("projection.weight",), ("text_projection",), Op.TRANSPOSE))
        ignored.remove("text_projection")
    return KeyTable(tuple(rules), ignored=frozenset(ignored))

"""IP-Adapters on disk: `image_proj.` and `ip_adapter.`, in .safetensors or in pickles; shapes and key tables.

Source: the released code and files of Ye et al. 2023, as they name their tensors.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import BrokenModel, UnknownModel
from ...models.ip_adapter import IPAdapter, IPAdapterConfig, cross_attentions
from ...models.unet import UNet
from ..build import Prefixed, build
from ..containers.limits import using_config
from ..containers.tensors import TensorFile
from ..keys import KeyTable, Op, Rule, module
from .layout import Shapes, length

PLAIN_MARK, PLUS_MARK = "image_proj.proj.weight", "image_proj.latents"
FULL_FACE_MARK, FACE_MARK = "image_proj.proj.3.weight", "image_proj.proj.2.weight"
UNSURE = "IP-Adapter full face or FaceID"
NOT_RUN = {
    UNSURE: "an IP-Adapter for whole faces or FaceID, whose projection this version does not have",
    "IP-Adapter full face": "an IP-Adapter for whole faces, whose projection this version does not have",
    "IP-Adapter FaceID": "an IP-Adapter FaceID, which needs a face recogniser",
    "IP-Adapter FaceID plus": "an IP-Adapter FaceID plus, which needs a face recogniser",
}
"""Forms that are known and not run."""
FACE_ID_MARKS = ("image_proj.perceiver_resampler.", "ip_adapter.0.to_q_lora.", "ip_adapter.1.to_q_lora.")
"""How names begin in a FaceID adapter alone: a projection of its own, or low-rank changes beside the image tokens. Its
portrait form has neither, but a projection of two layers where that for whole faces has a third."""


def ip_adapter_kind(tensors: TensorFile) -> str | None:
    """What people call such a file, of a form that is run or not; None where it is no IP-Adapter."""
    if not any(name.startswith(("image_proj.", "ip_adapter.")) for name in tensors):
        return None
    if any(name.startswith(FACE_ID_MARKS[:1]) for name in tensors):
        return "IP-Adapter FaceID plus"
    if FULL_FACE_MARK in tensors:
        return "IP-Adapter full face"
    if FACE_MARK in tensors or any(name.startswith(FACE_ID_MARKS) for name in tensors):
        return "IP-Adapter FaceID"
    if "image_proj.proj.0.weight" in tensors:
        return UNSURE
    return "IP-Adapter plus" if PLUS_MARK in tensors else "IP-Adapter"


def ip_adapter_table(config: IPAdapterConfig, count: int) -> KeyTable:
    """The released layout; `count` cross-attentions, which have the odd numbers (the even ones are self-attentions)."""
    rules: list[Rule] = []
    for index in range(count):
        for name in ("key", "value"):
            theirs = f"ip_adapter.{2 * index + 1}.to_{name[0]}_ip"
            rules += module(f"layers.{index}.{name}", theirs, bias=False)
    if not config.plus:
        rules += [*module("project.linear", "image_proj.proj"), *module("project.norm", "image_proj.norm")]
        return KeyTable(tuple(rules))
    rules.append(Rule(("project.latents",), ("image_proj.latents",)))
    for name in ("proj_in", "proj_out", "norm_out"):
        rules += module(f"project.{name}", f"image_proj.{name}")
    for index in range(config.depth):
        ours, theirs = f"project.layers.{index}", f"image_proj.layers.{index}"
        for our_name, their_name in (("feature_norm", "0.norm1"), ("latent_norm", "0.norm2"), ("mlp_norm", "1.0")):
            rules += module(f"{ours}.{our_name}", f"{theirs}.{their_name}")
        for our_name, their_name in (("query", "0.to_q"), ("out", "0.to_out"), ("up", "1.1"), ("down", "1.3")):
            rules += module(f"{ours}.{our_name}", f"{theirs}.{their_name}", bias=False)
        rules.append(Rule((f"{ours}.key.weight", f"{ours}.value.weight"), (f"{theirs}.0.to_kv.weight",), Op.SPLIT))
    return KeyTable(tuple(rules))


def build_ip_adapter(tensors: TensorFile, unet: UNet, *, dtype: torch.dtype, device: torch.device | str) -> IPAdapter:
    """The adapter of a file for this U-Net.

    UnknownModel where it is of a form that is not run, BrokenModel where tensors are missing or do not fit the U-Net.
    """
    form = NOT_RUN.get(str(ip_adapter_kind(tensors)))
    if form is not None:
        raise UnknownModel(f"{tensors.path} is {form}; expected a plain or plus IP-Adapter")
    theirs = Prefixed(tensors, "")
    shapes = {name: theirs.shape(name) for name in theirs}
    with using_config(tensors.path):
        config = IPAdapterConfig(**_fields(shapes))
    widths = [attention.query.out_features for attention in cross_attentions(unet)]
    table = ip_adapter_table(config, len(widths))
    what = f"the IP-Adapter {tensors.path}"
    return build(lambda: IPAdapter(config, widths), theirs, table, what=what, dtype=dtype, device=device)


def _fields(shapes: Shapes) -> dict[str, Any]:
    context = shapes.get("ip_adapter.1.to_k_ip.weight", ())
    if len(context) != 2:
        raise BrokenModel("ip_adapter.1.to_k_ip.weight is missing, so the shape of the adapter cannot be determined")
    common = {"context_dim": context[1]}
    plain, latents = shapes.get(PLAIN_MARK, ()), shapes.get(PLUS_MARK, ())
    if len(plain) == 2:
        return {**common, "feature_width": plain[1], "tokens": plain[0] // context[1]}
    features, mlp = shapes.get("image_proj.proj_in.weight", ()), shapes.get("image_proj.layers.0.1.1.weight", ())
    if len(latents) != 3 or len(features) != 2 or len(mlp) != 2:
        raise BrokenModel("image_proj is incomplete, so the shape of the adapter cannot be determined")
    return {
        **common,
        "feature_width": features[1],
        "tokens": latents[1],
        "depth": length(shapes, "image_proj.layers"),
        "width": latents[2],
        "mlp_width": mlp[0],
    }

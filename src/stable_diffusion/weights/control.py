"""Files that add a network to a U-Net (ControlNet, control-LoRA, T2I-Adapter, IP-Adapter): what they are, and loading.

A file is recognised by the names of its tensors, and compared with the U-Net before anything is built, so that a
network for another family is refused in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.family import WIDTHS
from ..errors import BrokenModel, UnknownModel
from ..models.controlnet import ControlNet
from ..models.ip_adapter import IPAdapter
from ..models.t2i_adapter import T2IAdapter
from ..models.unet import UNet, UNetConfig
from .checkpoints.folder import component
from .containers.hashes import sha256
from .containers.open import existing, read_tensors
from .containers.tensors import TensorFile
from .describe import main_dtype
from .networks.controlnet import build_controlnet, controlnet_layout
from .networks.ip_adapter import PLUS_MARK, build_ip_adapter, is_ip_adapter
from .networks.t2i_adapter import build_t2i_adapter, is_t2i_adapter
from .other_kinds import other_kind

SideNetwork = ControlNet | T2IAdapter | IPAdapter
CONFIG = "config.json"
"""What the folder of one network has, and the folder of a whole model has not."""
CROSS_KEYS = ("attn2.to_k.weight", ".to_k_ip.weight", "attn2.to_k.down")
NOT_RUN = {
    "controlnet_blocks.": "a ControlNet for a transformer (Stable Diffusion 3, Flux)",
    "lllite_": "a ControlNet-LLLite",
}
"""How names begin in files of kinds that are known and not run."""
LABELS = {
    "control-LoRA": "control-LoRA",
    "ldm": "ControlNet",
    "diffusers": "ControlNet",
    "union": "union ControlNet",
}


def read_side_file(path: str | os.PathLike[str]) -> TensorFile:
    """The tensors at `path`, a file or the folder of one network that diffusers wrote.

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is something else.
    """
    place = existing(path)
    tensors, metadata = (component(place), {}) if place.is_dir() else read_tensors(place)
    foreign = next((what for start, what in NOT_RUN.items() if any(name.startswith(start) for name in tensors)), None)
    if foreign is not None:
        raise UnknownModel(f"{place} is {foreign}, which this version does not run")
    if side_kind(tensors) is None:
        kind = other_kind({name: tensors.info(name).shape for name in tensors}, metadata)
        what = f"{place} is {kind}" if kind else f"{place} holds no network that is known here"
        raise UnknownModel(f"{what}; expected a ControlNet, a T2I-Adapter or an IP-Adapter")
    return tensors


def side_kind(tensors: TensorFile) -> str | None:
    """What a file adds to a U-Net, as people call it; None where it is nothing of the kind."""
    layout = controlnet_layout(tensors)
    if layout is not None:
        return LABELS["union" if "task_embedding" in tensors else layout]
    if is_ip_adapter(tensors):
        return "IP-Adapter plus" if PLUS_MARK in tensors else "IP-Adapter"
    return "T2I-Adapter" if is_t2i_adapter(tensors) else None


def load_side_network(
    path: str | os.PathLike[str],
    unet: UNet,
    *,
    originals: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SideNetwork:
    """The network at `path` for this U-Net, which is left as it is.

    `originals` are the U-Net's own parameters where adapters are on it; a control-LoRA is built from them. Raises what
    `read_side_file` raises, and BrokenModel where the network is for another family or tensors do not fit.
    """
    tensors = read_side_file(path)
    kind = side_kind(tensors)
    assert kind is not None
    _check_family(tensors, kind, unet.config)
    settings: dict[str, Any] = {"dtype": dtype, "device": device}
    try:
        if kind.startswith("IP-Adapter"):
            return build_ip_adapter(tensors, unet, **settings)
        if kind == "T2I-Adapter":
            return _fitting_adapter(build_t2i_adapter(tensors, **settings), unet.config)
        own = dict(unet.named_parameters()) if originals is None else originals
        return _fitting_controlnet(build_controlnet(tensors, unet.config, own, **settings), unet.config)
    except BrokenModel as error:
        named = str(tensors.path) in str(error)
        raise error if named else BrokenModel(f"the {kind} {tensors.path} does not fit: {error}") from error


def token_width(tensors: TensorFile) -> int | None:
    """Width of the tokens that a side network reads, which tells the family; None where nothing reads any."""
    name = next((name for name in tensors if name.endswith(CROSS_KEYS)), None)
    return None if name is None or len(tensors.info(name).shape) < 2 else tensors.info(name).shape[1]


def family_label(width: int | None) -> str:
    """The models whose tokens have this width, in words."""
    return "a model of unknown kind" if width is None else WIDTHS.get(width, f"a model whose tokens have width {width}")


def _check_family(tensors: TensorFile, kind: str, base: UNetConfig) -> None:
    width = token_width(tensors)
    if width is not None and width != base.context_dim:
        article = "an" if kind.startswith("IP") else "a"
        what = f"{tensors.path} is {article} {kind} for {family_label(width)}"
        raise BrokenModel(f"{what}; this model is {family_label(base.context_dim)}")


def _fitting_controlnet(network: ControlNet, base: UNetConfig) -> ControlNet:
    found, wanted = network.config.skip_channels(), base.skip_channels()
    if found != wanted or network.config.vector_dim != base.vector_dim:
        raise BrokenModel(f"it gives features of {found} channels; this model's U-Net has {wanted}")
    return network


def _fitting_adapter(network: T2IAdapter, base: UNetConfig) -> T2IAdapter:
    found, wanted = network.config.channels, (*base.channels, base.channels[-1])
    if found not in (wanted, wanted[:-1]):
        raise BrokenModel(f"it gives features of {list(found)} channels; this model's U-Net has {list(base.channels)}")
    return network


def side_facts(path: Path, *, hashes: bool = True) -> dict[str, Any] | None:
    """Facts about the ControlNet, T2I-Adapter or IP-Adapter at `path`, `kind` first; None for other files."""
    if path.is_dir() and not (path / CONFIG).is_file():
        return None
    tensors = component(path) if path.is_dir() else read_tensors(path)[0]
    kind = side_kind(tensors)
    if kind is None:
        return None
    width = token_width(tensors)
    facts: dict[str, Any] = {"kind": kind, "path": str(path), "container": tensors.kind}
    facts["for"] = family_label(width) if width is not None else "nothing in the file says which models it is for"
    if "task_embedding" in tensors:
        facts["tasks"] = tensors.info("task_embedding").shape[0]
    facts["parameters"] = {"network": sum(tensors.info(name).count for name in tensors)}
    facts["dtype"] = main_dtype(tensors, "")
    if hashes and path.is_file():
        full = sha256(path)
        facts |= {"hash": full, "short_hash": full[:12]}
    return facts

"""Files with a network that steers a U-Net (ControlNet, control-LoRA, T2I-Adapter, IP-Adapter): which one, and loading.

The names of its tensors say what a file is. It is compared with the U-Net before anything is built, so that a network
for another family is refused in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BrokenModel, UnknownModel
from ..models.controlnet import ControlNet
from ..models.ip_adapter import IPAdapter
from ..models.t2i_adapter import T2IAdapter
from ..models.unet import UNet
from .checkpoints.blueprint import main_dtype
from .checkpoints.families import family_of_width
from .checkpoints.folder import component
from .containers.hashes import known_sha256
from .containers.open import existing, read_tensors
from .containers.tensors import TensorFile
from .foreign import refuse_foreign
from .identify import identify
from .networks.controlnet import build_controlnet, controlnet_kind
from .networks.ip_adapter import NOT_RUN as IP_NOT_RUN
from .networks.ip_adapter import build_ip_adapter, ip_adapter_kind
from .networks.t2i_adapter import build_t2i_adapter, t2i_adapter_kind

ControlNetwork = ControlNet | T2IAdapter | IPAdapter
CONFIG = "config.json"
"""What the folder of one network has, and the folder of a whole model has not."""
CROSS_KEYS = ("attn2.to_k.weight", ".to_k_ip.weight", "attn2.to_k.down")
"""How the names of weights end that read tokens of a text or a picture."""


def control_kind(tensors: TensorFile) -> str | None:
    """What a file adds to a U-Net ("ControlNet", "IP-Adapter plus" ...); None where it is nothing of the kind."""
    return controlnet_kind(tensors) or ip_adapter_kind(tensors) or t2i_adapter_kind(tensors)


def read_control_file(path: str | os.PathLike[str]) -> TensorFile:
    """The tensors at `path`, a file or the folder of one network that diffusers wrote.

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is something else.
    """
    place = existing(path)
    tensors, metadata = (component(place), {}) if place.is_dir() else read_tensors(place)
    refuse_foreign(tensors, place)
    if control_kind(tensors) is None:
        kind = identify({name: tensors.info(name).shape for name in tensors}, metadata)
        what = f"{place} is {kind}" if kind else f"{place} holds no network that is known here"
        raise UnknownModel(f"{what}; expected a ControlNet, a T2I-Adapter or an IP-Adapter")
    return tensors


def load_control_network(
    path: str | os.PathLike[str],
    unet: UNet,
    *,
    originals: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ControlNetwork:
    """The network at `path` for this U-Net, which is left as it is.

    `originals` are the U-Net's own parameters where adapters are on it; a control-LoRA is built from them. Raises what
    `read_control_file` raises, and BrokenModel where the network is for another family or tensors do not fit.
    """
    tensors = read_control_file(path)
    kind, width = str(control_kind(tensors)), token_width(tensors)
    if width is not None and width != unet.config.context_dim:
        what = f"{tensors.path} is {'an' if kind.startswith('IP') else 'a'} {kind} for {family_of_width(width)}"
        raise BrokenModel(f"{what}; this model is {family_of_width(unet.config.context_dim)}")
    try:
        if kind.startswith("IP-Adapter"):
            return build_ip_adapter(tensors, unet, dtype=dtype, device=device)
        if kind == "T2I-Adapter":
            return build_t2i_adapter(tensors, unet.config, dtype=dtype, device=device)
        own = dict(unet.named_parameters()) if originals is None else originals
        return build_controlnet(tensors, unet.config, own, dtype=dtype, device=device)
    except BrokenModel as error:
        named = str(tensors.path) in str(error)
        raise error if named else BrokenModel(f"the {kind} {tensors.path} does not fit: {error}") from error


def token_width(tensors: TensorFile) -> int | None:
    """Width of the tokens that a network reads, which says the family; None where it reads none."""
    name = next((name for name in tensors if name.endswith(CROSS_KEYS)), None)
    return None if name is None or len(tensors.info(name).shape) < 2 else tensors.info(name).shape[1]


def control_facts(path: Path, *, hashes: bool = True) -> dict[str, Any] | None:
    """Facts about the ControlNet, T2I-Adapter or IP-Adapter at `path`, `kind` first; None for other files."""
    if path.is_dir() and not (path / CONFIG).is_file():
        return None
    tensors = component(path) if path.is_dir() else read_tensors(path)[0]
    kind = control_kind(tensors)
    if kind is None:
        return None
    width = token_width(tensors)
    facts: dict[str, Any] = {"kind": kind, "path": str(path), "container": tensors.kind}
    facts["for"] = family_of_width(width) if width is not None else "nothing in the file says which models it is for"
    if "task_embedding" in tensors:
        facts["tasks"] = tensors.info("task_embedding").shape[0]
    facts["parameters"] = {"network": sum(tensors.info(name).count for name in tensors)}
    facts["dtype"] = main_dtype(tensors, "")
    if kind in IP_NOT_RUN:
        facts["not_run"] = IP_NOT_RUN[kind]
    if hashes and path.is_file():
        full = known_sha256(path)
        facts |= {"hash": full, "short_hash": full[:12]}
    return facts

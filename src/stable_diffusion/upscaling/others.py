"""Networks that are not ours (SwinIR, DAT, HAT, OmniSR, SPAN ...), by the library `spandrel`.

The file is read by our own reader, which runs nothing that is in it; the library gets names and tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BrokenModel, InvalidRequest, UnknownModel, brief
from ..weights.containers.tensors import TensorFile
from ..weights.foreign import foreign_kind
from ..weights.networks.upscalers import upscaler_prefix

MISSING = 'this kind of upscaler needs one more package: pip install "stable-diffusion[upscale]"'


@dataclass(frozen=True)
class OtherNetwork:
    """A network of the library, as `Upscaler` needs it."""

    network: Callable[[Tensor], Tensor]
    scale: int
    channels: int


def other_network(tensors: TensorFile, file: Path, device: torch.device) -> OtherNetwork:
    """The network that the library makes of these tensors, in float32.

    InvalidRequest where it is not installed, UnknownModel where it does not know the network or that enlarges nothing,
    BrokenModel where the tensors do not fit.
    """
    kind = foreign_kind(tensors)
    if kind is not None and "upscaler" not in kind:
        raise UnknownModel(f"{file} is {kind}; expected an upscaler")
    try:
        import spandrel
    except ImportError:
        raise InvalidRequest(f"{file.name} is no ESRGAN: {MISSING}") from None
    prefix = upscaler_prefix({name: tensors.info(name).shape for name in tensors})
    state = {name[len(prefix) :]: tensors[name].float() for name in tensors if name.startswith(prefix)}
    try:
        found = spandrel.ModelLoader(device=device).load_from_state_dict(state)
    except spandrel.UnsupportedModelError:
        raise UnknownModel(f"{file} is not an upscaler of a kind that is known") from None
    except Exception as error:  # each architecture reads shapes in its own way
        raise BrokenModel(f"{file} does not fit: {brief(error, 120)}") from None
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UnknownModel(f"{file} is a network of another kind ({found.architecture.name}); expected an upscaler")
    return OtherNetwork(found.eval(), found.scale, found.input_channels)

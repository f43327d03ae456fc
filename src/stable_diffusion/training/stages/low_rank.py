"""Low-rank changes of a frozen network's weights, as layers that can be trained (Hu et al. 2021, "LoRA").

Legend: O rows out, I everything else (inputs, and the kernel of a convolution), R rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...errors import InvalidRequest


class LowRank(nn.Module):
    """weight [O, ...] -> weight + up down, up [O,R] zero at first, so that training begins with the frozen network."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        inputs = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def add_low_rank(network: nn.Module, rank: int) -> nn.ModuleDict:
    """Freeze `network` and let every matrix and kernel of it that is larger than its change be changed.

    Returns the changes by the layer's name, dots written as "/" (module names may hold no dots). The network's own
    state dict then has other names (see `torch.nn.utils.parametrize`). Errors: InvalidRequest for a rank below 1.
    """
    if rank < 1:
        raise InvalidRequest(f"rank = {rank} must be at least 1")
    network.requires_grad_(False)
    changes = nn.ModuleDict()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and rank < min(layer.weight.shape[0], layer.weight[0].numel()):
            change = LowRank(layer.weight, rank).to(layer.weight.device)
            parametrize.register_parametrization(layer, "weight", change, unsafe=True)
            changes[name.replace(".", "/")] = change
    if not changes:
        raise InvalidRequest(f"rank = {rank} is as large as every matrix of this network; expected less")
    return changes


def adapter_tensors(changes: Mapping[str, Tensor], layers: Mapping[str, nn.Module], prefix: str) -> dict[str, Tensor]:
    """State dict of `add_low_rank`'s changes -> a LoRA file's tensors: `PREFIX.LAYER.lora_down.weight`, `lora_up`.

    layers: the network's modules by name, without the changes. A kernel's down matrix gets the kernel's shape, its up
    matrix that of a 1x1 convolution. No alpha: the strength is 1.
    """
    tensors = {}
    for key, value in changes.items():
        path, _, side = key.rpartition(".")
        name = path.replace("/", ".")
        layer = layers[name]
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        if isinstance(layer, nn.Conv2d):
            shape = layer.weight.shape
            value = value.view(-1, *shape[1:]) if side == "down" else value.view(*value.shape, 1, 1)
        tensors[f"{prefix}.{name}.lora_{side}.weight"] = value.contiguous()
    return tensors

"""Small upscalers with random weights, as files in the spellings that people have."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from stable_diffusion.models.upscalers import CompactConfig, CompactNet, RRDBConfig, RRDBNet
from stable_diffusion.weights.networks.upscalers import LAYOUTS, KeyTable, _compact_rules, _rrdb_rules

SMALL = RRDBConfig(width=8, growth=4, blocks=2)


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, so small that pictures stay about in range."""
    maker = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = torch.randn(value.shape, generator=maker) * (0.1 if value.dim() > 1 else 0.02)
    return network.eval().requires_grad_(False)


def rrdb(config: RRDBConfig = SMALL, layout: str = "new") -> tuple[RRDBNet, dict[str, Tensor]]:
    """The network, and its tensors in a layout."""
    network = random(RRDBNet(config))
    names = LAYOUTS[layout]
    ends = {"HRconv.weight": (1,)} if layout == "bsrgan" else {}
    table = KeyTable(tuple(_rrdb_rules(config, names, ends)))
    return network, table.invert(network.state_dict())


SMALL_COMPACT = CompactConfig(width=8, layers=2)


def compact(config: CompactConfig = SMALL_COMPACT) -> tuple[CompactNet, dict[str, Tensor]]:
    network = random(CompactNet(config))
    return network, KeyTable(tuple(_compact_rules(config))).invert(network.state_dict())


def written(folder: Path, name: str = "4x-small.pth", wrapper: str = "params_ema") -> Path:
    """A small 4x ESRGAN as a file."""
    path = folder / name
    _, tensors = rrdb()
    torch.save({wrapper: tensors} if wrapper else tensors, path)
    return path

"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def ema_decay(decay: float, updates: int) -> float:
    """Decay after n earlier updates: min(decay, (1 + n) / (10 + n)), so that a short run does not average noise."""
    return min(decay, (1 + updates) / (10 + updates))


class EMA:
    """Averages e <- d e + (1 - d) w of every floating parameter; buffers are copied. Kept in float32.

    After n updates with constant weights w from start e0 the value is w + (e0 - w) prod d_i.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.modules = dict(modules)
        self.average = {name: value.detach().clone() for name, value in named_tensors(self.modules).items()}

    @torch.no_grad()
    def update(self) -> None:
        decay = ema_decay(self.decay, self.updates)
        current = named_tensors(self.modules)
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floating], [current[n].detach() for n in floating], 1.0 - decay)
        self.updates += 1

    def state(self) -> dict[str, Tensor]:
        return dict(self.average)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        for name, value in self.average.items():
            value.copy_(state[name])
        self.updates = updates

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and current weights; call again to undo (both are kept bit for bit)."""
        for name, value in named_tensors(self.modules).items():
            held = value.detach().clone()
            value.copy_(self.average[name])
            self.average[name].copy_(held)


def named_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and persistent buffers of all modules under "module.name"."""
    return {f"{prefix}.{name}": value for prefix, m in modules.items() for name, value in m.state_dict().items()}

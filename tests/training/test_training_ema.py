from __future__ import annotations

import math

import torch
from torch import nn

from stable_diffusion.training.ema import EMA, ema_decay


def test_closed_form_for_constant_weights() -> None:
    """e_n = w + (e_0 - w) prod d_i."""
    layer = nn.Linear(3, 2).double()
    ema = EMA({"layer": layer}, 0.9)
    start = ema.average["layer.weight"].clone()
    with torch.no_grad():
        layer.weight.add_(1.5)
    for _ in range(7):
        ema.update()
    shrink = math.prod(ema_decay(0.9, n) for n in range(7))
    torch.testing.assert_close(ema.average["layer.weight"], layer.weight.detach() + (start - layer.weight) * shrink)


def test_decay_warms_up() -> None:
    assert ema_decay(0.999, 0) == 0.1
    assert ema_decay(0.999, 10**6) == 0.999


def test_swap_twice_is_the_identity_and_copies_do_not_alias() -> None:
    layer = nn.Linear(2, 2)
    ema = EMA({"layer": layer}, 0.5)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(3)
    now = layer.weight.detach().clone()
    ema.swap()
    assert torch.equal(layer.weight, before)
    ema.swap()
    assert torch.equal(layer.weight, now) and torch.equal(ema.average["layer.weight"], before)

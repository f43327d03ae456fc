"""Weights alone in 8 bits: near the plain layers, and those of LoRAs too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stable_diffusion.engine.base import Features
from stable_diffusion.engine.choose import engine_named
from stable_diffusion.engine.int8_weights import Int8WeightsEngine, SmallConv, SmallLinear, can_be_small
from stable_diffusion.engine.precision import computed_in, resolve_dtype
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.nn.sharing import sharing


class Network(nn.Module):
    """A convolution and a linear layer that are large enough, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.small = nn.Conv2d(64, 256, 3, padding=1), nn.Linear(256, 256), nn.Linear(256, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.small(self.linear(self.conv(x).flatten(2).transpose(1, 2)))
        return out


def distance(one: Tensor, two: Tensor) -> float:
    return float((one - two).norm() / two.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_it_is_near_the_plain_network(dtype: torch.dtype) -> None:
    network, x = Network().to(dtype).eval(), torch.randn(2, 64, 8, 8).to(dtype)
    engine = Int8WeightsEngine()
    small = engine.network(network, "denoiser")
    assert isinstance(small.conv, SmallConv) and isinstance(small.linear, SmallLinear)  # type: ignore[attr-defined]
    assert type(small.small) is nn.Linear  # type: ignore[attr-defined]
    assert small.conv._codes.dtype == torch.int8  # type: ignore[attr-defined]
    made = small(x).float()
    plain = network.float()(x.float())
    assert 0 < distance(made, plain) < 0.02


@torch.no_grad()
def test_a_run_with_weights_of_its_own_has_them_in_8_bits() -> None:
    network, x = Network().eval(), torch.randn(1, 64, 4, 4)
    engine = Int8WeightsEngine()
    changed = sharing(network, {"linear.weight": network.linear.weight * 2})
    before, after = engine.network(network, "denoiser"), engine.network(changed, "denoiser")
    assert after.conv is before.conv and after.linear is not before.linear  # type: ignore[attr-defined]
    assert distance(after(x), changed(x)) < 0.02 < distance(after(x), network(x))


def test_its_name_means_it_and_what_it_refuses() -> None:
    assert computed_in("int8-weights") == "int8-weights"
    engine = engine_named("torch", "int8-weights")
    assert isinstance(engine, Int8WeightsEngine) and engine.precision == "int8-weights"
    assert engine.refuses(Features(seamless=True, weight_patches=True)) is None
    assert engine.refuses(Features(image_prompt=True)) is not None
    with pytest.raises(InvalidRequest, match="CPU"):
        resolve_dtype("int8-weights", torch.device("cuda"))
    assert not can_be_small(nn.Linear(4, 4)) and not can_be_small(nn.LayerNorm(4))

"""Layers for bfloat16 on a CPU: convolutions as products, and what the rows of a guided step share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from stable_diffusion.engine import guided_pair
from stable_diffusion.engine.cpu_layers import FusedConv
from stable_diffusion.engine.torch import TORCH
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.nn.sharing import sharing

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="torch has no bfloat16 kernels for this processor"
)
CONFIG = UNetConfig(channels=(64, 64, 64, 128), context_dim=32, heads=(2, 2, 2, 2))


@pytest.fixture
def unet() -> UNet:
    generator = torch.Generator().manual_seed(0)
    network = UNet(CONFIG)
    for parameter in network.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
        parameter.data.normal_(generator=generator).mul_(scale)
    return network.eval().requires_grad_(False).bfloat16()


@pytest.fixture
def guided() -> tuple[Tensor, Tensor, Tensor]:
    """A latent with the prompt and without."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, 16, 24, generator=generator).bfloat16()
    tokens = torch.randn(2, 7, CONFIG.context_dim, generator=generator).bfloat16()
    return latent.repeat(2, 1, 1, 1), torch.full((2,), 500.0), tokens


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows that the first self-attention of a pair is computed for, each time that there is a pair."""
    seen: list[int] = []
    transformed = guided_pair._transformed

    def counted(transformer: nn.Module, half: Tensor, tokens: Tensor) -> Tensor:
        seen.append(len(half))
        return transformed(transformer, half, tokens)

    monkeypatch.setattr(guided_pair, "_transformed", counted)
    yield seen


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (1, 1, 0)])
@torch.no_grad()
def test_a_convolution_of_few_pixels_is_a_product(kernel: int, stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(640, 32, kernel, stride=stride, padding=padding).bfloat16()
    x = torch.randn(3, 640, 7, 9, generator=generator).bfloat16()
    fused, expected = FusedConv(plain), plain.float()(x.float())
    plain.bfloat16()
    assert fused._is_product(x) and not fused._is_product(torch.zeros(1, 640, 40, 40)), "many pixels are no product"
    found, other = fused(x), torch.randn(expected.shape, generator=generator).bfloat16()
    assert found.shape == expected.shape and relative(found, expected) < 0.01
    assert relative(fused.added(x, other), expected + other) < 0.01
    for row in range(3):
        assert torch.equal(fused(x[row : row + 1]), found[row : row + 1]), "a picture does not see its neighbours"


def test_a_convolution_that_learns_stays_plain() -> None:
    fused, x = FusedConv(nn.Conv2d(640, 8, 3, padding=1).bfloat16()), torch.randn(1, 640, 4, 4).bfloat16()
    fused(x).sum().backward()
    assert fused.weight.grad is not None and torch.isfinite(fused.weight.grad).all()


@torch.no_grad()
def test_both_rows_of_a_guided_step_share_their_start(
    unet: UNet, guided: tuple[Tensor, Tensor, Tensor], halves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TORCH.network(unet, "denoiser")
    found = network(*guided)
    assert halves == [1] and torch.equal(network(*guided), found)
    x, timestep, tokens = guided
    network(torch.cat((x[:1], x[1:] + 0.01)), timestep, tokens)  # other latents
    network(x, torch.tensor([500.0, 400.0]), tokens)  # other times
    network(x[:1], timestep[:1], tokens[:1])  # one row
    assert len(halves) == 2, "only equal rows of one time are computed once"
    monkeypatch.setattr(guided_pair, "is_pair", lambda _: False)
    assert relative(network(*guided), found) < 0.015, "more than rounding"
    assert relative(found, unet.float()(x.float(), timestep, tokens.float())) < 0.02


@torch.no_grad()
def test_who_listens_to_a_layer_hears_every_row(
    unet: UNet, guided: tuple[Tensor, Tensor, Tensor], halves: list[int]
) -> None:
    network, rows = TORCH.network(unet, "denoiser"), []
    attention = unet.down[0].transformers[0].blocks[0].cross_attention
    hook = attention.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    network(*guided)
    hook.remove()
    assert rows == [2] and halves == []
    network(*guided)
    assert rows == [2] and halves == [1]


@torch.no_grad()
def test_other_weights_make_another_picture(unet: UNet, guided: tuple[Tensor, Tensor, Tensor]) -> None:
    """Nothing of the weights is kept: neither a run's own, nor those that were changed in place."""
    name = "down.0.resblocks.0.conv1.weight"
    before, weight = TORCH.network(unet, "denoiser")(*guided), dict(unet.named_parameters())[name]
    own = TORCH.network(sharing(unet, {name: weight * 2}), "denoiser")(*guided)
    assert relative(own, before) > 0.01 and torch.equal(TORCH.network(unet, "denoiser")(*guided), before)
    weight.mul_(2)
    assert torch.equal(TORCH.network(unet, "denoiser")(*guided), own)


@torch.no_grad()
def test_the_reference_is_plain(unet: UNet, guided: tuple[Tensor, Tensor, Tensor], halves: list[int]) -> None:
    x, timestep, tokens = guided
    full = unet.float()
    given = (x.float(), timestep, tokens.float())
    assert torch.equal(TORCH.network(full, "denoiser")(*given), full(*given)) and halves == []

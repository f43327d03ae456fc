"""The stage at the latents' own grid."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.nn.fine import FineStage
from stable_diffusion.training.warm_start import folded

PATCHED = UNetConfig(
    in_channels=6, out_channels=5, channels=(16, 32), blocks_per_stage=1, transformer_depth=(0, 1), head_dim=8,
    context_dim=20, groups=8, patch_size=2,
)  # fmt: skip
FINE = dataclasses.replace(PATCHED, fine_channels=24, fine_blocks=2)


def inputs(height: int = 9, width: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x, tokens = torch.randn(2, 6, height, width, generator=random), torch.randn(2, 4, 20, generator=random)
    return x, torch.tensor([100.0, 900.0]), tokens


def test_a_new_stage_changes_nothing(randomise) -> None:
    plain = randomise(UNet(PATCHED))
    with_stage = UNet(FINE)
    with_stage.load_state_dict(dict(folded(with_stage, plain.state_dict())))
    assert torch.equal(with_stage(*inputs()), plain(*inputs()))


def test_weights_of_a_trained_stage_are_kept(randomise) -> None:
    trained, started = randomise(UNet(FINE)), UNet(FINE)
    started.load_state_dict(dict(folded(started, trained.state_dict())))
    assert torch.equal(started(*inputs()), trained(*inputs()))


def test_it_sees_neighbours_across_patches(randomise) -> None:
    """The gradient of one latent's output reaches the noisy latents beside it, on both sides of its patch's border."""
    stage = randomise(FineStage(6, 5, 16, 2, width=16, blocks=1, time_width=64, groups=4))
    latent = torch.randn(1, 6, 8, 8, requires_grad=True)
    out = stage(latent, torch.randn(1, 5, 8, 8), torch.randn(1, 16, 4, 4), torch.randn(1, 64))
    assert out.shape == (1, 5, 8, 8)
    out[0, 0, 4, 4].backward()
    reached = latent.grad[0].abs().amax(dim=0)
    assert (reached[3:6, 3:6] > 0).all()


def test_features_of_a_patch_are_spread_over_its_latents(randomise) -> None:
    """Channel 4 k + place of the features is read at that place of the patch only, as the output's channels are."""
    stage = randomise(FineStage(1, 1, 4, 2, width=8, blocks=0, time_width=8, groups=4))
    torch.nn.init.zeros_(stage.conv_in.weight[:, :2].detach())
    seen: list[torch.Tensor] = []
    stage.conv_in.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    features = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 3, 3)
    stage(torch.zeros(1, 1, 6, 6), torch.zeros(1, 1, 6, 6), features, torch.zeros(1, 8))
    assert torch.equal(seen[0][0, 2, :2, :2], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))


def test_it_needs_no_patches(randomise) -> None:
    unet = randomise(UNet(dataclasses.replace(FINE, patch_size=1)))
    assert unet(*inputs()).shape == (2, 5, 9, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"fine_channels": 20}, "fine_channels"), ({"fine_channels": 24, "fine_blocks": -1}, "fine_blocks")],
)
def test_shapes_that_cannot_be(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        dataclasses.replace(PATCHED, **changes)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stable_diffusion.data.similarity import SIGNED, alpha_iou, psnr
from stable_diffusion.training.stages.losses import (
    PatchDiscriminator,
    adaptive_weight,
    gradient_loss,
    hinge_discriminator_loss,
    ssim_loss,
)
from stable_diffusion.training.stages.text import same, sigmoid_loss, softmax_loss
from stable_diffusion.training.stages.vae import latent_format, latent_format_from


def test_gradient_loss_ignores_constants_and_sees_edges() -> None:
    picture = torch.rand(2, 4, 16, 12)
    assert gradient_loss(picture + 0.3, picture).item() == pytest.approx(0.0, abs=1e-6)
    edge = torch.zeros(1, 4, 16, 16)
    edge[..., 8:] = 1.0
    assert gradient_loss(edge, torch.zeros_like(edge), scales=1).item() == pytest.approx(1 / 15)


def test_ssim_is_zero_for_equal_pictures_and_grows() -> None:
    picture = torch.rand(2, 4, 16, 12) * 2 - 1
    assert ssim_loss(picture, picture).item() == pytest.approx(0.0, abs=1e-6)
    assert ssim_loss(picture.flip(-1), picture).item() > ssim_loss(picture * 0.9, picture).item() > 0


def test_psnr_and_iou_by_hand() -> None:
    target = torch.full((2, 4, 4, 4), -1.0)
    target[0, 3, :2] = 1.0
    output = target.clone()
    output[0, 3, 2] = 1.0  # 8 pixels wanted, 12 given
    torch.testing.assert_close(alpha_iou(output, target, SIGNED), torch.tensor([8 / 12, 1.0]))
    shifted = target + 0.2
    torch.testing.assert_close(psnr(shifted, target, SIGNED), torch.full((2,), 20.0))  # 10 log10(4 / 0.04)


def test_hinge_loss_and_patches() -> None:
    loss = hinge_discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0]))
    assert loss.item() == pytest.approx(0.5 * 0.5 + 0.5 * 1.0)
    assert PatchDiscriminator(4, 8)(torch.zeros(2, 4, 32, 24)).shape == (2, 1, 4, 3)


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    layer = nn.Linear(1, 1, bias=False)
    x = torch.tensor([[1.0]])
    weight = adaptive_weight(6 * layer(x).sum(), 2 * layer(x).sum(), layer.weight)
    assert weight.item() == pytest.approx(3.0, rel=1e-3)


def test_contrastive_losses_do_not_punish_pairs_that_mean_the_same() -> None:
    names = torch.tensor([[1, 10], [2, 11], [1, 12], [4, 11]])  # 0 and 2 the same picture, 1 and 3 the same caption
    alike = same(names)
    assert alike[0, 2] and alike[1, 3] and not alike[0, 1] and alike.diagonal().all()
    logits = torch.zeros(4, 4)
    logits[0, 2] = 50.0
    assert softmax_loss(logits, alike).item() == pytest.approx(torch.tensor(3.0).log().item())
    plain = torch.eye(4, dtype=torch.bool)
    assert softmax_loss(logits, plain).item() > 5
    assert sigmoid_loss(torch.where(alike, 20.0, -20.0), alike).item() == pytest.approx(0.0, abs=1e-5)


def test_softmax_loss_is_clips() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 5)
    wanted = torch.arange(5)
    reference = (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2
    torch.testing.assert_close(softmax_loss(logits, torch.eye(5, dtype=torch.bool)), reference)


def test_latent_statistics_normalise_and_preview_recovers_a_linear_map() -> None:
    torch.manual_seed(0)
    latents = torch.randn(20, 5, 4, 6) * torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])[:, None, None] + 0.7
    mix = torch.randn(3, 5) * 0.1
    colours = torch.einsum("nchw,rc->nrhw", latents, mix) - 0.2
    found = latent_format(latents, colours, 8)
    normal = found.normalise(latents)
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-2, rtol=0)
    preview = found.preview_rgb(normal)
    assert preview is not None
    torch.testing.assert_close(preview, colours.clamp(-1, 1), atol=1e-3, rtol=0)


def test_latent_format_survives_json() -> None:
    import dataclasses
    import json

    latents = torch.randn(4, 3, 4, 4)
    found = latent_format(latents, torch.randn(4, 4, 4, 4), 8)
    assert latent_format_from({"latents": json.loads(json.dumps(dataclasses.asdict(found)))}) == found

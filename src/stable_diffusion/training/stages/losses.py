"""Losses on pictures [B,4,H,W] in [-1,1], premultiplied colour and alpha; each returns a scalar mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.similarity import SIGNED, box_ssim


def gradient_loss(output: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean L1 distance of horizontal and vertical differences, averaged over `scales` halvings: keeps edges crisp."""
    total = output.new_zeros(())
    for scale in range(scales):
        if scale:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        error = output - target  # differences are linear, so the difference of the error is the error of the difference
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total / scales


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM with a box window of 7 pixels."""
    return 1 - box_ssim(output, target, span=SIGNED)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): [B,4,H,W] -> one logit per patch of about 34 pixels, [B,1,H/8,W/8]."""

    def __init__(self, image_channels: int = 4, channels: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(image_channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for width in (channels, 2 * channels):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.GroupNorm(min(8, 2 * width), 2 * width),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * channels, 1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 E[max(0, 1 - D(x))] + 0.5 E[max(0, 1 + D(y))]."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """|grad of reconstruction| / |grad of adversarial| at the decoder's last layer (Esser et al. 2021, eq. 7)."""
    first = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0]
    second = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0]
    ratio: Tensor = (first.norm() / (second.norm() + 1e-4)).clamp(0, 1e4)
    return ratio.detach()

"""Losses on pictures [B,4,H,W] in [-1,1], premultiplied colour and alpha; each returns a scalar mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gradient_loss(output: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean L1 distance of horizontal and vertical differences, averaged over `scales` halvings: keeps edges crisp."""
    total = output.new_zeros(())
    for scale in range(scales):
        if scale:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        error = output - target  # differences are linear, so the difference of the error is the error of the difference
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total / scales


def ssim_loss(output: Tensor, target: Tensor, window: int = 7) -> Tensor:
    """1 - SSIM with a box window (Wang et al. 2004, eq. 13), data range 2."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_x, mean_y = F.avg_pool2d(output, window, 1), F.avg_pool2d(target, window, 1)
    var_x = F.avg_pool2d(output * output, window, 1) - mean_x * mean_x
    var_y = F.avg_pool2d(target * target, window, 1) - mean_y * mean_y
    cov = F.avg_pool2d(output * target, window, 1) - mean_x * mean_y
    ssim = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return 1 - ssim.mean()


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


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture [B] in dB, data range 2."""
    error = (output.float() - target.float()).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    return 10 * torch.log10(4.0 / error)


def alpha_iou(output: Tensor, target: Tensor) -> Tensor:
    """Intersection over union [B] of the areas that are more opaque than not (1 where both are empty)."""
    a, b = output[:, 3] > 0, target[:, 3] > 0
    union = (a | b).sum(dim=(1, 2)).float()
    both = (a & b).sum(dim=(1, 2)).float()
    return torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union))

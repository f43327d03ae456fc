"""Patches of a latent as channels, and what a straight line can say of what differs inside them.

Hoogeboom et al. 2023, "simple diffusion" (patches as channels); Karras et al. 2022, "Elucidating the design space of
diffusion models", section 5 (a skip from the input, so that a network need not carry its noise).

Shapes: B batch, C channels, H W height and width, p patch size.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def fold(x: Tensor, patch: int) -> Tensor:
    """[B,C,H,W] -> [B,C p p,H/p,W/p]; a rest of less than a patch repeats the edge."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % patch, 0, -height % patch), mode="replicate")
    return F.pixel_unshuffle(x, patch)


def unfold(folded: Tensor, patch: int, height: int, width: int) -> Tensor:
    """[B,C p p,h,w] -> [B,C,height,width]: the inverse of `fold`."""
    return F.pixel_shuffle(folded, patch)[..., :height, :width]


def detail_velocity(x: Tensor, time: Tensor, patch: int, variance: float) -> Tensor:
    """The best linear guess of the velocity (noise - picture) of what differs inside patches [B,C,H,W].

    x = (1 - t) picture + t noise at times t [B] of a rectified flow. For detail of this `variance` in the picture, and
    1 in the noise, least squares gives velocity = x (t - (1 - t) variance) / ((1 - t)^2 variance + t^2). What it leaves
    is the picture where there is much noise and the noise where there is little: a network of few channels carries
    either, but not always all of the noise.
    """
    folded = fold(x, patch)
    shape = (x.shape[0], x.shape[1], patch**2, *folded.shape[-2:])
    parts = folded.view(shape)
    detail = (parts - parts.mean(dim=2, keepdim=True)).view_as(folded)
    t = time.to(x.dtype).view(-1, 1, 1, 1)
    slope = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
    return unfold(slope * detail, patch, *x.shape[-2:])

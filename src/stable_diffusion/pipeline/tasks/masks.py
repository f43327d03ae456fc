"""Where a picture is painted anew: soft edges, soft masks, a closer look at the masked part, margins, and fills.

Shapes: B batch, C picture channels, H W picture size, c h w latent channels and size. Masks are 1 where the picture is
repainted and 0 where it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest
from ..image import grey_mask, plain_mode

Fill = Literal["fill", "original", "latent noise", "latent nothing"]
FILLS: tuple[Fill, ...] = ("fill", "original", "latent noise", "latent nothing")
"""What the masked part holds at the start, by A1111's names, in its order (its numbers 0 to 3)."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, as Pillow counts."""
Margins = tuple[int, int, int, int]
"""Pixels added at the left, top, right and bottom."""


def blurred_mask(mask: Image.Image, radius: float) -> Image.Image:
    """The mask in grey, its edge made soft by a Gaussian of standard deviation `radius` in pixels; 0 leaves it."""
    grey = grey_mask(mask)
    return grey.filter(ImageFilter.GaussianBlur(radius)) if radius > 0 else grey


def region_box(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box:
    """The part of the picture that "only masked" paints: what is masked, `padding` around it, in the shape of `size`.

    size (width, height) is what the model paints. The box grows to these proportions, and is moved or cut where it
    would leave the picture. InvalidRequest where nothing is masked.
    """
    found = grey_mask(mask).getbbox()
    if found is None:
        raise InvalidRequest("the mask is black everywhere; expected white where the picture is to be painted anew")
    left, right = max(0, found[0] - padding), min(mask.width, found[2] + padding)
    top, bottom = max(0, found[1] - padding), min(mask.height, found[3] + padding)
    width = max(right - left, round((bottom - top) * size[0] / size[1]))
    height = max(bottom - top, round((right - left) * size[1] / size[0]))
    left, right = _grown(left, right, width, mask.width)
    top, bottom = _grown(top, bottom, height, mask.height)
    return left, top, right, bottom


def _grown(first: int, last: int, length: int, limit: int) -> tuple[int, int]:
    """[first, last) made `length` long around its middle, moved back inside [0, limit)."""
    length = min(length, limit)
    first = min(max(0, first - (length - (last - first)) // 2), limit - length)
    return first, first + length


def pasted(part: Tensor, whole: Tensor, box: Box) -> Tensor:
    """The straight picture `whole` [B,C,H,W] with `part` [B,C,h,w] resized into `box`."""
    left, top, right, bottom = box
    result = whole.clone()
    result[..., top:bottom, left:right] = lanczos(part, bottom - top, right - left).clamp(0, 1)
    return result


def lanczos(picture: Tensor, height: int, width: int) -> Tensor:
    """[B,C,H,W] -> [B,C,height,width] float32 by Pillow's Lanczos filter, without rounding to 8 bits."""
    if picture.shape[-2:] == (height, width):
        return picture.float()
    planes = picture.float().cpu().flatten(0, 1).numpy()
    resized = [np.array(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).reshape(*picture.shape[:2], height, width).to(picture.device)


# --- soft masks -------------------------------------------------------------------------------------------------------


def soft_latent_mask(mask: Tensor, downscale: int) -> Tensor:
    """[1,1,H,W] -> [1,1,H/downscale,W/downscale]: the mean of each square, the strength with which it is repainted."""
    return F.avg_pool2d(mask, downscale)


def soft_edge(mask: Tensor) -> Tensor:
    """How much of the painted picture shows where a soft mask is `mask`: all of it from 1/8 on, none at 0.

    A soft mask says how far a place is painted anew, and not how much of it is seen; the short ramp only hides the
    border of what is kept.
    """
    return (mask * 8).clamp(0, 1)


# --- fills and margins ------------------------------------------------------------------------------------------------


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with its masked part in the colours of what surrounds it, smooth as a film over the hole.

    Push and pull (Gortler et al. 1996, "The Lumigraph", section 3.4): means of the known pixels at ever coarser levels,
    then back down, each level filling what the finer one does not know.
    """
    plain = plain_mode(image)
    pixels = torch.from_numpy(np.array(plain)).permute(2, 0, 1)[None].double()
    hidden = torch.from_numpy(np.array(grey_mask(mask)))[None, None].double() / 255
    result = pixels * (1 - hidden) + pull(pixels, 1 - hidden) * hidden
    return Image.fromarray(result[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())


def pull(colour: Tensor, weight: Tensor) -> Tensor:
    """Colours [1,C,H,W] where they are known (weight 1), and from the coarser levels where not (weight 0) [1,1,H,W]."""
    if colour.shape[-2:] == (1, 1):
        return colour
    odd = (0, colour.shape[-1] % 2, 0, colour.shape[-2] % 2)
    mass = F.avg_pool2d(F.pad(weight, odd), 2)
    mean = F.avg_pool2d(F.pad(colour * weight, odd), 2) / mass.clamp(min=1e-12)
    coarse = pull(mean, (mass * 4).clamp(max=1))
    fine = F.interpolate(coarse, size=(2 * coarse.shape[-2], 2 * coarse.shape[-1]), mode="bilinear")
    fine = fine[..., : colour.shape[-2], : colour.shape[-1]]
    return colour * weight + fine * (1 - weight)


def start_latent(latent: Tensor, mask: Tensor, fill: Fill, noise: Tensor) -> Tensor:
    """The latent [B,c,h,w] that inpainting starts from; `mask` [1,1,h,w], `noise` [B,c,h,w] of the pictures' seeds."""
    if fill == "latent noise":
        return torch.where(mask > 0, noise, latent)
    if fill == "latent nothing":
        return torch.where(mask > 0, torch.zeros_like(latent), latent)
    return latent


def even_margins(size: tuple[int, int], margins: Sequence[int], factor: int) -> Margins:
    """Margins grown until both sides are multiples of `factor`: at the later edge if it has one, else the earlier."""
    left, top, right, bottom = margins
    left, right = _even(size[0], left, right, factor)
    top, bottom = _even(size[1], top, bottom, factor)
    return left, top, right, bottom


def _even(length: int, before: int, after: int, factor: int) -> tuple[int, int]:
    missing = -(length + before + after) % factor
    return (before + missing, after) if before and not after else (before, after + missing)


def extended(image: Image.Image, margins: Margins) -> tuple[Image.Image, Image.Image]:
    """(the picture on a larger canvas, the mask that is white on what was added); the picture keeps its pixels."""
    plain = plain_mode(image)
    left, top, right, bottom = margins
    size = (plain.width + left + right, plain.height + top + bottom)
    canvas, mask = Image.new(plain.mode, size), Image.new("L", size, 255)
    canvas.paste(plain, (left, top))
    mask.paste(0, (left, top, left + plain.width, top + plain.height))
    return canvas, mask

"""Pillow pictures to tensors and back, sizes, masks, and putting kept pixels back.

Two forms of tensor: `model` pictures [B,C,H,W] in [-1, 1] as the autoencoder takes them (RGBA ones with premultiplied
colour), and `straight` pictures [B,C,H,W] in [0, 1] with straight alpha, which are what a file holds divided by 255.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..request.pictures import grey_mask, plain_mode


def to_straight(image: Image.Image) -> Tensor:
    """Picture -> [1, 3 or 4, H, W] float32 in [0, 1]; four channels where it has alpha."""
    pixels = torch.from_numpy(np.array(plain_mode(image)))  # [H, W, C] uint8
    return pixels.permute(2, 0, 1)[None].float() / 255


def to_model(image: Image.Image, channels: int) -> Tensor:
    """Picture -> [1,channels,H,W] float32 in [-1, 1].

    Three channels: transparent parts over white. Four: colour times alpha, and alpha (1 where the picture has none).
    """
    straight = to_straight(image)
    colour, alpha = straight[:, :3], straight[:, 3:]
    if channels == 3:
        shown = colour * alpha + (1 - alpha) if alpha.numel() else colour
        return shown * 2 - 1
    if not alpha.numel():
        alpha = torch.ones_like(colour[:, :1])
    return torch.cat([colour * alpha, alpha], dim=1) * 2 - 1


def from_model(picture: Tensor) -> Tensor:
    """Model picture [B,C,H,W] in [-1, 1] (clamped) -> straight picture in [0, 1], float32.

    Colour under alpha of less than half of 1/255 is lost in eight bits, and set to 0.
    """
    unit = (picture.float() / 2 + 0.5).clamp(0, 1)
    if unit.shape[1] != 4:
        return unit
    alpha = unit[:, 3:]
    visible = alpha >= 0.5 / 255
    colour = torch.where(visible, unit[:, :3] / alpha.clamp(min=0.5 / 255), 0.0)
    return torch.cat([colour.clamp(0, 1), alpha], dim=1)


def to_images(straight: Tensor) -> list[Image.Image]:
    """Straight picture [B, 1, 3 or 4, H, W] in [0, 1] -> Pillow pictures of mode L, RGB or RGBA."""
    pixels = (straight.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(p[..., 0] if p.shape[-1] == 1 else p)) for p in pixels]


def mask_tensor(mask: Image.Image) -> Tensor:
    """Mask picture -> [1,1,H,W] in [0, 1], 1 where the picture is repainted."""
    return torch.from_numpy(np.array(grey_mask(mask)))[None, None].float() / 255


def latent_mask(mask: Tensor, downscale: int) -> Tensor:
    """[1,1,H,W] -> [1,1,H/downscale,W/downscale]: 1 where any pixel of the square is repainted at all."""
    return F.max_pool2d((mask > 0).float(), downscale)


def put_back(made: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """`made` where the mask is 1, `original` bit for bit where it is 0, mixed between; all straight pictures.

    The result has alpha where either has it. Mixing weighs colours by their alpha.
    """
    made, original = same_channels(made, original)
    if made.shape[1] == 3:
        mixed = made * mask + original * (1 - mask)
    else:
        weight_made, weight_original = made[:, 3:] * mask, original[:, 3:] * (1 - mask)
        alpha = weight_made + weight_original
        colour = made[:, :3] * weight_made + original[:, :3] * weight_original
        mixed = torch.cat([colour / alpha.clamp(min=1e-6), alpha], dim=1)
    return torch.where(mask == 0, original, torch.where(mask == 1, made, mixed))


def same_channels(*pictures: Tensor) -> tuple[Tensor, ...]:
    """Straight pictures with alpha where any of them has it."""
    if all(picture.shape[1] == 3 for picture in pictures):
        return pictures
    return tuple(
        torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1) if picture.shape[1] == 3 else picture
        for picture in pictures
    )


def fitting_size(size: tuple[int, int], default: tuple[int, int], factor: int) -> tuple[int, int]:
    """Width and height for an input picture of `size` where the caller names none.

    Its own size where that is at most four times the model's own area, else that area in the picture's proportions;
    each side rounded to a multiple of `factor`.
    """
    width, height = size
    area = default[0] * default[1]
    near = _rounded(width, factor), _rounded(height, factor)
    if near[0] * near[1] <= 4 * area:
        return near
    scale = (area / (width * height)) ** 0.5
    return _rounded(width * scale, factor), _rounded(height * scale, factor)


def covering_size(size: tuple[int, int], default: tuple[int, int], factor: int) -> tuple[int, int]:
    """The same for a picture of which parts stay as they are: where it has its own size, no pixel of it is cut off."""
    width, height = fitting_size(size, default, factor)
    if abs(width - size[0]) < factor and abs(height - size[1]) < factor:
        return -(-size[0] // factor) * factor, -(-size[1] // factor) * factor
    return width, height


def _rounded(length: float, factor: int) -> int:
    return max(1, round(length / factor)) * factor

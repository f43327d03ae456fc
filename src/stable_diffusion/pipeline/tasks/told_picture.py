"""What networks with more input channels are told: a mask and a picture, a picture to edit, or a depth map.

Shapes: c latent channels, h w latent height and width, H W picture height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest
from ...request.pictures import cover
from ..image import mask_tensor, to_model
from .masks import Box

if TYPE_CHECKING:
    from ...request.request import Request
    from ..models import StableDiffusion
    from .init_image import Start

Extra = Literal["nothing", "masked picture", "picture", "depth"]


def extra_of(model: StableDiffusion) -> Extra:
    """What the model's U-Net is told; InvalidRequest where it takes a number of channels that none of our tasks has."""
    channels, taken = model.parts.latents.channels, model.parts.unet.config.in_channels
    known: dict[int, Extra] = {
        channels: "nothing",
        2 * channels + 1: "masked picture",
        2 * channels: "picture",
        channels + 1: "depth",
    }
    if taken not in known:
        raise InvalidRequest(
            f"the model's U-Net takes {taken} channels; expected {channels}, {2 * channels + 1} (inpainting), "
            f"{2 * channels} (instruct-pix2pix) or {channels + 1} (depth)"
        )
    return known[taken]


def image_conditioning(model: StableDiffusion, request: Request, size: tuple[int, int], start: Start) -> Tensor | None:
    """What the network is told besides the latent, [1,K,h,w] for a run of `size` (width, height); None for nothing.

    Inpainting networks are told the mask and the latent of the picture with the masked part grey; without a mask
    everything is masked.
    """
    extra = extra_of(model)
    if extra == "nothing":
        return None
    if extra == "picture":
        if start.image is None:
            raise InvalidRequest("this model edits pictures (instruct-pix2pix); give the picture as image")
        return told_picture(model, start.image, *size)
    if extra == "depth":
        if request.depth is None:
            raise InvalidRequest("this model is guided by depth; give a depth map, near is white, as depth")
        return told_depth(model, part_of(request.depth, request, start.box), *size)
    width, height = size
    pixels = torch.zeros(1, model.parts.vae.config.image_channels, height, width)
    mask = torch.ones(1, 1, height // model.factor, width // model.factor)
    if start.image is not None and start.hidden is not None and start.mask is not None:
        whole = to_model(start.image, pixels.shape[1])
        pixels, mask = torch.where(start.hidden >= 0.5, pixels, whole), (start.mask > 0).float()
    latent = model.image_encoder(pixels)
    return torch.cat([mask.to(latent), latent], dim=1)


def part_of(picture: Image.Image, request: Request, box: Box | None) -> Image.Image:
    """Of a picture that lies on the request's image, pixel by pixel, the part that is painted; else all of it."""
    if box is None or request.image is None or picture.size != request.image.size:
        return picture
    return picture.crop(box)


def told_picture(model: StableDiffusion, image: Image.Image, width: int, height: int) -> Tensor:
    """The picture that an instruct-pix2pix network edits, as a latent that is not scaled: [1,c,h,w]."""
    latent = model.image_encoder(to_model(cover(image, width, height), model.parts.vae.config.image_channels))
    return model.image_encoder.latents.denormalise(latent)


def told_depth(model: StableDiffusion, depth: Image.Image, width: int, height: int) -> Tensor:
    """A depth map, near is white, as a depth-guided network is told it: [1,1,h,w], stretched to [-1, 1]."""
    return scaled_depth(mask_tensor(cover(depth, width, height)), model.factor)


def scaled_depth(depth: Tensor, factor: int) -> Tensor:
    """[1,1,H,W] of any range -> [1,1,H/factor,W/factor] from -1 (far) to 1 (near)."""
    size = (depth.shape[-2] // factor, depth.shape[-1] // factor)
    small = F.interpolate(depth.float(), size=size, mode="bicubic", align_corners=False)
    low, high = small.amin(), small.amax()
    return torch.zeros_like(small) if bool(high == low) else 2 * (small - low) / (high - low) - 1

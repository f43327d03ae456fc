"""What pictures are to a run: the latent to start from, where it is repainted, and the channels beside the latent.

Networks with more input channels are given a mask and a picture (inpainting), a picture to edit (instruct-pix2pix), or
a depth map. Shapes: c latent channels, h w latent size, H W picture size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image, ImageChops
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.schedule import EDMSchedule
from ...errors import InvalidRequest
from ...request.pictures import cover, plain_mode
from ...request.request import Request
from ..image import covering_size, latent_mask, mask_tensor, put_back, same_channels, to_model, to_straight
from .given_pictures import framed, ready_mask
from .masks import Box, blurred_mask, extended, fill_masked, pasted, region_box, soft_edge, soft_latent_mask
from .seamless import Wrapped

if TYPE_CHECKING:
    from ..models import StableDiffusion
    from ..resolve import Resolved

InputKind = Literal["latent", "masked image", "image", "depth"]


def input_kind(model: StableDiffusion) -> InputKind:
    """What the model's U-Net takes: the latent alone, or beside it a masked image, an image or a depth map.

    InvalidRequest where it takes a number of channels that none of our tasks has.
    """
    channels, taken = model.parts.latents.channels, model.parts.unet.config.in_channels
    known: dict[int, InputKind] = {
        channels: "latent",
        2 * channels + 1: "masked image",
        2 * channels: "image",
        channels + 1: "depth",
    }
    if taken not in known:
        raise InvalidRequest(
            f"the model's U-Net takes {taken} channels; expected {channels}, {2 * channels + 1} (inpainting), "
            f"{2 * channels} (instruct-pix2pix) or {channels + 1} (depth)"
        )
    return known[taken]


@dataclass(frozen=True, kw_only=True)
class InitImage:
    """The picture that a run starts from, and its mask; None for what there is not.

    latent, mask  [1,c,h,w] and [1,1,h,w]: where to start, and where it is repainted
    image, hidden the picture at the size of the run, and its mask in pixels [1,1,H,W]
    whole, shown  the straight picture that the result is put into, and how much of the result shows where
    box, inner    the part of `whole` that the run makes, and where that lies in what it makes; None where both are all
    step          sides that the run makes are multiples of it
    """

    latent: Tensor | None = None
    mask: Tensor | None = None
    image: Image.Image | None = None
    hidden: Tensor | None = None
    whole: Tensor | None = None
    shown: Tensor | None = None
    box: Box | None = None
    inner: Box | None = None
    step: int = 8

    def put_back(self, straight: Tensor) -> Tensor:
        """Generated straight pictures [B,C,H,W] with what was kept put back."""
        if self.whole is None or self.shown is None:
            return straight
        straight, whole = same_channels(straight, self.whole)
        whole = whole.expand(len(straight), -1, -1, -1)
        if self.box is not None and self.inner is not None:
            left, top, right, bottom = self.inner
            straight = pasted(straight[..., top:bottom, left:right], whole, self.box)
        return put_back(straight, self.whole.expand(len(straight), -1, -1, -1), self.shown)

    def crop(self, picture: Image.Image, request: Request) -> Image.Image:
        """Of a picture that lies on the image of the request, pixel by pixel, what the run makes; else all."""
        if self.box is None or request.image is None or picture.size != request.image.size:
            return picture
        part = picture.crop(self.box)
        if self.inner is None or self.image is None or self.inner == (0, 0, *self.image.size):
            return part
        return framed(plain_mode(part), self.image.size, self.step, edge=True)[0]


def prepare_init(model: StableDiffusion, resolved: Resolved) -> InitImage:
    """The start of a resolved request."""
    request, size = resolved.request, resolved.size
    if request.image is None:
        return InitImage()
    image, mask = request.image, request.mask
    if request.canvas.outpaint is not None:
        image, mask = extended(image, request.canvas.outpaint)
    if mask is None:
        image = cover(image, *size)
        if input_kind(model) == "image" and resolved.passes[0].strength == 1:
            return InitImage(image=image)  # such a model is given the picture, and starts from pure noise
        return InitImage(latent=_encode(model, request, image), image=image)
    image = plain_mode(image)
    mask = mask if request.mask is None else ready_mask(request, image)[0]
    soft = blurred_mask(mask, resolved.blur)
    # what outpainting adds has nothing beneath it that could show: its mask runs into the old part alone
    mask = ImageChops.lighter(soft, mask) if request.canvas.outpaint is not None else soft
    whole, part, box, inner = _fitted(model, resolved, image, mask)
    hidden = mask_tensor(part[1])
    start = fill_masked(*part) if resolved.fill == "fill" else part[0]
    latent = _encode(model, request, start)
    coarse = soft_latent_mask if request.inpaint.soft else latent_mask
    shown = mask_tensor(whole[1])
    return InitImage(
        latent=latent,
        mask=coarse(hidden, model.factor).to(latent.device),
        image=part[0],
        hidden=hidden,
        whole=to_straight(whole[0]),
        shown=soft_edge(shown) if request.inpaint.soft else shown,
        box=box,
        inner=inner,
        step=model.factor,
    )


Pair = tuple[Image.Image, Image.Image]


def _fitted(
    model: StableDiffusion, resolved: Resolved, image: Image.Image, mask: Image.Image
) -> tuple[Pair, Pair, Box | None, Box | None]:
    """(picture and mask as they come out, the same as the run makes them, the part of the former that is the latter,
    where it lies in the latter)"""
    size, own = resolved.size, (model.defaults.width, model.defaults.height)
    if resolved.request.inpaint.only_masked:
        box = region_box(mask, resolved.padding, size)
    elif image.size != size and covering_size(image.size, own, model.factor) == size:
        box = (0, 0, *image.size)
    else:
        both = cover(image, *size), cover(mask, *size)
        return both, both, None, None
    closer, inner = framed(image.crop(box), size, model.factor, edge=True)
    hidden, _ = framed(mask.crop(box), size, model.factor, edge=False)
    return (image, mask), (closer, hidden), box, inner


def _encode(model: StableDiffusion, request: Request, image: Image.Image) -> Tensor:
    with Wrapped(request.canvas.wrap):
        return model.image_encoder(image)


# --- channels beside the latent ---------------------------------------------------------------------------------------


def image_conditioning(
    model: StableDiffusion, request: Request, size: tuple[int, int], init: InitImage
) -> Tensor | None:
    """What the network is given beside the latent, [1,K,h,w] for a pass of `size` (width, height); None for nothing.

    Inpainting networks are given the mask and the latent of the picture with the masked part grey; without a mask
    everything is masked.
    """
    kind = input_kind(model)
    if kind == "latent":
        return None
    if kind == "image":
        if init.image is None:
            raise InvalidRequest("this model edits pictures (instruct-pix2pix); give the picture as image")
        latent = model.image_encoder(cover(init.image, *size))
        if isinstance(model.parts.schedule, EDMSchedule):  # the edit form of CosXL is given latents at their own scale
            return latent
        return model.image_encoder.latents.denormalise(latent)
    if kind == "depth":
        if request.depth is None:
            raise InvalidRequest("this model is guided by depth; give a depth map, near is white, as depth")
        return depth_latent(mask_tensor(cover(init.crop(request.depth, request), *size)), model.factor)
    width, height = size
    pixels = torch.zeros(1, model.parts.vae.config.image_channels, height, width)
    mask = torch.ones(1, 1, height // model.factor, width // model.factor)
    if init.image is not None and init.hidden is not None and init.mask is not None:
        whole = to_model(init.image, pixels.shape[1])
        pixels, mask = torch.where(init.hidden >= 0.5, pixels, whole), (init.mask > 0).float()
    latent = model.image_encoder(pixels)
    return torch.cat([mask.to(latent), latent], dim=1)


def depth_latent(depth: Tensor, factor: int) -> Tensor:
    """A depth map as its network is given it, [1,1,H,W] of any range -> [1,1,H/factor,W/factor], -1 far to 1 near."""
    size = (depth.shape[-2] // factor, depth.shape[-1] // factor)
    small = F.interpolate(depth.float(), size=size, mode="bicubic", align_corners=False)
    low, high = small.amin(), small.amax()
    return torch.zeros_like(small) if bool(high == low) else 2 * (small - low) / (high - low) - 1

"""What a picture and a mask are to a run: the latent to start from, where it is repainted, where the result goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from ...request.pictures import cover, grey_mask
from ...request.request import Request
from ..image import latent_mask, mask_tensor, put_back, same_channels, to_straight
from .masks import Box, blurred_mask, extended, filled, pasted, region_box, soft_edge, soft_latent_mask
from .seamless import Wrapped

if TYPE_CHECKING:
    from ..models import StableDiffusion


@dataclass(frozen=True, kw_only=True)
class Start:
    """None for what there is not.

    latent, mask  [1,c,h,w] and [1,1,h,w]: where to start, and where it is repainted
    image, hidden the picture at the size of the run, and its mask in pixels [1,1,H,W]
    whole, shown  the straight picture that the result is put into, and how much of the result shows where
    box           the part of `whole` that is painted, where it is not all of it
    """

    latent: Tensor | None = None
    mask: Tensor | None = None
    image: Image.Image | None = None
    hidden: Tensor | None = None
    whole: Tensor | None = None
    shown: Tensor | None = None
    box: Box | None = None

    def finished(self, straight: Tensor) -> Tensor:
        """Painted straight pictures [B,C,H,W] with what was kept put back."""
        if self.whole is None or self.shown is None:
            return straight
        straight, whole = same_channels(straight, self.whole)
        whole = whole.expand(len(straight), -1, -1, -1)
        if self.box is not None:
            straight = pasted(straight, whole, self.box)
        return put_back(straight, self.whole.expand(len(straight), -1, -1, -1), self.shown)


def start(model: StableDiffusion, request: Request) -> Start:
    """The start of a resolved request."""
    if request.image is None:
        return Start()
    assert request.width is not None and request.height is not None
    size = (request.width, request.height)
    image, mask = request.image, request.mask
    if request.canvas.outpaint is not None:
        image, mask = extended(image, request.canvas.outpaint)
    if mask is None:
        image = cover(image, *size)
        if model.denoising_process.edits and request.strength == 1:  # such a model is told the picture: pure noise
            return Start(image=image)
        return Start(latent=_encoded(model, request, image), image=image)
    mask = ImageOps.invert(grey_mask(mask)) if request.inpaint.invert else mask
    soft = blurred_mask(mask, request.inpaint.blur or 0)
    # what outpainting adds has nothing beneath it that could show: its mask runs into the old part alone
    mask = ImageChops.lighter(soft, mask) if request.canvas.outpaint is not None else soft
    whole, part, box = _fitted(request, image, mask, size)
    hidden = mask_tensor(part[1])
    seen = filled(*part) if request.inpaint.fill == "fill" else part[0]
    latent = _encoded(model, request, seen)
    coarse = soft_latent_mask if request.inpaint.soft else latent_mask
    shown = mask_tensor(whole[1])
    return Start(
        latent=latent,
        mask=coarse(hidden, model.factor).to(latent.device),
        image=part[0],
        hidden=hidden,
        whole=to_straight(whole[0]),
        shown=soft_edge(shown) if request.inpaint.soft else shown,
        box=box,
    )


Pair = tuple[Image.Image, Image.Image]


def _fitted(
    request: Request, image: Image.Image, mask: Image.Image, size: tuple[int, int]
) -> tuple[Pair, Pair, Box | None]:
    """(picture and mask as they come out, the same as they are painted, the part of the former that is the latter)."""
    if not request.inpaint.only_masked:
        both = cover(image, *size), cover(mask, *size)
        return both, both, None
    box = region_box(mask, request.inpaint.padding or 0, size)
    closer = [each.crop(box).resize(size, Image.Resampling.LANCZOS) for each in (image, mask)]
    return (image, mask), (closer[0], closer[1]), box


def _encoded(model: StableDiffusion, request: Request, image: Image.Image) -> Tensor:
    with Wrapped(request.canvas.wrap):
        return model.image_encoder(image)

"""POST /sdapi/v1/img2img as a request of the server's own API: start picture, mask, and how they come to size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from PIL import Image

from ...errors import InvalidRequest
from ...request.json import picture_base64
from ...request.pictures import RESIZES, grey_mask, plain_mode
from ...request.settings import FILLS
from ..errors import ApiError
from ..library import Library
from .bodies import Img2Img
from .options import Options
from .txt2img import Translated, Translator, merged

MODES = ("stretch", "crop", "fill", "stretch")
"""A1111's numbers of ways to bring the start picture to size; the last enlarges its latent."""
LATENT_RESIZE = 3
USUAL_IMAGE_GUIDANCE = 1.5


def img2img_settings(body: Img2Img, options: Options, library: Library) -> Translated:
    """The request, with the pictures as they were sent: `fit_pictures` brings them to size."""
    if not body.init_images:
        raise ApiError(404, "init_images is empty; expected a picture in base64", param="init_images")
    if len(body.init_images) > 1:
        raise InvalidRequest(f"init_images has {len(body.init_images)} pictures; expected one")
    found = Translator(body=body, options=options, library=library, has_image=True).translated()
    notes = list(found.notes)
    extra: dict[str, Any] = {"image": body.init_images[0]}
    if body.denoising_strength is not None:
        extra["strength"] = body.denoising_strength
    if body.image_cfg_scale not in (None, USUAL_IMAGE_GUIDANCE):
        extra["image_guidance"] = body.image_cfg_scale
    if body.mask:
        extra |= {"mask": body.mask, "inpaint": _inpaint(body, notes)}
    settings = merged(found.settings, extra)
    if not body.mask:  # soft inpainting and an infotext say nothing without a mask
        settings.pop("inpaint", None)
    _ignored_of_pictures(body, notes)
    return replace(found, settings=settings, notes=tuple(notes))


def _inpaint(body: Img2Img, notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "blur": _blur(body, notes),
        "fill": FILLS[body.inpainting_fill],
        "invert": body.inpainting_mask_invert != 0,
        "only_masked": body.inpaint_full_res,
    }
    if body.inpaint_full_res:
        found["padding"] = body.inpaint_full_res_padding
    if not body.mask_round:
        found["soft"] = True
    return found


def _blur(body: Img2Img, notes: list[str]) -> float:
    if body.mask_blur is not None:
        return body.mask_blur
    if body.mask_blur_x != body.mask_blur_y:
        notes.append("the mask is blurred alike in both directions: by the mean of mask_blur_x and mask_blur_y")
    return (body.mask_blur_x + body.mask_blur_y) / 2


def _ignored_of_pictures(body: Img2Img, notes: list[str]) -> None:
    if body.initial_noise_multiplier not in (None, 1.0):
        notes.append("initial_noise_multiplier is ignored: the noise has the strength that the schedule says")
    if body.latent_mask and not body.mask:
        notes.append("latent_mask is ignored; send the mask as mask")
    if body.extra_images:
        notes.append("extra_images are ignored: they are of stable-diffusion.cpp")
    if body.resize_mode == LATENT_RESIZE:
        notes.append("the picture itself is resized, not its latent")


def needs_fitting(body: Img2Img, size: tuple[int, int]) -> bool:
    """Whether a start picture of this size is brought to another one before the run.

    The part around a mask is cut out of the picture in its own size, and a request without a size keeps the picture's.
    """
    if body.mask and body.inpaint_full_res:
        return False
    return body.width is not None and body.height is not None and size != (body.width, body.height)


def fit_pictures(
    body: Img2Img, settings: Mapping[str, Any], image: Image.Image, mask: Image.Image | None
) -> dict[str, Any]:
    """The settings with start picture and mask at the width and height of the body, resized as `resize_mode` says."""
    assert body.width is not None and body.height is not None
    resize = RESIZES[MODES[body.resize_mode]]
    found = {**settings, "image": picture_base64(resize(plain_mode(image), body.width, body.height))}
    if mask is not None:
        fitted = grey_mask(mask)
        if mask.size != image.size:
            fitted = fitted.resize(image.size, Image.Resampling.BILINEAR)
        found["mask"] = picture_base64(resize(fitted, body.width, body.height))
    return found

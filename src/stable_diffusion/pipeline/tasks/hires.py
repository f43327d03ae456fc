"""The second pass of "hires fix": a finished small latent enlarged, and denoised again from part of the noise.

A model that works at a size it was not made for repeats things; one that starts from an enlarged small picture keeps
its composition. Names of upscalers and the meaning of steps are A1111's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest
from ...request.settings import Wrap
from ..image import from_model
from .masks import lanczos
from .seamless import resized

if TYPE_CHECKING:
    from ..models import StableDiffusion

MODES = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""Upscalers that interpolate the latent: torch's mode, and whether it is smoothed first where it shrinks. The other
upscalers, and those of files, enlarge the decoded picture and encode it again."""
HIRES_STRENGTH = 0.7
"""Strength of the second pass where none is given, as in A1111."""


def hires_size(width: int, height: int, scale: float, step: int) -> tuple[int, int]:
    """The size of the second pass: each side times `scale`, down to a multiple of `step` as A1111 cuts it."""
    sides = (int(side * scale + 1e-6) // step * step for side in (width, height))  # 1e-6: 704 may come as 703.9999
    large, high = (max(step, side) for side in sides)
    return large, high


def schedule_steps(steps: int, strength: float, most: int) -> int:
    """Steps of the whole schedule, of which the last `steps` are made at this strength: steps / strength, cut.

    A1111 and ComfyUI make as many steps in the second pass as asked for, whatever the strength; img2img elsewhere makes
    steps * strength. `steps` itself at strength 0, where none of them is made.
    """
    if strength == 0:
        return steps
    if steps > most * strength * (1 + 1e-9):
        raise InvalidRequest(
            f"{steps} hires steps at strength {strength:g} need a schedule of more than {most} steps; expected fewer "
            f"steps, or a strength of at least {steps / most:g}"
        )
    return int(steps / strength)


def share_of(steps: int, total: int) -> float:
    """The strength at which img2img makes the last `steps` of `total` steps, clear of rounding."""
    return min(1.0, (steps + 0.5) / total)


def enlarged(model: StableDiffusion, latent: Tensor, size: tuple[int, int], upscaler: str, wrap: Wrap) -> Tensor:
    """The latent [B,c,h,w] of a finished picture at `size` (width, height in pixels); edges that meet still meet."""
    height, width = size[1] // model.factor, size[0] // model.factor
    if upscaler in MODES:
        return resized(latent, wrap, height, width, lambda x, h, w: _interpolated(x, h, w, *MODES[upscaler]))
    picture = model.image_decoder.tensor(latent).clamp(-1, 1)
    resize = RESIZES.get(upscaler) or _network_resize(upscaler, str(model.denoising_process.network.device))
    large = resized(picture, wrap, size[1], size[0], resize).clamp(-1, 1)
    return model.image_encoder(_valid(large))


def _interpolated(latent: Tensor, height: int, width: int, mode: str, smooth: bool) -> Tensor:
    return F.interpolate(latent, size=(height, width), mode=mode, antialias=smooth)


RESIZES: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "Lanczos": lanczos,
    "Nearest": partial(_interpolated, mode="nearest-exact", smooth=False),
}
"""Upscalers of the decoded picture that need no file."""


def _network_resize(path: str, device: str) -> Callable[[Tensor, int, int], Tensor]:
    """Enlarges pictures as the model has them by the upscaler in a file, then resamples to the size."""
    from ...upscaling.network import load_upscaler
    from ...upscaling.picture import enlarged_tensor, last_value

    upscaler = load_upscaler(path, device)

    def resize(picture: Tensor, height: int, width: int) -> Tensor:
        made = []
        for straight in from_model(picture):
            large = last_value(enlarged_tensor(straight[None].float(), upscaler, (width, height)))
            large = lanczos(large, height, width).clamp(0, 1)
            if large.shape[1] == 4:
                large = torch.cat([large[:, :3] * large[:, 3:], large[:, 3:]], dim=1)
            made.append(large * 2 - 1)
        return torch.cat(made).to(picture)

    return resize


def _valid(picture: Tensor) -> Tensor:
    """Premultiplied colour is never more than alpha; a filter that overshoots may say otherwise."""
    if picture.shape[1] != 4:
        return picture
    straight = from_model(picture)
    alpha = straight[:, 3:]
    premultiplied = straight.clone()
    premultiplied[:, :3] = straight[:, :3] * alpha
    return premultiplied * 2 - 1

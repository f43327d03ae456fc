"""What is behind the thing that was asked for: nothing, one colour, or a whole scene.

A model whose pictures have alpha decides by the prompt whether it makes a thing cut out or a picture that is full to
its edges. So a background generates twice at most: from the prompt as it stands, and where that came out otherwise,
from the prompt with words of the model's own captions that mean the background. What still has holes or none is
composited or warned of.

Shapes: B pictures, H W their size. Pictures are straight (see `image`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest
from ...request.settings import SCENE, TRANSPARENT, WHITE
from ...text.prompt import split_and
from .masks import push_pull

if TYPE_CHECKING:
    from ...request.request import Request
    from ..models import StableDiffusion

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
WORDS = {
    False: ("{} on a transparent background", "透明背景的{}"),
    True: ("{} in a meadow under a blue sky", "蓝天下的草地，{}"),
}
"""Whether a scene is wanted -> how captions say it, in English and in Chinese."""
EDGE = 1 / 16
"""The part of a side that counts as the picture's edge."""
FULL_EDGE = 0.5
"""Mean alpha of the edge from which on a picture is no cut-out."""
HOLES = 0.02
"""Share of pixels more clear than opaque up to which a picture counts as full."""


def check_model(model: StableDiffusion, background: str | None) -> None:
    """InvalidRequest where a cut-out is asked of a model whose pictures have no alpha."""
    if background == TRANSPARENT and not has_alpha(model):
        raise InvalidRequest(
            f"background is 'transparent', but the model {model.name!r} paints opaque pictures only; expected a model "
            "with alpha such as the built-in one, or no background"
        )


def background_notes(model: StableDiffusion, request: Request) -> Iterator[str]:
    """What is ignored: a colour behind pictures that are opaque. A scene is what such a model makes."""
    if request.background not in (None, TRANSPARENT, SCENE) and not has_alpha(model):
        yield f"background is ignored: the model {model.name!r} paints opaque pictures only, with a ground of their own"


def has_alpha(model: StableDiffusion) -> bool:
    return model.parts.vae.config.image_channels == 4


def with_background_words(request: Request) -> Request | None:
    """The request with words for its background; None where there is nothing to say.

    Pictures that begin with another picture have its background, and prompts joined by `AND` have no end of their own.
    """
    if request.background is None or request.image is not None or len(split_and(request.prompt)) > 1:
        return None
    english, chinese = WORDS[request.background == SCENE]
    words = chinese if _CHINESE.search(request.prompt) else english
    try:
        return request.with_changes(prompt=words.format(request.prompt))
    except InvalidRequest:  # the prompt is as long as a prompt may be
        return None


def matches(straight: Tensor, background: str | None) -> Tensor:
    """Whether pictures [B,C,H,W] came out as the background needs them, bool [B]: a thing alone, or a full picture."""
    if straight.shape[1] != 4 or background is None:
        return torch.ones(len(straight), dtype=torch.bool)
    return is_full(straight) if background == SCENE else edge_alpha(straight) < FULL_EDGE


def is_full(straight: Tensor) -> Tensor:
    """Whether pictures [B,4,H,W] are meant to fill their frame, bool [B]; not where alpha is no number."""
    return (~(straight[:, 3] >= 0.5)).double().flatten(1).mean(dim=1) <= HOLES


def edge_alpha(straight: Tensor) -> Tensor:
    """Mean alpha [B] along the four edges of pictures [B,4,H,W]."""
    alpha = straight[:, 3]
    wide = max(1, round(min(alpha.shape[1:]) * EDGE))
    inner = F.pad(torch.ones_like(alpha[:, wide:-wide, wide:-wide]), (wide,) * 4)
    return (alpha * (1 - inner)).flatten(1).sum(dim=1) / (1 - inner).flatten(1).sum(dim=1)


def composite(straight: Tensor, background: str | None, *, whole: bool = True, ring: bool = False) -> Tensor:
    """Pictures [B,C,H,W] on their background: [B,4,H,W], or [B,3,H,W] on a colour and as a scene.

    ring  left and right meet: holes are closed across them

    Without a background, or with "transparent", alpha stays; full pictures become opaque where they are generated as a
    `whole` (no part of them was given). Pictures without alpha are given back.
    """
    if straight.shape[1] != 4:
        return straight
    if background is None or background == TRANSPARENT:
        full = is_full(straight)[:, None, None, None] & whole
        if not bool(full.any()):
            return straight
        return torch.where(full, torch.cat([close_holes(straight), torch.ones_like(straight[:, 3:])], dim=1), straight)
    if background == SCENE:
        return _close_ring(straight) if ring else close_holes(straight)
    colour, alpha = straight[:, :3], straight[:, 3:]
    return colour * alpha + rgb(background).to(straight)[:, None, None] * (1 - alpha)


def close_holes(straight: Tensor) -> Tensor:
    """[B,4,H,W] -> opaque [B,3,H,W]: more clear than opaque places take the colours around them."""
    colour, alpha = straight[:, :3].double(), straight[:, 3:]
    rows = [push_pull(c[None], (a[None] >= 0.5).double()) for c, a in zip(colour, alpha, strict=True)]
    return torch.cat(rows).clamp(0, 1).to(straight)


def _close_ring(straight: Tensor) -> Tensor:
    """`close_holes` of pictures whose left and right edges meet."""
    width = straight.shape[-1]
    return close_holes(torch.cat([straight] * 3, dim=-1))[..., width : 2 * width]


def rgb(background: str) -> Tensor:
    """A colour's red, green and blue, from 0 to 1."""
    digits = "ffffff" if background == WHITE else background[1:]
    return torch.tensor(list(bytes.fromhex(digits))) / 255


def warn_mismatch(straight: Tensor, background: str | None, *, whole: bool = True) -> Iterator[str]:
    """Plain sentences on pictures [B,C,H,W] that are not what the background asks, as they came out in the end."""
    if not whole or bool(matches(straight, background).all()):
        return
    if background == SCENE:
        yield "the model painted no whole scene for this prompt, so its ground is a film of the colours around it"
    else:
        yield f"background {background} shows little: the model painted a full picture, not one thing cut out"

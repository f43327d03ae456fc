"""Pictures as CLIP's image towers want them.

Source: the released preprocessing of CLIP (Radford et al. 2021): shorter side to the tower's size by Pillow's bicubic
filter, the middle square, and each channel normalised by its mean and spread over CLIP's training pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..request.pictures import plain_mode

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: Sequence[Image.Image], size: int = 224) -> Tensor:
    """Pictures of any size and mode -> [B,3,size,size] float32; transparent parts are shown over white."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return torch.stack([(_square(image, size) / 255 - mean) / std for image in images])


def _square(image: Image.Image, size: int) -> Tensor:
    """The middle square of a picture, [3,size,size] in 0 to 255."""
    shown = plain_mode(image)
    if shown.mode == "RGBA":
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    shorter = min(shown.size)
    # the longer side is cut to a whole number of pixels, as transformers' processor does
    width, height = (size if side == shorter else int(side * size / shorter) for side in shown.size)
    shown = shown.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(shown.crop((left, top, left + size, top + size)), dtype=np.float32)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

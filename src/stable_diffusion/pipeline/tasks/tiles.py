"""Large pictures decoded in tiles, where the decoder would need more memory than there is.

The decoder's memory grows with the area of the picture, while what it makes of a place depends almost on its
neighbourhood alone. Tiles overlap, and fade into one another over the overlap as those of diffusers do; the norms of
the decoder see a tile and not the picture, so that colours can differ by a shade from the picture decoded whole.

Shapes: c h w latent channels, height and width; C H W those of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...models.tiny_vae import TinyVAEConfig
from ...models.vae import VAEConfig

TILE = 64
"""Side of a tile in latents: the size of the pictures that most autoencoders were trained on."""
LEAST = 16
OVERLAP = 0.25
"""Share of a tile's side that it has in common with the next one."""
LIVE = 6
"""Feature maps of the largest size that are in memory at once: the input of a residual block, what its norm and its
convolution make of it, and the copies that convolutions make."""


def decoding_bytes(config: VAEConfig | TinyVAEConfig, height: int, width: int, itemsize: int) -> int:
    """About how much memory decoding a latent [1,c,height,width] takes at its largest, weights not counted."""
    if isinstance(config, TinyVAEConfig):
        return LIVE * config.width * height * width * config.downscale**2 * itemsize
    largest, scale = 0, 1
    for stage in config.decoder_stages():
        largest = max(largest, max(max(channels) for channels in stage.blocks) * height * width * scale**2)
        scale = scale * 2 if stage.resample else scale
        largest = max(largest, stage.channels * height * width * scale**2)
    return LIVE * largest * itemsize


def decode_tiled(decode: Callable[[Tensor], Tensor], latent: Tensor, downscale: int, tile: int = TILE) -> Tensor:
    """The picture [1,C,H,W] of a latent [1,c,h,w] by `decode`, which is called for one tile of `tile` latents a side at
    a time; the picture is on the CPU, in float32."""
    height, width = latent.shape[-2:]
    total: Tensor | None = None
    weights = torch.zeros(1, 1, height * downscale, width * downscale)
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            piece = decode(latent[..., top : top + tile, left : left + tile]).to("cpu", torch.float32)
            fade = _fade(piece.shape[-2], tile * downscale)[:, None] * _fade(piece.shape[-1], tile * downscale)
            if total is None:
                total = torch.zeros(1, piece.shape[1], height * downscale, width * downscale)
            place = (
                ...,
                slice(top * downscale, top * downscale + piece.shape[-2]),
                slice(left * downscale, left * downscale + piece.shape[-1]),
            )
            total[place] += piece * fade
            weights[place] += fade
    assert total is not None  # a latent has a tile at least
    return total.div_(weights)


def _starts(length: int, tile: int) -> Iterator[int]:
    """First places of tiles that are spread evenly and overlap by at least the share `OVERLAP`."""
    if tile >= length:
        yield 0
        return
    step = tile - int(tile * OVERLAP)
    count = -(-(length - tile) // step) + 1
    yield from (round(index * (length - tile) / (count - 1)) for index in range(count))


def _fade(length: int, tile: int) -> Tensor:
    """[length]: weights of the pixels of a tile, which rise from the edge to 1 over the overlap."""
    rise = max(int(tile * OVERLAP), 1)
    steps = torch.arange(length, dtype=torch.float32)
    return ((torch.minimum(steps, length - 1 - steps) + 1) / rise).clamp(max=1.0)

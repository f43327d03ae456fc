"""Where each word of a prompt acts in a picture: cross-attention maps, recorded from outside the network.

    with record_attention(model.parts.unet) as maps:
        *_, last = model.denoising_process("a red cat", seed=1)
    for word, positions in model.text_encoder.words("a red cat"):
        heat = maps.heat(positions)  # [h, w]

The maps are those of Hertz et al. 2022, "Prompt-to-prompt" (section 3.1), averaged over heads, layers and steps (Tang
et al. 2022, "What the DAAM", equation 5). Recording computes every attention a second time; nothing else is slower.

Recorded are the calls that the thread (or task) inside the block makes, of this network or of one that shares its
weights, such as a run with LoRAs has. What other threads do with it meanwhile is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..nn.attention import Attention, SpatialTransformer


class AttentionMaps:
    """The running mean of a network's cross-attention: for every token, a map [h, w] at the finest resolution seen."""

    def __init__(self, row: int = 0) -> None:
        self.row = row
        self.count = 0
        self._total: Tensor | None = None  # [T, h, w]
        self._size = (0, 0)

    def add(self, weights: Tensor, size: tuple[int, int]) -> None:
        """weights [B, heads, h w, T] of one attention over a feature map of `size` (h, w)."""
        row = weights[self.row].mean(dim=0).transpose(0, 1).reshape(-1, *size).float().cpu()  # [T, h, w]
        if self._total is not None and row.shape[0] != self._total.shape[0]:
            return  # the negative prompt in a call of its own, of another length
        larger = (max(self._size[0], size[0]), max(self._size[1], size[1]))
        total = torch.zeros(row.shape[0], *larger) if self._total is None else self._scaled(self._total, larger)
        self._total = total + self._scaled(row, larger)
        self._size = larger
        self.count += 1

    def heat(self, positions: Sequence[int]) -> Tensor:
        """How much the picture's places look at these tokens together: [h, w], a share of 1 at every place.

        InvalidRequest where nothing was recorded or a position is not in the prompt.
        """
        if self._total is None:
            raise InvalidRequest("no attention was recorded; run the model inside record_attention")
        wrong = next((p for p in positions if not 0 <= p < len(self._total)), None)
        if wrong is not None or not positions:
            raise InvalidRequest(
                f"the token positions are {list(positions)}; expected numbers below {len(self._total)}"
            )
        return self._total[list(positions)].sum(dim=0) / self.count

    @staticmethod
    def _scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
        if maps.shape[1:] == size:
            return maps
        return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


_RECORDERS: ContextVar[tuple[AttentionMaps, ...]] = ContextVar("recorders of attention", default=())
"""Those of the blocks that this thread or task is in. A hook sees every call of a module, and asks here whose it is."""


@contextmanager
def record_attention(unet: UNet | MMDiT, *, row: int = 0) -> Iterator[AttentionMaps]:
    """Record the cross-attention of every call inside the block; `row` of the batch, where the prompts come first.

    InvalidRequest for an MMDiT, in which text and picture share one attention.
    """
    if isinstance(unet, MMDiT):
        raise InvalidRequest("this model has no cross-attention to record: text and picture share one attention")
    maps = AttentionMaps(row)
    recorder = _RECORDERS.set((*_RECORDERS.get(), maps))
    hooks = [
        hook for module in unet.modules() if isinstance(module, SpatialTransformer) for hook in _watch(module, maps)
    ]
    try:
        yield maps
    finally:
        _RECORDERS.reset(recorder)
        for hook in hooks:
            hook.remove()


def _watch(transformer: SpatialTransformer, maps: AttentionMaps) -> Iterator[Any]:
    """Hooks that remember the size of the feature map, and then each cross-attention over it."""
    size = [0, 0]

    def remember(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if maps in _RECORDERS.get():
            size[:] = arguments[0].shape[-2:]

    @torch.no_grad()
    def record(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, Attention)
        if maps in _RECORDERS.get():
            maps.add(module.weights(*arguments), (size[0], size[1]))

    yield transformer.register_forward_pre_hook(remember)
    for block in transformer.blocks:
        attention = block.cross_attention
        assert isinstance(attention, Attention)
        yield attention.register_forward_hook(record)

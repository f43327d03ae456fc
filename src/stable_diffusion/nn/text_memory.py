"""Cross-attention that remembers the keys and values of a text: a run asks with the same tokens at every step.

The numbers are those of `Attention`, computed once. Which text is meant is known by the tensor object itself, so that
whoever asks with another tensor gets the keys of that one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import Attention

MOST = 4
"""Texts that are remembered: the prompt and the negative prompt, and those of a prompt that alternates."""


class TextMemory(Attention):
    """A cross-attention over the weights of another, for one run; what it remembers belongs to this run alone."""

    def __init__(self, shared: Attention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(shared.__dict__)
        self._texts: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            plain: Tensor = super().forward(x, context)
            return plain
        key, value = self._read(context)
        query = self.split_heads(self.query(x))
        out: Tensor = self.out(self.mix(query, key, value).transpose(1, 2).flatten(2))
        return out

    def _read(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a text [B,S,context_width], each [B,h,S,d]."""
        texts = self._texts
        for known, key, value in texts:
            if known is context:
                return key, value
        key, value = self.split_heads(self.key(context)), self.split_heads(self.value(context))
        self._texts = [*texts[-MOST + 1 :], (context, key, value)]
        return key, value


def remembering(name: str, layer: nn.Module) -> nn.Module | None:
    """What takes the place of a plain cross-attention (see `sharing.with_layers`); None for all other layers."""
    if type(layer) is not Attention or not name.endswith("cross_attention"):
        return None
    return TextMemory(layer)

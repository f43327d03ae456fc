"""Prompts for Stable Diffusion 3, which has three text encoders.

Esser et al. 2024, "Scaling rectified flow transformers", section 4 and appendix B.3: the tokens of both CLIP encoders
stand side by side, filled up with zeros to the width of T5's, whose tokens follow them. The pooled vector is that of
both CLIP encoders, one after the other. T5 may be left out, as it was for a part of the training: its tokens are then
zeros.

Shapes: T tokens in a window of CLIP, n windows, D1 and D2 widths of CLIP's tokens, S tokens in a window of T5, m
windows, D width of T5's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.clip import CLIPText
from ..models.t5 import T5Encoder
from ..types import Conditioning
from .encode import EncodedPrompt, from_empty, listed_prompts
from .encode_two import PairedTextEncoder
from .prompt import parse_prompt
from .t5_tokenizer import CONTEXT
from .tokenizer import Tokenizer
from .windows import Window, split_windows


class TripleTextEncoder(PairedTextEncoder):
    """Two CLIP encoders and T5: tokens [B, n T + m S, D], vector [B, P1 + P2].

    A prompt that is too long for one window of T5 is read in several, like CLIP's, which break at places of their own.
    Weights act on T5's tokens as a way from those of the empty prompt, since their mean is near zero. Words of
    `embeddings` are plain text for T5.
    """

    def __init__(
        self,
        towers: Sequence[tuple[CLIPText, Tokenizer]],
        t5: tuple[T5Encoder, Tokenizer] | None,
        *,
        width: int,
        layer: int = -2,
    ) -> None:
        """`width` is D, the width of tokens that the network reads."""
        super().__init__(towers, layer=layer)
        self.t5, self.width = t5, width

    def __call__(self, prompts: str | Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
        """One row per prompt; prompts of fewer windows are filled up with empty ones."""
        prompts = listed_prompts(prompts)
        return self._with_t5(super().__call__(prompts, clip_skip=clip_skip), prompts)

    def encode(self, prompt: str, **settings: Any) -> EncodedPrompt:
        """One prompt with a report, which counts CLIP's tokens; `settings` are those of `TextEncoder.encode`."""
        read = super().encode(prompt, **settings)
        return replace(read, conditioning=self._with_t5(read.conditioning, [prompt]))

    def with_networks(self, networks: Mapping[nn.Module, nn.Module]) -> Self:
        made = super().with_networks(networks)
        if self.t5 is not None:
            made.t5 = networks.get(self.t5[0], self.t5[0]), self.t5[1]  # type: ignore[assignment]  # of the same class
        return made

    def _pooled(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(outputs), dim=-1)  # [1, P1 + P2]

    def _with_t5(self, clip: Conditioning, prompts: Sequence[str]) -> Conditioning:
        wide = F.pad(clip.tokens, (0, self.width - clip.tokens.shape[-1]))  # [B, n T, D]
        return replace(clip, tokens=torch.cat([wide, self._t5_tokens(prompts).to(wide)], dim=1))

    @torch.no_grad()
    def _t5_tokens(self, prompts: Sequence[str]) -> Tensor:
        """[B, m S, D] with as many windows as the longest prompt has."""
        if self.t5 is None:
            return torch.zeros(len(prompts), CONTEXT, self.width)
        read = [self._t5_windows(prompt, self.t5[1]) for prompt in prompts]
        most = max(map(len, read))
        rows = [[*windows, *[Window((), ())] * (most - len(windows))] for windows in read]
        return torch.cat([torch.cat([self._t5_window(w, *self.t5) for w in row], dim=1) for row in rows])

    @staticmethod
    def _t5_windows(prompt: str, tokenizer: Tokenizer) -> list[Window]:
        comma = tokenizer.encode(",")
        windows: list[Window] = []
        for section in parse_prompt(prompt):
            weighted = [(token, span.weight) for span in section for token in tokenizer.encode(span.text)]
            windows += split_windows(weighted, tokenizer.capacity, comma[-1] if comma else None)
        while len(windows) > 1 and not windows[-1].ids:
            windows.pop()
        return windows

    @staticmethod
    def _t5_window(window: Window, t5: T5Encoder, tokenizer: Tokenizer) -> Tensor:
        device = t5.token_embedding.weight.device

        def read(ids: Sequence[int]) -> Tensor:
            out: Tensor = t5(torch.tensor([tokenizer.window(ids)], device=device))  # [1, S, D]
            return out

        tokens = read(window.ids)
        if all(weight == 1.0 for weight in window.weights):
            return tokens
        weights = [*window.weights, *[1.0] * (tokenizer.context_length - len(window.weights))]
        factors = torch.tensor(weights, device=device)[None, :, None]  # [1, S, 1]
        return from_empty(tokens, read(()), factors)

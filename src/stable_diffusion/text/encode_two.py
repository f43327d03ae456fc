"""Prompts for models with one or two text encoders whose pooled sentence joins the size conditioning (SDXL).

Podell et al. 2023, "SDXL: improving latent diffusion models for high-resolution image synthesis", section 2.1: the
tokens of CLIP-L and OpenCLIP-bigG, each its last hidden layer but one without the final norm, stand side by side, and
the pooled vector is that of the latter. The refiner has the latter alone.

Shapes: T tokens in a window, n windows, D1 and D2 token widths, P pooled width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import BrokenModel, InvalidRequest
from ..models.clip import CLIPText
from ..types import Conditioning
from .encode import TextEncoder
from .tokenizer import Tokenizer
from .windows import Window


class PairedTextEncoder(TextEncoder):
    """One or two `TextEncoder`s as one: tokens [1, n T, D1 + D2], and the last one's pooled vector [1,P].

    Each has its own padding and weighs its own tokens. The pooled vector is that of the first window, as in A1111.
    Vectors of new words (`embeddings`) have the columns of all encoders side by side: [n, D1 + D2].
    """

    def __init__(
        self, towers: Sequence[tuple[CLIPText, Tokenizer]], *, layer: int = -2, zero_empty: bool = False
    ) -> None:
        (clip, tokenizer), *others = towers
        settings = {"layer": layer, "vector": True, "final_norm": False}
        super().__init__(clip, tokenizer, zero_empty=zero_empty, **settings)  # type: ignore[arg-type]
        self.others = tuple(TextEncoder(*each, **settings) for each in others)  # type: ignore[arg-type]
        self._joined: dict[str, Tensor] = {}
        for other in self.others:
            for name in ("context_length", "vocab_size"):
                ours, theirs = getattr(clip.config, name), getattr(other.clip.config, name)
                if ours != theirs:
                    raise BrokenModel(f"the text encoders have {name} {ours} and {theirs}; expected the same for both")

    @property
    def embeddings(self) -> Mapping[str, Tensor]:
        return self._joined

    @embeddings.setter
    def embeddings(self, embeddings: Mapping[str, Tensor]) -> None:
        widths = [encoder.clip.config.width for encoder in (self, *self.others)]
        for name, vectors in embeddings.items():
            if vectors.dim() != 2 or vectors.shape[1] != sum(widths):
                expected = " + ".join(map(str, widths))
                raise InvalidRequest(
                    f"the embedding {name!r} has shape {list(vectors.shape)}; expected [n, {expected}]"
                )
        split = {name: torch.split(vectors, widths, dim=1) for name, vectors in embeddings.items()}
        # mypy cannot see the setter of a property of the base class
        TextEncoder.embeddings.fset(self, {name: parts[0] for name, parts in split.items()})  # type: ignore[attr-defined]
        for index, other in enumerate(self.others):
            other.embeddings = {name: parts[index + 1] for name, parts in split.items()}
        self._joined = dict(embeddings)

    @torch.no_grad()
    def _condition(self, windows: Sequence[Window], clip_skip: int | None) -> Conditioning:
        layer = self.hidden_layer(clip_skip)
        outputs = self._outputs(windows, layer)
        tokens = torch.cat([tokens for tokens, _ in outputs], dim=1)  # [1, n T, D1 + D2]
        pooled = outputs[0][1]  # [1, P]
        return Conditioning(tokens=tokens, pooled=pooled, vector=pooled)

    def _outputs(self, windows: Sequence[Window], layer: int) -> list[tuple[Tensor, Tensor]]:
        towers = [super()._outputs(windows, layer), *(other._outputs(windows, layer) for other in self.others)]
        return [
            (torch.cat([tokens for tokens, _ in each], dim=-1), self._pooled([pooled for _, pooled in each]))
            for each in zip(*towers, strict=True)
        ]

    def _pooled(self, outputs: Sequence[Tensor]) -> Tensor:
        """What the model reads of all encoders' pooled vectors: the last one's."""
        return outputs[-1]

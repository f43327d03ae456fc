"""The CLIP text encoder.

Sources: Radford et al. 2021, "Learning transferable visual models from natural language supervision" (section 2.4; the
initialisation follows the released code); Cherti et al. 2023, "Reproducible scaling laws for contrastive language-image
learning" (OpenCLIP-H, the text encoder of Stable Diffusion 2).

Shapes: B batch, T tokens, D width, P width of the pooled vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest, unknown_choice
from ..nn.attention import Attention
from .config import ModelConfig, check_divisible

ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(ModelConfig):
    """Shape of a text encoder; the defaults are CLIP ViT-L/14's, the text encoder of Stable Diffusion 1.x.

    `projection_dim` None means that the pooled vector is not projected.
    """

    vocab_size: int = 49408
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    context_length: int = 77
    activation: str = "quick_gelu"
    projection_dim: int | None = None
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        check_divisible("width", self.width, self.heads, "the number of attention heads")
        if self.activation not in ACTIVATIONS:
            raise unknown_choice("activation", self.activation, ACTIVATIONS)
        if not 0 <= self.eos_token_id < self.vocab_size:
            raise InvalidRequest(f"eos_token_id is {self.eos_token_id}; expected a token under {self.vocab_size}")


class TextFeatures(NamedTuple):
    """`tokens` [B,T,D]: one vector per token, for cross-attention; `pooled` [B,P]: the sentence as one vector."""

    tokens: Tensor
    pooled: Tensor


class LayerShape(Protocol):
    """What a layer needs of a config; the image tower's has it too."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def activation(self) -> str: ...


class CLIPMLP(nn.Module):
    """linear, GELU (or its cheap look-alike x sigmoid(1.702 x)), linear."""

    def __init__(self, config: LayerShape) -> None:
        super().__init__()
        self.quick = config.activation == "quick_gelu"
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        out: Tensor = self.down(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))
        return out


class CLIPLayer(nn.Module):
    """Self-attention (`causal` in text) and MLP, each normed before and added to its input."""

    def __init__(self, config: LayerShape, *, causal: bool = True) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads, bias=True, causal=causal)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = CLIPMLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class CLIPText(nn.Module):
    """Token ids to one vector per token and one per sentence."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.layers = nn.ModuleList(CLIPLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.projection = None
        if config.projection_dim is not None:
            self.projection = nn.Linear(config.width, config.projection_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch; the outputs of the residuals shrink with the number of layers."""
        std = self.config.width**-0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for layer in self.layers:
            assert isinstance(layer, CLIPLayer)
            nn.init.normal_(layer.mlp.up.weight, std=std * 2**-0.5)
            for out in (layer.attention.out, layer.mlp.down):
                nn.init.normal_(out.weight, std=std * (2 * len(self.layers)) ** -0.5)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=std)

    def forward(
        self, ids: Tensor, *, layer: int = -1, final_norm: bool = True, extra: Tensor | None = None
    ) -> TextFeatures:
        """ids [B,T], T at most `context_length` -> TextFeatures.

        `layer` chooses whose output becomes `tokens`: -1 the last layer's, -2 the last but one's ("clip skip 2"), and
        so on; 0 the embeddings', 1 the first layer's. `final_norm` applies the final norm to them. `pooled` is always
        the last layer's output at the first end-of-text token, normed, and projected where there is a projection.
        `extra` [N,D] are vectors of words that the vocabulary lacks: id `vocab_size` + k means row k of it.
        InvalidRequest where T or `layer` is out of range.
        """
        length, depth = ids.shape[-1], len(self.layers)
        if length > self.config.context_length:
            raise InvalidRequest(f"{length} tokens were given; this text encoder takes {self.config.context_length}")
        if not -depth - 1 <= layer <= depth:
            raise InvalidRequest(f"layer is {layer}; expected {-depth - 1} to {depth}, as there are {depth} layers")
        x = self.embed(ids, extra) + self.position_embedding[:length]  # [B, T, D]
        outputs = [x]
        for block in self.layers:
            outputs.append(block(outputs[-1]))
        last = self.final_norm(outputs[-1])
        chosen = outputs[layer]
        if final_norm:
            chosen = last if layer in (-1, depth) else self.final_norm(chosen)
        return TextFeatures(chosen, self.pool(ids, last))

    def embed(self, ids: Tensor, extra: Tensor | None = None) -> Tensor:
        """ids [B,T] -> [B,T,D]: rows of the token embedding, and of `extra` [N,D] for ids beyond the vocabulary."""
        tokens: Tensor = self.token_embedding(ids if extra is None else ids.clamp(max=self.config.vocab_size - 1))
        if extra is None:
            return tokens
        beyond = ids - self.config.vocab_size  # [B, T]
        return torch.where(beyond[..., None] >= 0, extra[beyond.clamp(min=0)].to(tokens), tokens)

    def pool(self, ids: Tensor, x: Tensor) -> Tensor:
        """The row of x [B,T,D] at the first end-of-text token of ids [B,T], or the last row where there is none."""
        is_end = ids == self.config.eos_token_id  # [B, T]
        is_end = torch.cat((is_end[:, :-1], torch.ones_like(is_end[:, -1:])), dim=1)
        end = is_end.int().argmax(dim=-1)  # argmax gives the first maximum
        pooled = x[torch.arange(x.shape[0], device=x.device), end]  # [B, D]
        return pooled if self.projection is None else self.projection(pooled)  # [B, P]

"""ControlNet: a copy of the U-Net's way down that reads a picture, and adds what it finds to the U-Net's features.

Sources: Zhang, Rao & Agrawala 2023, "Adding conditional control to text-to-image diffusion models" (section 3.2: the
trainable copy and its zero convolutions; the tiny network that encodes the picture). The union form, one network for
many kinds of picture, is that of xinsir's ControlNet++ and of diffusers' ControlNetUnionModel.

Shapes: B batch, C channels, H W latent height and width, K channels of the picture, T text tokens, D token width,
V vector width, E time width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.embeddings import EmbeddingMLP, timestep_embedding
from ..types import Residuals
from .clip import CLIPLayer
from .config import check_divisible
from .unet import UNetConfig, UNetEncoder

TASK_HEADS = 8
TASK_SINUSOIDS = 256
"""Fourier features of each task's switch, as of the numbers on size in SDXL."""


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig(UNetConfig):
    """Shape of a ControlNet: that of the U-Net whose way down it copies, and of the encoder of the picture.

    hint_channels  channels of the picture (3)
    hint_widths    channels at each of its resolutions; from one to the next height and width halve
    tasks          kinds of picture that a union ControlNet tells apart; 0 for a plain one
    task_layers    transformer layers over the means of picture and latent (union only)
    pooled         what it adds are means over height and width, as of the ControlNet that reads shuffled pictures
    """

    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)
    tasks: int = 0
    task_layers: int = 1
    pooled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hint_widths:
            raise InvalidRequest("hint_widths is empty; a ControlNet needs at least one")
        if self.tasks:
            check_divisible("channels[0]", self.channels[0], TASK_HEADS, "the number of heads of the task layers")

    @property
    def hint_factor(self) -> int:
        """Pixels of the picture per latent, along one side."""
        return int(2 ** (len(self.hint_widths) - 1))


@dataclass(frozen=True)
class _TaskShape:
    """The shape of a union ControlNet's task layers."""

    width: int
    heads: int = TASK_HEADS
    activation: str = "quick_gelu"

    @property
    def mlp_width(self) -> int:
        return 4 * self.width


class HintEncoder(nn.Module):
    """Convolutions with SiLU between them, [B,K,fH,fW] -> [B,C,H,W]; the last one starts at zero."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        widths = config.hint_widths
        convs = [nn.Conv2d(config.hint_channels, widths[0], 3, padding=1)]
        for before, after in itertools.pairwise(widths):
            convs += [nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1, stride=2)]
        self.convs = nn.ModuleList([*convs, _zeroed(nn.Conv2d(widths[-1], config.channels[0], 3, padding=1))])

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs[:-1]:
            x = F.silu(conv(x))
        out: Tensor = self.convs[-1](x)
        return out


class Tasks(nn.Module):
    """What makes a union ControlNet know which kind of picture it sees: a learned vector and a switch per task."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        width = config.channels[0]
        self.embedding = nn.Parameter(torch.randn(config.tasks, width) * width**0.5)
        self.layers = nn.ModuleList(CLIPLayer(_TaskShape(width), causal=False) for _ in range(config.task_layers))
        self.shift = _zeroed(nn.Linear(width, width))
        self.switch_mlp = EmbeddingMLP(TASK_SINUSOIDS * config.tasks, config.time_dim)

    def time(self, task: int, like: Tensor) -> Tensor:
        """What the time embedding gets: [1,E]."""
        switches = F.one_hot(torch.tensor(task, device=like.device), len(self.embedding)).float()  # [tasks]
        out: Tensor = self.switch_mlp(timestep_embedding(switches, TASK_SINUSOIDS).flatten()[None].to(like.dtype))
        return out

    def forward(self, hint: Tensor, task: int) -> Tensor:
        """The encoded picture [B,C,H,W] with every channel shifted by what the task says of its mean.

        In the released code the layers attend over the batch instead of over picture and latent (their attention takes
        the first axis for the sequence). All rows of a guided picture hold the same picture and latent, so that there
        attention gives back each row's own value, whatever its queries and keys; here it does so in every batch.
        """
        mean = hint.mean(dim=(2, 3)) + self.embedding[task].to(hint.dtype)  # [B, C]
        for layer in self.layers:
            mean = layer(mean[:, None])[:, 0]  # sequences of length one
        shift: Tensor = self.shift(mean)
        return hint + shift[:, :, None, None]


class ControlNet(UNetEncoder):
    """A picture and the noisy latent to what is added to the U-Net's skips and middle."""

    config: ControlNetConfig

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config)
        self.hint = HintEncoder(config)
        self.outs = nn.ModuleList(_zeroed(nn.Conv2d(channels, channels, 1)) for channels in config.skip_channels())
        self.mid_out = _zeroed(nn.Conv2d(config.channels[-1], config.channels[-1], 1))
        self.tasks = Tasks(config) if config.tasks else None

    def encode_hint(self, picture: Tensor) -> Tensor:
        """picture [B,K,fH,fW] in [0, 1], f the factor between pixels and latents (8) -> [B,C,H,W].

        It does not depend on the latent: once per picture is enough.
        """
        out: Tensor = self.hint(picture)
        return out

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        tokens: Tensor,
        hint: Tensor,
        *,
        vector: Tensor | None = None,
        task: int | None = None,
    ) -> Residuals:
        """x, timestep, tokens and vector as for the U-Net, hint [1 or B,C,H,W] from `encode_hint` -> Residuals, which
        are [B,C,1,1] where the config says `pooled`.

        `task` is the kind of picture, for a union ControlNet only. InvalidRequest where it is missing or not wanted.
        """
        embedding = self.embed_time(x, timestep, vector)  # [B, E]
        if (self.tasks is None) != (task is None):
            wanted = "none is wanted" if self.tasks is None else f"expected 0 to {self.config.tasks - 1}"
            raise InvalidRequest(f"the task of a ControlNet is {task}; {wanted}")
        if self.tasks is not None and task is not None:
            if not 0 <= task < self.config.tasks:
                raise InvalidRequest(f"the task of a ControlNet is {task}; expected 0 to {self.config.tasks - 1}")
            embedding, hint = embedding + self.tasks.time(task, x), self.tasks(hint, task)
        mid, skips = self.encode(self.enter(x) + hint, F.silu(embedding), tokens)
        *down, last = (out(each) for out, each in zip((*self.outs, self.mid_out), (*skips, mid), strict=True))
        if self.config.pooled:
            *down, last = (each.mean(dim=(2, 3), keepdim=True) for each in (*down, last))
        return Residuals(down=tuple(down), mid=last)


def _zeroed(layer: nn.Module) -> nn.Module:
    """The same layer, starting at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

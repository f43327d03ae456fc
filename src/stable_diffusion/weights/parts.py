"""What loading a model gives: its networks, and all that the networks' shapes cannot say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..diffusion.prediction import Prediction
from ..errors import InvalidRequest
from ..latents import LatentFormat
from ..types import Schedule
from .containers.hashes import SHORT, hash_in_background, known_sha256

if TYPE_CHECKING:
    from ..models.clip import CLIPText
    from ..models.mmdit import MMDiT
    from ..models.t5 import T5Encoder
    from ..models.tiny_vae import TinyVAE
    from ..models.unet import UNet
    from ..models.vae import VAE


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings a model was made for, used where a request leaves them out. Sizes in pixels."""

    width: int = 512
    height: int = 512
    steps: int = 20
    guidance: float = 7.5
    sampler: str = "dpmpp_2m"
    schedule: str = "karras"

    def __post_init__(self) -> None:
        for name in ("width", "height", "steps"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidRequest(f"the default {name} is {value!r}; a whole number from 1 is expected")
        if not isinstance(self.guidance, (int, float)) or not math.isfinite(self.guidance):
            raise InvalidRequest(f"the default guidance is {self.guidance!r}; a finite number is expected")
        if not isinstance(self.sampler, str) or not isinstance(self.schedule, str):
            raise InvalidRequest(f"the default sampler is {self.sampler!r}, {self.schedule!r}; two names are expected")


@dataclass(frozen=True, kw_only=True)
class TokenizerSource:
    """Where a model's tokenizer comes from; one of three.

    `json` is the text of a tokenizer.json that lies inside the model file, `folder` a diffusers `tokenizer/` folder;
    where both are None it is CLIP's own vocabulary, which ships with the package. `pad_token_id` fills a prompt up to
    the context length (CLIP-L: 49407, the end token; OpenCLIP-H: 0); None means the tokenizer's own padding token.
    """

    json: str | None = None
    folder: Path | None = None
    pad_token_id: int | None = None


@dataclass(frozen=True)
class Source:
    """The file or folder that a model was read from; hashes are computed when first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """File name without its ending, or the folder's name; the repository's for a folder in the hub's cache, which
        has models--OWNER--NAME/snapshots/COMMIT."""
        if not self.path.is_dir():
            return self.path.stem
        *_, repository, snapshots, commit = ("", "", *self.path.absolute().parts)
        cached = snapshots == "snapshots" and repository.startswith("models--")
        return repository.rpartition("--")[2] if cached else commit

    @cached_property
    def sha256(self) -> str | None:
        """sha256 of the file, or None for a folder, which has no one hash."""
        return known_sha256(self.path) if self.path.is_file() else None

    def hash_in_background(self) -> None:
        """Begin to compute `sha256`, in the time that other threads leave."""
        if "sha256" not in self.__dict__ and self.path.is_file():
            hash_in_background(self.path)

    @property
    def short_hash(self) -> str | None:
        """The `Model hash` that A1111 writes into pictures, or None for a folder."""
        return None if self.sha256 is None else self.sha256[:SHORT]


@dataclass(frozen=True, kw_only=True)
class Card:
    """Who made a model and what may be done with it, as its file says; empty where it says nothing."""

    name: str = ""
    version: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A loaded model, part by part.

    `clip_layer` counts hidden layers from the end (-1 last, -2 the one before), and `text_norm` says whether its tokens
    pass the final norm. A second text encoder `clip2` reads the prompt with `tokenizer2`; its tokens stand beside the
    first one's, and the pooled vector is its alone. `size_numbers` says how many numbers on size the U-Net's vector has
    after the pooled text: 6 (original size, crop, target size), 5 (original size, crop, aesthetic score) or 0.
    `zero_empty` says that an empty negative prompt is all zeros. `guesses` says in plain sentences what neither the
    file nor the caller said.

    `unet` is the denoising network: a U-Net, or the MMDiT of Stable Diffusion 3. The latter reads the pooled vectors
    of both CLIP encoders, and after their tokens those of `t5` with `tokenizer3`, or zeros where it is left out.

    `device` and `dtype` are those that the networks were loaded with; dtype None means as they were stored.
    """

    unet: UNet | MMDiT
    vae: VAE | TinyVAE
    clip: CLIPText
    tokenizer: TokenizerSource
    latents: LatentFormat
    schedule: Schedule
    prediction: Prediction
    family: str
    defaults: Defaults
    clip_layer: int = -1
    text_norm: bool = True
    clip2: CLIPText | None = None
    tokenizer2: TokenizerSource | None = None
    t5: T5Encoder | None = None
    tokenizer3: TokenizerSource | None = None
    size_numbers: int = 0
    zero_empty: bool = False
    card: Card = field(default_factory=Card)
    source: Source | None = None
    guesses: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = torch.float32

    @property
    def full_vae(self) -> VAE:
        """The autoencoder, for what needs a whole one; InvalidRequest where it is a tiny one."""
        from ..models.vae import VAE

        if not isinstance(self.vae, VAE):
            raise InvalidRequest("the model's autoencoder is a tiny one; leave it out, so that the model has its own")
        return self.vae

"""What an evaluation finds: plain frozen records, ready for JSON, and the pictures shown beside them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..weights.containers.atomic import atomic_file
from .painter import Order

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """A share of right answers from 0 to 1: what chance gives, how many were asked, and one standard error."""

    value: float
    chance: float
    count: int

    @property
    def error(self) -> float:
        return math.sqrt(max(self.value * (1 - self.value), 0.0) / self.count)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Distances in the eye's features: painted to held-out pictures, and for scale as many training pictures to them.
    Those that end in `clip` are in the embeddings of a CLIP image encoder, where one was given.

    Reconstruction: held-out pictures through the autoencoder and back; PSNR in dB and SSIM over white.
    """

    frechet: float | None = None
    frechet_of_training: float | None = None
    kernel: float | None = None
    kernel_of_training: float | None = None
    frechet_clip: float | None = None
    frechet_clip_of_training: float | None = None
    cmmd_clip: float | None = None
    cmmd_clip_of_training: float | None = None
    painted: int = 0
    held_out: int = 0
    psnr: float | None = None
    ssim: float | None = None
    alpha_iou: float | None = None
    reconstructed: int = 0


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Painted pictures against sentences. `real` holds the same for held-out pictures: what the eye itself reaches.

    chinese_cosine        mean cosine between the pictures of a prompt and of its translation, equal seeds
    other_cosine          the same between a picture and the translations of other prompts
    """

    retrieval: Score
    retrieval_chinese: Score
    chinese_picture: Score
    chinese_cosine: float
    other_cosine: float
    colour: Score
    counting: Score
    relations: Score
    style: Score
    synonyms: Score
    chinese_words: Score
    real: Mapping[str, Score]


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Over seeds of one prompt, means over prompts; `seeds` is the highest possible Vendi score.

    pixel_distance is the root mean square difference of pixels. Memorisation: cosine distances to the nearest training
    picture; `repeated` is the share of painted pictures nearer than `threshold`, the 1st percentile of the training
    pictures' own nearest distances.
    """

    seeds: int
    prompts: tuple[str, ...]
    pixel_distance: float
    vendi: float | None = None
    vendi_by_prompt: tuple[float, ...] = ()
    vendi_of_held_out: float | None = None
    distance: float | None = None
    distance_between_prompts: float | None = None
    nearest_training: float | None = None
    nearest_training_of_held_out: float | None = None
    threshold: float | None = None
    repeated: float | None = None
    repeated_of_held_out: float | None = None
    training: int = 0


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Whether pictures that should be equal are, byte for byte; `largest` is the greatest difference in 1/255."""

    what: str
    equal: bool
    largest: int


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How far a picture moves from the one with the model's own settings: mean PSNR in dB and SSIM."""

    setting: str
    value: str
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Stability:
    equalities: tuple[Equality, ...]
    pictures: int
    not_finite: int
    extremes: int
    extremes_not_finite: int
    sensitivity: tuple[Sensitivity, ...]


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Seconds of one picture at the model's own settings (median), peak memory in bytes, floating-point operations.

    share = flops / seconds / peak_flops, where peak_flops is the machine's best measured matrix product.
    """

    seconds: float
    timed: int
    steps: int
    load_seconds: float | None
    peak_memory: int | None
    flops: int
    flops_text: int
    flops_decoder: int
    peak_flops: float
    share: float


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    what: str
    why: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """Pictures for the page [N * together, C, H, W]: N groups of so many pictures, with a caption for each group."""

    section: str
    title: str
    captions: tuple[str, ...]
    pictures: Tensor
    together: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything found; sections that could not be measured are None, and `left_out` says why."""

    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    seconds: float
    quality: Quality | None = None
    alignment: Alignment | None = None
    diversity: Diversity | None = None
    stability: Stability | None = None
    efficiency: Efficiency | None = None
    left_out: tuple[LeftOut, ...] = ()
    orders: tuple[Order, ...] = ()
    shown: tuple[Shown, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the pictures; numbers that are not finite become None."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "shown"}
        return {"format": f"stable_diffusion.evaluation.v{VERSION}", **_plain(values)}

    def save(self, path: Path) -> None:
        """The report as JSON, written atomically."""
        with atomic_file(path) as file:
            file.write(json.dumps(self.to_dict(), ensure_ascii=False, indent=2).encode() + b"\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Score):
        return {"value": value.value, "chance": value.chance, "count": value.count, "error": value.error}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What a run says while it goes on: plain data, which can be pickled, sent and shown anywhere.

Nothing here imports torch or Pillow, so that whoever only hands events on needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from .request.request import Request


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step is done. `index` of `total` steps, for picture `picture` (from 0) of `pictures`.

    `sigma` is the noise level at which the step began. `preview` is a small picture of what the model expects to come
    out: at every `preview_every`-th step of `generate`, where that was asked for, and else None.
    """

    index: int
    total: int
    sigma: float
    picture: int
    pictures: int
    preview: Image | None = None

    @property
    def fraction(self) -> float:
        """Share of the whole request that is done, 0 to 1."""
        return (self.picture + self.index / self.total) / self.pictures


@dataclass(frozen=True, kw_only=True)
class Images:
    """Finished pictures: numbers `first`, `first` + 1, ... of the request.

    `images` are Pillow pictures with the A1111 text in `info["parameters"]`; they are empty where the run was asked for
    tensors, which are then in `tensor` [B,C,H,W]. `requests` hold what made each one alone, and `notes` plain
    sentences on what was ignored or done otherwise than asked.
    """

    images: tuple[Image, ...]
    first: int
    requests: tuple[Request, ...]
    notes: tuple[str, ...] = ()
    tensor: Tensor | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        return tuple(request.seed for request in self.requests if request.seed is not None)

    def _repr_html_(self) -> str:
        """What a notebook shows: the pictures with their seeds, and the notes."""
        from .images import figures_html

        captions = [f"{request.prompt} · seed {request.seed}" for request in self.requests]
        return figures_html(self.images, captions, self.notes)


Event: TypeAlias = Progress | Images

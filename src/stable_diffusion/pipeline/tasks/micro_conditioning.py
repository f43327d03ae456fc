"""Size conditioning: what SDXL is told of a picture's size beside the text.

Podell et al. 2023, "SDXL", section 2.2 and appendix: each number becomes Fourier features, like a timestep, and they
follow the pooled text in the vector. Small training pictures and cropped ones could be used without their look leaking
into what is painted. The refiner is told an aesthetic score in place of the target size.

Shapes: B batch, P pooled width, V vector width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ...errors import InvalidRequest
from ...nn.embeddings import timestep_embedding
from ...request.fields import number, whole_numbers
from ...request.group import Group
from ...types import Conditioning

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SizeConditioning(Group):
    """Sizes in pixels as (width, height) and `crop` as (left, top); None means the size of the picture to be made.

    original   size of the training picture to be imitated    target   size after cropping, which is what is painted
    crop       how much was cut off at the left and top; (0, 0) centres the object
    aesthetic_score, negative_aesthetic_score   1 to 10, for the refiner alone
    """

    original: Pair | None = None
    crop: Pair = (0, 0)
    target: Pair | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5

    def __post_init__(self) -> None:
        for name in ("original", "target"):
            value = getattr(self, name)
            if value is not None:
                self._replace(**{name: tuple(whole_numbers(name, value, 2, 1, "(width, height)"))})
        self._replace(crop=tuple(whole_numbers("crop", self.crop, 2, 0, "(left, top)")))
        for name in ("aesthetic_score", "negative_aesthetic_score"):
            score = number(name, getattr(self, name), 1, 10)
            if score is None:
                raise InvalidRequest(f"{name} is None; expected a number from 1 to 10")
            self._replace(**{name: score})

    def numbers(self, size: Pair, count: int, *, negative: bool) -> list[float]:
        """The `count` numbers for a picture of `size` (width, height), heights first as the models were trained."""
        originally, target = self.original or size, self.target or size
        start = [originally[1], originally[0], self.crop[1], self.crop[0]]
        if count == 5:
            return [*start, self.negative_aesthetic_score if negative else self.aesthetic_score]
        return [*start, target[1], target[0]]


def with_size(conditioning: Conditioning, numbers: list[float], vector_dim: int) -> Conditioning:
    """The conditioning with the features of `numbers` after the pooled text [B,P] in its vector, [B,V].

    A vector that is complete already stays as it is. InvalidRequest where there is none, or its width does not fit.
    """
    vector = conditioning.vector
    if vector is None:
        raise InvalidRequest("the conditioning has no vector; expected the pooled text that this model needs")
    if vector.shape[-1] == vector_dim:
        return conditioning
    width, rest = divmod(vector_dim - vector.shape[-1], len(numbers))
    if rest or width <= 0 or width % 2:
        raise InvalidRequest(
            f"the conditioning's vector has {vector.shape[-1]} numbers; {vector_dim} of the U-Net leave no room for "
            f"{len(numbers)} sizes"
        )
    told = torch.tensor(numbers, dtype=torch.float32, device=vector.device)
    features = timestep_embedding(told, width).flatten().to(vector.dtype)  # [numbers * width]
    return replace(conditioning, vector=torch.cat([vector, features.expand(len(vector), -1)], dim=-1))

"""Size conditioning: what SDXL is told of a picture's size beside the text.

Podell et al. 2023, "SDXL", section 2.2 and appendix: each number becomes Fourier features, like a timestep, and they
follow the pooled text in the vector. Small training pictures and cropped ones could be used without their look leaking
into what is painted. The refiner is told an aesthetic score in place of the target size.

Shapes: B batch, P pooled width, V vector width.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ...errors import InvalidRequest
from ...nn.embeddings import timestep_embedding
from ...types import Conditioning


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

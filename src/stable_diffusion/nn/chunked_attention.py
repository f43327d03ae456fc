"""Attention of long sequences as plain matrix products, a chunk of queries at a time, with exponentials in place.

torch's fused attention in bfloat16 is slow on processors without matrix units, most of all for heads of odd width (40
of Stable Diffusion 1.5). Here a chunk of logits stays in the cache, and the sum of a row comes with the product: the
values get a column of ones. Which of the two is used is for who knows the processor (`attention.Preference`).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 512 * 512
"""Logits of one head from which chunks can pay."""
STEP = 1024
"""Queries in a chunk."""


def chunked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value for [B,h,T,d] and [B,h,S,d] -> [B,h,T,d]; no gradients.

    The maximum of a row is taken off first, as everywhere, so that no exponential overflows and no sum is 0.
    """
    batch, heads, count, width = query.shape
    seen = key.shape[2]
    queries = (query * width**-0.5).reshape(-1, count, width)
    keys = key.reshape(-1, seen, width).transpose(1, 2)
    values = torch.cat([value, value.new_ones(batch, heads, seen, 1)], dim=-1).reshape(-1, seen, width + 1)
    out = query.new_empty(batch * heads, count, width)
    for head in range(batch * heads):
        for first in range(0, count, STEP):
            logits = queries[head, first : first + STEP] @ keys[head]  # [chunk, S]
            logits -= logits.amax(dim=-1, keepdim=True)
            product = logits.exp_() @ values[head]  # [chunk, d + 1]
            torch.div(product[:, :width], product[:, width:], out=out[head, first : first + STEP])
    return out.view(batch, heads, count, width)


def can_be_chunked(query: Tensor, key: Tensor, *, causal: bool) -> bool:
    """Whether `chunked_attention` computes this, and the sequences are long enough for it to pay."""
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and not causal
        and query.shape[2] * key.shape[2] >= LEAST
        and query.shape[3] < 256
        and not torch.is_grad_enabled()
        and not torch._C._is_tracing()
        and not torch.compiler.is_compiling()
    )

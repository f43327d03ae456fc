"""The few collective operations training needs, over torch.distributed; with one process they do nothing.

Every rank computes its share of one global batch, so W processes take the same step as one (up to summation order).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InvalidRequest

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers. Rank 0 writes files and reports."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks; a gradient missing on all ranks stays missing."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        torch._foreach_copy_(
            gradients, [part.view_as(g) for part, g in zip(_split(flat, gradients), gradients, strict=True)]
        )

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Element-wise mean of the numbers over the ranks."""
        if self.size == 1 or not values:
            return values
        names = sorted(values)
        tensor = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(names, (tensor / self.size).tolist(), strict=True))

    def gather(self, features: Tensor) -> Tensor:
        """[b, D] of each rank -> [W b, D] in rank order; gradients flow back to the rank that made the row."""
        if self.size == 1:
            return features
        from torch.distributed.nn.functional import all_gather

        return torch.cat(list(all_gather(features)), dim=0)  # type: ignore[no-untyped-call]

    def agree(self, *flags: bool) -> list[bool]:
        """Each flag true on every rank where any rank says so."""
        shares = self.mean({str(index): float(flag) for index, flag in enumerate(flags)})
        return [shares[str(index)] > 0.0 for index in range(len(flags))]

    def first(self, value: float) -> float:
        """Rank 0's value, everywhere."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def main_first(self, make: Callable[[], T]) -> T:
        """`make()`, on rank 0 before the others, so that they find the files that it left."""
        if self.main:
            made = make()
            self.barrier()
            return made
        self.barrier()
        return make()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def _split(flat: Tensor, like: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.split(flat, [tensor.numel() for tensor in like])


def join_world(device: str = "auto") -> World:
    """The world that torchrun describes in the environment, joined if need be (nccl on CUDA, else gloo)."""
    cuda = torch.cuda.is_available()
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InvalidRequest(f"unknown device {device!r}: expected auto, cpu or cuda") from None
    if chosen.type == "cuda" and not cuda:
        raise InvalidRequest("device 'cuda' was asked for, but torch finds no CUDA device: use cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if not dist.is_initialized():
        return World(chosen)
    return World(chosen, dist.get_rank(), dist.get_world_size())

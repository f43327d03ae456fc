"""Low-rank changes made small: the directions that matter most within a budget of numbers, as 8-bit floats.

Legend: O rows out, I columns in, R rank, K kept rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InvalidRequest

LARGEST = 240.0
"""What the largest number of a factor becomes: float8_e4m3fn reaches 448."""


def directions(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """up [O,R], down [R,I] -> the singular value decomposition of up down: U [O,R], S [R] (falling), V^T [R,I].

    By the QR decompositions of both factors, so that no O x I matrix is needed.
    """
    q_up, r_up = torch.linalg.qr(up.float())
    q_down, r_down = torch.linalg.qr(down.float().T)
    u, s, vt = torch.linalg.svd(r_up @ r_down.T)
    return q_up @ u, s, vt @ q_down.T


def truncated(changes: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
    """`changes` (NAME.up [O,R], NAME.down [R,I]) with at most `budget` numbers: the directions with the largest square
    per number that they cost, over all layers. A layer that keeps none is left out.

    Both factors of a direction get the root of its singular value. Errors: InvalidRequest where nothing would be left.
    """
    names = sorted({name.rpartition(".")[0] for name in changes})
    found = {name: directions(changes[f"{name}.up"], changes[f"{name}.down"]) for name in names}
    cost = {name: len(u) + vt.shape[1] for name, (u, _, vt) in found.items()}
    listed = [(float(s[k] ** 2) / cost[name], name) for name, (_, s, _) in found.items() for k in range(len(s))]
    kept: dict[str, int] = dict.fromkeys(names, 0)
    left = budget
    for gain, name in sorted(listed, reverse=True):
        if gain > 0 and cost[name] <= left:
            kept[name] += 1
            left -= cost[name]
    small: dict[str, Tensor] = {}
    for name, (u, s, vt) in found.items():
        if count := kept[name]:
            root = s[:count].sqrt()
            small[f"{name}.up"], small[f"{name}.down"] = u[:, :count] * root, root[:, None] * vt[:count]
    if not small:
        raise InvalidRequest(
            f"budget = {budget} numbers leave nothing of the changes; the least is {min(cost.values())}"
        )
    return small


def as_float8(matrix: Tensor) -> tuple[Tensor, float]:
    """A matrix -> float8_e4m3fn numbers that use its range, and the factor that gives the matrix back."""
    factor = float(matrix.abs().max()) / LARGEST or 1.0
    return (matrix.float() / factor).to(torch.float8_e4m3fn), factor

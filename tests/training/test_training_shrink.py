"""Low-rank changes made small."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.stages.shrink import as_float8, directions, truncated


def changes() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    sizes = {"a": (20, 4, 30), "b": (8, 4, 50)}
    found = {}
    for name, (rows, rank, columns) in sizes.items():
        found[f"{name}.up"] = torch.randn(rows, rank, generator=random)
        found[f"{name}.down"] = torch.randn(rank, columns, generator=random)
    found["b.up"] *= 0.1
    return found


def product(table: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return table[f"{name}.up"] @ table[f"{name}.down"]


def test_directions_are_the_singular_value_decomposition() -> None:
    table = changes()
    u, s, vt = directions(table["a.up"], table["a.down"])
    torch.testing.assert_close((u * s) @ vt, product(table, "a"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(s, torch.linalg.svdvals(product(table, "a"))[:4], rtol=1e-4, atol=1e-5)


def test_with_room_for_all_nothing_is_lost() -> None:
    table = changes()
    small = truncated(table, 10**6)
    for name in "ab":
        torch.testing.assert_close(product(small, name), product(table, name), rtol=1e-4, atol=1e-5)


def test_what_matters_most_is_kept_within_the_budget() -> None:
    """The kept part of "a" is the best of its rank (Eckart and Young): its error is the rest of the singular values."""
    table, budget = changes(), 110
    small = truncated(table, budget)
    assert sum(value.numel() for value in small.values()) <= budget
    assert set(small) == {"a.up", "a.down"} and small["a.up"].shape == (20, 2)
    rest = torch.linalg.svdvals(product(table, "a"))[2:].square().sum().sqrt()
    assert float((product(small, "a") - product(table, "a")).norm()) == pytest.approx(float(rest), rel=1e-4)


def test_a_budget_that_leaves_nothing_says_so() -> None:
    with pytest.raises(InvalidRequest, match="budget = 7 numbers leave nothing"):
        truncated(changes(), 7)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_8_bits_keep_their_precision_at_any_scale(scale: float) -> None:
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * scale
    stored, factor = as_float8(matrix)
    assert stored.dtype == torch.float8_e4m3fn
    error = (stored.float() * factor - matrix).norm() / matrix.norm()
    assert 1e-3 < error < 0.03
    assert as_float8(torch.zeros(2, 2))[1] == 1.0

"""Every metric has cases with a known answer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.evaluation.metrics.frechet import frechet_distance, gaussian_distance, moments, symmetric_root
from stable_diffusion.evaluation.metrics.kernel import cmmd, kernel_distance
from stable_diffusion.evaluation.metrics.neighbours import nearest, own_distances, percentile
from stable_diffusion.evaluation.metrics.retrieval import forced_choice, retrieval
from stable_diffusion.evaluation.metrics.vendi import mean_pairwise_distance, vendi_score


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Fréchet ----------------------------------------------------------------------------------------------------------


def test_frechet_of_equal_sets_is_zero_and_of_a_shift_its_square() -> None:
    points = normal(50, 7)
    assert frechet_distance(points, points.flip(0)) < 1e-9
    shift = torch.tensor([3.0, 0, 0, 4.0, 0, 0, 0])
    assert math.isclose(frechet_distance(points, points + shift), 25.0, rel_tol=1e-6)
    few = normal(4, 9)  # fewer points than dimensions: covariances without full rank
    assert frechet_distance(few, few) < 1e-9


def test_frechet_of_known_gaussians() -> None:
    """Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2; and the general case in a turned basis."""
    mean = torch.tensor([1.0, 2.0, 2.0])
    a, b = torch.diag(torch.tensor([1.0, 4.0, 9.0])), torch.diag(torch.tensor([4.0, 4.0, 1.0]))
    expected = 9 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
    assert math.isclose(gaussian_distance(mean, a, torch.zeros(3), b), expected, rel_tol=1e-9)
    turn = torch.linalg.qr(normal(3, 3).double()).Q
    turned = gaussian_distance(
        turn @ mean.double(), turn @ a.double() @ turn.T, torch.zeros(3), turn @ b.double() @ turn.T
    )
    assert math.isclose(turned, expected, rel_tol=1e-9)


def test_frechet_agrees_with_a_general_matrix_root() -> None:
    scipy_linalg = pytest.importorskip("scipy.linalg")
    first, second = normal(40, 5, seed=1) @ normal(5, 5, seed=2), normal(60, 5, seed=3) @ normal(5, 5, seed=4) + 0.5
    (mean_a, cov_a), (mean_b, cov_b) = moments(first), moments(second)
    root = scipy_linalg.sqrtm((cov_a @ cov_b).numpy()).real
    expected = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root.trace())
    assert math.isclose(frechet_distance(first, second), expected, rel_tol=1e-6)


def test_root_and_refusals() -> None:
    half = normal(4, 4).double()
    matrix = half @ half.T
    assert torch.allclose(symmetric_root(matrix) @ symmetric_root(matrix), matrix)
    with pytest.raises(InvalidRequest, match="at least two rows"):
        frechet_distance(normal(1, 3), normal(5, 3))


# --- kernel distance --------------------------------------------------------------------------------------------------


def test_kernel_distance_by_hand() -> None:
    """One dimension, k(x, y) = (x y + 1)^3: {0, 1} and {1, 2} give 1 + 27 - 2 (1 + 1 + 8 + 27) / 4."""
    first, second = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert math.isclose(kernel_distance(first, second), 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4, rel_tol=1e-12)


def test_kernel_distance_has_no_bias() -> None:
    """The mean over draws from one distribution is 0 within its error; a shift is seen."""
    draws = [kernel_distance(normal(20, 6, seed=s), normal(20, 6, seed=1000 + s)) for s in range(200)]
    values = torch.tensor(draws)
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(draws))
    assert min(draws) < 0 < max(draws)
    assert kernel_distance(normal(20, 6), normal(20, 6, seed=1) + 1) > float(values.max())


def test_cmmd_of_single_points_and_of_equal_sets() -> None:
    """Unit vectors at right angles are at squared distance 2: 1000 (1 + 1 - 2 exp(-2 / 200)); lengths do not count."""
    first, second = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 5.0]])
    assert math.isclose(cmmd(first, second), 2000 * (1 - math.exp(-0.01)), rel_tol=1e-9)
    assert math.isclose(cmmd(first, first * 7), 0.0, abs_tol=1e-9)


# --- diversity --------------------------------------------------------------------------------------------------------


def test_vendi_counts_different_points() -> None:
    assert math.isclose(vendi_score(torch.ones(6, 4)), 1.0, rel_tol=1e-9)
    assert math.isclose(vendi_score(torch.eye(5) * 3), 5.0, rel_tol=1e-9)
    assert math.isclose(vendi_score(torch.eye(3).repeat(2, 1)), 3.0, rel_tol=1e-9)  # each twice
    half = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])  # cosine 1/2: eigenvalues 3/4 and 1/4
    assert math.isclose(vendi_score(half), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel_tol=1e-6)


def test_pairwise_distance() -> None:
    assert math.isclose(mean_pairwise_distance(torch.ones(4, 3)), 0.0, abs_tol=1e-12)
    assert math.isclose(mean_pairwise_distance(torch.eye(4)), 1.0)
    assert math.isclose(mean_pairwise_distance(torch.tensor([[1.0, 0], [2.0, 0], [0, 5.0]])), 2 / 3)


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_nearest_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stable_diffusion.evaluation.metrics.neighbours.CHUNK", 3)
    keys = F.normalize(normal(10, 4), dim=1)
    distances, indices = nearest(keys[[7, 2, 5, 9]], keys)
    assert indices.tolist() == [7, 2, 5, 9] and float(distances.max()) < 1e-6
    own = own_distances(keys)
    expected = [min(1 - float(a @ b) for j, b in enumerate(keys) if j != i) for i, a in enumerate(keys)]
    assert torch.allclose(own, torch.tensor(expected), atol=1e-6)
    assert percentile(torch.arange(101.0), 0.01) == 1.0


# --- retrieval --------------------------------------------------------------------------------------------------------


def test_perfect_and_wrong_retrieval() -> None:
    vectors = F.normalize(normal(150, 32), dim=1)
    assert retrieval(vectors, vectors) == 1.0
    assert retrieval(vectors, -vectors) == 0.0


def test_a_model_that_ignores_its_prompt_is_at_chance() -> None:
    captions = F.normalize(normal(130, 16), dim=1)
    one_picture = F.normalize(normal(1, 16, seed=5), dim=1).expand(130, -1)
    assert math.isclose(retrieval(one_picture, captions), 1 / 100, rel_tol=1e-9)  # picture -> caption
    assert math.isclose(retrieval(captions, one_picture), 1 / 100, rel_tol=1e-9)  # all pictures tie
    assert math.isclose(retrieval(one_picture[:20], captions[:20]), 1 / 20, rel_tol=1e-9)


def test_retrieval_is_the_mean_over_draws_of_distractors() -> None:
    queries, keys = F.normalize(normal(30, 8), dim=1), F.normalize(normal(30, 8, seed=1) + normal(30, 8), dim=1)
    random, right, turns = torch.Generator().manual_seed(9), 0, 200
    for _ in range(turns):
        for own in range(30):
            others = [k for k in torch.randperm(30, generator=random).tolist() if k != own][:4]
            right += bool((keys[others] @ queries[own]).max() < keys[own] @ queries[own])
    assert abs(retrieval(queries, keys, among=5) - right / (30 * turns)) < 0.02


def test_forced_choice() -> None:
    pictures = torch.eye(3)
    sentences = torch.stack([torch.eye(3)] * 3)  # [N, A, D]
    assert forced_choice(pictures, sentences, torch.tensor([0, 1, 2])).tolist() == [1, 1, 1]
    assert forced_choice(pictures, sentences, torch.tensor([1, 1, 0])).tolist() == [0, 1, 0]
    same = torch.ones(3, 4, 3)  # a text encoder that tells nothing apart is at chance
    assert forced_choice(pictures, same, torch.tensor([0, 1, 2])).tolist() == [0.25, 0.25, 0.25]
    with pytest.raises(InvalidRequest, match="do not fit"):
        forced_choice(pictures, sentences[:2], torch.tensor([0, 1, 2]))

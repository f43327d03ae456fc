from __future__ import annotations

import pytest
import torch
from torch import nn

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.config import OptimiserConfig
from stable_diffusion.training.optim import Group, Optimiser, learning_rate_factor, muon_eligible, orthogonalise


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int], half: bool) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalise(matrix, half=half))
    assert values.min() > 0.5 and values.max() < 1.4
    # the same singular directions: U^T X V is near diagonal
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalise(matrix, half=half) @ vh.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 0.1
    assert orthogonalise(matrix, half=half).dtype == torch.float32


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 32, 3)
        self.hidden = nn.Conv2d(32, 32, 3)
        self.norm = nn.GroupNorm(4, 32)
        self.token_embedding = nn.Embedding(64, 32)
        self.linear = nn.Linear(32, 48)


def test_muon_takes_hidden_matrices_only() -> None:
    optimiser = Optimiser([Group("all", {"net": Net()})], OptimiserConfig(name="muon"))
    assert optimiser.muon == ["net.hidden.weight", "net.linear.weight"]
    assert not muon_eligible("x", torch.zeros(4, 4))
    assert not Optimiser([Group("all", {"net": Net()})], OptimiserConfig(name="adamw")).muon


def test_muon_step_has_unit_spectrum_and_the_groups_rate() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(32, 32, bias=False)
    config = OptimiserConfig(name="muon", muon_learning_rate=0.1, weight_decay=0.0)
    optimiser = Optimiser([Group("g", {"a": layer}, 0.5)], config)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(32, 32)
    optimiser.step(0.2)
    values = torch.linalg.svdvals((layer.weight.detach() - before) / (0.1 * 0.5 * 0.2))
    assert values.min() > 0.5 and values.max() < 1.4
    assert layer.weight.grad is None


def test_adamw_first_step_is_the_rate_times_the_sign() -> None:
    """Kingma & Ba: after bias correction the first step is lr g / (|g| + eps)."""
    layer = nn.Linear(3, 2)
    config = OptimiserConfig(learning_rate=0.01, weight_decay=0.0)
    optimiser = Optimiser([Group("g", {"a": layer}, 0.5)], config)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[1.0, -2.0, 3.0], [-0.5, 4.0, -1.0]])
    sign = layer.weight.grad.sign()
    optimiser.step(1.0)
    torch.testing.assert_close(layer.weight.detach(), before - 0.005 * sign, atol=1e-7, rtol=1e-5)


def test_state_round_trip_continues_bit_for_bit() -> None:
    def steps(optimiser: Optimiser, net: Net, first: int, last: int) -> None:
        for number in range(first, last):
            torch.manual_seed(number)
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimiser.step(1.0)

    config = OptimiserConfig(name="muon")
    torch.manual_seed(0)
    whole, part = Net(), Net()
    part.load_state_dict(whole.state_dict())
    first = Optimiser([Group("g", {"n": whole})], config)
    steps(first, whole, 0, 5)
    second = Optimiser([Group("g", {"n": part})], config)
    steps(second, part, 0, 2)
    state = {name: value.clone() for name, value in second.state().items()}
    third = Optimiser([Group("g", {"n": part})], config)
    third.load(state)
    steps(third, part, 2, 5)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, part.state_dict()[name]), name


def test_clipping_scales_to_the_limit() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimiser = Optimiser([Group("g", {"a": layer})], OptimiserConfig())
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert optimiser.clip(0.0) == pytest.approx(5.0)
    assert optimiser.clip(1.0) == pytest.approx(5.0)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="nothing to train"):
        Optimiser([Group("g", {"a": nn.Linear(1, 1).requires_grad_(False)})], OptimiserConfig())


def test_learning_rate_plans() -> None:
    wsd = OptimiserConfig(warmup_steps=10, schedule="wsd", decay_fraction=0.5, final=0.0)
    assert learning_rate_factor(0, 100, wsd) == pytest.approx(0.1)
    assert learning_rate_factor(50, 100, wsd) == 1.0
    assert learning_rate_factor(75, 100, wsd) == pytest.approx(0.5)
    assert learning_rate_factor(100, 100, wsd) == 0.0
    assert learning_rate_factor(5000, None, wsd) == 1.0
    cosine = OptimiserConfig(warmup_steps=0, schedule="cosine", final=0.1)
    assert learning_rate_factor(0, 100, cosine) == 1.0
    assert learning_rate_factor(50, 100, cosine) == pytest.approx(0.55)
    assert learning_rate_factor(100, 100, cosine) == pytest.approx(0.1)
    constant = OptimiserConfig(warmup_steps=0, schedule="constant")
    assert learning_rate_factor(99, 100, constant) == 1.0


@pytest.mark.parametrize("shape", [(24, 24), (16, 144), (40, 16)])
def test_the_iteration_on_the_gram_matrix_is_the_one_on_the_matrix(shape: tuple[int, int]) -> None:
    """Jordan et al. 2024: X <- a X + b (X X^T) X + c (X X^T)^2 X, five times."""
    torch.manual_seed(2)
    matrix = torch.randn(shape)
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    assert (orthogonalise(matrix) - x).abs().max() < 1e-4

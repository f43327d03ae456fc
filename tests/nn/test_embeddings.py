"""The sinusoids of the timestep, written out."""

import math

import torch

from stable_diffusion.nn.embeddings import EmbeddingMLP, timestep_embedding


def test_timestep_embedding():
    made = timestep_embedding(torch.tensor([0.0, 17.5, 999.0]), 6)
    assert made.shape == (3, 6) and made.dtype == torch.float32
    for row, time in enumerate((0.0, 17.5, 999.0)):
        angles = [time * 10_000 ** (-index / 3) for index in range(3)]
        expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
        torch.testing.assert_close(made[row], torch.tensor(expected), atol=1e-4, rtol=0)


def test_timestep_embedding_is_float32_for_integers_and_low_precision():
    exact = timestep_embedding(torch.tensor([37.0]), 8)
    assert torch.equal(timestep_embedding(torch.tensor([37]), 8), exact)
    assert torch.equal(timestep_embedding(torch.tensor([37.0], dtype=torch.bfloat16), 8), exact)


def test_embedding_mlp():
    mlp = EmbeddingMLP(3, 5)
    x = torch.randn(2, 3)
    hidden = mlp.linear1(x)
    torch.testing.assert_close(mlp(x), mlp.linear2(hidden * hidden.sigmoid()))

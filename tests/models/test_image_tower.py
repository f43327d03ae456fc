"""The image tower: shapes, locality, learning, errors."""

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.image_tower import ImageTower, ImageTowerConfig

TINY = ImageTowerConfig(channels=(8, 16, 24), blocks_per_stage=2, patch_size=2, projection_dim=11, groups=4)


@torch.no_grad()
def test_shapes_and_pooling(randomise):
    tower = randomise(ImageTower(TINY))
    made = tower(torch.rand(3, 4, 32, 48) * 2 - 1)
    assert TINY.downscale == 8
    assert made.features.shape == (3, 24, 4, 6) and made.embedding.shape == (3, 11)
    torch.testing.assert_close(made.embedding, tower.projection(made.features.mean(dim=(2, 3))))


def test_learns_to_tell_pictures_apart():
    torch.manual_seed(0)
    tower = ImageTower(TINY)
    image = torch.rand(6, 4, 16, 16) * 2 - 1
    optimiser = torch.optim.Adam(tower.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(tower(image).embedding, torch.arange(6))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not [name for name, parameter in tower.named_parameters() if not parameter.grad.abs().max() > 0]


def test_builds_on_meta_and_loads(randomise):
    source = randomise(ImageTower(TINY))
    with torch.device("meta"):
        tower = ImageTower(TINY)
    tower.load_state_dict(source.state_dict(), assign=True)
    assert not any(tensor.is_meta for tensor in (*tower.parameters(), *tower.buffers()))
    image = torch.rand(1, 4, 16, 24)
    assert torch.equal(tower(image).embedding, source(image).embedding)


def test_bad_config_says_why():
    with pytest.raises(InvalidRequest, match="multiple of 8"):
        ImageTowerConfig(channels=(8, 20))
    with pytest.raises(InvalidRequest, match="at least one stage"):
        ImageTowerConfig(channels=())

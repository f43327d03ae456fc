"""Every network traces into one graph, for new picture sizes too."""

import pytest
import torch

from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.image_tower import ImageTower, ImageTowerConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig

UNET = UNetConfig(
    channels=(8, 16), blocks_per_stage=1, transformer_depth=1, heads=2, context_dim=6, vector_dim=5, groups=4
)
VAE_RGBA = VAEConfig(image_channels=4, channels=(8, 16), blocks_per_stage=1, patch_size=2, groups=4)
CLIP = CLIPTextConfig(vocab_size=20, width=8, layers=2, heads=2, mlp_width=12, context_length=9, eos_token_id=19)
TOWER = ImageTowerConfig(channels=(8, 16), projection_dim=7, groups=4)


def outputs_of(case, randomise):
    """(function to compile, function that makes its arguments for a height and width)"""
    if case == "unet":
        unet = randomise(UNet(UNET))
        tokens, vector = torch.randn(1, 7, 6), torch.randn(1, 5)
        return unet, lambda h, w: ((torch.randn(1, 4, h, w), torch.tensor([5.0]), tokens), {"vector": vector})
    if case == "encode":
        vae = randomise(VAE(VAE_RGBA))
        return lambda x: vae.encode(x).mean, lambda h, w: ((torch.randn(1, 4, 4 * h, 4 * w),), {})
    if case == "decode":
        return randomise(VAE(VAE_RGBA)).decode, lambda h, w: ((torch.randn(1, 4, h, w),), {})
    if case == "clip":
        return randomise(CLIPText(CLIP)), lambda h, w: ((torch.randint(0, 20, (h, 9)),), {"layer": -2})
    return randomise(ImageTower(TOWER)), lambda h, w: ((torch.randn(1, 4, 2 * h, 2 * w),), {})


@pytest.mark.parametrize("case", ["unet", "encode", "decode", "clip", "tower"])
@torch.no_grad()
def test_one_graph(case, randomise):
    function, arguments = outputs_of(case, randomise)
    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    for height, width in ((4, 6), (6, 10), (8, 12)):
        args, kwargs = arguments(height, width)
        torch.testing.assert_close(compiled(*args, **kwargs), function(*args, **kwargs))

"""The seam: networks as callables, refusals with a note, and word of changed weights."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from stable_diffusion.engine.base import Engine, Features, weights_changed
from stable_diffusion.engine.torch import TORCH, engine_for
from stable_diffusion.models.unet import UNet
from stable_diffusion.models.vae import VAE
from stable_diffusion.nn.sharing import origin


class Picky(Engine):
    """Runs plain calls only, and remembers what it was told."""

    name = "picky"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[nn.Module] = []

    def network(self, module, part):
        return module

    def refuses(self, features):
        return f"picky has no {features.names[0]}" if features.names else None

    def weights_changed(self, module):
        self.told.append(module)


def test_torch_is_the_module_itself(tiny_unet: UNet, tiny_vae: VAE) -> None:
    network = TORCH.network(tiny_unet, "denoiser")
    assert origin(network) is tiny_unet  # type: ignore[arg-type]  # a module that remembers a run's texts, over its weights
    picture = torch.rand(1, tiny_vae.config.image_channels, 16, 24) * 2 - 1
    latent = TORCH.network(tiny_vae, "image_encoder")(picture).mode
    assert torch.equal(latent, tiny_vae.encode(picture).mode)
    assert torch.equal(TORCH.network(tiny_vae, "image_decoder")(latent), tiny_vae.decode(latent))


@pytest.mark.parametrize("name", ["seamless", "image_prompt", "residuals", "attention_maps", "weight_patches"])
def test_what_an_engine_refuses_runs_on_torch_with_a_note(name: str) -> None:
    picky, features = Picky(), Features(**{name: True})
    assert features.names == (name,)
    assert engine_for(picky, features) == (TORCH, f"this run uses torch: picky has no {name}")
    assert engine_for(picky, Features()) == (picky, None)
    assert engine_for(TORCH, features) == (TORCH, None)


def test_every_engine_hears_of_changed_weights_until_it_is_gone() -> None:
    first, second, module = Picky(), Picky(), nn.Linear(2, 2)
    weights_changed(module)
    assert first.told == second.told == [module]
    told = second.told
    del second
    gc.collect()
    weights_changed(module)
    assert first.told == [module, module] and told == [module]

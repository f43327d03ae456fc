"""The autoencoder against diffusers with equal random weights, and what it promises on its own."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.vae import VAE, Gaussian, VAEConfig
from stable_diffusion.weights.networks.vae import OLD_VAE_ATTENTION, vae_diffusers

SD = VAEConfig(latent_channels=5, channels=(16, 24, 40), groups=8)
RGBA = VAEConfig(image_channels=4, latent_channels=7, channels=(8, 16, 24), decoder_channels=(16, 8, 32), groups=8)

VARIANTS = {
    "sd": SD,
    "no_attention": dataclasses.replace(SD, mid_attention=False, blocks_per_stage=1),
    "no_quant_conv": dataclasses.replace(SD, latent_channels=16, quant_conv=False),
    "rgba": dataclasses.replace(SD, image_channels=4, channels=(24, 16, 16, 32)),
}


@pytest.fixture(params=VARIANTS)
def pair(request, randomise):
    """(ours, diffusers') with equal random weights."""
    diffusers = pytest.importorskip("diffusers")
    config = VARIANTS[request.param]
    reference = diffusers.AutoencoderKL(
        in_channels=config.image_channels,
        out_channels=config.image_channels,
        latent_channels=config.latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_stage,
        norm_num_groups=config.groups,
        mid_block_add_attention=config.mid_attention,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.quant_conv,
        down_block_types=["DownEncoderBlock2D"] * len(config.channels),
        up_block_types=["UpDecoderBlock2D"] * len(config.channels),
    )
    randomise(reference)
    with torch.device("meta"):
        ours = VAE(config)
    ours.load_state_dict(vae_diffusers(config).convert(reference.state_dict()), assign=True)
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    return ours.eval(), reference


@torch.no_grad()
def test_equals_diffusers(pair, relative_error):
    ours, reference = pair
    image = torch.rand(2, ours.config.image_channels, 24, 40) * 2 - 1
    made, expected = ours.encode(image), reference.encode(image).latent_dist
    assert relative_error(made.mean, expected.mean) < 1e-5
    assert relative_error(made.logvar, expected.logvar) < 1e-5
    assert relative_error(made.kl(), expected.kl()) < 1e-5
    latent = torch.randn(2, ours.config.latent_channels, 3, 5)
    assert relative_error(ours.decode(latent), reference.decode(latent).sample) < 1e-5


def test_norms_have_the_same_epsilon(pair):
    """A wrong epsilon changes outputs of this size by less than the tolerance above."""
    ours, reference = pair
    norms = 0
    for rule in vae_diffusers(ours.config).rules:
        layer = ours.get_submodule(rule.ours[0].rpartition(".")[0])
        if isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            name = rule.theirs[0].rpartition(".")[0]
            assert layer.eps == reference.get_submodule(name).eps, name
            norms += 1
    assert norms > 4


@torch.no_grad()
def test_old_attention_names_of_diffusers_load_the_same(pair):
    ours, reference = pair
    state = reference.state_dict()
    renamed = {}
    for name, tensor in state.items():
        for new, old in OLD_VAE_ATTENTION.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[name] = tensor
    assert (renamed.keys() != state.keys()) == ours.config.mid_attention
    made = vae_diffusers(ours.config).convert(renamed)
    assert made.keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, made[name]) for name, tensor in ours.state_dict().items())


@torch.no_grad()
def test_unequal_sides_and_rgba(randomise):
    vae = randomise(VAE(RGBA))
    latent = vae.encode(torch.rand(3, 4, 16, 24) * 2 - 1)
    assert latent.mean.shape == latent.logvar.shape == (3, 7, 4, 6)
    assert vae.decode(latent.mode).shape == (3, 4, 16, 24)
    assert vae.encoder.conv_in.out_channels == 8 and vae.decoder.conv_in.out_channels == 32


@torch.no_grad()
def test_patches_are_channels(randomise, relative_error):
    """A model with patch size 2 is the model with patch size 1 on rearranged pixels."""
    small = randomise(VAE(dataclasses.replace(RGBA, patch_size=2)))
    plain = VAE(dataclasses.replace(RGBA, image_channels=16))
    plain.load_state_dict(small.state_dict())
    assert (small.downscale, plain.downscale) == (8, 4)
    image = torch.rand(2, 4, 16, 40) * 2 - 1
    made, expected = small.encode(image), plain.encode(F.pixel_unshuffle(image, 2))
    assert torch.equal(made.mean, expected.mean) and made.mean.shape == (2, 7, 2, 5)
    assert torch.equal(F.pixel_unshuffle(small.decode(made.mean), 2), plain.decode(made.mean))


def test_gaussian():
    mean, logvar = torch.tensor([[0.0, 3.0]]).view(1, 2, 1, 1), torch.tensor([[0.0, 1.2]]).view(1, 2, 1, 1)
    latent = Gaussian(mean, logvar)
    normal = torch.distributions.Normal(mean, (logvar / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(latent.kl(), expected[None])
    torch.testing.assert_close(latent.sample(noise=torch.ones(1, 2, 1, 1)), mean + (logvar / 2).exp())
    draws = [latent.sample(generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(latent.mode, mean)


def test_learns_and_every_parameter_takes_part():
    torch.manual_seed(0)
    vae = VAE(RGBA)
    image = (torch.rand(4, 4, 2, 2) * 2 - 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        decoded, latent = vae(image)
        loss = (decoded - image).square().mean() + 1e-4 * latent.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    # The bias of the keys moves all logits of a query alike, which softmax forgets: its gradient is only rounding.
    silent = [name for name, parameter in vae.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not [name for name in silent if not name.endswith("key.bias")]


def test_bad_sizes_say_why():
    vae = VAE(RGBA)
    with pytest.raises(InvalidRequest, match="18x16; width and height must be multiples of 4"):
        vae.encode(torch.zeros(1, 4, 16, 18))
    with pytest.raises(InvalidRequest, match="same number"):
        dataclasses.replace(RGBA, decoder_channels=(8, 8))
    with pytest.raises(InvalidRequest, match="multiple of 8"):
        dataclasses.replace(RGBA, decoder_channels=(8, 20, 8))
    with pytest.raises(InvalidRequest, match="at least one stage"):
        VAEConfig(channels=())


def test_stable_diffusion_size():
    with torch.device("meta"):
        vae = VAE(VAEConfig())
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863
    assert vae.downscale == 8

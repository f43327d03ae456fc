"""Pictures from pictures: image to image and inpainting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from painting import half_mask, pictures, speckled
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.unet import UNet
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.names import SAMPLERS
from stable_diffusion.request.request import Images, Progress, Request


def test_strength_zero_is_the_autoencoder_alone(tiny_model: StableDiffusion) -> None:
    picture = speckled((48, 32))
    (image,) = pictures(tiny_model, Request("a", image=picture, strength=0))
    (decoded,) = tiny_model.image_decoder(tiny_model.image_encoder(picture))
    assert image.tobytes() == decoded.tobytes()


def test_less_strength_keeps_more_of_the_picture(tiny_model: StableDiffusion) -> None:
    picture = speckled((48, 32))
    start = tiny_model.image_encoder(picture)

    def distance(strength: float) -> float:
        request = Request("a", image=picture, strength=strength, steps=20, seed=1)
        *_, last = generate(tiny_model, request, output="latent")
        assert isinstance(last, Images) and last.tensor is not None
        return float((last.tensor - start).square().mean())

    assert distance(0.05) < distance(0.5) < distance(1.0)


def test_img2img_steps_are_a_slice(tiny_model: StableDiffusion) -> None:
    request = Request("a", image=speckled((48, 32)), strength=0.5, steps=10)
    steps = [e for e in generate(tiny_model, request) if isinstance(e, Progress)]
    full = [e for e in generate(tiny_model, Request("a", steps=10)) if isinstance(e, Progress)]
    assert [s.total for s in steps] == [5] * 5
    assert [s.sigma for s in steps] == [s.sigma for s in full[5:]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_keeps_what_is_outside_bit_for_bit(
    sampler: str, tiny_model: StableDiffusion, tiny_native_model: StableDiffusion
) -> None:
    for model, mode in ((tiny_model, "RGB"), (tiny_native_model, "RGBA"), (tiny_model, "RGBA")):
        picture, mask = speckled((48, 32), mode), half_mask((48, 32))
        request = Request("a", image=picture, mask=mask, strength=1.0, steps=3, seed=2, sampler=sampler)
        (image,) = pictures(model, request)
        outside = np.array(mask) == 0
        assert image.mode == mode and (np.array(image)[outside] == np.array(picture)[outside]).all()
        assert (np.array(image)[~outside] != np.array(picture)[~outside]).mean() > 0.5


def test_inpainting_at_another_size_keeps_the_resized_picture(tiny_model: StableDiffusion) -> None:
    from stable_diffusion.pipeline.image import cover

    picture, mask = speckled((96, 64)), half_mask((96, 64))
    (image,) = pictures(tiny_model, Request("a", image=picture, mask=mask, width=48, height=32))
    outside = np.array(cover(mask, 48, 32)) == 0
    assert outside.any() and (np.array(image)[outside] == np.array(cover(picture, 48, 32))[outside]).all()


def test_inpainting_networks_are_told_the_mask(tiny_model: StableDiffusion) -> None:
    config = replace(tiny_model.parts.unet.config, in_channels=9)
    torch.manual_seed(0)
    unet = UNet(config).eval().requires_grad_(False)
    torch.nn.init.normal_(unet.out.weight if hasattr(unet, "out") else list(unet.parameters())[-2], std=0.1)
    model = StableDiffusion.from_parts(replace(tiny_model.parts, unet=unet, family="sd1-inpaint"), name="inpaint")
    picture, mask = speckled((48, 32)), half_mask((48, 32))
    (image,) = pictures(model, Request("a", image=picture, mask=mask, strength=1.0, seed=1))
    outside = np.array(mask) == 0
    assert (np.array(image)[outside] == np.array(picture)[outside]).all()
    (other,) = pictures(model, Request("a", image=speckled((48, 32), seed=9), mask=mask, strength=1.0, seed=1))
    assert image.crop((28, 0, 48, 32)).tobytes() != other.crop((28, 0, 48, 32)).tobytes()
    assert pictures(model, Request("a", seed=1))[0].size == (48, 32)
    odd = UNet(replace(config, in_channels=6)).eval()
    other_model = StableDiffusion.from_parts(replace(tiny_model.parts, unet=odd))
    says = r"the model's U-Net takes 6 channels; expected 4, 9 \(inpainting\), 8 \(instruct-pix2pix\) or 5 \(depth\)"
    with pytest.raises(InvalidRequest, match=says):
        generate(other_model, Request("a"))

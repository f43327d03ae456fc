"""TAESD against diffusers' AutoencoderTiny, in every form that is shared, as the autoencoder and for previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
import tiny_sd3 as sd3
import tiny_xl as xl
from convert_cases import (
    FLOOR,
    GUIDANCE,
    NEGATIVE,
    PROMPT,
    SEED,
    STEPS,
    euler,
    from_pretrained,
    make_case,
    paint,
)
from painting import psnr
from stable_diffusion.errors import BrokenModel, InvalidRequest
from stable_diffusion.models.tiny_vae import TinyVAE
from stable_diffusion.pipeline.models import load
from stable_diffusion.weights.checkpoints.components import load_vae
from stable_diffusion.weights.load import load_parts


def reference(latents: int) -> AutoencoderTiny:
    torch.manual_seed(latents)
    vae = AutoencoderTiny(
        latent_channels=latents, encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4
    ).eval()
    with torch.no_grad():  # a picture of middling grey with some contrast, as a trained one gives
        vae.decoder.layers[-1].weight.mul_(10)
        vae.decoder.layers[-1].bias.fill_(0.5)
    return vae


def first_release(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The same weights as the first release has them: both sides apart, the decoder's layers one further on."""
    encoder = {name.removeprefix("encoder.layers."): t for name, t in state.items() if name.startswith("encoder.")}
    decoder = {}
    for name, tensor in state.items():
        if name.startswith("decoder."):
            number, _, rest = name.removeprefix("decoder.layers.").partition(".")
            decoder[f"{int(number) + 1}.{rest}"] = tensor
    return {"encoder": encoder, "decoder": decoder}


FORMS = ("diffusers folder", "diffusers file", "one file", "decoder alone")


def write(form: str, vae: AutoencoderTiny, place: Path) -> Path:
    vae.save_pretrained(place / "folder")
    if form == "diffusers folder":
        return place / "folder"
    state = load_file(place / "folder" / "diffusion_pytorch_model.safetensors")
    file = place / "taesd.safetensors"
    parts = first_release(state)
    if form == "one file":
        state = {f"taesd_{side}.{name}": tensor for side, part in parts.items() for name, tensor in part.items()}
    elif form == "decoder alone":
        state = parts["decoder"]
    save_file(state, file)
    return file


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("latents", [4, 16])
def test_both_ways_agree_with_diffusers(form: str, latents: int, tmp_path: Path) -> None:
    theirs = reference(latents)
    ours = load_vae(write(form, theirs, tmp_path))
    assert isinstance(ours, TinyVAE) and ours.downscale == 8 and ours.config.latent_channels == latents
    latent, picture = torch.randn(2, latents, 3, 5) * 2, torch.rand(2, 3, 24, 40) * 2 - 1
    with torch.no_grad():
        made, expected = ours.decode(latent), theirs.decode(latent).sample
        assert float((made - expected).norm() / expected.norm()) < 1e-5
        if form == "decoder alone":
            with pytest.raises(InvalidRequest, match="decoder only"):
                ours.encode(picture)
            return
        found = ours.encode(picture)
        encoded = theirs.encode(picture).latents
        assert float((found.mode - encoded).norm() / encoded.norm()) < 1e-5
        assert torch.equal(found.sample(noise=torch.randn_like(found.mean)), found.mean)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tiny.SD1, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("kind", [tiny.SD1, xl.BASE, sd3.MEDIUM], ids=lambda kind: kind.name)
def test_a_picture_decoded_by_it_agrees_with_diffusers(kind: Any, tmp_path: Path) -> None:
    """In the latent space of each family."""
    case = make_case(kind, tmp_path / "model")
    theirs = reference(16 if kind is sd3.MEDIUM else 4)
    file = write("one file", theirs, tmp_path)
    pipeline = from_pretrained(case, case.folder, vae=theirs)
    grid = {} if kind is sd3.MEDIUM else {"sampler": "euler", "schedule": "ddim_uniform"}
    expected = paint(pipeline if kind is sd3.MEDIUM else euler(pipeline))
    for place in (case.folder, case.single):
        model = load(place, device="cpu", vae=file)
        run: dict[str, Any] = {"seed": SEED, "size": (8, 6), "steps": STEPS, "guidance": GUIDANCE}
        *_, last = model.denoising_process(PROMPT, NEGATIVE, **run, **grid)
        value = psnr(model.image_decoder.straight(last.x), expected)
        print(f"{value:.1f} dB")
        assert float(expected.std()) > 0.02 and value > FLOOR


def test_previews_by_it_leave_the_picture_alone(folder: Path, tmp_path: Path) -> None:
    file = write("decoder alone", reference(4), tmp_path)
    plain, shown = load(folder, device="cpu"), load(folder, device="cpu", preview_vae=file)
    latent = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain.image_decoder.straight(latent), shown.image_decoder.straight(latent))
    preview = shown.image_decoder.preview(latent, side=64)
    assert preview.size == (48, 64) and preview.tobytes() != plain.image_decoder.preview(latent, side=64).tobytes()
    with torch.no_grad():
        expected = (reference(4).decode(latent).sample / 2 + 0.5).clamp(0, 1)
    pixels = torch.frombuffer(bytearray(preview.tobytes()), dtype=torch.uint8).reshape(64, 48, 3).permute(2, 0, 1)
    assert float((pixels / 255 - expected[0]).abs().max()) < 0.003


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    sixteen = write("diffusers file", reference(16), tmp_path)
    with pytest.raises(InvalidRequest, match="16 channels"):
        load_parts(folder, vae=sixteen)
    with pytest.raises(InvalidRequest, match="16 channels"):
        load(folder, device="cpu", preview_vae=sixteen)
    with pytest.raises(InvalidRequest, match="too slow"):
        load(folder, device="cpu", preview_vae=folder)
    state = load_file(sixteen)
    save_file({name: t for name, t in state.items() if "layers.4." not in name}, tmp_path / "cut.safetensors")
    with pytest.raises(BrokenModel):
        load_vae(tmp_path / "cut.safetensors")

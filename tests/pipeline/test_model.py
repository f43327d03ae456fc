"""Loading, and the four parts of a model, each alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stable_diffusion.diffusion.forward import DiffusionProcess
from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.engine.precision import resolve_device, resolve_dtype
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError
from stable_diffusion.models.vae import VAE
from stable_diffusion.pipeline import models as model_module
from stable_diffusion.pipeline.codec import ImageDecoder
from stable_diffusion.pipeline.models import StableDiffusion, find_model, load
from stable_diffusion.types import Conditioning
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.parts import Parts, TokenizerSource


@pytest.fixture(scope="module")
def file(tiny_native_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-native.safetensors"
    save_native(path, tiny_native_parts, dtype="float32")
    return path


def test_load_gives_the_parts(file: Path, tiny_native_model: StableDiffusion) -> None:
    model = load(file, device="cpu")
    assert (model.name, model.factor, model.device.type, model.dtype) == ("tiny-native", 8, "cpu", torch.float32)
    assert model.hash is not None and re.fullmatch("[0-9a-f]{10}", model.hash)
    assert torch.equal(model.text_encoder("a cat").tokens, tiny_native_model.text_encoder("a cat").tokens)
    assert load(str(file), device="cpu") is model
    assert load(file, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_models_are_found_by_name(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STABLE_DIFFUSION_MODELS", f"{tmp_path}:{file.parent}")
    (tmp_path / "folder-model").mkdir()
    (tmp_path / "folder-model" / "model_index.json").write_text("{}")
    assert find_model("tiny-native") == find_model("tiny-native.safetensors") == file.resolve()
    assert find_model("folder-model") == (tmp_path / "folder-model").resolve()
    with pytest.raises(InvalidRequest, match=r"no model 'tiny-nativ': did you mean 'tiny-native'\?"):
        load("tiny-nativ")


def test_without_an_embedded_model_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "model_path", lambda: None)
    model_module.MODELS.clear()
    for name in (None, "embedded"):
        with pytest.raises(ModelFileError, match="no embedded model; give the path of a model"):
            load(name, device="cpu", dtype="bfloat16")


def test_the_embedded_model_is_kept(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(model_module, "model_path", lambda: file)
    model_module.MODELS.clear()
    try:
        model = load(device="cpu")
        assert model.name == "embedded" and load("embedded", device="cpu") is model
    finally:
        model_module.MODELS.clear()


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("bf16", cpu) == torch.bfloat16 and resolve_dtype(torch.float16, cpu) == torch.float16
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_device("cpu") == cpu and resolve_device(cpu) == cpu
    with pytest.raises(InvalidRequest, match=r"unknown dtype 'float23': did you mean 'float32'\?"):
        resolve_dtype("float23", cpu)
    with pytest.raises(InvalidRequest, match="unknown device 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidRequest, match="device 'cuda' is not available on this machine"):
            resolve_device("cuda")


def test_parts_that_do_not_fit_are_refused(tiny_native_parts: Parts, tiny_clip: Any) -> None:
    with pytest.raises(BrokenModel, match="gives 24 pooled numbers, the U-Net takes 12"):
        StableDiffusion.from_parts(replace(tiny_native_parts, clip=tiny_clip))
    with pytest.raises(BrokenModel, match="the tokenizer has 49408 tokens, the text encoder only 515"):
        StableDiffusion.from_parts(replace(tiny_native_parts, tokenizer=TokenizerSource()))


def test_pad_token_of_the_family(tiny_model: StableDiffusion) -> None:
    padded = StableDiffusion.from_parts(replace(tiny_model.parts, tokenizer=TokenizerSource(pad_token_id=0)))
    assert padded.text_encoder.tokenizer.window([5])[2:5] == [49407, 0, 0]


# --- encoder and decoder ----------------------------------------------------------------------------------------------


def test_the_encoder_gives_normalised_latents(tiny_native_model: StableDiffusion, tmp_path: Path) -> None:
    encoder = tiny_native_model.image_encoder
    picture = Image.new("RGBA", (32, 24), (200, 30, 60, 128))
    picture.save(tmp_path / "in.png")
    latent = encoder(picture)
    assert latent.shape == (1, 6, 3, 4) and latent.dtype == torch.float32
    assert torch.equal(latent, encoder(tmp_path / "in.png"))
    raw = encoder.latents.denormalise(latent)
    from stable_diffusion.pipeline.image import to_model

    assert torch.allclose(raw, encoder.vae.encode(to_model(picture, 4)).mode, atol=1e-6)
    assert not torch.equal(encoder(picture, seed=1), encoder(picture, seed=2))
    assert torch.equal(encoder(picture, seed=1), encoder(picture, seed=1))
    with pytest.raises(InvalidRequest, match="must be multiples of 8"):
        encoder(Image.new("RGB", (33, 24)))
    with pytest.raises(InvalidRequest, match=re.escape("expected [B,4,H,W]")):
        encoder(torch.zeros(1, 2, 8, 8))


def test_the_decoder_gives_pictures(tiny_model: StableDiffusion, tiny_native_model: StableDiffusion) -> None:
    for model, mode in ((tiny_model, "RGB"), (tiny_native_model, "RGBA")):
        channels = model.parts.latents.channels
        latent = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0))
        pictures = model.image_decoder(latent)
        assert [(p.mode, p.size) for p in pictures] == [(mode, (32, 24))] * 2
        assert model.image_decoder(latent[1:])[0].tobytes() == pictures[1].tobytes()
        straight = model.image_decoder.straight(latent)
        assert straight.shape == (2, len(mode), 24, 32) and 0 <= float(straight.min()) <= float(straight.max()) <= 1
        with pytest.raises(InvalidRequest, match=re.escape(f"expected a tensor [B,{channels},h,w]")):
            model.image_decoder(latent[:, :1])


def test_previews_are_small_pictures(tiny_model: StableDiffusion, tiny_native_model: StableDiffusion) -> None:
    cheap = tiny_model.image_decoder.preview(torch.zeros(1, 4, 100, 50))
    assert cheap.size == (100, 200) and cheap.mode == "RGB"
    assert tiny_model.image_decoder.preview(torch.zeros(1, 4, 4, 6)).size == (48, 32)
    assert tiny_native_model.image_decoder.preview(torch.zeros(2, 6, 3, 2)).mode == "RGBA"


class OverflowsInHalf(VAE):
    """A decoder whose half-precision pass overflows."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        picture = super().decode(latent)
        return picture * float("nan") if latent.dtype == torch.bfloat16 else picture


def test_overflow_in_half_precision_is_decoded_again(tiny_vae: VAE, tiny_model: StableDiffusion) -> None:
    vae = OverflowsInHalf(tiny_vae.config).to(torch.bfloat16)
    vae.load_state_dict(tiny_vae.state_dict())
    decoder = ImageDecoder(vae, tiny_model.parts.latents, dtype=torch.bfloat16)
    latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"overflowed in torch.bfloat16; it goes on in float32"):
        first = decoder.tensor(latent)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(decoder.tensor(latent), first)
    assert bool(torch.isfinite(first).all())


# --- the forward process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [ddpm_schedule(), ddpm_schedule(zero_terminal_snr=True), FlowSchedule()])
def test_noise_is_added_by_the_closed_form(schedule: Any, tiny_model: StableDiffusion) -> None:
    process = DiffusionProcess(schedule, tiny_model.image_encoder)
    x0 = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(9))
    noise = torch.stack([torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(s)) for s in (7, 8)])
    for t in (0, 250, 999):
        if isinstance(schedule, FlowSchedule):
            expected = (1 - t / 1000) * x0 + t / 1000 * noise
        else:
            abar = float(schedule.alphas_cumprod[t])
            expected = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise
        assert torch.allclose(process.add_gaussian_noise(x0, t, seed=7), expected, atol=2e-4)
        assert torch.allclose(process.add_gaussian_noise(x0, t, noise=noise), expected, atol=2e-4)
    rows = process.add_gaussian_noise(x0, torch.tensor([0.0, 999.0]), seed=7)
    assert torch.equal(rows[1:], process.add_gaussian_noise(x0, 999, seed=7)[1:])
    for wrong in (-1, 1001, float("nan")):
        with pytest.raises(InvalidRequest, match="expected numbers from 0 to 1000"):
            process.add_gaussian_noise(x0, wrong)


def test_a_picture_is_noised_as_its_latent(tiny_model: StableDiffusion) -> None:
    picture = Image.new("RGB", (32, 24), "teal")
    process = tiny_model.diffusion_process
    assert torch.equal(
        process.add_gaussian_noise(picture, 500),
        process.add_gaussian_noise(tiny_model.image_encoder(picture), 500),
    )


@pytest.mark.parametrize("schedule", [ddpm_schedule(), FlowSchedule()])
def test_the_chain_has_the_distribution_of_one_jump(schedule: Any, tiny_model: StableDiffusion) -> None:
    """Mean and spread of every state over 20,000 pixels, and steps that are independent of one another."""
    process = DiffusionProcess(schedule, tiny_model.image_encoder)
    x0 = torch.full((1, 1, 100, 200), 2.0)
    states = list(process.chain(x0, [0, 100, 300, 301, 999]))
    assert [s.timestep for s in states] == [0, 100, 300, 301, 999]
    for state in states:
        assert float(state.x.mean()) == pytest.approx(2 * state.signal, abs=0.04)
        assert float(state.x.std()) == pytest.approx(state.spread, rel=0.03, abs=1e-4)
    before, after = states[1], states[2]
    ratio = after.signal / before.signal
    increment = after.x - ratio * before.x
    correlation = torch.corrcoef(torch.stack([increment.flatten(), before.x.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.03
    assert torch.equal(states[-1].x, list(process.chain(x0, [0, 100, 300, 301, 999]))[-1].x)
    for wrong in ([], [5, 5], [10, 3], [-1, 3], [0, 2000]):
        with pytest.raises(InvalidRequest, match="expected rising numbers from 0 to 1000"):
            process.chain(x0, wrong)


@pytest.mark.parametrize("schedule", [ddpm_schedule(), FlowSchedule()])
def test_step_by_step_is_the_forward_process(schedule: Any, tiny_model: StableDiffusion) -> None:
    """The state after n steps has the distribution of a jump to the n-th timestep, and remembers where it is."""
    process = DiffusionProcess(schedule, tiny_model.image_encoder)
    first = 1 if isinstance(schedule, FlowSchedule) else 0
    x = torch.full((1, 1, 100, 200), 2.0)
    for step in range(400):
        before = x
        x = process.add_gaussian_noise(x, seed=3)
        _, signal, spread = process.levels(step + first)
        if step in (0, 99, 399):
            assert float(x.mean()) == pytest.approx(2 * signal, abs=0.04)
            assert float(x.std()) == pytest.approx(spread, rel=0.03)
    assert torch.equal(process.add_gaussian_noise(before, seed=3), x), "a step is a function of its state and seed"
    assert not torch.equal(process.add_gaussian_noise(before, seed=4), x)
    clean = process.add_gaussian_noise(x.clone(), noise=torch.zeros_like(x))
    assert torch.allclose(clean, process.levels(first)[1] * x), "a tensor of one's own is a clean picture"


def test_the_chain_ends(tiny_model: StableDiffusion) -> None:
    process, x = DiffusionProcess(FlowSchedule(), tiny_model.image_encoder), torch.ones(2, 1, 2, 2)
    for _ in range(1000):
        x = process.add_gaussian_noise(x)
    assert not torch.equal(x[0], x[1]), "each row has noise of its own"
    with pytest.raises(InvalidRequest, match="the state is 1000 steps from the picture, and these are all"):
        process.add_gaussian_noise(x)


def test_steps_from_a_picture_are_those_of_its_latent(tiny_model: StableDiffusion) -> None:
    picture = Image.new("RGB", (32, 24), "teal")
    process = tiny_model.diffusion_process
    assert torch.equal(
        process.add_gaussian_noise(picture), process.add_gaussian_noise(tiny_model.image_encoder(picture))
    )


# --- the way back -----------------------------------------------------------------------------------------------------


def test_denoising_is_a_generator_of_steps(tiny_native_model: StableDiffusion) -> None:
    steps = list(tiny_native_model.denoising_process("a cat", seed=4))
    assert [(s.index, s.total) for s in steps] == [(0, 3), (1, 3), (2, 3)]
    assert steps[0].x.shape == (1, 6, 3, 2) and steps[0].sigma == 1.0
    assert torch.equal(steps[-1].x, steps[-1].denoised)
    cond = tiny_native_model.text_encoder("a cat")
    assert isinstance(cond, Conditioning)
    again = list(tiny_native_model.denoising_process(cond, tiny_native_model.text_encoder(""), seed=[4]))
    assert torch.equal(again[-1].x, steps[-1].x)


def test_denoising_checks_before_the_first_step(tiny_model: StableDiffusion) -> None:
    process = tiny_model.denoising_process
    for values, match in (
        ({"sampler": "nothing like it"}, "unknown sampler"),
        ({"steps": 0}, "expected a whole number from 1"),
        ({"eta": -1.0, "sampler": "ddim"}, "eta"),
        ({"churn": 1.0}, "unknown setting of the denoising process 'churn'"),
        ({"mask": torch.ones(1, 1, 4, 6)}, "a mask was given without a latent"),
        ({"interval": (0.0, 2.0)}, "interval is 2; expected a number from 0 to 1"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            process("a cat", **values)


def test_strength_decides_how_much_is_painted(tiny_model: StableDiffusion) -> None:
    latent = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    process = tiny_model.denoising_process
    counts = [len(list(process("a", latent=latent, strength=s, steps=10))) for s in (0.0, 0.1, 0.55, 1.0)]
    assert counts == [0, 1, 5, 10]


def test_masked_latents_are_kept(tiny_model: StableDiffusion) -> None:
    latent = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., 3:] = 1
    *_, last = tiny_model.denoising_process("a", latent=latent, mask=mask, steps=4)
    assert torch.allclose(last.x[..., :3], latent[..., :3], atol=1e-5)
    assert not torch.allclose(last.x[..., 3:], latent[..., 3:], atol=0.1)

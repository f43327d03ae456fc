"""What somebody types who knows Python and other programs, but not this package: it works, or says what to type."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stable_diffusion
from stable_diffusion import InvalidRequest, Request, generate, generate_image, read_metadata
from stable_diffusion.images import GeneratedImage, Pictures
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import all_settings, own_settings
from stable_diffusion.request.settings import GROUPS

SMALL: dict[str, Any] = {"steps": 2, "seed": 3, "width": 32, "height": 24}


@pytest.fixture
def picture(tiny_native_model: StableDiffusion) -> GeneratedImage:
    """Of the model with alpha: transparent in places."""
    made = generate_image("a cat", model=tiny_native_model, **SMALL)
    assert isinstance(made, GeneratedImage) and made.mode == "RGBA"
    return made


# --- what is saved ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.jpg", "x.jpeg"])
def test_a_plain_save_keeps_the_settings(picture: Image.Image, tmp_path: Path, name: str) -> None:
    picture.save(tmp_path / name)
    found = read_metadata(tmp_path / name)
    assert found.request.prompt == "a cat" and found.request.seed == 3
    assert Request.like(tmp_path / name).steps == 2


def test_so_does_an_open_file(picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert "Seed: 3" in Image.open(file).info["parameters"]
    with pytest.raises(ValueError, match="unknown file extension"):
        picture.save(io.BytesIO())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        lambda image: image.convert("RGB"),
        lambda image: image.crop((4, 4, 20, 20)),
        lambda image: image.resize((64, 48)),
        lambda image: image.rotate(180),
        copy.copy,
        copy.deepcopy,
        lambda image: pickle.loads(pickle.dumps(image)),
    ],
    ids=["copy", "convert", "crop", "resize", "rotate", "copy.copy", "deepcopy", "pickle"],
)
def test_copies_and_crops_keep_them_too(change: Callable[[Any], Any], picture: Image.Image, tmp_path: Path) -> None:
    changed = change(picture)
    changed.save(tmp_path / "x.png")
    assert "Seed: 3" in Image.open(tmp_path / "x.png").info["parameters"]
    plain = Image.frombytes(picture.mode, picture.size, picture.tobytes())
    assert changed.tobytes() == change(plain).tobytes() and changed.size == change(plain).size


def test_what_the_caller_says_counts(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "x.png", pnginfo=None)
    assert "parameters" not in Image.open(tmp_path / "x.png").info
    picture.info.clear()
    picture.save(tmp_path / "y.png")
    assert not Image.open(tmp_path / "y.png").info
    picture.save(tmp_path / "x.bmp")
    assert Image.open(tmp_path / "x.bmp").size == picture.size


def test_jpeg_lies_over_white(picture: Image.Image, tmp_path: Path) -> None:
    picture.putalpha(0)
    picture.save(tmp_path / "x.jpg")
    assert Image.open(tmp_path / "x.jpg").convert("L").getextrema() == (255, 255)


def test_a_generated_image_equals_a_plain_one(picture: Image.Image) -> None:
    plain = Image.frombytes(picture.mode, picture.size, picture.tobytes())
    assert picture != plain
    plain.info.update(picture.info)
    assert picture == plain and plain == picture and picture == picture.copy()
    assert picture != "a cat"


# --- what is given ----------------------------------------------------------------------------------------------------


def test_pictures_of_every_form_give_the_same(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    image = Image.effect_noise((32, 24), 60).convert("RGB")
    image.save(tmp_path / "x.png")
    pixels = np.asarray(image)
    forms = [
        *(image, tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()),
        *(io.BytesIO((tmp_path / "x.png").read_bytes()), pixels, pixels / 255),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255,
    ]
    made = {generate_image("a cat", model=tiny_model, image=form, seed=1, steps=2).tobytes() for form in forms}
    assert len(made) == 1
    latents = [tiny_model.image_encoder(form) for form in forms[:-1]]
    assert all(torch.equal(latent, latents[0]) for latent in latents)
    noisy = [tiny_model.diffusion_process.add_gaussian_noise(form) for form in (image, pixels)]
    assert torch.equal(*noisy)


def test_encoders_take_one_picture_and_opaque_ones(tiny_native_model: StableDiffusion) -> None:
    tensor = torch.rand(3, 24, 32) * 2 - 1
    whole = torch.cat([tensor, torch.ones(1, 24, 32)])[None]
    assert torch.equal(tiny_native_model.image_encoder(tensor), tiny_native_model.image_encoder(whole))


def test_one_latent_needs_no_batch(tiny_model: StableDiffusion) -> None:
    latent, process = torch.randn(4, 3, 5), tiny_model.diffusion_process
    (one,), (same,) = tiny_model.image_decoder(latent), tiny_model.image_decoder(latent[None])
    assert one.tobytes() == same.tobytes()
    for t in (None, 500):
        noisy = process.add_gaussian_noise(latent, t, seed=2)
        assert noisy.shape == latent.shape
        assert torch.equal(noisy[None], process.add_gaussian_noise(latent[None], t, seed=2))
    states = zip(process.chain(latent, [1, 9]), process.chain(latent[None], [1, 9]), strict=True)
    assert all(torch.equal(alone.x[None], batched.x) for alone, batched in states)


def test_none_is_not_given(tiny_model: StableDiffusion) -> None:
    process = tiny_model.denoising_process
    plain = [step.x for step in process("a cat", steps=2)]
    none = [step.x for step in process("a cat", negative=None, seed=None, steps=2, guidance=None, sampler=None)]
    assert all(map(torch.equal, plain, none))
    given = generate_image("a cat", model=tiny_model, negative_prompt=None, image=None, loras=None, **SMALL)
    assert given == generate_image("a cat", model=tiny_model, **SMALL)


def test_a_model_may_be_given_by_its_path(tiny_native_parts: Any, tmp_path: Path) -> None:
    from stable_diffusion.weights.checkpoints.native import save_native

    save_native(tmp_path / "m.safetensors", tiny_native_parts)
    *_, done = generate(tmp_path / "m.safetensors", "a cat", steps=1, seed=1)
    assert isinstance(done, stable_diffusion.Images) and done.seeds == (1,)


# --- what is in the wrong place ---------------------------------------------------------------------------------------

WRONG: dict[str, Any] = {
    "None": None,
    "a picture": Image.new("RGB", (16, 8)),
    "the text": "a cat",
    "a tensor": torch.zeros(2, 3),
    "an array": np.zeros((2, 3, 4, 5)),
    "a list": [3],
    "bytes": b"a cat",
    "7": 7,
}


@pytest.mark.parametrize("given", WRONG)
def test_parts_say_what_they_were_given(given: str, tiny_model: StableDiffusion) -> None:
    value = WRONG[given]
    with pytest.raises(InvalidRequest, match=f"the latent is {given}.*expected a tensor") as caught:
        tiny_model.image_decoder(value)
    assert "image_encoder" in str(caught.value)
    with pytest.raises(InvalidRequest, match=r"the latent is"):
        next(tiny_model.denoising_process("a cat", latent=[] if value is None else value))
    if given == "the text":
        return
    with pytest.raises(InvalidRequest, match=f"the prompt is {'3' if given == 'a list' else given}.*expected text"):
        tiny_model.text_encoder(value)
    with pytest.raises(InvalidRequest, match=f"the prompt is {given}.*expected text"):
        tiny_model.denoising_process(value)
    with pytest.raises(InvalidRequest, match=r"rompt is .*expected text|the request is"):
        generate(tiny_model, value)
    with pytest.raises(InvalidRequest, match=r"prompt is .*expected text"):
        generate_image(value, model=tiny_model)
    if given not in ("a picture", "None"):
        with pytest.raises(InvalidRequest, match="model is"):
            generate_image("a cat", model=value)


@pytest.mark.parametrize("given", [None, [3], 7, "no.png", b"a cat", np.zeros((2, 3, 4, 5)), torch.zeros(1, 2)])
def test_encoders_expect_pictures(given: Any, tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=r"image|picture"):
        tiny_model.image_encoder(given)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ("far", "the timestep is the text 'far'; expected a number from 0 to 1000"),
        (torch.zeros(1, 4, 3, 5), r"the timestep is a tensor of shape \[1, 4, 3, 5\]; expected one number"),
        ([1, 2, 3], r"the timestep is a tensor of shape \[3\]; expected one number"),
        (1001, "expected numbers from 0 to 1000"),
    ],
)
def test_levels_of_noise_are_numbers(t: Any, message: str, tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tiny_model.diffusion_process.add_gaussian_noise(torch.zeros(1, 4, 3, 5), t)


@pytest.mark.parametrize(
    "settings", [{"steps": "ten"}, {"seed": "one"}, {"seed": [1, "two"]}, {"guidance": "high"}, {"seed": -1}]
)
def test_settings_of_the_process_are_numbers(settings: dict[str, Any], tiny_model: StableDiffusion) -> None:
    (name,) = settings
    with pytest.raises(InvalidRequest, match=f"{name} is .*expected a"):
        tiny_model.denoising_process("a cat", **settings)


def test_a_callback_is_a_function(tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match="callback is 3; expected a function"):
        generate_image("a cat", model=tiny_model, callback=3)  # type: ignore[arg-type]


# --- names of other programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("num_inference_steps", "num_inference_steps is called steps here"),
        ("guidance_scale", "guidance_scale is called guidance here"),
        ("cfg_scale", "cfg_scale is called guidance here"),
        ("stepz", "unknown .*'stepz'"),
        ("device", "device is no setting of a picture; give it to `load`"),
    ],
)
def test_every_road_answers_with_our_name(name: str, answer: str, tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=answer):
        generate_image("a cat", model=tiny_model, **{name: 3})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=answer):
        generate(tiny_model, "a cat", **{name: 3})
    with pytest.raises(InvalidRequest, match=answer):
        generate(tiny_model, Request("a cat"), **{name: 3})
    with pytest.raises(InvalidRequest, match=answer):
        tiny_model.denoising_process("a cat", **{name: 3})


@pytest.mark.parametrize(("name", "ours"), [("negative_prompt", "negative"), ("width", "size"), ("image", "latent")])
def test_the_process_has_names_of_its_own(name: str, ours: str, tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} is called {ours} here"):
        tiny_model.denoising_process("a cat", **{name: "dog"})


def test_settings_belong_in_the_request(tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=r"steps belongs in the request: Request\(..., steps=...\)"):
        generate(tiny_model, Request("a cat"), steps=3)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_pictures_show_themselves_in_a_notebook(picture: Any, tiny_native_model: StableDiffusion) -> None:
    assert picture._repr_png_().startswith(b"\x89PNG")
    several = generate_image("a cat", model=tiny_native_model, count=5, **SMALL)
    assert isinstance(several, list)
    shown = Image.open(io.BytesIO(several._repr_png_()))  # type: ignore[attr-defined]
    assert shown.size == (4 * 32, 2 * 24)
    assert shown.crop((0, 0, 32, 24)).tobytes() == several[0].tobytes()
    assert Pictures()._repr_png_() is None


def test_decoded_pictures_are_arrays_that_plots_show(tiny_model: StableDiffusion) -> None:
    latents = torch.randn(2, 4, 3, 5)
    one, two = tiny_model.image_decoder(latents[:1]), tiny_model.image_decoder(latents)
    assert np.asarray(one).shape == (24, 40, 3) and np.asarray(two).shape == (2, 24, 40, 3)
    assert np.array_equal(np.asarray(one), np.asarray(one[0]))
    assert np.asarray(one, dtype=float).dtype == float


def test_help_and_completion_name_every_setting() -> None:
    parameters = inspect.signature(generate_image).parameters
    text = pydoc.plain(pydoc.render_doc(generate_image))
    for each in own_settings(Request):
        assert each.name in parameters and f" {each.name} " in text
    for group in GROUPS:
        assert group in parameters
    for each in all_settings():
        assert each.name in text, each.path
    assert "ForwardRef" not in text and " --" not in text
    assert parameters["count"].default == 1
    assert set(stable_diffusion.__all__) <= set(dir(stable_diffusion))

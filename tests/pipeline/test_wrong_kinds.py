"""Values of the wrong kind, where no request checks them: every part says in a sentence what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stable_diffusion import InvalidRequest, Noise, Request, VariationSeed, generate, load, read_metadata, save_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.process import DenoisingOptions
from stable_diffusion.runner import LocalRunner

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a number for a size": ({"size": 3}, r"size is 3; expected \(height, width\)"),
    "three sides": ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\); expected \(height, width\)"),
    "half a latent": ({"size": (3.5, 2)}, r"a side of size is 3\.5; expected a whole number from 1"),
    "no latents": ({"size": (0, 4)}, "a side of size is 0; expected a whole number from 1"),
    "text for strength": ({"strength": "x"}, "strength is 'x'; expected a number from 0 to 1"),
    "too strong": ({"strength": 3}, "strength is 3; expected a number from 0 to 1"),
    "text for edges": ({"wrap": "x"}, "wrap is the text 'x'; expected Wrap"),
    "a picture for a mask": ({"mask": Image.new("L", (4, 4))}, "mask is a picture of 4x4 pixels; expected a tensor"),
    "a window less than nothing": ({"window": -3}, "window is -3; expected a whole number from 0"),
    "text for a window": ({"window": "4"}, "window is '4'; expected a whole number"),
    "text for noise": ({"noise": "nv"}, r"noise is 'nv'; expected Noise\(...\)"),
    "a number for a variation": ({"variation": 0.5}, r"variation is 0.5; expected VariationSeed\(...\)"),
    "half an interval": ({"interval": 0.5}, r"interval is 0.5; expected two numbers \(first, last\)"),
    "text for a rescale": ({"rescale": "q"}, "rescale is 'q'; expected a number from 0 to 1"),
    "text for a shift": ({"shift": "q"}, "shift is 'q'; expected a number"),
    "text for soft": ({"soft": "yes"}, "soft is 'yes'; expected True or False"),
    "a path for a control": ({"controls": ["canny.png"]}, "a control is the text 'canny.png'; expected a ControlUnit"),
    "sizes as a pair": ({"micro_conditioning": (3, 3)}, r"micro_conditioning is \(3, 3\); expected SizeConditioning"),
}


@pytest.mark.parametrize(("given", "match"), WRONG.values(), ids=WRONG)
def test_the_denoising_process(tiny_model: StableDiffusion, given: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        tiny_model.denoising_process("a cat", steps=1, **given)


def test_groups_of_its_options_may_be_mappings_and_none_is_not_given() -> None:
    options = DenoisingOptions(noise={"source": "nv"}, variation={"strength": 0.5})  # type: ignore[arg-type]
    assert options.noise == Noise(source="nv") and options.variation == VariationSeed(strength=0.5)
    none: dict[str, Any] = dict.fromkeys(DenoisingOptions.__dataclass_fields__)
    assert DenoisingOptions(**none) == DenoisingOptions()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"batch": "2"}, "batch is '2'; expected a whole number from 1"),
        ({"batch": 1.5}, "batch is 1.5; expected a whole number from 1"),
        ({"preview_every": "x"}, "preview_every is 'x'; expected a whole number from 0"),
        ({"engine": 3}, "engine is 3; expected an Engine"),
    ],
)
def test_generate(tiny_model: StableDiffusion, given: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        generate(tiny_model, Request("a cat"), **given)
    assert generate(tiny_model, Request("a cat", steps=1), batch=np.int64(2)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["a cat", None, {"prompt": "a cat"}])
def test_a_runner(given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"the request is .*; expected a Request"):
        LocalRunner().run(given)


OTHERS: dict[str, tuple[Callable[[StableDiffusion, Path], object], str]] = {
    "no latent to decode": (lambda model, _: model.image_decoder(torch.zeros(0, 4, 4, 4)), "of shape .0, 4, 4, 4.;"),
    "nothing to save": (lambda _, path: save_image(None, path / "x.png"), "the image is None; expected a Pillow"),  # type: ignore[arg-type]
    "nowhere to save": (lambda *_: save_image(Image.new("L", (4, 4)), 3), "the path is 3; expected the name of a file"),  # type: ignore[arg-type]
    "no name of a model": (lambda *_: load(""), "there is no model '': expected the path"),
}


@pytest.mark.parametrize(("act", "match"), OTHERS.values(), ids=OTHERS)
def test_other_parts(
    tiny_model: StableDiffusion, tmp_path: Path, act: Callable[[StableDiffusion, Path], object], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        act(tiny_model, tmp_path)


def test_the_built_in_model_may_refine(monkeypatch: pytest.MonkeyPatch, tiny_model: StableDiffusion) -> None:
    found: list[object] = []
    monkeypatch.setattr(type(tiny_model.cache), "get", lambda _, *given: found.append(given) or tiny_model)
    assert tiny_model.cache.refiner("embedded", tiny_model) is tiny_model
    assert found == [("embedded", tiny_model.device, tiny_model.dtype)]


def test_what_is_no_path_and_no_picture(tiny_model: StableDiffusion) -> None:
    for attach in (tiny_model.attach, tiny_model.add_embedding):
        with pytest.raises(InvalidRequest, match="the path of a file is None; expected text"):
            attach(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="picture is None; expected a Pillow image"):
        read_metadata(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="image is the empty text; expected the path of a picture file"):
        generate(tiny_model, Request("a cat", image=""))


def test_numbers_that_are_none(tiny_model: StableDiffusion) -> None:
    latent = tiny_model.image_encoder(Image.new("RGB", (16, 16)))
    with pytest.raises(InvalidRequest, match="the timestep is True; expected a number from 0 to 1000"):
        tiny_model.diffusion_process.add_gaussian_noise(latent, True)
    latent[..., 0] = float("nan")
    with pytest.raises(InvalidRequest, match="the latent holds NaN or infinite numbers"):
        tiny_model.image_decoder(latent)

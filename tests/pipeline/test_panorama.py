"""Whole spheres: sky above ground, no seam, even poles, no holes; one horizon when large; words and drawn controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stable_diffusion import read_metadata
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.pipeline.resolve import resolve
from stable_diffusion.pipeline.tasks.panorama import (
    controls_with_horizon,
    horizon_depth,
    horizon_segmentation,
    share_horizon,
)
from stable_diffusion.pipeline.tasks.seamless import even_poles
from stable_diffusion.request.control import Control
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import Canvas, Hires

SCRIPTS = Path(__file__).parents[2] / "scripts"
SPHERE = Canvas(panorama=True)
TINY = Request("a house", seed=3, steps=2, canvas=SPHERE, width=64)


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="scripts are not shipped with the tests")
@pytest.mark.parametrize(
    ("prompt", "seed"), [("a green meadow under a blue sky", 5), ("a sandy beach by the sea", 9), ("雪山和湖", 21)]
)
def test_the_sky_is_above_the_ground(prompt: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from panorama_sheet import judge

    model = load()
    ordinary = generate_image(prompt, model=model, seed=seed)
    sphere = generate_image(prompt, model=model, seed=seed, canvas=SPHERE)
    judged = judge(sphere, ordinary)
    assert judged.good and judged.order < -50, judged
    assert not judge(sphere.transpose(1), ordinary).order < 0  # upside down it would be seen


def test_the_row_at_a_pole_has_one_colour() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 128)
    even = even_poles(picture)
    assert float(even[..., (0, -1), :].std(dim=-1).max()) < 1e-5
    spread = even.std(dim=-1).mean(dim=(0, 1))
    assert bool((spread[:4].diff() > 0).all()) and float(spread[32]) > 0.2
    assert torch.allclose(even.mean(dim=-1), picture.mean(dim=-1), atol=1e-5)


def test_a_sphere_of_a_model_with_alpha_is_a_full_picture(tiny_native_model: StableDiffusion) -> None:
    image = generate_image("a house", model=tiny_native_model, seed=1, steps=2, canvas=SPHERE, width=64)
    assert image.mode == "RGB"
    assert read_metadata(image).request.background == "scene"
    clear = generate_image(
        "a house", model=tiny_native_model, seed=1, steps=2, canvas=SPHERE, width=64, background="transparent"
    )
    assert clear.mode == "RGBA"


def test_a_large_sphere_is_enlarged_from_one_horizon(tiny_model: StableDiffusion) -> None:
    small = tiny_model.defaults.height
    found = resolve(TINY.with_changes(width=4 * small), tiny_model)
    assert [each.size for each in found.passes] == [(2 * small, small), (4 * small, 2 * small)]
    assert found.passes[1].upscaler == "Lanczos" and found.request.hires.strength == 0.4
    assert found.window == 2 * small and any("one horizon" in note for note in found.notes)
    again = resolve(found.request, tiny_model)
    assert again.passes == found.passes and not any("one horizon" in note for note in again.notes)
    own = resolve(TINY.with_changes(width=2 * small, hires=Hires(scale=2)), tiny_model)
    assert own.request.hires.strength == 0.7 and own.window == 0
    (events,) = [e for e in generate(tiny_model, TINY.with_changes(width=4 * small)) if isinstance(e, Images)]
    assert events.images[0].size == (4 * small, 2 * small)


def test_windows_are_as_high_as_the_sphere() -> None:
    assert share_horizon(0, 0, 32) == (0, 0)
    assert share_horizon(64, 32, 32) == (64, 32)
    assert share_horizon(16, 4, 32) == (32, 8)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a meadow", "a meadow, 360 degree panorama, level horizon"),
        ("草地", "草地，360度全景，水平的地平线"),
        ("a {red|blue} house", "a {red|blue} house, 360 degree panorama, level horizon"),
        ("an equirectangular meadow", "an equirectangular meadow"),
        ("a cat AND a dog", "a cat AND a dog"),
    ],
)
def test_models_of_opaque_pictures_are_given_words(prompt: str, expected: str, tiny_model: StableDiffusion) -> None:
    found = resolve(TINY.with_changes(prompt=prompt), tiny_model)
    assert found.request.prompt == expected
    assert any("level horizon" in note for note in found.notes) == (prompt != expected)
    flat = resolve(TINY.with_changes(prompt=prompt, canvas=Canvas()), tiny_model)
    assert flat.request.prompt == prompt


def test_the_drawn_ground_is_level_and_below() -> None:
    depth, parts = np.asarray(horizon_depth(64)), np.asarray(horizon_segmentation(64))
    assert depth.shape == (32, 64) and not depth[:16].any() and (np.diff(depth[16:, 0].astype(int)) > 0).all()
    assert depth[-1].min() >= 254 and (depth == depth[:, :1]).all()
    assert (parts[:16] == (6, 230, 230)).all() and (parts[16:] == (120, 120, 70)).all()


def test_controls_of_depth_and_segmentation_need_no_picture(
    tiny_model: StableDiffusion, control_file: Callable[..., Path]
) -> None:
    depth, edges = control_file(tiny_model, "my-depth"), control_file(tiny_model, "edges")
    settings = {"model": tiny_model, "seed": 3, "steps": 2, "canvas": SPHERE, "width": 64}
    drawn = generate_image("a house", controls=[Control(depth)], **settings)
    given = generate_image("a house", controls=[Control(depth, horizon_depth())], **settings)
    assert (np.asarray(drawn) == np.asarray(given)).all()
    with pytest.raises(InvalidRequest, match=r"'edges' has no image; give the picture .* 'depth' or 'seg'"):
        generate_image("a house", controls=[Control(edges)], **settings)
    with pytest.raises(InvalidRequest, match="has no image"):
        Request("a house", controls=(Control(depth),))
    (named,) = controls_with_horizon((Control(Path("union"), task="segmentation"),))
    assert named.image is not None and named.image.mode == "RGB"

"""What is behind a thing: colours by hand, holes filled, the prompt asked again only where that is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from painting import pictures, speckled
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images, Progress
from stable_diffusion.pipeline import generate as room
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.tasks.background import (
    close_holes,
    composite,
    edge_alpha,
    is_full,
    matches,
    warn_mismatch,
    with_background_words,
)
from stable_diffusion.request.metadata import parse_parameters
from stable_diffusion.request.request import Request

COLOUR = (0.2, 0.4, 0.6)
PLAIN = Request("a cat", seed=3, steps=2)


def thing(alpha: float = 1.0, hole: float = 0.0, side: int = 16) -> torch.Tensor:
    """[1,4,side,side+2] of one colour: alpha in the middle, `hole` on a frame of 4 pixels around it."""
    picture = torch.full((1, 4, side, side + 2), hole)
    picture[:, :3] = torch.tensor(COLOUR)[:, None, None]
    picture[:, 3, 4:-4, 4:-4] = alpha
    return picture


@pytest.mark.parametrize(
    ("given", "expected"),
    [("transparent", "transparent"), (" White", "white"), ("SCENE", "scene"), ("#FF8800", "#ff8800"), (None, None)],
)
def test_names_and_colours(given: str | None, expected: str | None) -> None:
    assert Request("a", background=given).background == expected


@pytest.mark.parametrize("wrong", ["transparant", "red", "#fff", "#ggffff", "", 3, "#ff88001"])
def test_what_is_no_background(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected transparent, white, scene, or a colour such as #ff8800"):
        Request("a", background=wrong)
    if wrong == "transparant":
        with pytest.raises(InvalidRequest, match="did you mean 'transparent'"):
            Request("a", background=wrong)


def test_edges_and_holes_by_hand() -> None:
    cut, full, frame = thing(), thing(hole=1.0), thing(alpha=0.0, hole=1.0)
    assert float(edge_alpha(cut)) == 0 and float(edge_alpha(full)) == 1
    mixed = torch.cat([cut, full, frame])
    assert is_full(mixed).tolist() == [False, True, False]
    assert matches(mixed, "transparent").tolist() == matches(mixed, "#000000").tolist() == [True, False, False]
    assert matches(mixed, "scene").tolist() == [False, True, False]
    assert matches(mixed, None).all() and matches(mixed[:, :3], "transparent").all()


@pytest.mark.parametrize(
    ("background", "ground"), [("white", (1, 1, 1)), ("#336699", (0.2, 0.4, 0.6)), ("#ff0000", (1, 0, 0))]
)
def test_a_colour_behind_is_what_pillow_composes(background: str, ground: tuple[float, ...]) -> None:
    picture = thing(alpha=0.75, hole=0.25)
    made = composite(picture, background)
    assert made.shape == (1, 3, 16, 18)
    eight = Image.fromarray((picture[0] * 255).round().byte().permute(1, 2, 0).numpy())
    below = Image.new("RGBA", eight.size, (*(round(255 * part) for part in ground), 255))
    expected = np.asarray(Image.alpha_composite(below, eight).convert("RGB"), dtype=int)
    assert np.abs((made[0] * 255).round().permute(1, 2, 0).numpy() - expected).max() <= 1


def test_a_full_picture_becomes_opaque_and_a_cut_out_stays() -> None:
    almost, cut = thing(alpha=0.97, hole=0.96), thing(hole=0.3)
    for background in (None, "transparent"):
        made = composite(torch.cat([almost, cut]), background)
        assert bool((made[0, 3] == 1).all()) and torch.equal(made[1], cut[0])
        assert torch.allclose(made[0, :3], almost[0, :3])
    given = composite(almost, None, whole=False)
    assert torch.equal(given, almost), "what was given keeps its own alpha"


def test_a_scene_has_no_holes() -> None:
    """The colour hidden in a hole does not show: the hole takes the colours around it."""
    picture = thing(alpha=0.0, hole=1.0)
    picture[:, :3, 4:-4, 4:-4] = torch.tensor((1.0, 0.0, 1.0))[:, None, None]
    made = close_holes(picture)
    assert made.shape == (1, 3, 16, 18)
    assert torch.allclose(made, thing()[:, :3], atol=1e-5)
    assert torch.equal(made, composite(picture, "scene"))


def test_words_of_the_captions() -> None:
    def again(prompt: str, **more: Any) -> str | None:
        made = with_background_words(Request(prompt, **more))
        return None if made is None else made.prompt

    assert again("a cat", background="white") == "a cat on a transparent background"
    assert again("猫", background="#ff0000") == "透明背景的猫"
    assert again("a cat", background="scene") == "a cat in a meadow under a blue sky"
    assert again("a cat") is again("a cat AND a dog", background="scene") is None
    assert again("a cat", background="scene", image=speckled((8, 8))) is None
    assert again("a" * 9_990, background="scene") is None, "there is no room for words"


def test_what_was_missed_is_said() -> None:
    cut, full = thing(), thing(hole=1.0)
    assert list(warn_mismatch(cut, "white", whole=True)) == list(warn_mismatch(full, "scene", whole=True)) == []
    assert "cut out" in next(warn_mismatch(full, "transparent", whole=True))
    assert "whole scene" in next(warn_mismatch(cut, "scene", whole=True))
    assert list(warn_mismatch(full, "white", whole=False)) == []


# --- in the pipeline --------------------------------------------------------------------------------------------------


def replaced_decoder(monkeypatch: pytest.MonkeyPatch, *made: torch.Tensor) -> list[torch.Tensor]:
    """Decode these instead, one after the other (at last the last one); returns the latents that were asked for."""
    asked: list[torch.Tensor] = []

    def decoded(plan: Any, latent: torch.Tensor) -> torch.Tensor:
        asked.append(latent)
        return made[min(len(asked), len(made)) - 1]

    monkeypatch.setattr(room, "decode", decoded)
    return asked


def run(model: StableDiffusion, request: Request, **more: Any) -> tuple[Images, int]:
    """The pictures, and how many steps were made."""
    events = list(generate(model, request, output="straight", **more))
    done = events[-1]
    assert isinstance(done, Images)
    return done, sum(isinstance(event, Progress) for event in events)


def latents(model: StableDiffusion, request: Request) -> torch.Tensor:
    """[count,c,h,w], painted together."""
    done = list(generate(model, request, output="latent", batch=request.count))[-1]
    assert isinstance(done, Images) and done.tensor is not None
    return done.tensor


def test_a_picture_that_suits_is_painted_once(
    tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replaced_decoder(monkeypatch, thing())
    done, steps = run(tiny_native_model, PLAIN.with_changes(background="white"))
    assert steps == 2 and len(asked) == 1 and done.notes == () and done.images[0].mode == "RGB"
    assert done.images[0].getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_that_does_not_suit_is_asked_for_again(
    tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    worded = PLAIN.with_changes(prompt="a cat on a transparent background")
    expected = latents(tiny_native_model, worded)
    asked = replaced_decoder(monkeypatch, thing(hole=1.0), thing())
    done, steps = run(tiny_native_model, PLAIN.with_changes(background="transparent"))
    assert steps == 4 and done.notes == () and done.images[0].mode == "RGBA"
    assert len(asked) == 2 and torch.equal(asked[-1], expected)
    assert done.tensor is not None and torch.equal(done.tensor, thing()), "the picture is the one made with the words"
    assert done.requests[0].prompt == "a cat", "what is written is what was asked"
    assert parse_parameters(done.images[0].info["parameters"]).request.background == "transparent"


def test_where_asking_again_does_not_help(tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = thing(hole=1.0), thing(hole=0.9)
    asked = replaced_decoder(monkeypatch, first, second)
    done, steps = run(tiny_native_model, PLAIN.with_changes(background="transparent"))
    assert steps == 4 and len(done.notes) == 1 and "full picture" in done.notes[0]
    assert len(asked) == 2 and done.tensor is not None
    assert torch.equal(done.tensor, first), "the first picture stays"


def test_only_the_rows_that_need_it(tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    both = PLAIN.with_changes(count=2, background="scene")
    full, other = thing(hole=1.0), thing(hole=1.0)
    other[:, 0] = 0.9
    asked = replaced_decoder(monkeypatch, torch.cat([full, thing()]), other)
    done, _ = run(tiny_native_model, both, batch=2)
    assert [len(latent) for latent in asked] == [2, 1]
    assert done.tensor is not None
    assert torch.allclose(done.tensor[0], full[0, :3]) and torch.allclose(done.tensor[1], other[0, :3])


def test_colours_are_the_plain_picture_over_them(tiny_native_model: StableDiffusion) -> None:
    """Whatever a random network paints: a colour is composed, and a picture of more than one seed is its own."""
    cut = run(tiny_native_model, PLAIN.with_changes(background="transparent"))[0].tensor
    over = run(tiny_native_model, PLAIN.with_changes(background="#204060"))[0].tensor
    assert cut is not None and over is not None and over.shape[1] == 3
    if float(edge_alpha(cut)) < 0.5 and not bool(is_full(cut)):
        assert torch.allclose(composite(cut, "#204060"), over)
    (first, second) = pictures(tiny_native_model, PLAIN.with_changes(count=2, background="white"))
    assert second.tobytes() == pictures(tiny_native_model, PLAIN.with_changes(seed=4, background="white"))[0].tobytes()
    assert first.mode == "RGB"


def test_models_without_alpha(tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match=r"background is 'transparent', but the model .* paints opaque pictures"):
        generate(tiny_model, PLAIN.with_changes(background="transparent"))
    plain, steps = run(tiny_model, PLAIN)
    for background, notes in (("scene", 0), ("white", 1), ("#ff8800", 1)):
        done, made = run(tiny_model, PLAIN.with_changes(background=background))
        assert len(done.notes) == notes and made == steps
        assert done.images[0].tobytes() == plain.images[0].tobytes()


def test_latents_have_no_background(tiny_native_model: StableDiffusion) -> None:
    assert torch.equal(
        *(latents(tiny_native_model, PLAIN.with_changes(background=ground)) for ground in (None, "scene"))
    )


def test_the_text_in_a_picture(tiny_native_model: StableDiffusion) -> None:
    (image,) = pictures(tiny_native_model, PLAIN.with_changes(background="#ff8800"))
    assert "Background: #ff8800" in image.info["parameters"]
    (again,) = pictures(tiny_native_model, parse_parameters(image.info["parameters"]).request.with_changes(model=None))
    assert again.tobytes() == image.tobytes()
    assert "Background" not in pictures(tiny_native_model, PLAIN)[0].info["parameters"]


def test_a_background_of_another_program_is_noted() -> None:
    info = parse_parameters("a cat\nSteps: 2, Sampler: Euler, Seed: 1, Background: blurred")
    assert info.request.background is None and any("'blurred' is not known" in note for note in info.notes)

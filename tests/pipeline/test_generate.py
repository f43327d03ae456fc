"""Pictures from requests: the noise contract, the tasks, events, bad input."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stable_diffusion
from painting import half_mask, pictures, speckled
from stable_diffusion.diffusion.noise import PerImageNoise
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.events import Images, Progress
from stable_diffusion.models.clip import CLIPText
from stable_diffusion.models.unet import UNet
from stable_diffusion.models.vae import VAE
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.names import SAMPLERS, SCHEDULES
from stable_diffusion.request.request import Request
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.parts import Parts

# --- the noise contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_picture_k_is_bit_identical_to_itself_alone(
    sampler: str, tiny_model: StableDiffusion, tiny_native_model: StableDiffusion
) -> None:
    for model in (tiny_model, tiny_native_model):
        request = Request("a (red:1.2) cat", seed=11, count=3, steps=4, sampler=sampler)
        together = pictures(model, request)
        assert len({image.tobytes() for image in together}) == 3
        for k in (0, 2):
            (alone,) = pictures(model, request.single(k))
            assert alone.tobytes() == together[k].tobytes()
            assert alone.info["parameters"] == together[k].info["parameters"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_agree_in_a_real_batch_too(sampler: str, tiny_native_model: StableDiffusion) -> None:
    """The mathematics of a batch never mixes rows. (The network may round otherwise for another batch size.)"""
    request = Request("a cat", seed=5, count=3, steps=4, sampler=sampler, guidance_rescale=0.5)
    (batch,) = [e for e in generate(tiny_native_model, request, batch=3, output="latent") if isinstance(e, Images)]
    alone = [e for e in generate(tiny_native_model, request, output="latent") if isinstance(e, Images)]
    assert batch.seeds == (5, 6, 7) and batch.tensor is not None
    near = 1e-2 if sampler == "dpm_adaptive" else 1e-4  # its steps follow the error that it measures, rounding included
    for k, each in enumerate(alone):
        assert each.tensor is not None and each.first == k
        assert torch.allclose(batch.tensor[k : k + 1], each.tensor, atol=near)


def test_start_noise_is_that_of_torch(tiny_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first state is the seed's first draw, times the spread of noisy states at the first level."""
    from stable_diffusion.pipeline import denoiser

    seen: list[torch.Tensor] = []
    original = denoiser.start_state

    def spy(*arguments: Any) -> torch.Tensor:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(denoiser, "start_state", spy)
    first = next(generate(tiny_model, Request("a", seed=99)))
    assert isinstance(first, Progress)
    noise = torch.randn((1, 4, 4, 6), generator=torch.Generator("cpu").manual_seed(99))
    assert torch.allclose(seen[-1], noise * (first.sigma**2 + 1) ** 0.5, rtol=1e-6)


SCRIPT = """
import hashlib, sys
from stable_diffusion import Images, Request, generate, load
model = load(sys.argv[1], device="cpu")
for sampler in sys.argv[2:]:
    for event in generate(model, Request("a cat", seed=3, count=2, steps=3, sampler=sampler)):
        if isinstance(event, Images):
            print(hashlib.sha256(event.images[0].tobytes() + event.images[0].info["parameters"].encode()).hexdigest())
"""


def test_a_new_process_gives_the_same_bytes(tiny_native_parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_native(path, tiny_native_parts, dtype="float32")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", SCRIPT, str(path), "euler", "euler_ancestral", "dpmpp_2m_sde", "lcm"]
    runs = [subprocess.run(command, capture_output=True, text=True, env=environment, check=True) for _ in range(2)]
    assert len(runs[0].stdout.split()) == 8 and runs[0].stdout == runs[1].stdout


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_come_in_order(tiny_model: StableDiffusion) -> None:
    events = list(generate(tiny_model, Request("a cat", seed=1, count=2, steps=3)))
    assert [type(e).__name__ for e in events] == ["Progress"] * 3 + ["Images"] + ["Progress"] * 3 + ["Images"]
    progress = [e for e in events if isinstance(e, Progress)]
    assert [(p.picture, p.index, p.total, p.pictures) for p in progress] == [
        (k, i, 3, 2) for k in range(2) for i in (1, 2, 3)
    ]
    assert [p.fraction for p in progress] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert progress[0].sigma > progress[1].sigma > progress[2].sigma > 0
    assert not any(p.preview for p in progress)
    done = [e for e in events if isinstance(e, Images)]
    assert [d.seeds for d in done] == [(1,), (2,)] and [d.first for d in done] == [0, 1]
    assert done[1].requests[0].count == 1 and done[1].requests[0].sampler == "euler"


def test_previews_are_made_where_they_are_asked_for(tiny_model: StableDiffusion) -> None:
    events = list(generate(tiny_model, Request("a cat", seed=1, steps=5), preview_every=2))
    shown = [e.preview for e in events if isinstance(e, Progress)]
    assert [picture is not None for picture in shown] == [False, True, False, True, False]
    assert shown[1] is not None and shown[1].size == (48, 32)
    never = generate(tiny_model, Request("a cat", seed=1, steps=2), preview_every=0)
    assert all(e.preview is None for e in never if isinstance(e, Progress))
    with pytest.raises(InvalidRequest, match="preview_every is -1; expected a whole number from 0"):
        generate(tiny_model, Request("a"), preview_every=-1)


def test_events_can_leave_the_process(tiny_model: StableDiffusion) -> None:
    for event in generate(tiny_model, Request("a cat", seed=1, steps=2), output="straight", preview_every=1):
        copy = pickle.loads(pickle.dumps(event))
        if isinstance(event, Progress):
            assert (copy.index, copy.sigma) == (event.index, event.sigma)
            assert copy.preview.tobytes() == event.preview.tobytes()
        else:
            assert copy.images[0].tobytes() == event.images[0].tobytes() and copy.requests == event.requests
            assert copy.images[0].info == event.images[0].info and torch.equal(copy.tensor, event.tensor)


def test_the_request_is_prepared_once(tiny_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are encoded and prompts read once for all pictures of a run, and each picture's noise is drawn once."""
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (counts.update([name]), original(*a, **k))[1])

    counted(VAE, "encode"), counted(VAE, "decode"), counted(CLIPText, "forward"), counted(PerImageNoise, "start")
    request = Request("a cat", seed=1, count=4, steps=2, image=speckled((48, 32)), mask=half_mask((48, 32)))
    list(generate(tiny_model, request))
    assert counts == {"encode": 1, "decode": 4, "forward": 2, "start": 4}


def test_closing_the_stream_stops_the_work(tiny_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = UNet.forward

    def counted(self: UNet, *arguments: Any, **named: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(self, *arguments, **named)

    monkeypatch.setattr(UNet, "forward", counted)
    stream = generate(tiny_model, Request("a cat", steps=10, count=5))
    assert calls == 0
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert calls == 2 and list(stream) == []


def test_outputs_of_three_kinds(tiny_native_model: StableDiffusion) -> None:
    request = Request("a cat", seed=3)

    def last(output: Any) -> Images:
        *_, event = generate(tiny_native_model, request, output=output)
        assert isinstance(event, Images)
        return event

    picture, straight, latent = last("pil"), last("straight"), last("latent")
    assert picture.tensor is None and straight.tensor is not None and latent.tensor is not None
    assert straight.tensor.shape == (1, 4, 24, 16) and latent.tensor.shape == (1, 6, 3, 2) and latent.images == ()
    rounded = (straight.tensor[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert (rounded == np.array(picture.images[0])).all()
    assert tiny_native_model.image_decoder(latent.tensor)[0].tobytes() == picture.images[0].tobytes()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s not in ("ays", "gits")])
def test_every_schedule_paints(schedule: str, tiny_model: StableDiffusion, tiny_native_model: StableDiffusion) -> None:
    for model in (tiny_model, tiny_native_model):
        (image,) = pictures(model, Request("a", seed=1, steps=5, schedule=schedule))
        assert read_metadata(image).request.schedule == schedule


BASE = Request("a red cat", negative_prompt="dog", seed=1, steps=4, guidance=3.0)
CHANGES: list[dict[str, Any]] = [
    {"prompt": "a blue dog"},
    {"prompt": "a (red:1.5) cat"},
    {"negative_prompt": "cat"},
    {"seed": 2},
    {"steps": 5},
    {"guidance": 4.0},
    {"guidance": 0.0},
    {"sampler": "heun"},
    {"schedule": "exponential"},
    {"guidance_rescale": 0.7},
    {"guidance_interval": (0.25, 0.75)},
    {"clip_skip": 2},
    {"width": 56},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_matters(change: dict[str, Any], tiny_model: StableDiffusion) -> None:
    (before,) = pictures(tiny_model, BASE)
    (after,) = pictures(tiny_model, replace(BASE, **change))
    assert before.size != after.size or before.tobytes() != after.tobytes()
    assert pictures(tiny_model, BASE)[0].tobytes() == before.tobytes()


def test_guidance_one_needs_no_negative(tiny_model: StableDiffusion) -> None:
    events = list(generate(tiny_model, replace(BASE, guidance=1.0, guidance_rescale=0.5)))
    last = events[-1]
    assert isinstance(last, Images)
    assert last.notes == ("negative_prompt is ignored: guidance is 1", "guidance_rescale is ignored: guidance is 1")
    (plain,) = pictures(tiny_model, replace(BASE, guidance=1.0, negative_prompt=""))
    assert last.images[0].tobytes() == plain.tobytes()


def test_cfg_plus_plus_uses_the_negative_prompt_at_one(tiny_native_model: StableDiffusion) -> None:
    """A1111 gives DDIM CFG++ the scales of ordinary guidance, 12.5 for the paper's 1 (arXiv:2406.08070)."""

    def latent(sampler: str, **settings: Any) -> torch.Tensor:
        request = Request("a cat", seed=3, steps=4, sampler=sampler, schedule="ddim_uniform", **settings)
        (done,) = [e for e in generate(tiny_native_model, request, output="latent") if isinstance(e, Images)]
        assert done.tensor is not None
        return done.tensor

    led = latent("ddim_cfg_pp", guidance=12.5, negative_prompt="a dog")
    assert not torch.allclose(led, latent("ddim_cfg_pp", guidance=12.5, negative_prompt="rain"), atol=1e-3)
    plain = latent("ddim", guidance=1.0)
    assert torch.allclose(latent("ddim_cfg_pp", guidance=12.5, negative_prompt="a cat"), plain, atol=1e-4)


def test_long_prompts_are_read_whole_and_say_so(tiny_model: StableDiffusion) -> None:
    long = "red " * 80
    *_, last = generate(tiny_model, Request(f"{long} cat", seed=1))
    assert isinstance(last, Images)
    assert last.notes == ("the prompt's 81 tokens were read in 2 windows; nothing was dropped",)
    assert last.images[0].tobytes() != pictures(tiny_model, Request(f"{long} dog", seed=1))[0].tobytes()


def test_metadata_brings_the_same_picture_back(tiny_native_model: StableDiffusion, tmp_path: Path) -> None:
    request = Request(
        "a cat, \nNegative prompt: no", negative_prompt="dog", seed=8, sampler="DPM++ 2M SDE Heun", steps=3
    )
    (image,) = pictures(tiny_native_model, request)
    path = stable_diffusion.save_image(image, tmp_path / "a.png")
    again = Request.like(path)
    assert again == request.__class__(
        **{**vars(again), "prompt": request.prompt, "negative_prompt": "dog", "seed": 8, "sampler": "DPM++ 2M SDE Heun"}
    )
    assert pictures(tiny_native_model, again)[0].tobytes() == image.tobytes()


# --- the one-call function --------------------------------------------------------------------------------------------


def test_generate_image_gives_a_picture_or_a_list(tiny_model: StableDiffusion) -> None:
    one = generate_image("a cat", model=tiny_model, seed=4, steps=2)
    many = stable_diffusion.generate_image("a cat", model=tiny_model, seed=4, steps=2, count=2)
    assert isinstance(one, Image.Image) and isinstance(many, list)
    assert many[0].tobytes() == one.tobytes() and many[1].tobytes() != one.tobytes()
    assert "Seed: 5" in many[1].info["parameters"]
    random = generate_image("a cat", model=tiny_model, steps=2)
    assert re.search(r"Seed: \d+", random.info["parameters"])


def test_a_prompt_alone_is_a_request(tiny_model: StableDiffusion) -> None:
    *_, told = generate(tiny_model, "a cat", seed=4, steps=2, sampler="ddim", eta=0.5)
    *_, made = generate(tiny_model, Request("a cat", seed=4, steps=2, sampler="ddim"), eta=0.5)
    assert isinstance(told, Images) and isinstance(made, Images)
    assert told.images[0].tobytes() == made.images[0].tobytes() and told.requests == made.requests


def test_a_list_of_prompts_gives_a_list_of_pictures(tiny_model: StableDiffusion) -> None:
    made = generate_image(["a cat", "a dog"], model=tiny_model, seed=4, steps=2, count=2)
    alone = [generate_image(prompt, model=tiny_model, seed=4, steps=2, count=2) for prompt in ("a cat", "a dog")]
    assert [image.tobytes() for image in made] == [image.tobytes() for pair in alone for image in pair]
    (single,) = generate_image(["a cat"], model=tiny_model, seed=4, steps=2)
    assert single.tobytes() == made[0].tobytes()
    assert generate_image([], model=tiny_model) == []


def test_a_callback_hears_of_every_step(tiny_model: StableDiffusion) -> None:
    seen: list[Progress] = []
    generate_image("a cat", model=tiny_model, seed=4, steps=3, count=2, callback=seen.append)
    assert [(p.picture, p.index) for p in seen] == [(k, i) for k in range(2) for i in (1, 2, 3)]
    assert seen[-1].fraction == 1


def test_generate_image_takes_every_argument(tiny_native_parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_native(path, tiny_native_parts, dtype="float32")
    speckled((16, 24)).save(tmp_path / "in.png")
    half_mask((16, 24)).save(tmp_path / "mask.png")
    with pytest.warns(UserWarning, match="negative_prompt is ignored"):
        image = generate_image(
            "a cat",
            negative_prompt="dog",
            model=path,
            width=24,
            height=16,
            steps=2,
            guidance=1,
            seed=1,
            sampler="Euler a",
            schedule="Karras",
            count=1,
            image=tmp_path / "in.png",
            mask=str(tmp_path / "mask.png"),
            strength=0.9,
            guidance_rescale=0.0,
            guidance_interval=None,
            clip_skip=2,
        )
    assert image.size == (24, 16) and image.mode == "RGBA"
    info = read_metadata(image)
    assert info.request.model == "m" and info.values["Denoising strength"] == "0.9"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"width": 50}, "the size 50x32 does not fit the model; expected multiples of 8, the nearest is 48x32"),
    ({"sampler": "dpmpp2mm"}, "unknown sampler 'dpmpp2mm': did you mean 'dpmpp_2m'?"),
    ({"steps": 1000, "schedule": "simple", "sampler": "euler", "clip_skip": 9}, "clip_skip is 9; expected 1 to 3"),
    ({"prompt": "(a:1e3)", "guidance": float("nan")}, "guidance is nan"),
    ({"prompt": "a (cat:500)"}, "the weight of 'cat' in the prompt is 500"),
    ({"strength": 0.5}, "there is no image to start from"),
    ({"schedule": "ays", "steps": 5000}, "steps is 5000"),
    ({"guidance_interval": (0.0, 0.01), "steps": 2, "seed": 1}, None),
    ({"guidance_interval": (0.6, 0.9), "steps": 2}, "covers none of 2 steps"),
    ({"model": "/nowhere/model.safetensors"}, "there is no model '/nowhere/model.safetensors'"),
]  # type: ignore[list-item]


@pytest.mark.parametrize(("values", "sentence"), BAD, ids=str)
def test_bad_requests_fail_before_any_work(
    values: dict[str, Any], sentence: str | None, tiny_model: StableDiffusion
) -> None:
    arguments = {"prompt": "a cat", "model": tiny_model, **values}
    if sentence is None:
        assert generate_image(**arguments).size == (48, 32)
        return
    with pytest.raises(InvalidRequest, match=re.escape(sentence)):
        generate_image(**arguments)


def test_bad_stream_settings(tiny_model: StableDiffusion) -> None:
    with pytest.raises(InvalidRequest, match="unknown output 'pill'"):
        generate(tiny_model, Request("a"), output="pill")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="batch is 0"):
        generate(tiny_model, Request("a"), batch=0)
    with pytest.raises(InvalidRequest, match="unknown option of sampler 'euler'"):
        generate(tiny_model, Request("a"), eta=0.5)


def test_overflow_is_an_error_and_not_a_black_picture(
    tiny_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UNet, "forward", lambda self, x, *rest, **named: x * float("inf"))
    with pytest.raises(StableDiffusionError, match=r"overflowed in torch\.float32"):
        list(generate(tiny_model, Request("a")))


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Nothing here warns unless a test expects it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield

"""The `parameters` text: what is written, what A1111's readers would see, and the way back to the same request."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stable_diffusion import images as files
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.images import save_image
from stable_diffusion.request.metadata import parameters_text, parse_parameters, read_metadata, user_comment
from stable_diffusion.request.names import SAMPLERS, SCHEDULES
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import EMPHASES, FILLS, UPSCALERS, Hires

FULL = Request(
    "a cat, sitting",
    negative_prompt="blurry",
    model="tiny",
    width=64,
    height=96,
    steps=20,
    guidance=7.5,
    seed=12345,
    sampler="dpmpp_2m",
    schedule="karras",
)


def test_the_text_is_what_a1111_writes() -> None:
    assert parameters_text(FULL, model_hash="0123456789", version="0.1.0") == (
        "a cat, sitting\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 12345, Size: 64x96, "
        "Model hash: 0123456789, Model: tiny, RNG: CPU, Version: stable-diffusion 0.1.0"
    )
    changed = replace(FULL, negative_prompt="", guidance=7.0, model='a, "b": c', strength=0.6, clip_skip=2)
    assert parameters_text(changed).split("\n")[1:] == [
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 12345, Size: 64x96, "
        r'Model: "a, \"b\": c", Denoising strength: 0.6, Clip skip: 2, RNG: CPU, Version: stable-diffusion'
    ]


NASTY = ["Negative prompt: x", "Steps: 1, Seed: 2, Size: 3x4", "\n", "Steps: 20", ", ", '"', "\\", ":", " ", "猫", "é",
         "\t", "a", "(b:1.2)", "Exact prompt: \"c\"", "\u2028", "\x85", "🌅", "BREAK", "[d]", "\n\n"]  # fmt: skip


def random_groups(rng: random.Random) -> dict[str, Any]:
    """Groups as they are after `resolve`, each off or on."""

    def some(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if rng.random() < 0.5}

    window = rng.randint(16, 512)
    return {
        "noise": some(
            source=rng.choice(["cpu", "device", "nv"]),
            seed_delta=rng.randint(-9, 2**31),
            eta=rng.random(),
            s_churn=rng.random() * 40,
            s_tmin=rng.random(),
            s_tmax=14.5,
            s_noise=1 + rng.random() / 100,
        ),
        "variation": rng.choice([{}, {"strength": 0.1 + rng.random() * 0.9, "seed": rng.randrange(2**63)}])
        | some(resize_from=(rng.randint(1, 999), rng.randint(1, 999))),
        "inpaint": some(
            blur=rng.random() * 9 + 0.1, only_masked=True, padding=rng.randint(0, 99), soft=True, fill=rng.choice(FILLS)
        ),
        "canvas": some(tiling=rng.choice(["x", "y", "both"]))
        | rng.choice([{}, {"panorama": True, "tiling": None}])
        | rng.choice([{}, {"window": window, "window_overlap": rng.randrange(window)}]),
        "prompting": some(emphasis=rng.choice(EMPHASES)),
        "hires": rng.choice([None, {"scale": 1 + rng.random(), **some(steps=rng.randint(1, 50))}]),
    }


def random_request(rng: random.Random) -> Request:
    def text() -> str:
        return "".join(rng.choice(NASTY) for _ in range(rng.randint(0, 8)))

    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.5 else None

    start = rng.random() * 0.9
    return replace(
        FULL,
        prompt="x" + text(),
        negative_prompt=text(),
        model=rng.choice(["tiny", "a, b", "mo:del", '"q"', "模型", "x.y-1"]),
        width=8 * rng.randint(1, 99),
        guidance=rng.choice([0.0, 1.0, 7.5, 0.1 + 0.2, rng.random() * 20]),
        seed=rng.randrange(2**63),
        sampler=rng.choice([*SAMPLERS, *(p for info in SAMPLERS.values() for p in info.presets)]),
        schedule=rng.choice(list(SCHEDULES)),
        clip_skip=maybe(rng.randint(1, 12)),
        guidance_rescale=rng.choice([0.0, rng.random()]),
        guidance_interval=maybe((start, start + (1 - start) * rng.random())) if start > 0.01 else None,
        **random_groups(rng),
    )


def test_any_request_comes_back_the_same() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        request = random_request(rng)
        if request.hires is None:
            request = replace(request, strength=rng.choice([None, rng.random()]))
            outpaint = (rng.randint(0, 9), 0, rng.randint(1, 99), 8)
            if not request.inpaint.only_masked:
                request = request.with_changes(canvas={"outpaint": rng.choice([None, outpaint])})
        else:
            request = request.with_changes(hires={"strength": rng.random(), "upscaler": rng.choice(UPSCALERS)})
        text = parameters_text(request, model_hash="0123456789", version="1")
        info = parse_parameters(text)
        assert info.request == request, text
        assert info.notes == () and info.values["Model hash"] == "0123456789"


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg", "deep/er/a.PNG"])
@pytest.mark.parametrize("prompt", ["plain latin-1 é", "海上的日落 🌅\nsecond line"])
def test_files_carry_the_request(tmp_path: Path, name: str, prompt: str) -> None:
    request = replace(FULL, prompt=prompt)
    image = Image.new("RGBA", (12, 8), (200, 40, 10, 120))
    path = save_image(image, tmp_path / name, parameters=parameters_text(request))
    assert read_metadata(path).request == request
    assert Request.like(path) == request
    assert Request.like(path, seed=1, prompt="other") == replace(request, seed=1, prompt="other")
    with Image.open(path) as again:
        assert again.size == (12, 8)
        if path.suffix.lower() != ".jpg":
            assert again.convert("RGBA").tobytes() == image.tobytes()
        else:
            assert again.mode == "RGB"


def test_the_picture_carries_its_own_text(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = parameters_text(FULL)
    assert read_metadata(save_image(image, tmp_path / "a.png")).request == FULL
    with pytest.raises(InvalidRequest, match="holds no generation parameters"):
        read_metadata(save_image(image, tmp_path / "b.png", parameters=""))


def test_texts_of_a1111_are_read() -> None:
    text = (
        "masterpiece, (best quality:1.2), a cat\nNegative prompt: lowres,\nbad hands\n"
        "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 3040472189, Size: 512x768, "
        "Model hash: 6ce0161689, Model: v1-5-pruned, VAE: vae-ft.safetensors, Clip skip: 2, Denoising strength: 0.35, "
        'Lora hashes: "add_detail: 7c6bad76eb54, x: 1", Hires upscale: 2, Version: v1.6.0'
    )
    info = parse_parameters(text)
    request = info.request
    assert request.prompt == "masterpiece, (best quality:1.2), a cat"
    assert request.negative_prompt == "lowres,\nbad hands"
    assert (request.steps, request.sampler, request.schedule) == (28, "dpmpp_2m", "karras")
    assert (request.guidance, request.seed, request.width, request.height) == (7.0, 3040472189, 512, 768)
    assert (request.clip_skip, request.strength, request.model) == (2, None, "v1-5-pruned")
    assert request.hires == Hires(scale=2, strength=0.35) and request.noise.source == "nv"
    assert info.values["Lora hashes"] == "add_detail: 7c6bad76eb54, x: 1"
    assert not any("Lora hashes" in note for note in info.notes), "the prompt's own tags ask for the adapters"
    assert any("noise was drawn on a GPU" in note for note in info.notes)


def test_texts_of_comfyui_are_read() -> None:
    """Its savers write "CFG Scale", join sampler and scheduler unless that is "normal", and its noise is the CPU's."""
    text = "a cat\nNegative prompt: dog\nSteps: 8, Sampler: {}, CFG Scale: 4.5, Seed: 5, Size: 64x64, Version: ComfyUI"
    info = parse_parameters(text.format("dpmpp_2m_sgm_uniform"))
    assert (info.request.guidance, info.request.noise.source, info.notes) == (4.5, "cpu", ())
    assert (info.request.sampler, info.request.schedule) == ("dpmpp_2m", "sgm_uniform")
    assert parse_parameters(text.format("dpmpp_2m")).request.schedule == "normal"


def test_a_second_pass_given_as_a_size_is_read() -> None:
    def read(resize: str) -> tuple[Hires | None, float | None, int]:
        info = parse_parameters(
            "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x768, Denoising strength: 0.6, "
            f"Hires resize: {resize}, Hires upscaler: Latent, RNG: CPU"
        )
        return info.request.hires, info.request.strength, len(info.notes)

    twice = Hires(scale=2, strength=0.6, upscaler="Latent")
    assert read("1024x1536") == read("1024x0") == read("0x1536") == (twice, None, 0)
    assert read("1024x1024") == (twice, None, 1), "A1111 covers the size and cuts off the rest"
    assert read("256x256") == read("x") == (None, None, 1), "no strength without a picture to start from"
    assert parse_parameters("a\nSteps: 2, Seed: 1, Hires upscale: 1, RNG: CPU").request.hires == Hires(scale=1)


def test_signs_that_were_no_choices_come_back_as_none() -> None:
    request = FULL.with_changes(prompt="a {red|blue} cat", prompting={"variants": False})
    assert "Variants: False" in parameters_text(request)
    assert parse_parameters(parameters_text(request)).request == request
    assert "Variants" not in parameters_text(FULL.with_changes(prompting={"variants": False}))


def test_schedules_of_a1111() -> None:
    def read(pairs: str) -> tuple[str | None, str | None, int]:
        info = parse_parameters(f"a cat\nSteps: 20, {pairs}, Seed: 1, RNG: CPU")
        return info.request.sampler, info.request.schedule, len(info.notes)

    assert read("Sampler: Euler a, Schedule type: Automatic") == ("euler_ancestral", "automatic", 0)
    assert read("Sampler: Euler") == ("euler", "automatic", 0)
    assert read("Sampler: DPM++ SDE Karras") == ("dpmpp_sde", "karras", 0)
    assert read("Sampler: DPM++ 2M, Schedule type: SGM Uniform") == ("dpmpp_2m", "sgm_uniform", 0)
    assert read("Sampler: DPM adaptive, Schedule type: Karras") == ("dpm_adaptive", "karras", 0)
    assert read("Sampler: Euler, Schedule type: Polyexponential") == ("euler", "polyexponential", 0)
    assert read("Sampler: DPM3, Schedule type: Karras") == (None, "karras", 1)
    assert read("Sampler: Euler, Schedule type: Sawtooth") == ("euler", "automatic", 1)


def test_a_last_line_of_few_pairs_is_prompt() -> None:
    with pytest.raises(InvalidRequest, match="holds no generation parameters"):
        parse_parameters("a cat\nratio: 3, more: 4")
    with pytest.raises(InvalidRequest, match="holds no generation parameters"):
        parse_parameters("")
    with pytest.raises(InvalidRequest, match="'Seed' of the picture's parameters is 'x'; expected a whole number"):
        parse_parameters("a\nSteps: 1, Seed: x, Size: 8x8")
    with pytest.raises(InvalidRequest, match="steps is 99999"):
        parse_parameters("a\nSteps: 99999, Seed: 1, Size: 8x8")
    with pytest.raises(InvalidRequest, match="expected at most 100000"):
        parse_parameters("a" * 100_001)


def test_random_text_never_breaks_the_reader() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        text = "".join(
            rng.choice([*NASTY, "Seed: ", "Sampler: Euler", "Size: 8x8", "1", "CFG scale: nan"]) for _ in range(12)
        )
        try:
            parse_parameters(text)
        except InvalidRequest as error:
            assert "\n" not in str(error)


def test_user_comments_in_other_orders(tmp_path: Path) -> None:
    text = parameters_text(FULL)
    big = user_comment(text)
    assert big[:8] == b"UNICODE\0" and big[8:] == text.encode("utf-16-be")
    for number, body in enumerate(
        (
            big,
            b"UNICODE\0" + text.encode("utf-16-le"),
            b"UNICODE\0" + text.encode("utf-16"),
            b"ASCII\0\0\0" + text.encode(),
        )
    ):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = body
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (4, 4)).save(path, exif=exif)
        assert read_metadata(path).request == FULL


def test_like_warns_of_what_is_lost(tmp_path: Path) -> None:
    path = save_image(
        Image.new("RGB", (4, 4)),
        tmp_path / "a.png",
        parameters="a\nSteps: 1, Seed: 2, Size: 8x8, RNG: CPU, VAE: other.pt",
    )
    with pytest.warns(UserWarning, match="'VAE' .other.pt. is not taken over"):
        Request.like(path)


def test_bad_destinations_are_plain_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (4, 4))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    save_image(image, tmp_path / "there.png")
    for name, match in (
        ("a.gif", "unknown picture format '.gif'"),
        ("a", "unknown picture format"),
        ("folder.png", "is a folder; expected the name of a file"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            save_image(image, tmp_path / name)
    with pytest.raises(InvalidRequest, match="exists; expected a new name"):
        save_image(image, tmp_path / "there.png", overwrite=False)
    with pytest.raises(StableDiffusionError, match="a part of the path is a file, not a folder"):
        save_image(image, tmp_path / "file" / "a.png")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (tmp_path / "there.png").read_bytes()
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StableDiffusionError, match="could not be written: the disk is full"):
        save_image(Image.new("RGB", (4, 4), "red"), tmp_path / "there.png")
    assert (tmp_path / "there.png").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png", "there.png"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_full_disk_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, file: Any, kind: str, **_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as device:  # a device that is always full
            device.write(b"x")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(StableDiffusionError, match="the disk is full"):
        save_image(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []

"""Every group of settings on a tiny model: it matters, picture k is itself alone, its file repeats it bit for bit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from painting import half_mask, pictures, speckled
from stable_diffusion.diffusion.samplers import solver
from stable_diffusion.diffusion.schedule import start_state
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images, Progress
from stable_diffusion.images import save_image
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import Canvas, Hires, Inpaint, Noise, Prompting, VariationSeed
from stable_diffusion.text.encode import restore_mean

SIZE = {"width": 32, "height": 32}
BASE = Request("a (red:1.3) cat", negative_prompt="a dog", seed=3, steps=4, guidance=3.0, **SIZE)
ANCESTRAL = {"sampler": "euler_ancestral"}

FROM_TEXT: list[dict[str, Any]] = [
    {"canvas": Canvas(tiling="x")},
    {"canvas": Canvas(tiling="y")},
    {"canvas": Canvas(tiling="both")},
    {"canvas": Canvas(panorama=True), "width": 64},
    {"canvas": Canvas(window=16)},
    {"canvas": Canvas(window=16, window_overlap=0)},
    {"canvas": Canvas(window=16, tiling="x")},
    {"variation": VariationSeed(strength=0.3, seed=9)},
    {"variation": VariationSeed(strength=1, seed=9), **ANCESTRAL},
    {"variation": VariationSeed(resize_from=(16, 48))},
    {"hires": Hires(scale=1.5)},
    {"hires": Hires(scale=2, steps=3, strength=0.4, upscaler="Latent (nearest-exact)"), **ANCESTRAL},
    {"hires": Hires(scale=1.5, upscaler="Lanczos")},
    {"hires": Hires(scale=1.5, strength=0)},
    {"hires": Hires(scale=1.5), "canvas": Canvas(tiling="both")},
    {"hires": Hires(scale=1.5), "variation": VariationSeed(strength=0.5, seed=1)},
    {"noise": Noise(source="nv")},
    {"noise": Noise(source="device", seed_delta=31337), **ANCESTRAL},
    {"noise": Noise(eta=0.4), **ANCESTRAL},
    {"noise": Noise(eta=0.4), "sampler": "ddim"},
    {"noise": Noise(s_churn=4.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.01)},
    {"noise": Noise(seed_delta=5), "sampler": "dpmpp_2m_sde"},
    {"prompting": Prompting(emphasis="Original")},
    {"prompting": Prompting(emphasis="No norm")},
    {"prompting": Prompting(emphasis="Ignore")},
    {"prompting": Prompting(emphasis="None")},
    {"prompt": "a [cat:dog:0.5]"},
    {"prompt": "a [cat|dog|bird] here"},
    {"prompt": "a cat AND a dog:0.5"},
    {"prompt": "a cat :-0.3 AND a [dog:bird:2]", "guidance": 1.0},
    {"prompt": "a {cat|dog|bird|fish}", "negative_prompt": "{red|blue|green}"},
    {"negative_prompt": "a [dog:bird:0.5]"},
    {"prompt": "a [cat:dog:1.5]", "hires": Hires(scale=1.5)},
]


@pytest.mark.parametrize("change", FROM_TEXT, ids=str)
def test_from_text(change: dict[str, Any], tiny_native_model: StableDiffusion, tmp_path: Path) -> None:
    check(
        BASE.with_changes(**change),
        BASE.with_changes(**{k: v for k, v in change.items() if k in SIZE}),
        tiny_native_model,
        tmp_path,
    )


PICTURE = {"image": speckled((32, 32)), "mask": half_mask((32, 32))}
SMALL = Image.new("L", (32, 32))
SMALL.paste(255, (20, 4, 28, 12))
FROM_PICTURE: list[dict[str, Any]] = [
    {"inpaint": Inpaint(blur=2.5)},
    {"inpaint": Inpaint(only_masked=True, padding=4), "mask": SMALL},
    {"inpaint": Inpaint(only_masked=True, blur=1, fill="fill"), "mask": SMALL},
    {"inpaint": Inpaint(soft=True)},
    {"inpaint": Inpaint(invert=True)},
    *({"inpaint": Inpaint(fill=fill), **ANCESTRAL} for fill in ("fill", "latent noise", "latent nothing")),
    {"canvas": Canvas(outpaint=(0, 8, 16, 0)), "mask": None, "width": None, "height": None},
    {
        "canvas": Canvas(outpaint=(16, 0, 16, 0), tiling="x"),
        "mask": None,
        "width": None,
        "height": None,
        "strength": 0.9,
    },
    {"canvas": Canvas(tiling="both")},
]


@pytest.mark.parametrize(
    "change", FROM_PICTURE, ids=lambda change: str({k: v for k, v in change.items() if k != "mask"})
)
def test_from_a_picture(change: dict[str, Any], tiny_model: StableDiffusion, tmp_path: Path) -> None:
    plain = BASE.with_changes(**PICTURE)
    check(plain.with_changes(**change), plain, tiny_model, tmp_path)


def check(request: Request, plain: Request, model: StableDiffusion, folder: Path) -> None:
    """The setting matters; picture 1 of 2 is itself alone; the file of a picture makes it again."""
    first, second = pictures(model, replace(request, count=2))
    (without,) = pictures(model, plain)
    assert first.size != without.size or first.tobytes() != without.tobytes()
    assert first.tobytes() != second.tobytes()
    (alone,) = pictures(model, request.single(1))
    assert alone.tobytes() == second.tobytes() and alone.info == second.info
    path = save_image(second, folder / "second.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Request.like(path, image=request.image, mask=request.mask)
    (repeated,) = pictures(model, again)
    assert repeated.tobytes() == second.tobytes() and repeated.info == second.info


# --- what each task promises ------------------------------------------------------------------------------------------


def latent(model: StableDiffusion, request: Request) -> torch.Tensor:
    (done,) = [e for e in generate(model, request, output="latent") if isinstance(e, Images)]
    assert done.tensor is not None
    return done.tensor


def test_outpainting_keeps_the_picture_bit_for_bit(
    tiny_model: StableDiffusion, tiny_native_model: StableDiffusion
) -> None:
    for model, mode in ((tiny_model, "RGB"), (tiny_native_model, "RGBA")):
        picture = speckled((30, 21), mode)
        image = generate_image("a", model=model, image=picture, seed=1, canvas={"outpaint": (0, 5, 6, 0)}, steps=2)
        assert image.size == (40, 32) and image.mode == mode
        top = image.height - picture.height
        assert image.crop((0, top, 30, top + 21)).tobytes() == picture.tobytes()


def test_a_blurred_outpainting_runs_into_the_old_part_alone(tiny_native_model: StableDiffusion) -> None:
    picture = Image.new("RGBA", (16, 24), "red")
    request = Request("a", image=picture, seed=1, canvas={"outpaint": (16, 0, 0, 0)}, steps=2)  # type: ignore[arg-type]
    (hard,) = pictures(tiny_native_model, request)
    (soft,) = pictures(tiny_native_model, request.with_changes(inpaint={"blur": 2}))
    # a blurred mask reaches further in the latent, but no old transparent canvas may show through what is new
    assert np.array(soft)[:, :16, 3].mean() >= np.array(hard)[:, :16, 3].mean() * 0.9
    border = np.array(soft)[:, 14:18, 3].astype(float), np.array(hard)[:, 14:18, 3].astype(float)
    assert border[0].min() >= border[1].min() * 0.9
    assert soft.crop((26, 0, 32, 24)).tobytes() == picture.crop((10, 0, 16, 24)).tobytes()


def test_only_masked_touches_nothing_else_and_paints_at_the_whole_size(tiny_model: StableDiffusion) -> None:
    picture = speckled((120, 90))
    mask = Image.new("L", picture.size)
    mask.paste(255, (70, 20, 90, 40))
    request = BASE.with_changes(image=picture, mask=mask, inpaint=Inpaint(only_masked=True, padding=5))
    assert latent(tiny_model, request).shape[-2:] == (4, 4)
    (image,) = pictures(tiny_model, request)
    assert image.size == picture.size
    outside = np.array(mask) == 0
    assert (np.array(image)[outside] == np.array(picture)[outside]).all()
    assert (np.array(image)[~outside] != np.array(picture)[~outside]).mean() > 0.5


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("canvas", [Canvas(tiling="x"), Canvas(panorama=True)], ids=["tiling", "panorama"])
def test_a_rolled_start_gives_the_rolled_picture(
    canvas: Canvas, sampler: str, tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seam is nowhere: turning the noise turns the picture, decoder and poles included."""
    from stable_diffusion.pipeline import denoiser

    request = BASE.with_changes(canvas=canvas, sampler=sampler, width=64)
    (straight,) = [e.tensor for e in generate(tiny_native_model, request, output="straight") if isinstance(e, Images)]
    original = denoiser.varied

    def rolled(*arguments: Any) -> Any:
        found = original(*arguments)
        start = found.start().roll(2, -1)
        monkeypatch.setattr(found, "start", lambda: start)
        return found

    monkeypatch.setattr(denoiser, "varied", rolled)
    (turned,) = [e.tensor for e in generate(tiny_native_model, request, output="straight") if isinstance(e, Images)]
    assert straight is not None and turned is not None
    assert torch.allclose(turned, straight.roll(16, -1), atol=2e-3)
    assert not torch.allclose(turned, straight, atol=0.05)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_a_panorama_s_file_says_that_it_is_a_sphere(ending: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    (image,) = pictures(tiny_model, BASE.with_changes(canvas=Canvas(panorama=True), width=64))
    path = save_image(image, tmp_path / f"sphere{ending}")
    with Image.open(path) as opened:
        packet = opened.info["xmp"]
    assert b'GPano:ProjectionType="equirectangular"' in packet and b'FullPanoWidthPixels="64"' in packet
    (flat,) = pictures(tiny_model, BASE)
    with Image.open(save_image(flat, tmp_path / f"flat{ending}")) as opened:
        assert "xmp" not in opened.info


def test_hires_counts_the_steps_of_both_passes(tiny_model: StableDiffusion) -> None:
    events = list(generate(tiny_model, BASE.with_changes(hires=Hires(scale=1.5, steps=3))))
    steps = [(e.index, e.total) for e in events if isinstance(e, Progress)]
    assert steps == [(k, 7) for k in range(1, 8)]
    done = events[-1]
    assert isinstance(done, Images) and done.images[0].size == (48, 48)


def test_hires_is_img2img_of_the_enlarged_latent(tiny_model: StableDiffusion) -> None:
    from torch.nn import functional as F

    request = BASE.with_changes(hires=Hires(scale=2, steps=2, strength=0.5, upscaler="Latent"))
    small = latent(tiny_model, BASE)
    large = F.interpolate(small, scale_factor=2, mode="bilinear")
    settings = {"seed": 3, "steps": 4, "guidance": 3.0, "sampler": "euler", "schedule": "karras"}
    *_, last = tiny_model.denoising_process(BASE.prompt, BASE.negative_prompt, latent=large, strength=0.5, **settings)
    assert torch.equal(latent(tiny_model, request), last.x)


def test_hires_starts_at_the_level_of_a1111(tiny_model: StableDiffusion) -> None:
    """3 steps at 0.7 are the last 3 of int(3 / 0.7) = 4, and factor 1 paints twice at one size."""
    request = BASE.with_changes(hires=Hires(scale=1, steps=3, strength=0.7, upscaler="Latent"))
    settings = {"seed": 3, "steps": 4, "guidance": 3.0, "sampler": "euler", "schedule": "karras"}
    small = latent(tiny_model, BASE)
    *_, last = tiny_model.denoising_process(BASE.prompt, BASE.negative_prompt, latent=small, strength=0.75, **settings)
    assert torch.equal(latent(tiny_model, request), last.x)


def test_some_samplers_leave_out_the_lowest_level(tiny_model: StableDiffusion) -> None:
    process = tiny_model.denoising_process
    longer = process.sigmas("euler", "karras", 6, "zero")
    for sampler in ("DPM2", "DPM2 a", "DPM++ 3M SDE"):
        assert torch.equal(process.sigmas(sampler, "karras", 5, "zero"), torch.cat([longer[:-2], longer[-1:]]))
        assert len(process.sigmas(sampler, "karras", 1, "zero")) == 2
    assert torch.equal(process.sigmas("DPM++ 2M", "karras", 6, "zero"), longer)


# --- prompts that change ----------------------------------------------------------------------------------------------


def test_a_scheduled_prompt_is_a_switch_by_hand(tiny_model: StableDiffusion) -> None:
    process = tiny_model.denoising_process
    sigmas = process.sigmas("euler", "karras", 5, "zero")
    noise = process.noise(solver("euler"), 3, (4, 6)).start()
    x = start_state(process.schedule, noise, float(sigmas[0]))
    for prompt, names in (("a [cat:dog:2]", "ccddd"), ("a [cat:dog:0.6]", "cccdd"), ("a [cat|dog]", "cdcdc")):
        state = x
        for step, name in enumerate(names):
            text = {"c": "a cat", "d": "a dog"}[name]
            denoise = process.guided(text, "bad", 4.0)
            ratio = float(sigmas[step + 1]) / float(sigmas[step])
            x0 = denoise(state, state.new_full((1,), float(sigmas[step]))).x0
            state = state * ratio + x0 * (1 - ratio)
        *_, last = process(
            prompt, "bad", seed=3, size=(4, 6), steps=5, guidance=4.0, sampler="euler", schedule="karras"
        )
        assert torch.equal(last.x, state), prompt


def test_and_is_the_sum_of_guided_differences(tiny_model: StableDiffusion) -> None:
    process = tiny_model.denoising_process
    x = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0)) * 3
    sigma = torch.tensor([3.0, 3.0])

    def plain(text: str) -> torch.Tensor:
        return process.guided(text, guidance=1.0)(x, sigma).x0

    cat, dog, bad = plain("a cat"), plain("a dog"), plain("bad")
    for scale in (0.0, 1.0, 4.0):
        expected = bad + scale * (0.7 * (cat - bad) - 0.2 * (dog - bad))
        made = process.guided("a cat:0.7 AND a dog:-0.2", "bad", scale)(x, sigma).x0
        assert torch.allclose(made, expected, atol=1e-4)


def test_emphasis_is_what_each_program_does(tiny_model: StableDiffusion) -> None:
    encoder = tiny_model.text_encoder
    plain, empty = encoder("a red cat").tokens, encoder("").tokens
    factors = torch.ones(1, 77, 1)
    factors[0, 2] = 1.5
    no_norm = encoder.with_emphasis("no_norm")("a (red:1.5) cat").tokens
    comfy = encoder.with_emphasis("from_empty")("a (red:1.5) cat").tokens
    original = encoder("a (red:1.5) cat").tokens
    assert torch.allclose(no_norm, plain * factors, atol=1e-6)
    assert torch.allclose(comfy, empty + (plain - empty) * factors, atol=1e-6)
    assert torch.equal(original, restore_mean(plain, factors))
    assert encoder.emphasis == "restore_mean"


def test_choices_are_made_by_each_picture_s_seed_and_written_in_its_text(
    tiny_native_model: StableDiffusion, tmp_path: Path
) -> None:
    (tmp_path / "nature").mkdir()
    (tmp_path / "nature" / "tree.txt").write_text("# trees\noak\n\nelm\n{tall|small} fir\n", encoding="utf-8")
    request = BASE.with_changes(prompt="a __tree__, {red|blue}", count=6, prompting=Prompting(wildcards_dir=tmp_path))
    made = pictures(tiny_native_model, request)
    texts = [image.info["parameters"].split("\n")[0] for image in made]
    assert len(set(texts)) > 2 and not any("__" in text or "{" in text for text in texts)
    (alone,) = pictures(tiny_native_model, request.single(4))
    assert alone.info == made[4].info and alone.tobytes() == made[4].tobytes()
    *_, last = generate(tiny_native_model, BASE.with_changes(prompt="a __tree__"))
    assert isinstance(last, Images)
    assert last.notes == ("'__tree__' is read as text: no folder of wildcards is given",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret", "is no name of a file in the folder of wildcards"),
        ("tre", "there is no 'tre' in the folder of wildcards .*; did you mean 'tree'"),
        ("link", "'link.txt' is a link that leads out of the folder"),
        ("binary", "is not text in UTF-8"),
    ],
)
def test_wildcards_stay_in_their_folder(name: str, message: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    folder = tmp_path / "cards"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "tree.txt").write_text("oak")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidRequest, match=message):
        generate(tiny_model, BASE.with_changes(prompt=f"a __{name}__", prompting=Prompting(wildcards_dir=folder)))


def test_styles_are_joined_before_all_else(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text("name,prompt,negative_prompt\nink,{red|blue} ink of {prompt},photo\n", encoding="utf-8")
    prompting = Prompting(styles=("ink",), styles_file=path)
    (image,) = pictures(tiny_model, BASE.with_changes(prompt="a cat", prompting=prompting))
    lines = image.info["parameters"].split("\n")
    assert lines[0] in ("red ink of a cat", "blue ink of a cat") and lines[1] == "Negative prompt: a dog, photo"
    with pytest.raises(InvalidRequest, match="no file of styles is given"):
        generate(tiny_model, BASE.with_changes(prompting=Prompting(styles=("ink",))))


def test_settings_without_effect_are_told(tiny_model: StableDiffusion) -> None:
    request = BASE.with_changes(noise=Noise(eta=0.5), variation=VariationSeed(seed=4), canvas=Canvas(window=64))
    *_, last = generate(tiny_model, request)
    assert isinstance(last, Images)
    assert last.notes == (
        "eta is ignored: the sampler Euler has no such setting",
        "the variation seed is ignored: its strength is 0",
        "window is ignored: the canvas is no larger than 64 pixels",
    )

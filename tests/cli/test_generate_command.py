"""`generate`: what lands on stdout, stderr and disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from cli_helpers import Run, assert_one_sentence, leftovers
from PIL import Image, PngImagePlugin

from stable_diffusion.embedded import model_path


def test_default_command_writes_a_picture_and_prints_its_path(run: Run, here: Path, model_file: Path) -> None:
    result = run("a cat, sitting!", "--model", model_file, "--seed", 7)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "outputs/7-a-cat-sitting.png\n"
    assert "seed 7" in result.stderr
    image = Image.open(here / "outputs/7-a-cat-sitting.png")
    assert image.size == (16, 24) and "a cat, sitting!" in image.info["parameters"]


def test_named_and_default_command_do_the_same(run: Run, here: Path, model_file: Path) -> None:
    for arguments in (["a cat"], ["generate", "a cat"]):
        assert run(*arguments, "-m", model_file, "-s", 1, "-o", f"{len(arguments)}.png").exit_code == 0
    assert (here / "1.png").read_bytes() == (here / "2.png").read_bytes()


def test_options_may_stand_before_the_prompt(run: Run, model_file: Path) -> None:
    result = run("--seed", 3, "--model", model_file, "海上的日落")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "outputs/3-海上的日落.png\n"


def test_a_second_run_takes_another_name(run: Run, here: Path, model_file: Path) -> None:
    names = [run("a cat", "-m", model_file, "-s", 1).stdout for _ in range(3)]
    assert names == ["outputs/1-a-cat.png\n", "outputs/1-a-cat-2.png\n", "outputs/1-a-cat-3.png\n"]


def test_an_existing_file_is_kept_unless_overwrite_is_given(run: Run, here: Path, model_file: Path) -> None:
    (here / "x.png").write_text("mine")
    result = run("a cat", "-m", model_file, "--out", "x.png")
    assert_one_sentence(result.exit_code, result.stderr, "'x.png' exists", "--overwrite")
    assert (here / "x.png").read_text() == "mine"
    assert run("a cat", "-m", model_file, "--out", "x.png", "--overwrite").exit_code == 0
    assert Image.open(here / "x.png").size == (16, 24)


def test_count_gives_each_picture_its_seed(run: Run, here: Path, model_file: Path) -> None:
    result = run("a cat", "-m", model_file, "-s", 5, "-n", 3, "--sampler", "euler_ancestral")
    assert result.stdout.split() == [f"outputs/{seed}-a-cat.png" for seed in (5, 6, 7)]
    alone = run("a cat", "-m", model_file, "-s", 6, "--sampler", "Euler a", "-o", "alone.png")
    assert alone.exit_code == 0, alone.stderr
    assert (here / "alone.png").read_bytes() == (here / "outputs/6-a-cat.png").read_bytes()


def test_count_with_a_file_name_adds_the_seed(run: Run, model_file: Path) -> None:
    result = run("a cat", "-m", model_file, "-s", 5, "-n", 2, "-o", "cat.webp")
    assert result.stdout.split() == ["cat-5.webp", "cat-6.webp"]


def test_json_lists_path_seed_and_size(run: Run, model_file: Path) -> None:
    result = run("a cat", "-m", model_file, "-s", 5, "--size", "24x16", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["images"] == [{"path": "outputs/5-a-cat.png", "seed": 5, "width": 24, "height": 16}]


def test_like_paints_the_same_picture_again(run: Run, here: Path, model_file: Path) -> None:
    first = run(
        "a (red:1.3) cat", "-m", model_file, "-s", 9, "-t", 3, "--cfg", 1.5, "--negative", "a dog", "-o", "a.png"
    )
    assert first.exit_code == 0, first.stderr
    again = run("generate", "--like", "a.png", "-m", model_file, "-o", "b.png")
    assert again.exit_code == 0, again.stderr
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    other = run("generate", "--like", "a.png", "-m", model_file, "--seed", 10, "-o", "c.png")
    assert other.exit_code == 0, other.stderr
    assert (here / "a.png").read_bytes() != (here / "c.png").read_bytes()


def test_guidance_zero_is_taken_literally(run: Run, here: Path, model_file: Path) -> None:
    assert run("a cat", "-m", model_file, "-s", 1, "--cfg", 0, "-o", "0.png").exit_code == 0
    assert run("a cat", "-m", model_file, "-s", 1, "-o", "default.png").exit_code == 0
    assert (here / "0.png").read_bytes() != (here / "default.png").read_bytes()
    assert "CFG scale: 0," in Image.open(here / "0.png").info["parameters"]


def test_image_and_mask_keep_what_lies_outside(run: Run, here: Path, model_file: Path) -> None:
    picture = Image.radial_gradient("L").resize((16, 24)).convert("RGB")
    picture.save(here / "in.png")
    mask = Image.new("L", (16, 24), 0)
    mask.paste(255, (8, 8, 16, 24))
    mask.save(here / "mask.png")
    result = run("a cat", "-m", model_file, "-s", 1, "--image", "in.png", "--mask", "mask.png", "-o", "out.png")
    assert result.exit_code == 0, result.stderr
    out = Image.open(here / "out.png").convert("RGB")
    assert out.crop((0, 0, 8, 24)).tobytes() == picture.crop((0, 0, 8, 24)).tobytes()
    assert out.tobytes() != picture.tobytes()


def test_prompt_from_standard_input_and_picture_to_standard_output(run: Run, here: Path, model_file: Path) -> None:
    result = run("-", "-m", model_file, "-s", 1, "-o", "-", input="a cat\n")
    assert result.exit_code == 0, result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).size == (16, 24)
    assert leftovers(here) == []


def test_the_same_request_in_a_new_process_gives_the_same_bytes(
    run: Run, process: Run, here: Path, model_file: Path
) -> None:
    arguments = ("a cat", "-m", model_file, "-s", 4, "--sampler", "dpmpp_2m_sde")
    assert run(*arguments, "-o", "here.png").exit_code == 0
    other = process(*arguments, "-o", "there.png")
    assert other.returncode == 0, other.stderr
    assert (here / "here.png").read_bytes() == (here / "there.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "expected"), [("A cat, sitting!", "a-cat-sitting"), ("???", "picture"), ("海 上", "海-上")]
)
def test_slug(text: str, expected: str) -> None:
    from stable_diffusion.cli.files import slug

    assert slug(text) == expected
    assert len(slug(text * 50)) <= 60


@pytest.mark.skipif(model_path() is None, reason="no built-in model here")
def test_a_model_that_another_program_names_and_that_is_not_here(run: Run, here: Path, model_file: Path) -> None:
    """The rest of its settings is used, with a note; a picture of our own is an error instead."""
    text = "a cat\nSteps: 1, Sampler: Euler, CFG scale: 1, Seed: 3, Size: 16x16, Model: somebody-v3"
    for name, version in (("theirs.png", "v1.10.1"), ("ours.png", "stable-diffusion 0.1.0")):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", f"{text}, Version: {version}")
        Image.new("RGB", (16, 16)).save(here / name, pnginfo=info)
    theirs = run("generate", "--like", "theirs.png", "-o", "a.png")
    assert theirs.exit_code == 0, theirs.stderr
    assert "its model 'somebody-v3' is not here; --model names another" in theirs.stderr
    assert run("generate", "--like", "theirs.png", "-m", model_file, "-o", "b.png").exit_code == 0
    ours = run("generate", "--like", "ours.png")
    assert_one_sentence(ours.exit_code, ours.stderr, "there is no model 'somebody-v3'")

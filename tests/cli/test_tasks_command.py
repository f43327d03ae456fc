"""Options for special tasks, prompts from a file, outpainting and grids, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import Run, assert_one_sentence
from PIL import Image

from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import GROUPS, Hires

EVERY = (
    *("--clip-skip", 1, "--emphasis", "original", "--no-variants", "--rng", "nv", "--ensd", 7, "--eta", 0.5),
    *("--variation-seed", 9, "--variation-strength", 0.25, "--seed-resize", "16x16", "--s-noise", 1.01),
    *("--hires", 1.5, "--hires-steps", 2, "--hires-strength", 0.5, "--hires-upscaler", "lanczos"),
    *("--tiling", "x", "--window", 16, "--window-overlap", 8, "--guidance-rescale", 0.1),
    *("--guidance-interval", "0,0.5", "--sampler", "Euler a", "--size", "32x32", "--seed", 5, "--steps", 2),
)


def test_every_option_reaches_the_picture_and_like_repeats_it(run: Run, here: Path, model_file: Path) -> None:
    result = run("a {cat|dog}", "-m", model_file, *EVERY, "-o", "a.png")
    assert result.exit_code == 0, result.stderr
    request = read_metadata(here / "a.png").request
    assert request.prompt == "a {cat|dog}" and request.guidance_interval == (0.0, 0.5)
    assert request.hires == Hires(scale=1.5, steps=2, strength=0.5, upscaler="Lanczos")
    assert (request.noise.source, request.noise.seed_delta, request.noise.eta) == ("nv", 7, 0.5)
    assert (request.variation.seed, request.variation.strength, request.variation.resize_from) == (9, 0.25, (16, 16))
    assert (request.canvas.tiling, request.canvas.window, request.canvas.window_overlap) == ("x", 16, 8)
    assert request.prompting.emphasis == "Original" and Image.open(here / "a.png").size == (48, 48)
    again = run("generate", "--like", "a.png", "--no-variants", "-m", model_file, "-o", "b.png")
    assert again.exit_code == 0, again.stderr
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    changed = run("generate", "--like", "a.png", "--hires-steps", 3, "-m", model_file, "-o", "c.png")
    assert changed.exit_code == 0, changed.stderr
    assert read_metadata(here / "c.png").request.hires == Hires(scale=1.5, steps=3, strength=0.5, upscaler="Lanczos")


def test_every_field_of_every_group_has_an_option() -> None:
    from stable_diffusion.cli.commands.generate import command

    options = {parameter.name for parameter in command.params}
    assert {f"{group}__{field}" for group, kind in GROUPS.items() for field in kind.__dataclass_fields__} <= options
    alone = {"controls", "prompt", "loras", "lora_dir", "embeddings_dir"}
    fields = set(Request.__dataclass_fields__) - {"_", *GROUPS}
    assert fields - alone <= options | {"prompt"}


def test_help_shows_headings(run: Run) -> None:
    shown = run("generate", "--help").stdout
    places = [
        shown.index(f"\n{heading}:\n")
        for heading in ("Common options", "Prompts", "Canvas", "Noise and guidance", "Options")
    ]
    assert places == sorted(places)


def test_outpaint_keeps_the_picture(run: Run, here: Path, model_file: Path) -> None:
    assert run("a cat", "-m", model_file, "-s", 1, "--negative", "a dog", "-o", "cat.png").exit_code == 0
    result = run("outpaint", "cat.png", "--all", 8, "--left", 16, "-m", model_file, "-s", 2, "-o", "wide.png")
    assert result.exit_code == 0, result.stderr
    wide, cat = Image.open(here / "wide.png"), Image.open(here / "cat.png")
    assert wide.size == (16 + 16 + 8, 8 + 24 + 8)
    assert wide.crop((16, 8, 32, 32)).tobytes() == cat.tobytes()
    request = read_metadata(here / "wide.png").request
    assert (request.prompt, request.negative_prompt) == ("a cat", "a dog")
    again = run("generate", "--like", "wide.png", "--image", "cat.png", "-m", model_file, "-o", "again.png")
    assert again.exit_code == 0, again.stderr
    assert (here / "again.png").read_bytes() == (here / "wide.png").read_bytes()
    nothing = run("outpaint", "cat.png", "-m", model_file)
    assert_one_sentence(nothing.exit_code, nothing.stderr, "nothing is added", "--all")


PROMPTS = """# two pictures and one more
a cat

--prompt "a dog, sitting" --seed 9 --steps 1 --cfg_scale 1.5 --sampler_name "Euler a" --batch_size 2
--prompt 'a bird' --size 24x16 --subseed 4 --subseed_strength 0.5 --do_not_save_grid true
"""


def test_prompts_from_a_file(run: Run, here: Path, model_file: Path) -> None:
    (here / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    result = run("generate", "--prompts", "prompts.txt", "-m", model_file, "-s", 3, "-o", "out", "--json")
    assert result.exit_code == 0, result.stderr
    found = [(record["path"], record["seed"]) for record in json.loads(result.stdout)["images"]]
    assert found == [
        ("out/3-a-cat.png", 3),
        ("out/9-a-dog-sitting.png", 9),
        ("out/10-a-dog-sitting.png", 10),
        ("out/3-a-bird.png", 3),
    ]
    dog, bird = read_metadata(here / found[1][0]).request, read_metadata(here / found[3][0]).request
    assert (dog.steps, dog.guidance, dog.sampler) == (1, 1.5, "euler_ancestral")
    assert (bird.width, bird.height, bird.variation.seed, bird.variation.strength) == (24, 16, 4, 0.5)
    assert run("a cat", "-m", model_file, "-s", 3, "-o", "cat.png").exit_code == 0
    assert (here / "cat.png").read_bytes() == (here / found[0][0]).read_bytes()


def test_lines_of_a1111_without_quotes_and_with_a_seed_s_size() -> None:
    from stable_diffusion.request.prompt_file import parse_line

    line = "--prompt a dog in snow --negative_prompt cat, --seed_resize_from_w 512 --seed_resize_from_h 768 --seed -1"
    assert parse_line(line) == {
        "prompt": "a dog in snow",
        "negative_prompt": "cat,",
        "variation": {"resize_from": (512, 768)},
        "seed": -1,
    }
    assert parse_line("--prompt a --seed_resize_from_w 0 --seed_resize_from_h -1") == {"prompt": "a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds 0 prompts"]),
        ("a\n--prompt b --stepz 3", ["line 2", "--stepz", "--steps"]),
        ("--prompt b --steps many", ["line 1", "--steps", "'many'", "whole number"]),
        ("--steps 3", ["line 1", "--prompt"]),
        ("--prompt b --steps", ["line 1", "no value"]),
        ("--prompt b --steps 3 4", ["line 1", "'4'"]),
        ('--prompt "b', ["line 1", "quotation"]),
        ("--prompt b --steps 0", ["line 1", "steps is 0"]),
    ],
)
def test_bad_files_of_prompts(run: Run, here: Path, text: str, words: list[str]) -> None:
    (here / "p.txt").write_text(text)
    result = run("generate", "--prompts", "p.txt")
    assert_one_sentence(result.exit_code, result.stderr, *words)


def test_a_grid_of_three_axes(run: Run, here: Path, model_file: Path) -> None:
    axes = ("--x", "prompt=cat,dog", "--y", "steps=1-2", "--z", "sampler=euler,Euler a", "--seeds", 5)
    result = run("sample-grid", "a cat", "-m", model_file, *axes, "-o", "grid.png", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["columns"] == [{"prompt": "cat"}, {"prompt": "dog"}]
    assert facts["rows"] == [{"steps": 1, "seed": 5}, {"steps": 2, "seed": 5}]
    assert facts["blocks"] == [{"sampler": "euler"}, {"sampler": "Euler a"}]
    alone = run("a dog", "-m", model_file, "-s", 5, "-t", 2, "--sampler", "Euler a", "-o", "last.png")
    assert alone.exit_code == 0, alone.stderr
    sheet, last = Image.open(here / "grid.png"), Image.open(here / "last.png").convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", last.size, "white"), last).convert("RGB")
    left, top = sheet.width - 8 - (sheet.width - 24) // 2, sheet.height - 4 - 8 - 24
    cell = sheet.crop((left, top + 4 - 4, left + 16, top + 24))
    assert max(abs(a - b) for a, b in zip(cell.tobytes(), expected.tobytes(), strict=True)) <= 1


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("stepz=1", ["'stepz'", "'steps'"]),
        ("steps", ["'steps'"]),
        ("steps=a", ["'a'", "whole number"]),
        ("prompt=dog,bird", ["'dog'", "not in the prompt"]),
        ("steps=1-9 (+0)", ["steps of 0"]),
        ("seed=1-999", ["expected 1 to 64"]),
    ],
)
def test_bad_axes(run: Run, here: Path, axis: str, words: list[str]) -> None:
    result = run("sample-grid", "a cat", "--x", axis)
    assert_one_sentence(result.exit_code, result.stderr, *words)


def test_values_of_an_axis() -> None:
    from stable_diffusion.request.axes import Axis

    def values(text: str) -> tuple[object, ...]:
        return Axis.parse(text).values

    assert values("steps=1-3,9") == (1, 2, 3, 9) and values("seed=10-4 (+3)") == (10, 7, 4)
    assert values("hires-strength=0.3-0.9 [4]") == (0.3, 0.5, 0.7, 0.9)
    assert values('prompt="a, b",c') == ("a, b", "c") and values("CFG=1,2.5") == (1.0, 2.5)

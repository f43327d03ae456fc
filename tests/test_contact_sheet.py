"""The sheets of prompts: groups of a file, prompts under their pictures, files of a limited size."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "contact_sheet.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="scripts are not shipped with the tests")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contact_sheet", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(count: int, side: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def test_a_hundred_prompts_in_six_groups(script: ModuleType) -> None:
    groups = script.read_prompts(ROOT / "recipes/embedded/prompts_100.txt")
    assert list(groups) == ["objects", "colours", "styles", "scenes", "Chinese", "counts"]
    prompts = [prompt for group in groups.values() for prompt in group]
    assert len(prompts) == len(set(prompts)) == 100
    assert all(ord(max(prompt)) > 255 for prompt in groups["Chinese"])
    assert [len(group) for group in script.read_prompts(ROOT / "recipes/embedded/prompts.txt").values()] == [64]


def test_pictures_shrink_and_never_grow(script: ModuleType) -> None:
    assert script.shrunk(Image.new("RGB", (256, 128)), 144).size == (144, 72)
    assert script.shrunk(Image.new("RGB", (96, 96)), 144).size == (96, 96)


def test_prompts_stand_under_their_pictures(script: ModuleType) -> None:
    colours = ["red", "lime", "blue"]
    made = script.sheet(
        [Image.new("RGB", (40, 40), colour) for colour in colours], ["a", "b", ""], 2, 40, script.font_of(None)
    )
    gap, row = script.GAP, 40 + script.GAP + script.LINES * script.LINE
    assert made.size == (2 * (40 + 2 * gap), 2 * row)
    assert made.getpixel((gap + 20, 20)) == (255, 0, 0) and made.getpixel((gap + 20, row + 20)) == (0, 0, 255)
    below = np.asarray(made.crop((0, 40 + gap // 2, made.width // 2, row)))
    assert below.min() < 128, "the prompt is written"
    assert np.asarray(made.crop((0, row + 40 + gap // 2, made.width, 2 * row))).min() == 255, "and an empty one is not"


def test_long_prompts_take_two_lines(script: ModuleType) -> None:
    font = script.font_of(None)
    lines = script.wrapped("a teal cat icon on a yellow background of some length", 110, font)
    assert len(lines) == 2 and all(font.getlength(line) <= 110 for line in lines)
    assert not lines[0].endswith(" ") and lines[0].startswith("a teal cat")
    assert "".join(script.wrapped("草" * 12, 70, font))[:6] == "草" * 6, "text without spaces is parted anywhere"
    assert script.wrapped("", 70, font) == []


def test_letters_that_the_font_lacks(script: ModuleType) -> None:
    font = script.font_of(None)
    assert script.unknown(font, "a red apple") == set()
    assert script.unknown(font, "a \U000f1234") == {"\U000f1234"}  # of private use: in no font of a system


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_files_are_kept_small(kind: str, script: ModuleType) -> None:
    """Noise is what compresses worst; a limit that cannot be held ends at the smallest pictures."""
    pictures, prompts, font = noise(4, 128), ["a"] * 4, script.font_of(None)
    free = script.encoded(pictures, prompts, 2, 144, font, kind, 10**9)
    assert Image.open(io.BytesIO(free)).width == 2 * (128 + 2 * script.GAP)
    assert len(script.encoded(pictures, prompts, 2, 144, font, kind, len(free) // 2)) <= len(free) // 2
    least = Image.open(io.BytesIO(script.encoded(pictures, prompts, 2, 144, font, kind, 100)))
    assert least.width == 2 * (script.SMALLEST + 2 * script.GAP)


def test_the_whole_script(
    script: ModuleType, tiny_native_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.stable_diffusion, "load", lambda path: tiny_native_model, raising=False)
    (tmp_path / "few.txt").write_text("# words\n## Things\na cat\na dog\n\n## 中\n猫\n", encoding="utf-8")
    script.main(["--prompts", str(tmp_path / "few.txt"), "--out", str(tmp_path / "out"), "--columns", "2"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"contact_things.webp", "contact_中.webp"}
    with pytest.raises(SystemExit):
        script.main(["--prompts", str(tmp_path / "few.txt"), "--group", "others", "--out", str(tmp_path)])


def test_blind_sheets_tell_nothing_but_their_key_does(script: ModuleType, tmp_path: Path) -> None:
    count = script.BLIND + 5
    pictures = [Image.new("RGB", (20, 20), (10 * index, 0, 255 - 10 * index)) for index in range(count)]
    prompts = [f"thing {index}" for index in range(count)]
    script.write_blind(pictures, prompts, tmp_path, 20, 5)
    key = dict(line.split("\t") for line in (tmp_path / "key.tsv").read_text(encoding="utf-8").splitlines())
    assert sorted(key.values()) == sorted(prompts) and list(key) == [str(number + 1) for number in range(count)]
    assert list(key.values()) != prompts
    sheets = [Image.open(tmp_path / f"sheet_{number}.png") for number in (1, 2)]
    cell, row = 20 + 2 * script.GAP, 20 + script.GAP + script.LINES * script.LINE
    for number in range(count):
        place = number % script.BLIND
        seen = sheets[number // script.BLIND].getpixel((place % 5 * cell + cell // 2, place // 5 * row + row // 3))
        assert seen == pictures[int(key[str(number + 1)].split()[1])].getpixel((0, 0))

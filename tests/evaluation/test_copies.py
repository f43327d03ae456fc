"""Copies of training pictures: a painter that copies is named picture by picture, noise is not."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from evaluation_fakes import FakeEye, axis, picture_of, record, write_pack
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.pipeline.image import to_images

copies = pytest.importorskip("copies", reason="the scripts lie beside the package")
find_copies, look_at, training_records = copies.find_copies, copies.look_at, copies.training_records

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "memorisation.py"


def old(number: int) -> torch.Tensor:
    """Training pictures come in pairs that share one of two bright values: nearest distance 1/2."""
    return axis(number // 2, 100 + number)


@pytest.fixture
def pack(tmp_path: Path) -> PicturePack:
    train = [(record(k, "train", f"old {k}"), old(k)) for k in range(20)]
    return write_pack(tmp_path / "pack", [*train, (record(99, "heldout", "new"), axis(220))])


def found(pack: PicturePack, pictures: list[torch.Tensor]) -> Any:
    records = training_records(pack)
    eye: Any = FakeEye()
    orders = [(f"prompt {k}", k) for k in range(len(pictures))]
    return find_copies(eye.look(torch.stack(pictures)).embedding, orders, look_at(eye, pack, records), records)


def test_a_painter_that_copies_is_named(pack: PicturePack) -> None:
    made = found(pack, [old(7), axis(150), old(3), axis(3, 160)])
    assert [(each.prompt, each.seed, each.training) for each in made.named] == [
        (f"prompt {k}", k, next(r.name for r in pack.records if r.caption == f"old {number}"))
        for k, number in ((0, 7), (2, 3))
    ]
    assert made.training == 20 and math.isclose(made.threshold, 0.5, abs_tol=1e-6)
    assert [each.copied for each in made.closest] == [True, False, True, False]
    assert math.isclose(made.closest[0].distance, 0.0, abs_tol=1e-6) and made.closest[0].caption == "old 7"
    assert all(math.isclose(value, 0.5, abs_tol=1e-6) for value in made.percentiles.values())


def test_noise_is_not_named(pack: PicturePack) -> None:
    made = found(pack, [picture_of("noise", seed) for seed in range(16)])
    assert made.named == () and made.median > 0.5


def test_the_closest_is_named_first(pack: PicturePack) -> None:
    near = old(5) + 0.1 * axis(180)
    made = found(pack, [near, old(8)])
    assert [each.seed for each in made.named] == [1, 0] and made.named[1].distance > 0.001


def test_what_is_compared(pack: PicturePack) -> None:
    assert all(each.split == "train" for each in training_records(pack))
    style = pack.records[0].style
    assert len(training_records(pack, [style])) == sum(r.style == style and r.split == "train" for r in pack.records)
    with pytest.raises(InvalidRequest, match="holds 0 training pictures of the styles nothing"):
        training_records(pack, ["nothing"])


# --- the script -------------------------------------------------------------------------------------------------------


@pytest.fixture
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("scripts are not shipped with the tests")
    spec = importlib.util.spec_from_file_location("memorisation", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_prompt_before_the_next_seed(script: ModuleType) -> None:
    assert script.orders(["a", "b"], 5, 7) == [("a", 7), ("b", 7), ("a", 8), ("b", 8), ("a", 9)]


def test_the_script_names_copies_and_goes_on_where_it_stopped(
    script: ModuleType, pack: PicturePack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    painted: list[tuple[str, int]] = []

    def generate_image(prompt: str, *, model: Any, seed: int) -> Image.Image:
        painted.append((prompt, seed))
        return to_images((old(seed) if prompt == "copy" else picture_of(prompt, seed))[None])[0]

    model = type("Model", (), {"hash": "abc"})()
    monkeypatch.setattr(script, "stable_diffusion", type("Room", (), {}))
    monkeypatch.setattr(script.stable_diffusion, "load", lambda path: model, raising=False)
    monkeypatch.setattr(script.stable_diffusion, "generate_image", generate_image, raising=False)
    monkeypatch.setattr(script, "load_eye", lambda path, tokenizer: FakeEye())
    (tmp_path / "prompts.txt").write_text("# two\ncopy\nnoise\n", encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["--data", str(tmp_path / "pack"), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]

    script.main([*arguments, "--count", "6", "--shown", "4"])
    assert len(painted) == 6 and "closer than 0.5000: 3" in capsys.readouterr().out
    result = json.loads((out / "memorisation.json").read_text(encoding="utf-8"))
    assert [(each["prompt"], each["seed"]) for each in result["named"]] == [("copy", k) for k in range(3)]
    assert len(result["closest"]) == 6 and Image.open(out / "closest.png").height > 128

    (out / "pictures" / "0003.png").unlink()
    script.main([*arguments, "--count", "6"])
    assert painted[6:] == [("noise", 1)], "only what is missing is painted again"
    with pytest.raises(SystemExit, match="holds another run"):
        script.main([*arguments, "--count", "6", "--seed", "1"])

"""Defaults chosen by measurement: the rule on numbers made by hand, the search on a known landscape, a run resumed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from evaluation_fakes import FakeEye, bench, obedient, picture_of, record, write_pack

from stable_diffusion.evaluation.bench import Plan

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "choose_defaults.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="scripts are not shipped with the tests")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("choose_defaults", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["choose_defaults"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def setting(script: ModuleType, **changes: Any) -> Any:
    return script.Setting(**{"guidance": 3.0, "sampler": "euler", "schedule": "normal", "steps": 20, **changes})


def found(script: ModuleType, share: float, frechet: float, count: int = 100) -> Any:
    return script.Found(share=share, count=count, parts={"retrieval": share}, frechet=frechet, seconds=1.0)


def test_calls_of_the_network(script: ModuleType) -> None:
    assert setting(script).calls == 40 and setting(script, guidance=1.0).calls == 20
    assert setting(script, sampler="heun", steps=5).calls == 20


def test_the_rule(script: ModuleType) -> None:
    """0.80 of 100 has a standard error of 0.04: 0.77 is as good, 0.70 is not, whatever its distance."""
    many, few, wrong, far = (setting(script, steps=steps) for steps in (20, 10, 4, 6))
    results = {
        many: found(script, 0.80, 2.00),
        few: found(script, 0.77, 2.05),
        wrong: found(script, 0.70, 1.00),
        far: found(script, 0.80, 2.20),
    }
    assert script.best(results) == few
    results[few] = found(script, 0.75, 2.05)
    assert script.best(results) == many
    results[few] = found(script, 0.80, 2.15)
    assert script.best(results) == many


def test_the_search_finds_the_bottom_and_measures_nothing_twice(script: ModuleType) -> None:
    asked: list[Any] = []

    def measure(each: Any) -> Any:
        asked.append(each)
        away = abs(each.guidance - 4) + (each.sampler != "uni_pc") + (each.schedule != "karras")
        return found(script, 0.8, 1 + away + 0.2 * abs(each.steps - 12))

    values = {"guidance": (2.0, 4.0), "sampler": ("heun", "uni_pc"), "schedule": ("karras",), "steps": (8, 12)}
    results = script.search(setting(script), values, measure)
    assert script.best(results) == setting(script, guidance=4.0, sampler="uni_pc", schedule="karras", steps=12)
    assert len(asked) == len(set(asked)) == len(results)


def test_a_run_goes_on_where_it_stopped(script: ModuleType, tmp_path: Path) -> None:
    path, asked = tmp_path / "defaults.json", []

    def measure(each: Any) -> Any:
        asked.append(each)
        return found(script, 0.5, float(each.steps))

    first = script.Kept(path, {"model": "a"}, measure)
    first(setting(script)), first(setting(script, steps=5))
    again = script.Kept(path, {"model": "a"}, measure)
    assert again(setting(script, steps=5)) == found(script, 0.5, 5.0) and len(asked) == 2
    again(setting(script, steps=6))
    assert len(asked) == 3
    with pytest.raises(SystemExit, match="another model"):
        script.Kept(path, {"model": "b"}, measure)


def test_what_the_judges_say(script: ModuleType, tmp_path: Path) -> None:
    """A painter that follows its prompts is always found again; one that paints the same always is told by chance."""
    held_out = [(record(k, "heldout", f"thing {k}"), picture_of(f"thing {k}")) for k in range(8)]
    pack = write_pack(tmp_path / "pack", held_out)
    plan = Plan(painted=8, held_out=8, colour=10, counting=6)
    seen: list[Any] = []

    def follows(prompt: str, seed: int, settings: Any) -> Any:
        seen.append(settings)
        return obedient(prompt, seed, settings)

    right = script.judge(bench(follows, plan, eye=FakeEye(), pack=pack), setting(script, guidance=2.0))
    assert right.share == 1.0 and right.count == 24 and right.error == 0.0
    assert set(right.parts) == {"retrieval", "colour", "counting"}
    assert right.frechet < 1e-6, "what it painted are the held-out pictures themselves"
    wanted = {"guidance": 2.0, "sampler": "euler", "schedule": "normal", "steps": 20}
    assert len(seen) == 24 and all(wanted.items() <= dict(each).items() for each in seen)
    wrong = script.judge(bench(lambda *_: picture_of("one"), plan, eye=FakeEye(), pack=pack), setting(script))
    assert wrong.share < 0.5 and wrong.frechet > right.frechet

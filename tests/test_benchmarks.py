"""The benchmarks run: every row on tiny networks, for what it does and not for how long it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import gpu, page, plot
from benchmarks.__main__ import main
from benchmarks.measure import Amount, in_turns
from benchmarks.results import add, run
from benchmarks.rows import Absent, Goal, Row, Side, every_row


def absent() -> None:
    raise Absent("it is not installed")


def row(**more: object) -> Row:
    sides = [Side("ours, bfloat16", lambda: lambda: Amount(2.0, "s")), Side("theirs", lambda: lambda: Amount(5.0, "s"))]
    goals = (Goal("ours, bfloat16", "theirs", 2.0), Goal("ours, bfloat16", most=1.0), Goal("ours, bfloat16", "missing"))
    return Row("work", "Some work", (*sides, Side("missing", absent)), flops=lambda: 1e12, goals=goals, **more)  # type: ignore[arg-type]


def test_sides_take_turns() -> None:
    order: list[str] = []
    found = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert "".join(order) == "ababab" and [len(each.values) for each in found.values()] == [2, 2]


def test_a_row_becomes_a_page(tmp_path: Path) -> None:
    """Goals are met or not by the numbers; what was left out is said; a second run replaces its row."""
    file, said = tmp_path / "results.json", []
    for _ in range(2):
        add(file, {"work": run(row(), said.append)}, quick=True)
    found = json.loads(file.read_text())
    assert list(found["rows"]) == ["work"] and found["rows"]["work"]["sides"]["theirs"]["median"] == 5
    assert any("left out, it is not installed" in line for line in said)
    text = page.text({**found, "product_rates": {"bfloat16": 2e12}})
    assert "| work | ours, bfloat16 | 2x theirs | 2.50x | met |" in text
    assert "| work | ours, bfloat16 | at most 1 s | 2 s | **not met** |" in text
    assert "not measured here: missing did not take part" in text
    assert "| ours, bfloat16 | 2 s | 0 |" in text and "25% (bfloat16)" in text
    assert "| theirs | 5 s |" in text and "| 2.50 |" in text
    plot.draw(found, tmp_path / "plot.svg")
    assert "theirs" in (tmp_path / "plot.svg").read_text() or (tmp_path / "plot.svg").stat().st_size > 1000


def test_every_row_has_a_name_of_its_own() -> None:
    for quick in (True, False):
        names = [each.name for each in every_row(quick)]
        assert len(names) == len(set(names)) > 8
        for each in every_row(quick):
            sides = {side.name for side in each.sides}
            assert {goal.ours for goal in each.goals} <= sides
            assert {goal.peer for goal in each.goals if goal.peer} <= sides


def test_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLE_DIFFUSION_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "results.json"
    assert main(["--quick", "--out", str(out), "decode", "sampler-overhead"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {"ours, default engine, bfloat16", "diffusers, bfloat16"} <= set(rows["decode"]["sides"])
    assert rows["sampler-overhead"]["sides"]["ours, UniPC"]["unit"] == "ms"
    with pytest.raises(SystemExit):
        main(["--quick", "nothing"])
    assert "there is no row 'nothing'; expected sd15-step" in capsys.readouterr().err


def test_the_script_for_gpus_is_rehearsed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--rehearse", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["left_out"] == [] and {"speed", "batches", "bits"} <= set(found)
    assert {each["pictures"] for each in found["speed"]} == {1, 8}

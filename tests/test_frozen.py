"""`scripts/frozen.py`: what it calls a difference, that every setting is in it, and a few of its entries made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="scripts are not shipped with the tests")

OLD = {
    "a/one": {"pixels": "1" * 16, "words": "2" * 16, "steps": 3, "network": 6, "decodes": 2},
    "a/two": {"refused": "InvalidRequest"},
}


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import frozen

    return frozen


@pytest.fixture
def record(frozen: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(frozen.RECORD.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"pixels": "3" * 16}, ["a/one: pixels differs"]),
        ({"words": "3" * 16, "steps": 4}, ["a/one: steps was 3 and is 4; words differs"]),
        ({"network": 7}, ["a/one: network rose from 6 to 7"]),
        ({"encodes": 1}, ["a/one: encodes rose from 0 to 1"]),
        ({"network": 3, "decodes": 0}, []),
        ({"latent": "5"}, ["a/one: latent was None and is 5"]),
    ],
)
def test_hashes_may_not_change_and_counts_may_not_rise(change: dict[str, Any], says: list[str], frozen: Any) -> None:
    new = {**OLD, "a/one": {**OLD["a/one"], **change}}
    assert frozen.differences(OLD, new) == says
    fewer = {"network": (6, 3), "decodes": (2, 0)} if change.get("network") == 3 else {}
    assert frozen.fallen(OLD, new) == fewer


def test_entries_may_not_come_or_go(frozen: Any) -> None:
    assert frozen.differences(OLD, {"a/one": OLD["a/one"]}) == ["a/two: is missing"]
    assert "not in the record" in frozen.differences({}, OLD)[0]
    painted = {**OLD, "a/two": {"pixels": "1"}}
    assert frozen.differences(OLD, painted) == [
        "a/two: pixels was None and is 1; refused was InvalidRequest and is None"
    ]


def test_on_another_processor_words_and_counts_are_compared(frozen: Any) -> None:
    other = {**OLD, "a/one": {**OLD["a/one"], "pixels": "9" * 16}}
    assert frozen.differences(OLD, other, hashes=False) == []
    other["a/one"] |= {"words": "9" * 16, "network": 8}
    assert frozen.differences(OLD, other, hashes=False) == ["a/one: network rose from 6 to 8; words differs"]


def test_every_setting_is_exercised(frozen: Any, record: dict[str, Any]) -> None:
    assert frozen.hooks.fields() - set(record["exercised"]) == set()
    groups = {key.partition("/")[0] for key in record["entries"]}
    assert groups == set(frozen.GROUPS)


def test_the_record_is_written_as_it_stands(frozen: Any, record: dict[str, Any]) -> None:
    text = frozen.RECORD.read_text(encoding="utf-8")
    assert frozen.written(record) == text
    assert len(text.splitlines()) == len(record["entries"]) + 6


def test_small_groups_are_as_recorded(frozen: Any, record: dict[str, Any], tmp_path: Path) -> None:
    groups = ("options", "metadata", "tables")
    old = {key: entry for key, entry in record["entries"].items() if key.partition("/")[0] in groups}
    assert len(old) > 60
    new = frozen.recorded(groups, frozen.Shop(tmp_path))
    assert frozen.differences(old, new, hashes=record["about"] == frozen.about()) == []


def test_a_picture_is_recorded(frozen: Any, tmp_path: Path) -> None:
    """The same picture gives the same entry, another seed another one, and networks are counted."""
    from frozen_paint import Case, made

    shop = frozen.Shop(tmp_path)
    first, again = (made(shop, Case("x", "native")) for _ in range(2))
    other = made(shop, Case("x", "native", {"seed": 4, "steps": 2}))
    assert first == again
    assert first["network"] == 3 and other["network"] == 2 and first["steps"] == 3 and first["decodes"] == 1
    differing = {name for name in first if first[name] != other.get(name)}
    assert {"latent", "floats", "pixels", "sigmas", "parameters", "words", "resolved", "read"} <= differing

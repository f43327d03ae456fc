"""The cache of converted networks: whole entries or none, a limit, and weights that become views of a file."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from stable_diffusion.engine.openvino import mapped
from stable_diffusion.engine.openvino.mapped import map_weights
from stable_diffusion.engine.openvino.store import Store
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.user_cache import CACHE_LIMIT, cache_limit


def write(size: int = 10):
    """A maker of an entry of one file."""
    return lambda folder: (folder / "graph.xml").write_bytes(b"x" * size) and None


def forbidden(folder: Path) -> None:
    raise AssertionError("made again")


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", 10**6)
    place = store.entry("a", write())
    assert store.entry("a", forbidden) == place and (place / "graph.xml").read_bytes() == b"x" * 10


@pytest.mark.parametrize("damage", ["shorter", "other", "missing", "no list", "broken list"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path, 10**6)
    place = store.entry("a", write())
    if damage == "missing":
        (place / "graph.xml").unlink()
    elif damage == "no list":
        (place / "files.json").unlink()
    else:
        name = "files.json" if damage == "broken list" else "graph.xml"
        (place / name).write_bytes({"shorter": b"x", "other": b"y" * 10, "broken list": b"["}[damage])
    assert (store.entry("a", write(12)) / "graph.xml").read_bytes() == b"x" * 12
    store.entry("a", forbidden)


def killed_halfway(folder: Path) -> None:
    (folder / "graph.xml").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def convert_in_a_process(folder: Path) -> None:
    Store(folder, 10**6).entry("a", killed_halfway)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot kill itself so on Windows")
def test_a_killed_conversion_leaves_no_broken_entry(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=convert_in_a_process, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store = Store(tmp_path, 10**6)
    assert store.size() == 0 and len(list(tmp_path.glob(".*.part"))) == 1
    for each in tmp_path.glob(".*.part"):
        os.utime(each, (0, 0))  # left a long time ago
    store.entry("a", write())
    store.entry("a", forbidden)
    assert not list(tmp_path.glob(".*.part"))


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Store(tmp_path, 10**6).entry("a", forbidden)
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, 2500)
    for index, key in enumerate("abc"):
        os.utime(store.entry(key, write(900)), (index, index)) if key != "c" else None
        if key == "b":
            store.entry("a", forbidden)  # used again
    store.entry("c", write(900))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "c"] and store.size() <= 2500
    store.entry("large", write(9000))
    assert [each.name for each in tmp_path.iterdir()] == ["large"]


def test_folder_and_limit_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STABLE_DIFFUSION_CACHE", str(tmp_path))
    monkeypatch.setenv(CACHE_LIMIT, "0.5")
    assert Store().folder == tmp_path / "openvino" and cache_limit() == 500_000_000
    monkeypatch.setenv(CACHE_LIMIT, "much")
    with pytest.raises(InvalidRequest, match="'much'; expected gigabytes"):
        cache_limit()


def test_weights_become_views_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mapped, "LEAST", 1000)
    module, store = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 7)).to(torch.bfloat16), Store(tmp_path, 10**6)
    expected = {name: each.clone() for name, each in module.state_dict().items()}
    places = [each.data_ptr() for each in module.parameters()]
    assert len(map_weights(module, store)) == 4
    assert not set(places) & {each.data_ptr() for each in module.parameters()}
    assert all(torch.equal(each, expected[name]) for name, each in module.state_dict().items())
    assert map_weights(module, store) == []  # they are already
    with torch.no_grad():
        module[0].weight.zero_()  # pages of its own: the file keeps its bits
    other = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 7)).to(torch.bfloat16)
    other.load_state_dict(expected)
    map_weights(other, store)
    assert all(torch.equal(each, expected[name]) for name, each in other.state_dict().items())
    assert len(list(tmp_path.iterdir())) == 1

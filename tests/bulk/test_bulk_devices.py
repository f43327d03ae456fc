"""A worker for each device of this machine."""

from __future__ import annotations

import pytest

from stable_diffusion.cli.commands.services import bulk


@pytest.mark.parametrize(
    ("gpus", "asked", "expected"),
    [
        (["cuda:0", "cuda:1", "cuda:2"], None, ["cuda:0", "cuda:1", "cuda:2"]),
        (["cuda:0", "cuda:1"], 5, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]),
        (["auto"], None, ["auto"]),
        (["auto"], 2, ["auto", "auto"]),
    ],
)
def test_workers_take_the_devices_in_turn(
    gpus: list[str], asked: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_devices", lambda: gpus)
    monkeypatch.setattr(bulk, "chosen", dict)
    orders = bulk._workers(asked, 1, "alone")
    assert [order["device"] for order in orders] == expected
    assert all(order["threads"] == 1 for order in orders)


def test_devices_that_are_named_are_those_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "chosen", lambda: {"device": "cuda:3,cuda:1", "dtype": "float16"})
    orders = bulk._workers(None, None, "free")
    assert [(order["device"], order["dtype"]) for order in orders] == [("cuda:3", "float16"), ("cuda:1", "float16")]

"""What runs on another machine, in this process."""

from __future__ import annotations

from pathlib import Path

import torch
from quick_runner import QuickRunner

from stable_diffusion.cluster.replica import Failure, Replica
from stable_diffusion.cluster.settings import ClusterSettings
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images, Progress
from stable_diffusion.request.request import Request


class Odd(Exception):
    """One that another process cannot make again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("odd")


def replica(tmp_path: Path) -> tuple[Replica, QuickRunner]:
    threads = torch.get_num_threads()
    made, runner = Replica(ClusterSettings(threads=threads, cache=tmp_path)), QuickRunner()
    made.runner = runner  # type: ignore[assignment]
    return made, runner


def test_a_run_that_is_stopped_ends_at_its_next_step(tmp_path: Path) -> None:
    made, runner = replica(tmp_path)
    events = made.run("a", Request("a cat", count=5))
    assert isinstance(next(events), Progress)
    made.stop("a")
    assert list(events) == [] and runner.closed == 1
    assert isinstance(list(made.run("b", Request("a cat")))[-1], Images)


def test_a_preview_is_made_once_for_each_wish(tmp_path: Path) -> None:
    made, runner = replica(tmp_path)
    made.want_preview("a")
    list(made.run("a", Request("a cat")))
    assert runner.previews == 1


def test_errors_are_sent_as_they_are_where_that_is_possible(tmp_path: Path) -> None:
    made, runner = replica(tmp_path)
    (failure,) = made.run("a", Request("wrong"))
    assert isinstance(failure, Failure) and isinstance(failure.error, InvalidRequest)

    def run(*_: object, **__: object) -> object:
        raise Odd(1, 2)

    runner.run = run  # type: ignore[assignment, method-assign]
    (failure,) = made.run("b", Request("a cat"))
    assert isinstance(failure, Failure) and str(failure.error) == "Odd: odd"


def test_another_model_gives_the_memory_of_the_last_one_back(tmp_path: Path) -> None:
    made, runner = replica(tmp_path)
    for model in ("embedded", "embedded", "embedded-fast"):
        list(made.run(model, Request("a cat", model=model)))
    assert runner.released == 1

"""Replicas that die, wait, come and go, without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from quick_cluster import QuickHandle
from quick_runner import QuickRunner

from stable_diffusion.cluster.pool import ReplicaPool
from stable_diffusion.cluster.run import ClusterRunner
from stable_diffusion.cluster.settings import ClusterSettings, read_cluster_settings
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.events import Images, Progress
from stable_diffusion.jobs import JobService
from stable_diffusion.request.request import Request

QUICK = {"grow_seconds": 0.1, "idle_seconds": 0.4}


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def made_pool(handles: list[QuickHandle], **settings: float) -> ReplicaPool:
    """A pool whose replicas are these in turn, then the last one's like."""

    def start() -> QuickHandle:
        return handles.pop(0) if handles else QuickHandle(QuickRunner())

    return ReplicaPool(start, ClusterSettings(**{"max_replicas": 1, **QUICK, **settings}))  # type: ignore[arg-type]


def test_a_request_goes_on_at_the_picture_at_which_its_replica_died() -> None:
    first, second = QuickHandle(QuickRunner(), die_after=4), QuickHandle(QuickRunner())
    with made_pool([first, second]) as pool:
        events = list(ClusterRunner(pool).run(Request("a cat", seed=5, count=3)))
    pictures = [event for event in events if isinstance(event, Images)]
    assert [each.first for each in pictures] == [0, 1, 2]
    assert [each.seeds for each in pictures] == [(5,), (6,), (7,)]
    steps = [event for event in events if isinstance(event, Progress)]
    assert {each.pictures for each in steps} == {3} and steps[-1].picture == 2
    assert [each.seed for each in second.runner.ran] == [6] and first.ended
    assert pool.state().deaths == 1


def test_an_open_seed_is_drawn_once() -> None:
    first, second = QuickHandle(QuickRunner(), die_after=1), QuickHandle(QuickRunner())
    with made_pool([first, second]) as pool:
        list(ClusterRunner(pool).run(Request("a cat")))
    assert first.runner.ran[0].seed is not None and first.runner.ran[0].seed == second.runner.ran[0].seed


def test_a_request_that_kills_every_replica_is_given_up() -> None:
    handles = [QuickHandle(QuickRunner(), die_after=1) for _ in range(3)]
    with made_pool(handles, attempts=2) as pool:
        runner = ClusterRunner(pool)
        with pytest.raises(StableDiffusionError, match="2 replicas of the cluster died"):
            list(runner.run(Request("a cat", seed=1)))


def test_an_error_of_the_request_is_not_the_death_of_a_replica() -> None:
    handle = QuickHandle(QuickRunner())
    with made_pool([handle]) as pool:
        runner = ClusterRunner(pool)
        with pytest.raises(InvalidRequest, match="expected a right one"):
            list(runner.run(Request("wrong")))
        assert len(list(runner.run(Request("a cat")))) >= 3
    assert len(handle.runner.ran) == 2 and pool.state().deaths == 0


def test_leaving_a_run_stops_it_and_frees_its_replica() -> None:
    handle = QuickHandle(QuickRunner())
    with made_pool([handle]) as pool:
        events = ClusterRunner(pool).run(Request("a cat", count=9))
        until(lambda: next(events).index == 1)  # type: ignore[union-attr]
        events.close()  # type: ignore[attr-defined]
        assert len(handle.stopped) == 1 and pool.state().running == 0
    assert handle.runner.closed == 1


def test_whoever_waits_for_a_replica_can_leave() -> None:
    with made_pool([QuickHandle(QuickRunner(), ready=False)]) as pool:
        events = ClusterRunner(pool).run(Request("a cat"))
        assert next(events).fraction == 0  # type: ignore[union-attr]
        assert pool.state().waiting == 1
        events.close()  # type: ignore[attr-defined]
        assert pool.state().waiting == 0


def test_previews_are_asked_for_from_here() -> None:
    with made_pool([]) as pool:
        events = list(ClusterRunner(pool).run(Request("a cat"), wants_preview=lambda: True))
    assert any(isinstance(event, Progress) and event.preview is not None for event in events)


def test_more_replicas_where_runs_wait_and_fewer_where_none_do() -> None:
    slow = [QuickHandle(QuickRunner()) for _ in range(3)]
    handles = list(slow)
    with made_pool(handles, max_replicas=3) as pool:
        until(lambda: pool.state().ready == 1)
        runner = ClusterRunner(pool)
        threads = [threading.Thread(target=lambda: list(runner.run(Request("wait")))) for _ in range(2)]
        for each in threads:
            each.start()
        until(lambda: pool.state().running == 2)
        for handle in slow:
            handle.runner.go.set()
        for each in threads:
            each.join(10)
        until(lambda: pool.state().ready == 1)
        assert any(handle.ended for handle in slow)


def test_a_run_goes_where_its_model_is_loaded() -> None:
    first, second = QuickHandle(QuickRunner()), QuickHandle(QuickRunner())
    with made_pool([first, second], min_replicas=2, max_replicas=2) as pool:
        until(lambda: pool.state().ready == 2)
        runner = ClusterRunner(pool)
        for model in ("embedded", "embedded-fast") * 4:
            list(runner.run(Request("a cat", model=model)))
    assert sorted((set(first.models), set(second.models)), key=str) == [{"embedded"}, {"embedded-fast"}]


def test_an_idle_replica_that_dies_is_replaced() -> None:
    first = QuickHandle(QuickRunner())
    with made_pool([first]) as pool:
        until(lambda: pool.state().ready == 1)
        first.dead.set()
        until(lambda: pool.state().deaths == 1 and pool.state().ready == 1)


def test_the_queue_loses_nothing(tmp_path: Path) -> None:
    handles = [QuickHandle(QuickRunner(), die_after=7) for _ in range(6)]
    with made_pool(handles, min_replicas=2, max_replicas=2) as pool:
        runner = ClusterRunner(pool)
        with JobService(tmp_path / "data", runners=[runner, runner]) as service:
            jobs = [service.submit(Request(f"cat {number}", seed=number)) for number in range(20)]
            ended = [service.wait(job.id, 30) for job in jobs]
            assert [job.state for job in ended] == ["done"] * 20
            assert [[each.seed for each in service.pictures_of(job.id)] for job in jobs] == [[n] for n in range(20)]
    assert pool.state().deaths >= 5


def test_settings_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\n[cluster]\naddress = "10.0.0.1:6379"\nmax_replicas = 8\nstore = "~/models"\n')
    found = read_cluster_settings(file, {"max_replicas": 3, "device": None})
    assert (found.address, found.max_replicas, found.device) == ("10.0.0.1:6379", 3, "auto")
    assert found.store == Path("~/models").expanduser()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_replica": 2}, "did you mean 'max_replicas'"),
        ({"max_replicas": "2"}, "a whole number"),
        ({"max_replicas": 0}, "expected a number from 1"),
        ({"min_replicas": 9}, "expected at least as many"),
        ({"address": "ray://host:10001"}, "must be on a machine of the cluster"),
    ],
)
def test_bad_settings_are_said_in_a_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_cluster_settings(None, given)

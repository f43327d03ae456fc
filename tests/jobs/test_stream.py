"""Events: in order, again for those who come late, and previews for those who look."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from quick_runner import QuickRunner

from stable_diffusion import Request
from stable_diffusion.jobs import JobService
from stable_diffusion.jobs import stream as stream_file
from stable_diffusion.jobs.stream import EventStream


def taken(subscription) -> list:  # type: ignore[no-untyped-def,type-arg]
    return list(iter(lambda: subscription.get(0), None))


def test_who_comes_late_gets_what_was_missed() -> None:
    stream = EventStream()
    ids = [stream.publish("picture", {"n": n}, job="a").id for n in range(300)]
    stream.publish("picture", {"n": -1}, job="b")
    assert ids == sorted(set(ids))
    assert [event.data["n"] for event in taken(stream.subscribe("a", after=ids[296]))] == [297, 298, 299]
    assert [event.data["n"] for event in taken(stream.subscribe("a", after=0))] == list(range(100, 300))
    assert taken(stream.subscribe("a")) == []
    assert EventStream().publish("queue", {}).id > ids[0]  # of a program that starts later


def test_owners_hear_of_their_own_jobs() -> None:
    stream = EventStream()
    mine, everything = stream.subscribe(owner="me"), stream.subscribe()
    for owner in ("me", "you", ""):
        stream.publish("queued", {}, job="j", owner=owner)
    assert [event.owner for event in taken(mine)] == ["me", ""]
    assert [event.owner for event in taken(everything)] == ["me", "you", ""]


def test_a_slow_listener_gets_the_newest_progress_and_every_state() -> None:
    stream = EventStream()
    slow = stream.subscribe("a")
    for n in range(5000):
        stream.publish("progress", {"n": n}, job="a")
        if n % 1000 == 0:
            stream.publish("picture", {"n": n}, job="a")
    stream.publish("done", {}, job="a")
    assert [(event.kind, event.data.get("n")) for event in taken(slow)] == [
        *(("picture", n) for n in range(0, 5000, 1000)),
        ("progress", 4999),
        ("done", None),
    ]
    assert slow.is_over and slow.get() is None


def test_only_the_last_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_file, "KEPT_JOBS", 3)
    stream = EventStream()
    for n in range(5):
        stream.publish("done", {}, job=str(n))
    assert [event.job for event in taken(stream.subscribe(after=0))] == ["2", "3", "4"]


def test_closing_ends_waiting() -> None:
    stream = EventStream()
    waits = stream.subscribe("a")
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(waits.get()))
    thread.start()
    waits.close()
    thread.join(5)
    assert found == [None] and stream._listeners == []

    async def task() -> object:
        other = stream.subscribe("a")
        waiting = asyncio.create_task(other.next())
        await asyncio.sleep(0.01)
        assert await other.next(0.01) is None
        other.close()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(task()) is None


def test_previews_are_made_only_while_somebody_looks(service: JobService, runner: QuickRunner) -> None:
    def run(count: int = 1) -> int:
        before = runner.previews
        service.wait(service.submit(Request("a cat", count=count)).id, 20)
        return runner.previews - before

    service.start()
    assert run() == 0
    with service.subscribe():
        assert run() == 0
    with service.subscribe(previews=True) as looks:
        assert 1 <= run(20) < 40
        assert any(event.kind == "preview" and event.preview[:2] == b"\xff\xd8" for event in taken(looks))
    with service.subscribe(owner="somebody else", previews=True):
        assert run() == 0
    assert run() == 0


def test_at_most_four_previews_a_second(service: JobService, runner: QuickRunner) -> None:
    service.start()
    with service.subscribe(previews=True):
        job, start = service.submit(Request("a cat", count=60)), time.monotonic()
        service.wait(job.id, 20)
    assert 1 <= runner.previews <= 1 + (time.monotonic() - start) * 4


def test_a_job_that_ended_long_ago_ends_its_listeners(service: JobService) -> None:
    job = service.submit(Request("a cat"))
    service.workers[0].run_next()
    service.stream._kept.clear()
    (event,) = taken(service.subscribe(job.id, after=0))
    assert event.kind == "done" and event.data["state"] == "done"
    first = service.subscribe(job.id)
    assert [each.kind for each in first] == ["done"]

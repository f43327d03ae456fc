"""The queue on both databases: claimed once, in turn, bounded, cancelled, moved, and taken back from the dead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from quick_runner import QuickRunner

from stable_diffusion import Request
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.jobs import (
    DifferentBody,
    FolderInUse,
    JobFinished,
    JobService,
    Limits,
    PrunedJob,
    QueueFull,
    UnknownJob,
)
from stable_diffusion.jobs import lease as lease_file
from stable_diffusion.jobs.lease import Leases

Make = Callable[..., JobService]


def leases(service: JobService) -> Leases:
    return Leases(service.store)


def order(service: JobService, loaded: str | None = None) -> list[str]:
    """The prompts of all queued jobs as they are claimed one after another."""
    found = []
    while (job := leases(service).claim("one", loaded)) is not None:
        found.append(job.body["prompt"])
    return found


def test_each_job_is_claimed_once_by_many_workers(make_service: Make) -> None:
    service, claimed, lock = make_service(runners=()), [], threading.Lock()
    ids = [service.submit(Request(f"cat {n}"), owner=f"owner {n % 3}").id for n in range(40)]

    def work(name: str) -> None:
        misses = 0
        while misses < 3:  # a row that another worker holds is passed over
            job = leases(service).claim(name)
            misses = 0 if job is not None else misses + 1
            if job is not None:
                with lock:
                    claimed.append(job.id)

    threads = [threading.Thread(target=work, args=(f"worker {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)
    assert {job.attempts for job in service.jobs()} == {1}


def test_owners_take_turns_then_priority_then_age(make_service: Make) -> None:
    service = make_service(runners=())
    for prompt, owner, priority in (
        ("a1", "a", 0), ("a2", "a", 0), ("a3", "a", 5), ("b1", "b", 0), ("a4", "a", 0), ("c1", "c", -1), ("b2", "b", 1)
    ):  # fmt: skip
        service.submit(Request(prompt), owner=owner, priority=priority)
    expected = ["a3", "b2", "c1", "a1", "b1", "a2", "a4"]
    assert [job.body["prompt"] for job in service.store.line()] == expected
    places = service.places()
    assert [places[job.id].position for job in service.store.line()] == [1, 2, 3, 4, 5, 6, 7]
    assert order(service) == expected


def test_jobs_of_the_loaded_model_go_first_within_bounds(make_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(runners=(), limits=Limits(window=3))
    for prompt, model in (("x1", "x"), ("y1", "y"), ("x2", "x"), ("y2", "y"), ("y3", "y")):
        service.submit(Request(prompt, model=model))
    claims = leases(service)
    assert claims.claim("one", "y").body["prompt"] == "y1"  # type: ignore[union-attr]
    assert claims.claim("one", "y").body["prompt"] == "y2"  # type: ignore[union-attr]
    later = lease_file.time.time() + 61
    monkeypatch.setattr(lease_file.time, "time", lambda: later)
    assert claims.claim("one", "y").body["prompt"] == "x1"  # type: ignore[union-attr]  # it waited for a minute
    assert order(service, "y") == ["y3", "x2"]


def test_far_places_do_not_overtake(make_service: Make) -> None:
    service = make_service(runners=(), limits=Limits(window=2))
    for prompt, model in (("x1", "x"), ("x2", "x"), ("y1", "y")):
        service.submit(Request(prompt, model=model))
    assert order(service, "y") == ["x1", "y1", "x2"]  # y1 is in the window once x1 is gone


def test_jobs_of_a_dead_worker_wait_again_and_are_lost_after_the_third_attempt(make_service: Make) -> None:
    service = make_service(runners=())
    job = service.submit(Request("a cat"))
    for attempt in (1, 2, 3):
        claimed = leases(service).claim(f"worker {attempt}")
        assert claimed is not None and claimed.attempts == attempt
        assert leases(service).recover() == ([], [])  # its lease holds
        again, lost = leases(service).recover(everything=True)
        assert (again, lost) == (([], [job.id]) if attempt == 3 else ([job.id], []))
    found = service.job(job.id)
    assert found.state == "lost" and "3 times" in str(found.error)
    assert leases(service).claim("worker 4") is None
    assert service.retry(job.id).state == "queued" and service.job(job.id).attempts == 0


def test_a_lease_runs_out_and_its_worker_can_write_nothing_more(make_service: Make) -> None:
    service = make_service(runners=(), limits=Limits(lease=0.0))
    service.submit(Request("a cat"))
    old = leases(service).claim("old")
    assert old is not None
    assert leases(service).recover() == ([old.id], [])
    new = leases(service).claim("new")
    assert new is not None and new.attempts == 2
    assert not leases(service).end(old, "failed", error="too late")
    assert not leases(service).keep(old, [])
    assert leases(service).heartbeat("old", [old.id]) == {}
    assert leases(service).heartbeat("new", [old.id]) == {old.id: False}
    assert leases(service).end(new, "done")
    assert service.job(old.id).state == "done" and service.job(old.id).error is None


def test_the_same_key_is_the_same_job(make_service: Make) -> None:
    service = make_service(runners=())
    first = service.submit(Request("a cat"), idempotency="k", owner="a")
    assert service.submit(Request("a cat"), idempotency="k", owner="a").id == first.id
    assert service.submit(Request("a cat"), idempotency="k", owner="b").id != first.id
    assert service.submit(Request("a cat"), owner="a").id != first.id
    with pytest.raises(DifferentBody, match="another request"):
        service.submit(Request("a dog"), idempotency="k", owner="a")
    joined = service.unfinished_like(Request("a cat"), owner="a")
    assert joined is not None and joined.owner == "a"
    assert service.unfinished_like(Request("a horse"), owner="a") is None


def test_the_queue_is_bounded(make_service: Make) -> None:
    service = make_service(runners=(), limits=Limits(queue=5, owner=3))
    for n in range(3):
        service.submit(Request(f"cat {n}"), owner="a")
    with pytest.raises(QueueFull, match="3 jobs of yours wait, and at most 3 may") as caught:
        service.submit(Request("one more"), owner="a")
    assert caught.value.retry_after >= 1
    service.submit(Request("b"), owner="b")
    service.submit(Request("b"), owner="b")
    with pytest.raises(QueueFull, match="the queue is full: 5 jobs wait"):
        service.submit(Request("c"), owner="c")
    assert leases(service).claim("one") is not None
    service.submit(Request("c"), owner="c")


def test_old_jobs_are_pruned_and_known_as_such(make_service: Make) -> None:
    service = make_service(runners=(), limits=Limits(kept=2))
    jobs = [service.submit(Request(f"cat {n}")) for n in range(4)]
    for job in jobs[:3]:
        service.cancel(job.id)
    assert service.store.prune() == 1
    with pytest.raises(PrunedJob, match="removed from the list"):
        service.job(jobs[0].id)
    with pytest.raises(UnknownJob, match="there is no job 'nonsense'"):
        service.job("nonsense")
    with pytest.raises(UnknownJob):
        service.job(jobs[1].id, owner="somebody else")
    assert [job.id for job in service.jobs()] == [jobs[3].id, jobs[2].id, jobs[1].id]
    assert [job.id for job in service.jobs(before=jobs[2].seq, limit=1)] == [jobs[1].id]
    assert [job.id for job in service.jobs(states=("queued",))] == [jobs[3].id]


def test_jobs_are_moved_cleared_and_tried_again(make_service: Make) -> None:
    service = make_service(runners=())
    a, b, c, d = (service.submit(Request(prompt)) for prompt in "abcd")
    service.reorder([c.id, a.id, "unknown"])
    assert [job.body["prompt"] for job in service.store.line()] == ["c", "b", "a", "d"]
    service.to_front(d.id)
    assert [job.body["prompt"] for job in service.store.line()] == ["d", "c", "b", "a"]
    running = leases(service).claim("one")
    assert running is not None and running.id == d.id
    service.cancel(b.id)
    assert service.job(b.id).state == "cancelled" and service.job(d.id).state == "running"
    assert not service.job(d.id).cancel
    assert sorted(service.clear()) == sorted([a.id, c.id])
    assert service.job(d.id).state == "running"
    with pytest.raises(JobFinished, match="is cancelled already"):
        service.cancel(a.id)
    assert leases(service).end(running, "failed", error="a sentence")
    assert service.retry_failed() == [d.id]
    assert service.store.counts() == {"queued": 1, "cancelled": 3}


def test_many_are_submitted_at_once_and_once(make_service: Make) -> None:
    service = make_service(runners=())
    first = service.submit(Request("a cat"), idempotency="3")
    asked = service._asked(Request("a cat"), "local", "generate", "")
    many = [replace(asked, idempotency=str(n)) for n in range(6)]
    assert service.store.submit_all(many) == 5 and service.store.submit_all(many) == 0
    assert len(service.jobs()) == 6 and service.jobs()[-1].id == first.id


def test_settings_stay(make_service: Make) -> None:
    service = make_service(runners=())
    service.settings.set("a", {"b": [1, None, "é"]})
    service.settings.set("c", 1)
    service.settings.set("c", None)
    assert service.settings.get("a") == {"b": [1, None, "é"]}
    assert service.settings.get("c", 7) == 7 and list(service.settings.all()) == ["a"]


def test_one_server_a_folder_and_a_database(make_service: Make, tmp_path, database_url: str | None) -> None:  # type: ignore[no-untyped-def]
    service = make_service(runners=())
    with pytest.raises(FolderInUse, match="another server works on this folder"):
        make_service(runners=())
    if database_url is not None:
        with pytest.raises(FolderInUse, match="another server works on this database"):
            JobService(tmp_path / "other", database=database_url, runners=())
    service.close()
    make_service(runners=()).close()


def test_requests_are_checked(make_service: Make) -> None:
    service = make_service(runners=[QuickRunner()])
    for wrong in ({"prompt": "a", "lora_dir": "/etc"}, {"prompt": "a", "image": "/etc/passwd"}, {"steps": 3}, 7, None):
        with pytest.raises(InvalidRequest):
            service.submit(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="expected a name"):
        service.submit(Request("a"), owner="")
    with pytest.raises(InvalidRequest, match="kind 'upscale'"):
        service.submit({}, kind="upscale")
    assert service.jobs() == []

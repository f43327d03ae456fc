"""Ray on this machine: replicas killed, and nothing lost. STABLE_DIFFUSION_WHOLE_TESTS=1 runs all of it (some minutes).

RAY_FOR_TESTS=1 lets it run where Ray is installed: it starts a dozen processes and takes half a GiB.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_helpers import SMALL, client, done, settings

from stable_diffusion.bulk.plan import Shard
from stable_diffusion.bulk.read import json_line
from stable_diffusion.bulk.run import BulkPlan, BulkRun
from stable_diffusion.cluster.bulk import ClusterTeam
from stable_diffusion.cluster.connect import cluster_runner, connected, missing, replicas
from stable_diffusion.cluster.pool import ReplicaPool
from stable_diffusion.cluster.settings import ClusterSettings
from stable_diffusion.embedded import model_path
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images, Progress
from stable_diffusion.images import save_image
from stable_diffusion.jobs import JobService, Limits
from stable_diffusion.request.request import Request
from stable_diffusion.runner import LocalRunner
from stable_diffusion.server.listen import listen

WHOLE = bool(os.environ.get("STABLE_DIFFUSION_WHOLE_TESTS"))
REQUESTS, KILLS, DISTINCT = (200, 5, 20) if WHOLE else (12, 1, 6)
PROMPTS = 200 if WHOLE else 8
SIZE: dict[str, Any] = {"model": "embedded-fast", "width": 64, "height": 64, "steps": 2}
if WHOLE:
    SIZE |= {"width": 128, "height": 128, "steps": 2}
SETTINGS: dict[str, Any] = {"address": "local", "local_cpus": 2, "engine": "torch", "cpus": 1}

REASON = missing() or (None if os.environ.get("RAY_FOR_TESTS") else "Ray is used only where RAY_FOR_TESTS is set")
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with connected(ClusterSettings(**SETTINGS)):
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the replicas have it, whose pictures this process makes too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pool_of(least: int, most: int, **more: Any) -> ReplicaPool:
    return replicas(ClusterSettings(**SETTINGS, min_replicas=least, max_replicas=most, **more))


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def request(number: int, **changes: Any) -> Request:
    return Request(f"a red cat, number {number}", seed=number, **{**SIZE, **changes})


def here(asked: Request, folder: Path) -> str:
    """The hash of the file of a request's picture, made by this process alone."""
    (event,) = [each for each in LocalRunner(engine="torch").run(asked) if isinstance(each, Images)]
    path = folder / f"{asked.seed}.png"
    save_image(event.images[0], path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill(pool: ReplicaPool, *, running: bool = True) -> int:
    """Kills the process of a replica, one that runs something where there is one."""
    import ray

    ready = [each for each in pool.members() if each.ready]
    chosen = next((each for each in ready if each.lent), None) if running else ready[0]
    if chosen is None:
        return 0
    pid: int = ray.get(chosen.handle.actor.ping.remote())  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    return 1


def test_no_request_is_lost_where_replicas_are_killed(tmp_path: Path, record_property: Any) -> None:
    expected = [here(request(number), tmp_path) for number in range(DISTINCT)]
    limits = Limits(queue=REQUESTS, owner=REQUESTS)
    with pool_of(2, 2) as pool:
        until(lambda: pool.state().ready == 2)
        runner = cluster_runner(pool)
        with JobService(tmp_path / "data", runners=[runner, runner], limits=limits) as service:
            began, killed, deaths = time.monotonic(), 0, pool.state().deaths
            jobs = [service.submit(request(number % DISTINCT)) for number in range(REQUESTS)]
            done = lambda: sum(job.is_finished for job in map(service.job, [each.id for each in jobs]))  # noqa: E731
            for part in range(1, KILLS + 1):
                until(lambda part=part: done() >= part * REQUESTS // (KILLS + 2), 300)  # type: ignore[misc]
                while not kill(pool):
                    time.sleep(0.02)
                killed += 1
            ended = [service.wait(job.id, 400) for job in jobs]
            seconds = time.monotonic() - began
            took = sorted((job.finished or 0) - (job.started or 0) for job in ended)
            found = [[each.sha256 for each in service.pictures_of(job.id)] for job in jobs]
            assert [job.state for job in ended] == ["done"] * REQUESTS
            assert {job.attempts for job in ended} == {1}  # the runner tried again, not the queue
        deaths = pool.state().deaths - deaths
    equal = sum(each == [expected[number % DISTINCT]] for number, each in enumerate(found))
    middle, late = took[len(took) // 2], took[int(len(took) * 0.95)]
    print(f"\n{REQUESTS} requests, {killed} killed, {deaths} deaths: {equal} equal, {seconds:.1f} s")
    print(f"run time p50 {middle:.2f} s, p95 {late:.2f} s, longest {took[-1]:.2f} s")
    assert equal == REQUESTS and deaths == killed == KILLS


def test_a_bulk_run_keeps_order_and_bytes_where_a_replica_is_killed(tmp_path: Path) -> None:
    lines = [{"prompt": f"a house, number {number}", "seed": number} for number in range(PROMPTS)]
    plan = BulkPlan(
        lines=lambda: [json_line(each, number) for number, each in enumerate(lines, 1)], base=SIZE, shard=Shard()
    )
    with pool_of(2, 2) as pool:
        until(lambda: pool.state().ready == 2)
        runner, began, killed = cluster_runner(pool), time.monotonic(), 0
        run = BulkRun(
            tmp_path / "ray", plan, workers=({}, {}), team=lambda orders, leases: ClusterTeam(orders, leases, runner)
        )
        for state in run.run():
            if not killed and state.done >= PROMPTS // 4:
                killed = kill(pool)
        seconds, deaths = time.monotonic() - began, pool.state().deaths
    began = time.monotonic()
    last = list(BulkRun(tmp_path / "processes", plan, workers=({"threads": 1},) * 2).run())[-1]
    print(f"\n{PROMPTS} prompts, {deaths} killed: {seconds:.1f} s; two processes: {time.monotonic() - began:.1f} s")
    ray, processes = (_manifest(tmp_path / name) for name in ("ray", "processes"))
    assert last.failed == 0 and killed == deaths == 1
    assert len(ray) == PROMPTS and [each["seed"] for each in ray] == list(range(PROMPTS))
    assert [each["sha256"] for each in ray] == [each["sha256"] for each in processes]


def _manifest(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [{"sha256": row["sha256"], "seed": row["request"]["seed"]} for row in rows]


def test_steps_pass_through_and_an_end_comes_at_the_next_one() -> None:
    with pool_of(1, 1) as pool:
        until(lambda: pool.state().ready == 1)
        runner = cluster_runner(pool)
        list(runner.run(request(1)))
        began, seen = time.monotonic(), []
        events = runner.run(request(2, steps=60), wants_preview=lambda: True)
        for event in events:
            assert isinstance(event, Progress)
            seen.append(time.monotonic() - began)
            if event.index == 5:
                break
        events.close()  # type: ignore[attr-defined]
        again = time.monotonic()
        step = (seen[-1] - seen[0]) / (len(seen) - 1)
        first = next(iter(runner.run(request(3, steps=60))))
        waited = time.monotonic() - again
        print(f"\nfirst event after {seen[0]:.3f} s, a step {step:.3f} s, next run's first step {waited:.3f} s")
        assert isinstance(first, Progress) and event.preview is not None
        assert waited < 12 * step + 1, "the run that was left went on"


def test_replicas_come_and_go_with_the_load() -> None:
    with pool_of(1, 2, grow_seconds=0.5, idle_seconds=2) as pool:
        until(lambda: pool.state().ready == 1)
        runner, most, began = cluster_runner(pool), 1, time.monotonic()
        rounds = [threading.Thread(target=_busy, args=(runner, lambda: most < 2)) for _ in range(3)]
        for each in rounds:
            each.start()
        until(lambda: pool.state().ready == 2)
        most, grown = 2, time.monotonic() - began
        for each in rounds:
            each.join(120)
        began = time.monotonic()
        until(lambda: pool.state().ready == 1 and pool.state().starting == 0)
        print(f"\n1 to 2 replicas after {grown:.1f} s of load, back after {time.monotonic() - began:.1f} s")
        assert pool.state().deaths == 0


def _busy(runner: Any, goes_on: Callable[[], bool]) -> None:
    while goes_on():
        list(runner.run(request(1)))


def test_the_server_streams_and_refuses_what_the_queue_cannot_hold(tmp_path: Path) -> None:
    chosen = settings(tmp_path, limits={"queue": 4, "queue_owner": 4})
    with pool_of(1, 1) as pool:
        listening = listen(chosen, [cluster_runner(pool)])
        thread = threading.Thread(target=listening.run, daemon=True)
        thread.start()
        until(lambda: listening.server.started)
        with client(listening) as http:
            answers = [http.post("/v1/jobs", json={**SMALL, "seed": number}) for number in range(12)]
            refused = [each for each in answers if each.status_code == 429]
            assert len(refused) >= 7 and all(int(each.headers["retry-after"]) >= 1 for each in refused)
            jobs = [each.json()["id"] for each in answers if each.status_code == 202]
            assert {done(http, job)["state"] for job in jobs} == {"done"}
            events = http.get(f"/v1/jobs/{jobs[-1]}/events").text
            assert "event: progress" in events and "event: done" in events
        listening.stop()
        thread.join(20)
        print(f"\n{len(refused)} of 12 refused with 429, {len(jobs)} done")


def test_errors_come_as_they_are_here() -> None:
    with pool_of(1, 1) as pool:
        with pytest.raises(InvalidRequest, match="expected multiples of 8"):
            list(cluster_runner(pool).run(request(1, width=65, height=64)))
        assert pool.state().deaths == 0


def test_models_come_from_the_store(tmp_path: Path) -> None:
    found = model_path()
    assert found is not None
    model = tmp_path / "mine.safetensors"
    shutil.copyfile(found, model)
    asked = Request("a tree", model=str(model), seed=1, steps=2, width=64, height=64)
    folders = {"store": tmp_path / "store", "cache": tmp_path / "cache"}
    with pool_of(1, 1, **folders) as pool:
        (picture,) = [each for each in cluster_runner(pool).run(asked) if isinstance(each, Images)]
    assert len(list(folders["cache"].glob("*/mine.safetensors"))) == 1
    (own,) = [each for each in LocalRunner(engine="torch").run(asked) if isinstance(each, Images)]
    assert picture.requests[0].model == str(model) and picture.images[0].info == own.images[0].info
    assert picture.images[0].tobytes() == own.images[0].tobytes()

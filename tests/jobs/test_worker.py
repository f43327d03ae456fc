"""The worker: from a job to files, ended between steps, and never stopped by a job that fails."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from quick_runner import QuickRunner
from torch import Tensor

from stable_diffusion import Request
from stable_diffusion.events import Event, Images, Progress
from stable_diffusion.jobs import JobService
from stable_diffusion.jobs.files import picture_name
from stable_diffusion.text.windows import run_windows
from stable_diffusion.weights.containers import atomic


def test_a_job_becomes_pictures(service: JobService, runner: QuickRunner) -> None:
    service.start()
    events = service.subscribe()
    job = service.submit(Request("a cat", count=3, seed=7), owner="me")
    done = service.wait(job.id, 20)
    assert (done.state, done.attempts, done.notes, done.error) == ("done", 1, ("a note",), None)
    pictures = service.pictures_of(job.id)
    assert [(each.number, each.seed, each.owner) for each in pictures] == [(0, 7, "me"), (1, 8, "me"), (2, 9, "me")]
    assert all(service.gallery.read(each.id)[:4] == b"\x89PNG" for each in pictures)
    kinds = [event.kind for event in iter(lambda: events.get(0), None) if event.kind != "progress"]
    assert kinds == ["queued", "running", "picture", "picture", "picture", "done"]
    assert runner.closed == 1 and runner.previews == 0


def test_open_seeds_are_drawn_when_a_job_is_submitted(service: JobService) -> None:
    job = service.submit({"prompt": "a cat", "variation": {"strength": 0.1}})
    request = service.request_of_job(job.id)
    assert request.seed is not None and request.variation.seed is not None
    assert service.request_of_job(job.id) == request
    assert service.submit(Request("a cat"), idempotency="k").id == service.submit(Request("a cat"), idempotency="k").id


def test_a_running_job_ends_at_its_next_step(service: JobService, runner: QuickRunner) -> None:
    service.start()
    job, after = service.submit(Request("wait", count=5)), service.submit(Request("a dog"))
    assert runner.begun.wait(20)
    service.cancel(job.id)
    runner.go.set()
    assert service.wait(job.id, 20).state == "cancelled"
    assert service.pictures_of(job.id) == [] and runner.closed >= 1
    assert service.wait(after.id, 20).state == "done"


class EncodingRunner(QuickRunner):
    """Reads a long prompt before its first step, in batches of windows."""

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        def network(ids: Tensor) -> tuple[Tensor, ...]:
            self.batches += 1
            self.begun.set()
            assert self.go.wait(20)
            return (ids,)

        run_windows(range(1000), lambda number: torch.tensor([[number]]), network)
        return super().run(request, wants_preview=wants_preview)

    batches = 0


def test_a_job_ends_while_its_prompt_is_encoded(tmp_path: Path) -> None:
    """Between two batches of windows, long before its first step."""
    runner = EncodingRunner()
    with JobService(tmp_path, runners=[runner]) as service:
        job, after = service.submit(Request("many windows")), service.submit(Request("a dog"))
        assert runner.begun.wait(20)
        service.cancel(job.id)
        runner.go.set()
        assert service.wait(job.id, 20).state == "cancelled" and runner.batches == 1
        assert service.wait(after.id, 20).state == "done"


def test_a_job_that_is_cancelled_before_it_begins_never_runs(service: JobService, runner: QuickRunner) -> None:
    job = service.submit(Request("a cat"))
    assert service.cancel(job.id).state == "cancelled"
    assert service.workers[0].run_next() is None and runner.ran == []


def test_another_program_cancels_through_the_database(service: JobService, runner: QuickRunner) -> None:
    service.start()
    job = service.submit(Request("wait", count=5))
    assert runner.begun.wait(20)
    service.store.cancel(job.id)  # as one that shares the database, and not this memory
    assert service.workers[0].current is not None and service.workers[0].current.cancel.wait(10)
    runner.go.set()
    assert service.wait(job.id, 20).state == "cancelled"


def test_a_deleted_running_job_ends_first(service: JobService, runner: QuickRunner) -> None:
    service.start()
    job, after = service.submit(Request("wait")), service.submit(Request("a dog"))
    assert runner.begun.wait(20)
    runner.go.set()
    service.delete(job.id)
    assert [each.id for each in service.jobs()] == [after.id]
    assert service.wait(after.id, 20).state == "done"


def test_one_picture_of_several_is_skipped(service: JobService, runner: QuickRunner) -> None:
    service.start()
    job = service.submit(Request("wait", count=3, seed=1))
    assert runner.begun.wait(20)
    assert service.skip(job.id)
    runner.go.set()
    assert service.wait(job.id, 20).state == "done"
    assert [(each.number, each.seed) for each in service.pictures_of(job.id)] == [(1, 2), (2, 3)]
    assert not service.skip(job.id)


def test_a_job_that_was_cut_off_makes_only_what_is_missing(tmp_path: Path) -> None:
    first = QuickRunner()
    service = JobService(tmp_path, runners=[first])
    job = service.submit(Request("a cat", count=4, seed=1))
    claimed = service._bench.leases.claim("a worker that dies")
    assert claimed is not None
    current_rows = []
    for number in (0, 1):
        image = Image.new("RGB", (4, 4))
        name = picture_name(claimed, number)
        current_rows.append(service.folder.write(image, name, 1.0, claimed, number, None))
    service._bench.leases.keep(claimed, current_rows[:1])  # the second has a file and no row
    before = service.gallery.read(f"{job.id}-0")
    (service.folder.pictures / ".half.png.abc.part").write_bytes(b"half")
    service.close()
    with JobService(tmp_path, runners=[first]) as again:
        done = again.wait(job.id, 20)
        assert (done.state, done.attempts) == ("done", 2)
        assert [each.number for each in again.pictures_of(job.id)] == [0, 1, 2, 3]
        assert again.gallery.read(f"{job.id}-0") == before
        assert [request.seed for request in first.ran] == [2] and first.ran[0].count == 3
        assert len(list(again.folder.pictures.rglob("*.png"))) == 4
        assert not list(again.folder.pictures.rglob("*.part"))


def test_a_closed_service_gives_its_job_back(tmp_path: Path, runner: QuickRunner) -> None:
    service = JobService(tmp_path, runners=[runner]).start()
    job = service.submit(Request("wait"))
    assert runner.begun.wait(20)
    runner.go.set()
    service.close()
    other = JobService(tmp_path, runners=())
    assert (other.job(job.id).state, other.job(job.id).attempts) in (("queued", 0), ("done", 1))
    other.close()


def test_errors_are_sentences_and_the_worker_goes_on(service: JobService, runner: QuickRunner) -> None:
    jobs = {prompt: service.submit(Request(prompt)) for prompt in ("wrong", "crash", "memory", "a cat")}
    service.start()
    assert service.wait(jobs["a cat"].id, 20).state == "done"
    errors = {prompt: str(service.job(job.id).error) for prompt, job in jobs.items()}
    assert errors["wrong"] == "the prompt is wrong; expected a right one"
    assert "RuntimeError" in errors["crash"] and "private" not in errors["crash"]
    assert "not enough memory" in errors["memory"] and runner.released == 1


def test_a_full_disk_fails_the_job_and_pauses_the_queue(
    service: JobService, runner: QuickRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    service.start()
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        job = service.wait(service.submit(Request("a cat")).id, 20)
    assert (job.state, job.error) == ("failed", "the picture could not be written: the disk is full")
    assert str(service.folder.path) not in str(job.error)
    state = service.state()
    assert state.paused and state.reason == job.error
    waiting = service.submit(Request("a dog"))
    time.sleep(0.1)
    assert service.job(waiting.id).state == "queued"
    service.resume()
    assert service.wait(waiting.id, 20).state == "done" and not service.state().paused
    assert service.wait(service.retry(job.id).id, 20).state == "done"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_pauses_too(service: JobService) -> None:
    service.folder.pictures.mkdir()
    service.folder.pictures.chmod(0o500)
    service.start()
    job = service.wait(service.submit(Request("a cat")).id, 20)
    service.folder.pictures.chmod(0o700)
    assert "may not be written" in str(job.error) and service.state().paused


def test_a_paused_queue_starts_nothing_and_stays_paused(tmp_path: Path, runner: QuickRunner) -> None:
    with JobService(tmp_path, runners=[runner]) as service:
        service.pause()
        job = service.submit(Request("a cat"))
        time.sleep(0.1)
        assert service.job(job.id).state == "queued"
    with JobService(tmp_path, runners=[runner]) as service:
        assert service.state().paused and service.state().queued == 1
        service.resume()
        assert service.wait(job.id, 20).state == "done"
    with JobService(tmp_path, runners=[runner], paused=True) as service:
        assert service.state().paused


def test_a_model_is_released_before_another_one_is_loaded(service: JobService, runner: QuickRunner) -> None:
    for model in ("x", "x", "y"):
        service.submit(Request("a cat", model=model))
    worker = service.workers[0]
    released = []
    while worker.run_next() is not None:
        released.append((worker.loaded, runner.released))
    assert released == [("x", 0), ("x", 0), ("y", 1)]
    assert service.state().model == "y"


def test_other_kinds_of_jobs_have_handlers(tmp_path: Path) -> None:
    def enlarge(body, inputs):  # type: ignore[no-untyped-def]
        import io

        image = Image.open(io.BytesIO(inputs.read(body["image"].removeprefix("sha256:"))))
        yield Progress(index=1, total=1, sigma=0.0, picture=0, pictures=1)
        yield Images(images=(image.resize((8, 8)),), first=0, requests=())

    with JobService(tmp_path, runners=[QuickRunner()], handlers={"upscale": enlarge}) as service:
        import io

        file = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(file, "PNG")
        job = service.submit({"image": "sha256:" + service.upload(file.getvalue())}, kind="upscale")
        assert service.wait(job.id, 20).state == "done"
        (picture,) = service.pictures_of(job.id)
        assert (picture.width, picture.height, picture.seed) == (8, 8, None)
        lost = service.submit({"image": "sha256:" + "0" * 64}, kind="upscale")
        assert "upload it once more" in str(service.wait(lost.id, 20).error)


def test_time_left_is_learnt_by_model(service: JobService) -> None:
    service.submit(Request("a cat"))
    assert service.state().seconds_left is None
    service.workers[0].run_next()
    job = service.submit(Request("a cat"))
    bigger = service.submit(Request("a cat", width=1024, height=1024))
    places = service.places()
    small, large = places[job.id].seconds_left, places[bigger.id].seconds_left
    assert small is not None and large is not None and large == pytest.approx(5 * small)
    assert service.state().seconds_left == large


def test_waiting_in_a_task(service: JobService) -> None:
    async def both() -> list[str]:
        service.start()
        job = service.submit(Request("a cat"))
        kinds = []
        events = service.subscribe(job.id, after=0)
        done = await asyncio.to_thread(service.wait, job.id, 20)
        assert done.state == "done"
        async for event in events:
            kinds.append(event.kind)
        assert (await asyncio.to_thread(service.wait, job.id)).state == "done"
        return kinds

    kinds = asyncio.run(both())
    assert kinds[0] == "queued" and kinds[-1] == "done" and "picture" in kinds

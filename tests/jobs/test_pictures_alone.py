"""Real pictures of the built-in model: the bytes of the command line, whatever runs beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from stable_diffusion import Request, load
from stable_diffusion.cli.main import cli
from stable_diffusion.jobs import JobService
from stable_diffusion.pipeline.models import ModelCache
from stable_diffusion.runner import LocalRunner, device_runners

SIZE = {"model": "embedded-fast", "steps": 2, "width": 64, "height": 64}


def lora_file(path: Path, seed: int) -> Path:
    """A LoRA of rank 2 on the attention queries of the built-in model."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, weight in load("embedded-fast").parts.unet.named_parameters():
        if name.endswith("attention.query.weight"):
            stem = f"unet.{name.removesuffix('.weight')}"
            state[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
            state[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    save_file(state, path)
    return path


def painted(service: JobService, *requests: Request) -> list[bytes]:
    """All submitted at once; the files of their pictures."""
    jobs = [service.submit(request) for request in requests]
    assert [service.wait(job.id, 60).state for job in jobs] == ["done"] * len(jobs), [
        service.job(job.id).error for job in jobs
    ]
    return [service.gallery.read(picture.id) for job in jobs for picture in service.pictures_of(job.id)]


def test_files_are_those_of_the_command_line(tmp_path: Path) -> None:
    arguments = ["-m", "embedded-fast", "--steps", "2", "--width", "64", "--height", "64", "--seed", "5", "-n", "3"]
    out = tmp_path / "cli" / "cat.png"
    result = CliRunner().invoke(cli, ["a red cat, {small|big}", *arguments, "-o", str(out)])
    assert result.exit_code == 0, result.output
    expected = [(tmp_path / "cli" / f"cat-{seed}.png").read_bytes() for seed in (5, 6, 7)]
    request = Request("a red cat, {small|big}", seed=5, count=3, **SIZE)
    with JobService(tmp_path / "data") as service:
        assert painted(service, request) == expected
        job = service.submit(request)
        service.wait(job.id, 60)
    service = JobService(tmp_path / "data")
    service.store.retry([job.id])
    # The same job, cut off after its first picture.
    with service.database.write() as connection:
        connection.execute(sa.update(service.database.jobs).where(service.database.jobs.c.id == job.id).values(
            state="running", attempts=1))  # fmt: skip
        connection.execute(sa.delete(service.database.pictures).where(service.database.pictures.c.number > 0))
    for file in service.folder.pictures.rglob(f"{job.id}-000[12].png"):
        file.unlink()
    with service:
        assert service.wait(job.id, 60).attempts == 2
        assert [service.gallery.read(each.id) for each in service.pictures_of(job.id)] == expected


def test_two_loras_at_once_give_what_each_gives_alone(tmp_path: Path) -> None:
    one, two = lora_file(tmp_path / "one.safetensors", 1), lora_file(tmp_path / "two.safetensors", 2)
    requests = [
        Request("a cat", seed=4, loras=loras, **SIZE)
        for loras in ([(str(one), 0.7)], [(str(two), 0.7)], [], [(str(one), 0.2), (str(two), 0.5)])
    ]
    with JobService(tmp_path / "alone") as service:
        alone = [painted(service, request)[0] for request in requests]
    assert len(set(alone)) == 4
    models = ModelCache()
    with JobService(tmp_path / "together", runners=[LocalRunner(models) for _ in range(3)]) as service:
        for _ in range(2):
            assert painted(service, *requests, *reversed(requests)) == [*alone, *reversed(alone)]
        assert len({service.job(job.id).worker for job in service.jobs()}) == 3


def test_a_device_has_a_worker_and_models_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runners = device_runners(["cpu", "cpu"])
    assert runners[0].models is not runners[1].models
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [runner.device for runner in device_runners()] == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [runner.device for runner in device_runners()] == ["auto"]
    with JobService(tmp_path, runners=runners) as service:
        requests = [Request("a cat", seed=4, **SIZE) for _ in range(4)]
        assert len(set(painted(service, *requests))) == 1
        assert service.state().workers == 2
        assert len({service.job(job.id).worker for job in service.jobs()}) == 2


def test_memory_of_a_model_is_given_back(tmp_path: Path) -> None:
    runner = LocalRunner(ModelCache())
    list(runner.run(Request("a cat", **SIZE)))
    model = runner.models.get("embedded-fast")
    runner.release()
    assert runner.models.get("embedded-fast") is model  # the built-in ones are small
    made: list[int] = []
    for kind in ("model", "refiner", "hash"):
        runner.models.kept(kind, tmp_path, lambda: made.append(1), "key")
    runner.release()
    for kind in ("model", "refiner", "hash"):
        runner.models.kept(kind, tmp_path, lambda: made.append(1), "key")
    assert len(made) == 5

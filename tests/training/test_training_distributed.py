"""Two gloo processes take the same steps as one, and stop together."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_training import settings

from stable_diffusion.training import checkpoint as ckpt
from stable_diffusion.training.run import Loop, train

pytestmark = pytest.mark.flaky(reruns=1)  # gloo's own threads sometimes abort a process that is about to end


def _worker(rank: int, port: int, jobs: list[tuple[str, str, str, dict[str, Any]]]) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    torch.set_num_threads(1)
    for stage, data, out, overrides in jobs:
        train(stage, data=data, out=out, overrides=overrides, device="cpu")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_two_processes_equal_one(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Same global batch, so the same weights up to summation order; Adam only, as Muon rounds to bfloat16."""
    jobs = []
    for stage in ("vae", "text", "denoiser"):
        more = {"adversarial_after": 1.0} if stage == "vae" else {}
        # a large epsilon keeps AdamW linear, so that rounding noise in tiny gradients is not blown up to full steps
        overrides = settings(stage, runs, steps=3, **{"optimiser.name": "adamw", "optimiser.epsilon": 1e-2}, **more)
        train(stage, data=pack_folder, out=tmp_path / "one" / stage, overrides=overrides, device="cpu")
        jobs.append((stage, str(pack_folder), str(tmp_path / "two" / stage), overrides))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_worker, args=(port, jobs), nprocs=2, join=True)
    for stage, *_ in jobs:
        one, two = (ckpt.read_tensors(tmp_path / n / stage / ckpt.NAME, "model.") for n in ("one", "two"))
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4, msg=f"{stage} {name}")
        assert ckpt.read_state(tmp_path / "two" / stage / ckpt.NAME)["step"] == 3


def _stopped(rank: int, port: int, data: str, out: str, overrides: dict[str, Any], sent_to: int) -> None:
    """Trains, and sends one rank alone SIGTERM after its second step; leaves a note of how it ended."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    step = Loop._step

    def stopping_step(loop: Loop) -> dict[str, float]:
        numbers = step(loop)
        if rank == sent_to and loop.plan.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return numbers

    Loop._step = stopping_step  # type: ignore[method-assign]  # in this process alone
    try:
        train("vae", data=data, out=out, overrides=overrides, device="cpu")
    except KeyboardInterrupt:
        Path(out, f"interrupted-{rank}").touch()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("sent_to", [0, 1])
def test_a_signal_to_one_process_stops_both_with_a_checkpoint(
    sent_to: int, pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    overrides = settings("vae", runs, steps=40, adversarial_after=1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_stopped, args=(port, str(pack_folder), str(tmp_path), overrides, sent_to), nprocs=2, join=True)
    assert (tmp_path / "interrupted-0").exists() and (tmp_path / "interrupted-1").exists()
    assert ckpt.read_state(tmp_path / ckpt.NAME)["step"] == 2

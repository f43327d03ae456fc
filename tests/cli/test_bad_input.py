"""Bad input: one plain sentence, a non-zero exit, no traceback, and nothing half-written."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Run, RunProcess, assert_one_sentence, environment, leftovers

BAD_REQUESTS = [
    (["--sampler", "eulr"], 1, ["'eulr'", "'euler'"]),
    (["--schedule", "karas"], 1, ["'karas'", "'karras'"]),
    (["--width", "17"], 1, ["17x24", "multiples of 8", "16x24"]),
    (["--size", "1x1"], 1, ["1x1", "8x8"]),
    (["--size", "big"], 2, ["'big'", "512x768"]),
    (["--size", "16", "--width", "16"], 2, ["--size"]),
    (["--width", "99999999"], 2, ["--width", "99999999", "8192"]),
    (["--steps", "0"], 2, ["--steps", "0"]),
    (["--steps", "9" * 30], 2, ["--steps"]),
    (["--steps", "many"], 2, ["--steps", "'many'"]),
    (["--cfg", "nan"], 2, ["--guidance", "'nan'", "finite"]),
    (["--cfg", "-inf"], 2, ["--guidance", "finite"]),
    (["--cfg", "1e30"], 2, ["--guidance", "100"]),
    (["--seed", "-2"], 2, ["--seed", "-2"]),
    (["--seed", str(2**64)], 2, ["--seed"]),
    (["--count", "0"], 2, ["--count"]),
    (["--strength", "0.5"], 1, ["strength", "image"]),
    (["--strength", "nan"], 2, ["--strength", "finite"]),
    (["--image", "missing.png"], 1, ["missing.png"]),
    (["--image", "."], 1, ["folder"]),
    (["--image", "text.png"], 1, ["text.png", "not a picture"]),
    (["--like", "text.png"], 1, ["text.png", "not a picture"]),
    (["--mask", "text.png"], 1, ["text.png"]),
    (["--out", "x.bmp"], 1, ["'.bmp'", ".png"]),
    (["--out", "text.png/x.png"], 1, ["text.png", "file"]),
    (["--device", "gpu"], 1, ["'gpu'", "cpu"]),
    (["--sise", "16"], 2, ["--sise"]),
    (["another"], 2, ["another"]),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD_REQUESTS, ids=[" ".join(c[0])[:30] for c in BAD_REQUESTS])
def test_bad_requests(
    run: Run, here: Path, model_file: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (here / "text.png").write_text("no picture")
    result = run("a cat", "-m", model_file, *arguments)
    assert_one_sentence(result.exit_code, result.stderr, *words, expected_code=code)
    assert result.stdout == ""
    assert leftovers(here) == ["text.png"]


@pytest.mark.parametrize("prompt", ["", "   \n"])
def test_an_empty_prompt_is_one(run: Run, here: Path, model_file: Path, prompt: str) -> None:
    result = run(prompt, "-m", model_file)
    assert result.exit_code == 0 and [path.suffix for path in here.rglob("*.png")] == [".png"], result.stderr


def test_missing_prompt(run: Run) -> None:
    result = run("generate")
    assert_one_sentence(result.exit_code, result.stderr, "prompt", "--help", expected_code=2)


def bad_model(kind: str, folder: Path, model_file: Path) -> Path:
    """A file or folder that is no model, or no longer one."""
    path = folder / f"{kind}.safetensors"
    whole = model_file.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.touch()
    elif kind == "huge-header":
        path.write_bytes((2**62).to_bytes(8, "little") + b"{" + b" " * 100)
    elif kind == "text":
        path.write_text("this is not a model")
    elif kind == "foreign":
        import torch
        from safetensors.torch import save_file

        save_file({"some.other.weight": torch.zeros(3, 5)}, path)
    elif kind == "folder":
        path = folder / "folder"
        path.mkdir()
    elif kind == "misspelt":
        model_file.with_name("tiny.safetensors")
        path = model_file.with_name("tinny.safetensors")
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "huge-header", "text", "foreign", "folder", "misspelt"])
@pytest.mark.parametrize("command", [["a cat", "-m"], ["info"]], ids=["generate", "info"])
def test_bad_models(run: Run, here: Path, model_file: Path, kind: str, command: list[str]) -> None:
    path = bad_model(kind, here, model_file)
    before = leftovers(here)
    result = run(*command, path)
    assert_one_sentence(result.exit_code, result.stderr, path.name)
    assert leftovers(here) == before


class RunsCode:
    """A pickle that would write a file when it is loaded the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_pickle_that_runs_code_is_refused(run: Run, here: Path, container: str) -> None:
    trace, path = here / "was-here", here / "model.ckpt"
    payload = pickle.dumps({"state_dict": RunsCode(trace)}, protocol=2)
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
            archive.writestr("archive/version", "3\n")
    else:
        path.write_bytes(payload)
    result = run("a cat", "-m", path)
    assert_one_sentence(result.exit_code, result.stderr, "model.ckpt", "system")
    assert not trace.exists()


def test_a_full_disk_leaves_nothing(run: Run, here: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    result = run("a cat", "-m", model_file, "-o", "x.png")
    assert_one_sentence(result.exit_code, result.stderr, "x.png", "disk is full")
    assert leftovers(here) == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_small_disk_that_fills_up(process: RunProcess, here: Path, model_file: Path) -> None:
    disk = here / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    try:
        (disk / "filler").write_bytes(bytes(4096))
        done = process("a cat", "-m", model_file, "-o", disk / "x.png")
        assert_one_sentence(done.returncode, "\n".join(_errors(done.stderr)), "x.png", "disk is full")
        assert leftovers(disk) == ["filler"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_closed_standard_output_is_not_an_error_of_ours(here: Path, model_file: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stable_diffusion", "info", str(model_file), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=240,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr and "disk is full" in done.stderr


def test_ctrl_c_ends_with_130_and_leaves_nothing(here: Path, model_file: Path) -> None:
    command = [sys.executable, "-m", "stable_diffusion", "a cat", "-m", str(model_file), "-n", "1000", "-t", "100"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(), preexec_fn=_hear_interrupts, **pipes) as run:
        deadline = time.monotonic() + 200
        while not list((here / "outputs").glob("*.png")) and time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        stdout, stderr = run.communicate(timeout=100)
    assert run.returncode == 130, stderr
    assert _errors(stderr) == ["error: interrupted"]
    written = leftovers(here)
    assert written and not [name for name in written if not name.endswith(".png")]
    assert len(stdout.split()) in (len(written), len(written) - 1)


def _hear_interrupts() -> None:
    """A shell starts background jobs with SIGINT ignored, and a child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _errors(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line and not line.startswith(("seed ", "note: "))]


def test_out_of_memory_is_a_sentence(run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_diffusion.models.unet import UNet

    def fail(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 123 bytes.")

    monkeypatch.setattr(UNet, "forward", fail)
    result = run("a cat", "-m", model_file)
    assert_one_sentence(result.exit_code, result.stderr, "not enough memory", "smaller")


def test_terminate_unwinds(here: Path, model_file: Path) -> None:
    command = [sys.executable, "-m", "stable_diffusion", "a cat", "-m", str(model_file), "-n", "1000", "-t", "100"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()) as run:
        deadline = time.monotonic() + 200
        while not list((here / "outputs").glob("*.png")) and time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        assert run.wait(100) == 143
    assert not [name for name in leftovers(here) if not name.endswith(".png")]

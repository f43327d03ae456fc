"""A new process that makes one picture: torch imported lightly is torch, and the end of the process is an end."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_helpers import environment

from stable_diffusion import embedded
from stable_diffusion.cli.start import ahead, leave, light_torch

needs_it = pytest.mark.skipif(
    not version("torch").startswith(light_torch.TESTED), reason="this version of torch is imported as ever"
)

LIGHT = """
import sys
from stable_diffusion.cli.start import light_torch
assert light_torch.import_torch_lightly()
unread = [name for name, each in sys.modules.items() if type(each) is light_torch.UnreadModule]
assert sorted(unread) == sorted(light_torch.LATER), unread
"""
UNTOUCHED = "assert not light_torch._STATE.complete, 'a plain picture asks for what was left unread'"


def python(code: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**environment(), **more}, check=False)


@needs_it
@pytest.mark.skipif(embedded.model_path() is None, reason="no model has been trained yet")
def test_a_picture_is_the_same_and_needs_nothing_of_what_is_left_unread(tmp_path: Path) -> None:
    paint = (
        "import stable_diffusion as sd\n"
        "image = sd.generate_image('a red fox', seed=3, steps=1, width=64, height=64)\n"
        "image.save(sys.argv[1])\n"
    )
    light = python(LIGHT + paint + UNTOUCHED, str(tmp_path / "light.png"))
    assert light.returncode == 0, light.stderr
    whole = python("import sys\n" + paint, str(tmp_path / "whole.png"))
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "light.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


@needs_it
@pytest.mark.parametrize(
    "need",
    [
        "assert torch.vmap(lambda x: 2 * x)(torch.ones(3)).tolist() == [2, 2, 2]",
        "from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with FakeTensorMode():\n"
        "    shape = torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)).shape\n"
        "assert shape == (1, 4, 6, 6), shape",
        "from torch.fx import symbolic_trace\n"
        "import torch._dynamo\n"
        "assert symbolic_trace(torch.nn.Linear(2, 2)) is not None and torch.compiler.is_compiling() is False\n"
        "assert torch.optim.AdamW and torch.distributions.Normal and torch.fx.experimental.sym_node.SymNode",
    ],
    ids=["a function", "shapes", "the compiler"],
)
def test_what_was_left_unread_is_read_whole_when_it_is_needed(need: str) -> None:
    after = "\nassert not [name for name in light_torch.LATER if type(sys.modules[name]) is light_torch.UnreadModule]"
    found = python(LIGHT + "import torch\nassert not torch.compiler.is_compiling()\n" + need + after)
    assert found.returncode == 0, found.stderr


def test_another_version_of_torch_and_a_torch_that_is_there_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not light_torch.import_torch_lightly()  # these tests have imported it
    monkeypatch.setattr(light_torch, "TESTED", ("0.0.",))
    monkeypatch.delitem(sys.modules, "torch")
    assert not light_torch.import_torch_lightly()
    assert "torch" not in sys.modules


ENDING = (
    "import atexit, sys, threading, time\n"
    "from stable_diffusion.cli.start.leave import finished, leave\n"
    "atexit.register(print, 'handler')\n"
    "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
    "class Late:\n"
    "    def __del__(self): print('taken apart')\n"
    "late = Late()\n"
    "if sys.argv[1] == 'finished': finished()\n"
    "leave(3)\n"
    "sys.exit(4)\n"
)


def test_a_process_that_has_finished_ends_with_its_threads_and_handlers_and_nothing_more() -> None:
    found = python(ENDING, "finished")
    assert (found.returncode, found.stdout) == (3, "thread\nhandler\n"), found.stderr
    found = python(ENDING, "not yet")
    assert (found.returncode, found.stdout) == (4, "thread\nhandler\ntaken apart\n"), found.stderr


def test_only_codes_of_success_and_failure_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave, "_finished", True)
    leave.leave("a sentence that Python prints")


def test_garbage_is_collected_again_afterwards() -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with ahead.uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def closed(stream: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process to which this stream was not given."""
    start = f"import os, sys; os.close({stream}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return python(start, "-m", "stable_diffusion", *arguments)


@pytest.mark.skipif(embedded.model_path() is None, reason="no model has been trained yet")
@pytest.mark.skipif(sys.platform == "win32", reason="another way to start processes")
def test_a_closed_stream_is_no_error_unless_it_is_to_take_the_picture(tmp_path: Path) -> None:
    wanted = ("a red fox", "--steps", "1", "--size", "64", "--server", "off", "--out")
    found = closed(2, *wanted, str(tmp_path / "fox.png"))
    assert found.returncode == 0 and (tmp_path / "fox.png").is_file()
    found = closed(1, *wanted, "-")
    assert found.returncode == 1 and "redirect standard output" in found.stderr

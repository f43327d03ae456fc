"""`--server`: the command line gives the same bytes through a server that runs, and without a word where none does."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from server_helpers import port_of, running, settings

from house import PACKAGE
from stable_diffusion.cli.main import cli
from stable_diffusion.server.listen import Listening
from stable_diffusion.server.resident.place import VARIABLE
from stable_diffusion.server.resident.serve import ResidentSocket

ASKED = ["a red apple", "--seed", "3", "--steps", "2", "--size", "64", "--no-preview"]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with running(settings(tmp_path_factory.mktemp("served"))) as found:
        yield found


@pytest.fixture(scope="module")
def place(listening: Listening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a server that runs."""
    path = tmp_path_factory.mktemp("run", numbered=True) / "sd.sock"
    path.parent.chmod(0o700)
    resident = ResidentSocket(listening.app.state.service, path)
    assert resident.start()
    yield path
    resident.close()
    assert not path.exists()


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(place))
    return place


def jobs(listening: Listening) -> int:
    return len(listening.app.state.service.queue.jobs(limit=500))


def run(*arguments: str) -> Result:
    found = CliRunner().invoke(cli, [*ASKED, *arguments])
    assert found.exit_code == 0, found.output
    return found


def test_bytes_are_the_same(here: Path, listening: Listening, tmp_path: Path) -> None:
    before = jobs(listening)
    served = run("--out", str(tmp_path / "served.png"))
    assert jobs(listening) == before + 1
    local = run("--out", str(tmp_path / "local.png"), "--server", "off")
    assert jobs(listening) == before + 1
    assert (tmp_path / "served.png").read_bytes() == (tmp_path / "local.png").read_bytes()
    assert served.stderr == local.stderr == "seed 3\n"
    address = f"http://127.0.0.1:{port_of(listening)}"
    run("--out", str(tmp_path / "address.png"), "--server", address)
    assert (tmp_path / "address.png").read_bytes() == (tmp_path / "local.png").read_bytes()
    assert jobs(listening) == before + 2


def test_several_pictures_and_other_formats(here: Path, tmp_path: Path) -> None:
    run("--count", "2", "--out", str(tmp_path / "a.webp"))
    run("--count", "2", "--out", str(tmp_path / "b.webp"), "--server", "off")
    first, second = (sorted(tmp_path.glob(f"{name}-*.webp")) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] and len(first) == 2


@pytest.mark.parametrize(
    "options", [["--dtype", "bfloat16"], ["--engine", "torch"], ["--wildcards-dir", "."], ["--device", "cpu"]], ids=str
)
def test_what_a_server_cannot_do_is_done_here(
    here: Path, listening: Listening, tmp_path: Path, options: list[str]
) -> None:
    before = jobs(listening)
    found = run("--out", str(tmp_path / "a.png"), *options)
    assert jobs(listening) == before and found.stderr == "seed 3\n"


def test_without_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.sock"))
    assert run("--out", str(tmp_path / "a.png")).stderr == "seed 3\n"
    note = run("--out", str(tmp_path / "b.png"), "--server", "http://127.0.0.1:9").stderr
    assert "http://127.0.0.1:9 does not make this picture; it is made here" in note
    wrong = CliRunner().invoke(cli, [*ASKED, "--server", "on"])
    assert wrong.exit_code == 2 and "is not auto, off or an address" in wrong.output


def test_a_server_that_dies_before_it_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(folder / "x.sock"))
        (folder / "x.sock").chmod(0o600)
        made.listen(1)
        monkeypatch.setenv(VARIABLE, str(folder / "x.sock"))

        def answer() -> None:
            client, _ = made.accept()
            client.recv(100)
            client.sendall(json.dumps({"accepted": True}).encode() + b"\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        assert run("--out", str(tmp_path / "a.png")).stderr == "seed 3\n"


def test_only_the_user_can_open_it(here: Path, listening: Listening, tmp_path: Path) -> None:
    assert stat.S_IMODE(here.stat().st_mode) == 0o600
    before = jobs(listening)
    here.parent.chmod(0o777)  # anybody could put another socket there
    try:
        run("--out", str(tmp_path / "a.png"))
        assert jobs(listening) == before
        assert not ResidentSocket(listening.app.state.service, here.parent / "other.sock").start()
    finally:
        here.parent.chmod(0o700)
    assert not ResidentSocket(listening.app.state.service, here).start()  # somebody listens there already


def test_a_socket_of_a_dead_server_is_replaced(listening: Listening, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "sd.sock"))
    resident = ResidentSocket(listening.app.state.service, tmp_path / "sd.sock")
    assert resident.start()
    resident.close()


def test_the_client_needs_no_torch(here: Path, listening: Listening, tmp_path: Path) -> None:
    before = jobs(listening)
    script = "import sys\nfrom stable_diffusion.cli.main import cli\n"
    script += f"cli({[*ASKED, '--out', str(tmp_path / 'a.png')]!r}, standalone_mode=False)\n"
    script += "heavy = {'torch', 'numpy', 'PIL', 'rich', 'http.client'} & set(sys.modules)\nassert not heavy, heavy\n"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
    assert jobs(listening) == before + 1 and (tmp_path / "a.png").is_file()

"""The commands of the deployments, run as processes of this machine: a head, replicas and the server, and a picture.

RAY_FOR_TESTS=1 lets it run where Ray is installed.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from house import ROOT
from stable_diffusion.cluster.connect import missing

psutil = pytest.importorskip("psutil", reason="psutil is not installed")
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
REASON = missing() or (None if os.environ.get("RAY_FOR_TESTS") else "Ray is used only where RAY_FOR_TESTS is set")
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(300)]
TOKEN = "a-token-of-this-test-only-0123456789"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


class Containers:
    """Services of the compose file without containers: `head` is this machine, and folders are of the test."""

    def __init__(self, folder: Path) -> None:
        self.services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
        self.folder, self.ray, self.http = folder, free_port(), free_port()
        self.logs: dict[str, Path] = {}
        text = (ROOT / "deploy" / "server.toml").read_text()
        for place in ("/models", "/cache", "/data"):
            (folder / place[1:]).mkdir()
            text = text.replace(f'"{place}', f'"{folder}{place}')
        text = text.replace('model = "embedded"', 'model = "embedded-fast"').replace("7860", str(self.http))
        command = folder / "bin" / "stable-diffusion"  # of this tree, wherever the package is installed
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m stable_diffusion "$@"\n')
        command.chmod(0o755)
        self.settings = folder / "server.toml"
        self.settings.write_text(text.replace("0.0.0.0", "127.0.0.1"))

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        said = self.services[name]["command"].replace("head:6379", f"127.0.0.1:{self.ray}")
        said = said.replace("--port=6379", f"--port={self.ray} --node-ip-address=127.0.0.1")
        said = said.replace("/etc/stable-diffusion/server.toml", str(self.settings))
        words = [*shlex.split(said), *more]
        scripts, paths = Path(sys.executable).parent, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(scripts), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "RAY_AUTH_MODE": self.services[name]["environment"]["RAY_AUTH_MODE"],
            "RAY_AUTH_TOKEN": TOKEN,
            "STABLE_DIFFUSION_TEST_FOLDER": str(self.folder),
            "STABLE_DIFFUSION_SERVER_TOKEN": TOKEN,
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.logs[name] = self.folder / f"{name}.log"
        with self.logs[name].open("wb") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)

    def of_this_cluster(self) -> list[Any]:
        """Every process that was started with this test's folder: Ray's own live on without who started them."""
        mine, found = str(self.folder), []
        for each in psutil.process_iter(["environ"]):
            if (each.info["environ"] or {}).get("STABLE_DIFFUSION_TEST_FOLDER") == mine:
                found.append(each)
        return found


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[tuple[Containers, Callable[..., subprocess.Popen[bytes]]]]:
    made, running = Containers(tmp_path), list[subprocess.Popen[bytes]]()

    def start(name: str, *more: str) -> subprocess.Popen[bytes]:
        running.append(made.start(name, *more))
        return running[-1]

    try:
        yield made, start
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = made.of_this_cluster()
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=20)


def until(condition: Callable[[], bool], said: Callable[[], str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, said()
        time.sleep(0.2)


def test_the_commands_of_the_containers_make_a_picture(containers: Any) -> None:
    made, start = containers

    def said() -> str:
        return "\n".join(f"{name}:\n{path.read_text()[-3000:]}" for name, path in made.logs.items())

    head = start("head")
    until(lambda: listens(made.ray) or head.poll() is not None, said)
    assert head.poll() is None, said()
    # the ports that the manifests' probes ask, and that of the operator's own probes, which plain Ray does not open
    manager = free_port()
    replicas = start("replicas", f"--node-manager-port={manager}")
    until(lambda: listens(manager) or replicas.poll() is not None, said)
    assert replicas.poll() is None and not listens(52365), said()
    server = start("server")
    until(lambda: listens(made.http) or server.poll() is not None, said)
    assert server.poll() is None, said()
    with httpx.Client(base_url=f"http://127.0.0.1:{made.http}", timeout=120) as http:
        asked = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "seed": 3}
        assert http.post("/sdapi/v1/txt2img", json=asked).status_code == 401
        http.headers["Authorization"] = f"Bearer {TOKEN}"
        answer = http.post("/sdapi/v1/txt2img", json=asked)
    assert answer.status_code == 200 and len(answer.json()["images"]) == 1, said()

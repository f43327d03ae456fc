"""The example of each client, as somebody runs it, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from served import Served

CLIENTS = Path(__file__).parents[3] / "examples" / "clients"
MADE = {
    "webuiapi_pictures": ("webuiapi", "kite", "snow"),
    "sd_backend_pictures": ("sd_backend_client", "hill", "house"),
    "openai_pictures": ("openai", "lake", "boat"),
    "comfy_graph": ("websockets", "fox"),
    "mcp_pictures": ("mcp", "kite", "snow"),
    "litellm_pictures": ("litellm", "kite", "snow"),
    "langchain_pictures": ("langchain_community", "kite"),
}
WITHOUT_STEPS = ("langchain_pictures",)
"""Clients that cannot ask for a number of steps."""


@pytest.mark.parametrize("name", MADE)
def test_the_example_runs(server: Served, name: str, tmp_path: Path) -> None:
    package, *pictures = MADE[name]
    pytest.importorskip(package)
    command = [sys.executable, str(CLIENTS / f"{name}.py"), "--port", str(urlsplit(server.address).port)]
    command += ["--out", str(tmp_path), "--size", "64"]
    command += [] if name in WITHOUT_STEPS else ["--steps", "2"]
    quiet = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=quiet)
    assert done.returncode == 0, done.stderr
    for picture in pictures:
        assert Image.open(tmp_path / f"{picture}.png").size == (64, 64)

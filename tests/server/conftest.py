"""One server for the tests of a file that only ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server_helpers import client, running, settings

from stable_diffusion.server.listen import Listening


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of LoRAs and other files, with one LoRA that is none."""
    root = tmp_path_factory.mktemp("server")
    for name in ("loras", "embeddings", "controls", "wildcards"):
        (root / name).mkdir()
    (root / "loras" / "broken.safetensors").write_bytes(b"no LoRA")
    (root / "wildcards" / "colour.txt").write_text("red\n")
    (root / "styles.csv").write_text("name,prompt,negative_prompt\npencil,a pencil drawing of {prompt},photo\n")
    return root


@pytest.fixture(scope="module")
def server(folders: Path) -> Iterator[Listening]:
    chosen = settings(
        folders,
        loras=(folders / "loras",),
        embeddings=(folders / "embeddings",),
        controls=(folders / "controls",),
        wildcards=folders / "wildcards",
        styles_file=folders / "styles.csv",
        limits={"header_seconds": 1, "body_seconds": 1},
    )
    with running(chosen) as found:
        yield found


@pytest.fixture
def http(server: Listening) -> Iterator[httpx.Client]:
    with client(server) as found:
        yield found
    server.app.state.service.queue.resume()  # also after a test that failed between pause and resume

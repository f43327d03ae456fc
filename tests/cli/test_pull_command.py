"""`pull` against a local server that speaks the few endpoints of the model hub which it needs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from stable_diffusion import hub
from stable_diffusion.errors import InvalidRequest, StableDiffusionError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NETWORK = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b"full" * 3}
FOLDER = {
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    "README.md": b"words",
    "v1.ckpt": b"pickle",
    **{f"unet/{name}": data for name, data in NETWORK.items()},
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"other",
    "unet/diffusion_pytorch_model.bin": b"pickle",
    **{f"vae/{name}": data for name, data in NETWORK.items()},
    "vae/diffusion_pytorch_model.fp16.safetensors": b"half",
    "text_encoder/config.json": b"{}",
    "text_encoder/model-00001-of-00002.safetensors": b"one",
    "text_encoder/model-00002-of-00002.safetensors": b"two",
    "text_encoder/model.safetensors.index.json": b"{}",
    "text_encoder/model.fp16.safetensors": b"half",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "scheduler/scheduler_config.json": b"{}",
    "safety_checker/model.safetensors": b"no",
}
BIG = bytes(range(256)) * 40_000
REPOS = {
    "some/folder": FOLDER,
    "some/one": {"model.safetensors": BIG, "README.md": b"words"},
    "some/many": {"a.safetensors": b"a", "b.gguf": b"b", "../evil.safetensors": b"c"},
}


@dataclass
class Server:
    """What was asked of the server: (method, path, range), and the byte of the large file at which it hangs up."""

    address: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    stop_at: int | None = None


def about_file(name: str, data: bytes) -> dict[str, Any]:
    """What the hub says of a file; weights are stored by their hash, the rest in git."""
    facts: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if name.endswith((".safetensors", ".bin", ".ckpt", ".gguf")):
        facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return facts


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.asked.append((self.command, path, self.headers.get("Range")))
            if path.startswith("/api/models/"):
                self.about(path.removeprefix("/api/models/").partition("/revision/"))
                return
            repo, _, rest = path.lstrip("/").partition("/resolve/")
            name = rest.partition("/")[2]
            if name not in REPOS.get(repo, {}):
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            self.file(REPOS[repo][name])

        def about(self, parts: tuple[str, str, str]) -> None:
            repo, _, revision = parts
            if repo == "some/broken":
                self.answer(418, b"{}", {})
            elif repo not in REPOS:
                code = "GatedRepo" if repo == "some/gated" else "RepoNotFound"
                self.answer(403 if code == "GatedRepo" else 404, b"{}", {"X-Error-Code": code})
            elif revision not in ("", "main", COMMIT):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                files = [about_file(name, data) for name, data in REPOS[repo].items()]
                body = {"id": repo, "sha": COMMIT, "siblings": files}
                self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        def file(self, data: bytes) -> None:
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            wanted = self.headers.get("Range")
            start, _, last = wanted.removeprefix("bytes=").partition("-") if wanted else ("0", "", "")
            end = min(int(last) + 1, len(data)) if last else len(data)
            if wanted:
                tag["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            self.answer(206 if wanted else 200, data[int(start) : end], tag, int(start))

        def answer(self, status: int, body: bytes, headers: dict[str, str], start: int = 0) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if server.stop_at is not None and "ETag" in headers and start + len(body) > server.stop_at:
                self.wfile.write(body[: max(0, server.stop_at - start)])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    state = Server()
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.address = f"http://127.0.0.1:{running.server_port}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # read when it was imported
    monkeypatch.setenv("HF_ENDPOINT", state.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield state
    running.shutdown()
    running.server_close()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


PLAIN = {
    *("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/vocab.json"),
    *("tokenizer/merges.txt", "scheduler/scheduler_config.json"),
}


def test_a_diffusers_folder_without_what_is_not_read(server: Server, tmp_path: Path) -> None:
    made = hub.pull("some/folder", tmp_path / "models")
    full = {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")}
    shards = {f"text_encoder/model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert made.path == tmp_path / "models" / "folder" and made.commit == COMMIT
    assert names(made.path) == PLAIN | full | shards | {"text_encoder/model.safetensors.index.json"}
    assert (made.path / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == b"full" * 3


def test_a_variant_of_it(server: Server, tmp_path: Path) -> None:
    made = hub.pull("some/folder", tmp_path, variant="fp16")
    half = {f"{part}/diffusion_pytorch_model.fp16.safetensors" for part in ("unet", "vae")}
    assert names(made.path) == PLAIN | half | {"text_encoder/model.fp16.safetensors"}
    with pytest.raises(InvalidRequest, match="no weights of the variant 'fp8' in unet: there are"):
        hub.pull("some/folder", tmp_path, variant="fp8")


def test_the_only_model_and_named_ones(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    made = hub.pull("some/one", tmp_path / "a", progress=lambda *numbers: told.append(numbers))
    assert made.path == tmp_path / "a" / "model.safetensors" and made.path.read_bytes() == BIG
    assert told[-1] == ("model.safetensors", len(BIG), len(BIG)) and [done for _, done, _ in told] == sorted(
        done for _, done, _ in told
    )
    server.asked.clear()
    hub.pull("some/one", tmp_path / "a")
    assert not [path for method, path, _ in server.asked if method == "GET" and "/resolve/" in path], "fetched again"
    assert names(hub.pull("some/many", tmp_path / "b", files=("b.gguf",)).path.parent) == {"b.gguf"}
    assert len(hub.pull("some/many", tmp_path / "c", files=("*.safetensors", "b.gguf")).files) == 2
    assert not (tmp_path / "evil.safetensors").exists()


def test_a_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.stop_at = 4_000_000
    with pytest.raises(StableDiffusionError, match="the model hub cannot be reached"):
        hub.pull("some/one", tmp_path)
    (part,) = names(tmp_path)
    done = (tmp_path / part).stat().st_size
    assert part.endswith(".part") and 1_000_000 < done <= 4_000_000 and (tmp_path / part).read_bytes() == BIG[:done]
    server.stop_at = None
    server.asked.clear()
    assert hub.pull("some/one", tmp_path).path.read_bytes() == BIG and names(tmp_path) == {"model.safetensors"}
    ranges = [wanted or "" for method, path, wanted in server.asked if method == "GET" and "/resolve/" in path]
    assert ranges[0].startswith(f"bytes={done}-") and ranges[-1].endswith(f"-{len(BIG) - 1}")


def test_a_damaged_file_and_another_one_of_the_name(server: Server, tmp_path: Path) -> None:
    tag = hashlib.sha256(BIG).hexdigest()
    (tmp_path / f".model.safetensors.{tag[: hub.TAG]}{hub.PART}").write_bytes(b"x" * 1000)
    with pytest.raises(StableDiffusionError, match=r"model\.safetensors arrived damaged"):
        hub.pull("some/one", tmp_path)
    assert not names(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match="is there and another file"):
        hub.pull("some/one", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("repo", "settings", "says"),
    [
        ("some/none", {}, "there is no repository 'some/none', or it is private"),
        ("not a repo", {}, "'not a repo' is no repository; expected owner/name"),
        ("some/one", {"revision": "old"}, "some/one has no revision 'old'"),
        ("some/one", {"files": ("modle.safetensors",)}, "did you mean 'model.safetensors'"),
        ("some/many", {}, "has 2 model files; name one with --file: a.safetensors, b.gguf"),
        ("some/gated", {}, "accounts that accepted its licence"),
        ("some/broken", {}, "the model hub answers 418 for some/broken"),
    ],
)
def test_what_cannot_be_fetched(server: Server, tmp_path: Path, repo: str, settings: Any, says: str) -> None:
    with pytest.raises(StableDiffusionError) as caught:
        hub.pull(repo, tmp_path, **settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not names(tmp_path)


def test_offline_and_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StableDiffusionError, match="the model hub cannot be reached"):
        hub.pull("some/one", tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StableDiffusionError, match=r"pip install 'stable-diffusion\[hub\]'"):
        hub.pull("some/one", tmp_path)


def test_a_full_disk_is_said_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(StableDiffusionError, match=r"has 0\.0"):
        hub.pull("some/one", tmp_path)
    assert not names(tmp_path)


def test_the_command(server: Server, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLE_DIFFUSION_MODELS", str(tmp_path / "models"))
    result = run("pull", "some/one")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "models" / "model.safetensors")
    told = json.loads(run("pull", "some/many", "--file", "a.safetensors", "--to", tmp_path / "x", "--json").stdout)
    assert told["commit"] == COMMIT and told["path"].endswith("a.safetensors")
    missing = run("pull", "some/none")
    assert missing.exit_code == 1 and missing.stderr.count("\n") == 1


def test_nothing_else_imports_the_library() -> None:
    code = (
        "import sys, stable_diffusion.cli.main as m, stable_diffusion.pipeline.generate, stable_diffusion.hub\n"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

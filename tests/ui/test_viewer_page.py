"""The viewer's page without a browser: one file and its policy, the server at 127.0.0.1, the command, the words."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from stable_diffusion.cli.main import cli
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.ui.local_page import PageServer
from stable_diffusion.ui.viewer_page import (
    ENTRY,
    STATIC,
    Panorama,
    Picture,
    exported_page,
    inlined,
    is_sphere,
    read_picture,
    served_page,
)

SMALL = Panorama("<b>&.png", Picture(b"\x89PNG", "image/png"), depth=Picture(b"depth", "image/webp"))


@pytest.mark.parametrize(
    ("folder", "sums"),
    [(STATIC / "vendor", "three.SHA256SUMS"), (Path(__file__).parent / "vendor", "SHA256SUMS")],
    ids=["package", "tests"],
)
def test_vendored_files_are_those_that_the_script_builds(folder: Path, sums: str) -> None:
    lines = (folder / sums).read_text().split("\n")
    pairs = [line.split() for line in lines if line]
    assert len(pairs) == 2
    for digest, name in pairs:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_both_languages_have_the_same_words() -> None:
    text = (STATIC / "panorama" / "texts.js").read_text(encoding="utf-8")
    english, chinese = text.split("  zh: {")
    keys = [re.findall(r'^    "?([a-z-]+)"?: "[^"]+",$', part, re.MULTILINE) for part in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) == len(set(keys[0])) > 10
    used = "".join((STATIC / "panorama" / name).read_text() for name in ("viewer.js", "bar.js"))
    assert not [key for key in keys[0] if f'"{key}"' not in used and f"{key}:" not in used and f".{key}" not in used]


def test_one_file_holds_everything_and_lets_nothing_else_in() -> None:
    page = exported_page(SMALL)
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and f"script-src 'sha256-{digest}'" in policy[1] and "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(r'\b(src|href)="(?!data:)', page)
    assert "<title>&lt;b&gt;&amp;.png</title>" in page
    assert f'data-picture="data:image/png;base64,{base64.b64encode(SMALL.picture.data).decode()}"' in page
    assert 'data-depth="data:image/webp;base64,' in page


def test_inlined_modules_have_no_imports_and_no_names_twice() -> None:
    script = inlined(ENTRY)
    assert not re.search(r"^(import|export) ", script, re.MULTILINE) and "</script" not in script.lower()
    ours = script.rpartition("})();\n")[2]  # what is vendored has a scope of its own
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", ours, re.MULTILINE)
    assert len(names) == len(set(names)) > 20


def test_no_script_makes_html_of_text() -> None:
    for path in (STATIC / "panorama").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path.name


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer(SMALL)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(server: PageServer, method: str, path: str, host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=host is not None)
    for name in [] if host is None else host.split("|"):
        connection.putheader("Host", name)
    connection.endheaders()
    return connection.getresponse()


def test_the_page_s_server_gives_the_page_and_its_files(server: PageServer) -> None:
    answer = asked(server, "GET", "/")
    assert answer.status == 200 and answer.read().decode() == served_page(SMALL)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for path, kind in (("/picture", "image/png"), ("/depth", "image/webp"), (f"/{ENTRY}", "text/javascript")):
        assert asked(server, "GET", path).headers["Content-Type"].startswith(kind)
    head = asked(server, "HEAD", "/vendor/three.js")
    assert head.status == 200 and int(head.headers["Content-Length"]) > 100_000 and head.read() == b""


@pytest.mark.parametrize(
    "host", ["evil.example", "", "127.0.0.1", "127.0.0.1:PORT.evil", "127.0.0.1:PORT|127.0.0.1:PORT"]
)
def test_the_page_s_server_is_for_this_computer_alone(host: str, server: PageServer) -> None:
    answer = asked(server, "GET", "/picture", host.replace("PORT", str(server.server_port)))
    assert answer.status == 403 and server.content["/picture"][1] not in answer.read()


@pytest.mark.parametrize(
    "path", ["/nothing", "/../pyproject.toml", "/%2e%2e/x", "/views/../../__init__.py", "//etc/passwd"]
)
def test_the_page_s_server_has_nothing_else(path: str, server: PageServer) -> None:
    assert asked(server, "GET", path).status == 404
    assert asked(server, "POST", "/").status == 501


def test_pictures_of_other_kinds_become_png(tmp_path: Path) -> None:
    for name, kind in (("a.bmp", "image/png"), ("a.jpg", "image/jpeg"), ("a.webp", "image/webp")):
        Image.new("RGB", (8, 4), "red").save(tmp_path / name)
        assert read_picture(tmp_path / name).media_type == kind
    assert read_picture(tmp_path / "a.jpg").data == (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InvalidRequest, match=r"picture '.*text\.png' is not a picture"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(InvalidRequest, match="stereo pair needs no depth"):
        Panorama("x", SMALL.picture, depth=SMALL.depth, stereo="top-bottom")


def test_which_sizes_are_spheres() -> None:
    assert is_sphere(1024, 512) and is_sphere(1023, 512) and not is_sphere(1024, 768)
    assert is_sphere(512, 512, "top-bottom") and is_sphere(1024, 256, "left-right") and not is_sphere(512, 512)


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    picture, page = tmp_path / "sphere.png", tmp_path / "out" / "sphere.html"
    Image.new("RGB", (64, 32), "red").save(picture)
    run = CliRunner().invoke(cli, ["view", str(picture), "--export", str(page)])
    assert run.exit_code == 0 and run.stdout.strip() == str(page)
    assert base64.b64encode(picture.read_bytes()).decode() in page.read_text(encoding="utf-8")
    again = CliRunner().invoke(cli, ["view", str(picture), "--export", str(page)])
    assert again.exit_code == 1 and "add --overwrite" in again.stderr
    assert CliRunner().invoke(cli, ["view", str(picture), "--export", str(page), "--overwrite"]).exit_code == 0
    wrong = CliRunner().invoke(cli, ["view", str(picture), "--export", str(tmp_path / "sphere.png")])
    assert wrong.exit_code == 1 and "'sphere.html'" in wrong.stderr
    missing = CliRunner().invoke(cli, ["view", str(tmp_path / "none.png")])
    assert missing.exit_code == 1 and "does not exist" in missing.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["SIGINT", "SIGTERM"]
)
def test_the_command_serves_until_it_is_stopped(number: int, code: int, tmp_path: Path) -> None:
    picture = tmp_path / "wide.png"
    Image.new("RGB", (64, 48), "red").save(picture)
    # SIGINT is ignored at the start, as it is for what a shell starts in its background
    script = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-m", "stable_diffusion", "view", str(picture), "--no-browser"]
    command = [sys.executable, "-c", script, *command]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None and run.stderr is not None
        address = run.stdout.readline().strip()
        port = int(address.removeprefix("http://127.0.0.1:").removesuffix("/"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/picture")
        assert connection.getresponse().read() == picture.read_bytes()
        connection.close()
        run.send_signal(number)
        try:
            assert run.wait(timeout=30) == code
        finally:
            run.kill()
        said = run.stderr.read()
    assert "64x48 is no whole sphere" in said and "Traceback" not in said

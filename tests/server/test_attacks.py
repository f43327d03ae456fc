# ruff: noqa: E501
"""The attacks that servers of this kind have met: each a rule of this one, and a test. Those of a hostile page in a real
browser are in `test_hostile_page.py`."""

from __future__ import annotations

import base64
import json
import socket
import threading
from pathlib import Path

import httpx
import pytest
from server_helpers import SMALL, TOKEN, client, make, picture, port_of, raw, running, sentence, settings, status

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.server.listen import Listening
from stable_diffusion.server.settings import ServerSettings

JSON = {"Content-Type": "application/json"}


def request_line(server: Listening, host: str = "", more: str = "", line: str = "GET /healthz HTTP/1.1") -> bytes:
    host = host or f"Host: 127.0.0.1:{port_of(server)}\r\n"
    return f"{line}\r\n{host}{more}Connection: close\r\n\r\n".encode("latin-1")


# --- 1 to 4: who asks ------------------------------------------------------------------------------------------------


def test_01_host_names_of_others_are_refused(server: Listening) -> None:
    port = port_of(server)
    assert status(raw(server, request_line(server))) == 200
    assert status(raw(server, request_line(server, f"Host: localhost:{port}\r\n"))) == 200
    for host in ("rebind.example", "127.0.0.1.rebind.example", f"evil@127.0.0.1:{port}", "127.0.0.1:1", "localhost.",
                 f"127.0.0.1:{port}x", "", f"127.0.0.1:{port}, evil", "0.0.0.0", "[::1", f"localhost:0{port}"):  # fmt: skip
        assert status(raw(server, request_line(server, f"Host: {host}\r\n"))) in (400, 403), host
    twice = f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"
    assert status(raw(server, request_line(server, twice))) in (400, 403)
    old = raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert status(old) == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.com"])
def test_02_other_origins_are_refused(http: httpx.Client, origin: str) -> None:
    for answer in (
        http.post("/v1/queue/pause", headers={"Origin": origin}),
        http.get("/v1/jobs", headers={"Origin": origin}),
        http.get("/", headers={"Origin": origin}),
        http.options("/v1/jobs", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
    ):
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert not http.get("/v1/queue").json()["paused"]


def test_02_other_sites_may_only_link_to_the_page(http: httpx.Client) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert http.get("/", headers=visit).status_code == 200
    for path in ("/v1/jobs", "/v1/gallery", "/openapi.json"):
        assert http.get(path, headers=visit).status_code == 403
    frame = {**visit, "Sec-Fetch-Dest": "iframe"}
    assert http.get("/", headers=frame).status_code == 403
    for site in ("cross-site", "same-site"):
        assert http.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
        assert http.post("/v1/queue/pause", headers={"Sec-Fetch-Site": site}).status_code == 403


def test_02_a_form_of_another_site_is_no_json(http: httpx.Client) -> None:
    body = json.dumps(SMALL).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = http.post("/v1/jobs", content=body, headers={"Content-Type": kind} if kind else {})
        assert answer.status_code in (400, 415, 422), kind
        answer = http.post("/v1/inputs", content=picture(), headers={"Content-Type": kind} if kind else {})
        assert answer.status_code == 415, kind


def test_03_websockets_are_guarded_before_they_open(server: Listening) -> None:
    def opened(**headers: str) -> int:
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + base64.b64encode(b"x" * 16).decode()
        text = f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1:{port_of(server)}\r\n{more}{key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        return status(raw(server, text.encode(), 1.0))

    assert opened() == 101
    assert opened(Origin=f"http://127.0.0.1:{port_of(server)}") == 101
    assert opened(Origin="http://evil.example") == 403
    assert opened(Origin="null") == 403
    assert opened(Sec_Fetch_Site="cross-site") == 403


def test_04_cors_is_for_listed_origins_alone(tmp_path: Path) -> None:
    origin = "https://page.example"
    with running(settings(tmp_path, allow_origins=(origin,))) as found, client(found) as http:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
        flight = http.options("/v1/jobs", headers=asked)
        assert flight.status_code == 204 and flight.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in flight.headers
        answer = http.get("/v1/queue", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == origin
        assert http.get("/v1/queue", headers={"Origin": "https://page.example.evil"}).status_code == 403
    for wrong in ("*", "page.example", "https://page.example/"):
        with pytest.raises(InvalidRequest):
            ServerSettings(allow_origins=(wrong,))


# --- 5 to 8: files and addresses -------------------------------------------------------------------------------------

TRAVERSALS = [
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..%5c..%5cetc%5cpasswd",
    "..\\..\\etc\\passwd", "/etc/passwd", "%2fetc%2fpasswd", "C:%5cwindows%5cwin.ini", "a%00.png", "x" * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("base", ["/static/", "/static/docs/", "/v1/gallery/", "/v1/inputs/", "/v1/jobs/",
                                  "/v1/previews/loras/"])  # fmt: skip
def test_05_paths_lead_nowhere(server: Listening, base: str) -> None:
    for path in TRAVERSALS:
        for tail in ("", "/file") if base == "/v1/gallery/" else ("",):
            found = raw(server, request_line(server, line=f"GET {base}{path}{tail} HTTP/1.1"), 3.0)
            assert status(found) in (400, 404, 405, 422), (base, path[:40], found[:200])
            assert b"root:" not in found and b"Traceback" not in found


def test_05_links_out_of_a_folder_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (tmp_path / "loras" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (tmp_path / "loras" / "real.safetensors").write_bytes(b"x")
    with running(settings(tmp_path, loras=(tmp_path / "loras",))) as found, client(found) as http:
        assert [each["name"] for each in http.get("/v1/capabilities").json()["loras"]] == ["real"]
        assert http.post("/v1/jobs", json={**SMALL, "loras": [{"name": "link"}]}).status_code == 400


@pytest.mark.parametrize("field", ["lora_dir", "embeddings_dir", "model", "refiner", "loras", "controls", "image",
                                   "mask", "depth", "wildcards_dir", "styles_file", "image_encoder"])  # fmt: skip
@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.safetensors", "loras/broken.safetensors"])
def test_06_nothing_is_chosen_by_path(http: httpx.Client, field: str, path: str) -> None:
    values: dict[str, object] = {
        "refiner": {"refiner": {"model": path}},
        "loras": {"loras": [{"name": path}]},
        "controls": {"controls": [{"name": path, "image": base64.b64encode(picture()).decode()}]},
        "wildcards_dir": {"prompting": {"wildcards_dir": path}},
        "styles_file": {"prompting": {"styles_file": path}},
        "image_encoder": {"controls": [{"name": "x", "image_encoder": path}]},
    }.get(field, {field: path})  # type: ignore[assignment]
    answer = http.post("/v1/jobs", json={**SMALL, **values})
    assert answer.status_code in (400, 422)
    text = answer.json()["error"]["message"]
    assert "exist" not in text and "/etc" not in text.replace(repr(path), "")


def test_07_messages_name_no_folder(http: httpx.Client, folders: Path) -> None:
    for body in ({"loras": [{"name": "none"}]}, {"model": "none"}, {"controls": [{"name": "none"}]}):
        assert str(folders) not in http.post("/v1/jobs", json={**SMALL, **body}).text
    for prompt in ("a cat <lora:none:1>", "a __none__ cat", "a cat <lora:broken:1>"):
        job = make(http, prompt=prompt)
        assert job["state"] == "failed" and job["error"]
        assert "/" not in job["error"] and str(folders) not in json.dumps(job)
        assert "/tmp" not in http.get(f"/v1/jobs/{job['id']}/events").text


def test_08_no_address_is_ever_fetched(http: httpx.Client) -> None:
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        fields: list[dict[str, object]] = [{name: url} for name in ("image", "mask", "depth")]
        fields += [{"controls": [{"name": "broken", "image": url}]}, {"image": url.replace("http", "file")}]
        for values in fields:
            answer = http.post("/v1/jobs", json={**SMALL, **values})
            assert answer.status_code == 400 or answer.status_code == 422
        assert http.post("/v1/preprocess", json={"image": url}).status_code == 400
        try:
            heard.append(trap.accept())
        except TimeoutError:
            pass
    assert not heard


# --- 14 to 20 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "a/b", "a\\b", "x" * 5000])
def test_14_names_in_prompts_are_no_paths(http: httpx.Client, name: str) -> None:
    answer = http.post("/v1/jobs", json={**SMALL, "prompt": f"a cat <lora:{name}:1>"})
    if answer.status_code == 202:
        with http.stream("GET", answer.json()["url"] + "/events") as events:
            text = "".join(events.iter_text())
        assert "event: failed" in text or len(name) > 200
        assert "/etc" not in text.replace(repr(name), "")
    else:
        assert answer.status_code == 400


@pytest.mark.parametrize("words", ["<img src=x onerror=alert(1)>", "javascript:alert(1)", "a\u202egnp.exe"])
def test_15_words_stay_words(http: httpx.Client, words: str) -> None:
    job = make(http, prompt=words, negative_prompt=words)
    for path in (f"/v1/jobs/{job['id']}", "/v1/gallery", f"/v1/gallery/{job['pictures'][0]['id']}"):
        answer = http.get(path)
        assert answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"]
    file = http.get(job["pictures"][0]["url"])
    assert file.headers["content-disposition"] == f'inline; filename="{job["pictures"][0]["id"]}.png"'
    assert file.headers["content-security-policy"].startswith("default-src 'self'")
    wrong = http.post("/v1/jobs", json={**SMALL, "model": words})
    assert wrong.headers["content-type"] == "application/json"


def test_16_nothing_uploaded_is_served_as_it_came(http: httpx.Client) -> None:
    polyglot = picture() + b"<html><script>alert(1)</script></html>"
    up = http.post("/v1/inputs", content=polyglot, headers={"Content-Type": "image/png"})
    assert up.status_code == 201
    shown = http.get(up.json()["url"])
    assert shown.headers["content-type"] == "image/png" and b"script" not in shown.content


def test_17_token(tmp_path: Path) -> None:
    with running(settings(tmp_path, token=TOKEN, limits={"failures": 4})) as found, client(found) as http:
        basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
        for scheme in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BASIC {basic}"):
            assert http.get("/v1/queue", headers={"Authorization": scheme}).status_code == 200
        for none in ({}, {"Authorization": ""}):
            answer = http.get("/v1/queue", headers=none)
            assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"] and sentence(answer)
        assert http.get("/v1/queue", params={"token": TOKEN}).status_code == 401
        assert http.get("/").status_code == 200 and http.get("/healthz").status_code == 200
        for path in ("/metrics", "/openapi.json", "/v1/events", "/v1/capabilities"):
            assert http.get(path).status_code == 401, path
        entered = http.post("/v1/session", json={"token": TOKEN})
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
        http.cookies.clear()
        assert http.get("/v1/queue", headers={"Cookie": cookie.partition(";")[0]}).status_code == 200
        wrong = [TOKEN[:-1], TOKEN + "x", "\u00e9\u00e9".encode("latin-1").decode("latin-1"), "x" * 4000]
        codes = [
            http.get("/v1/queue", headers={b"Authorization": b"Bearer " + w.encode("latin-1")}).status_code
            for w in wrong
        ]
        assert codes == [401] * 4
        late = http.get("/v1/queue", headers={"Authorization": f"Bearer {TOKEN}"})
        assert late.status_code == 429 and int(late.headers["retry-after"]) > 0
        assert http.get("/v1/queue", headers={"Cookie": cookie.partition(";")[0]}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_17_no_open_server_without_a_token(host: str) -> None:
    with pytest.raises(InvalidRequest, match="token"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN)


def test_18_log_and_headers_take_no_lines(
    server: Listening, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from stable_diffusion.server.observe.log import LOGGER, JsonLines

    LOGGER.propagate = True
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        http.get("/v1/jobs/x%0d%0aSet-Cookie:%20a=b%1b[31m")
        make(http, prompt="a secret castle")
        found = raw(server, request_line(server, more="X-Big: " + "a" * 1_000_000 + "\r\n"))
    assert status(found) in (400, 431) or found == b""
    lines = [JsonLines().format(record) for record in caplog.records]
    assert lines and not any("\n" in line or "\x1b" in line for line in lines)
    assert all(json.loads(line) for line in lines) and "secret castle" not in "".join(lines)
    assert "set-cookie" not in http.get("/v1/jobs/x%0d%0aSet-Cookie:%20a=b").headers


@pytest.mark.parametrize("path", ["/sdapi/v1/server-kill", "/sdapi/v1/server-restart", "/sdapi/v1/server-stop",
                                  "/v1/shutdown", "/sdapi/v1/extensions", "/internal/install"])  # fmt: skip
def test_19_nobody_ends_or_changes_the_server(http: httpx.Client, path: str) -> None:
    assert http.post(path).status_code in (404, 405, 501)
    assert http.get("/healthz").status_code == 200


def test_20_the_checker_of_others_passes(server: Listening) -> None:
    pytest.importorskip("ligsp")
    import subprocess
    import sys

    command = [sys.executable, "-m", "ligsp", "check", f"http://127.0.0.1:{port_of(server)}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_many_at_once_belong_to_their_requests(http: httpx.Client, server: Listening) -> None:
    seeds, answers = list(range(20, 28)), {}

    def ask(seed: int) -> None:
        with client(server) as mine:
            answers[seed] = make(mine, seed=seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {seed: job["pictures"][0]["seed"] for seed, job in answers.items()} == {seed: seed for seed in seeds}

# ruff: noqa: UP031  (JSON has braces)
"""Attacks by what is too much: pictures, bodies, numbers, text, costly prompts."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib

import httpx
import pytest
from PIL import Image
from server_helpers import SMALL, make, picture, port_of, raw, sentence, status

from stable_diffusion.server.listen import Listening

JSON = {"Content-Type": "application/json"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in a few kilobytes."""
    packed, whole = zlib.compressobj(9), b""
    for _ in range(side // 1000):
        whole += packed.compress(bytes((side // 8 + 2) * 1000))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", whole + packed.flush()) + chunk(b"IEND", b"")


def long_text() -> bytes:
    """A PNG with a text of 64 MB."""
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * (64 << 20), 9))
    plain = picture()
    return plain[:33] + text + plain[33:]


def gif(frames: int) -> bytes:
    file = io.BytesIO()
    images = [Image.new("L", (8, 8), index % 250) for index in range(frames)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
WRONG = {
    "13,000 pixels": lambda: bomb(13_000), "16,000 pixels": lambda: bomb(16_000), "long text": long_text,
    "gif": lambda: gif(50), "svg": lambda: SVG, "html": lambda: b"<html><script>1</script>",
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "empty": lambda: b"",
    "cut": lambda: picture()[:60], "moving": lambda: webp_frames(),
}  # fmt: skip


def webp_frames() -> bytes:
    file = io.BytesIO()
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:])
    return file.getvalue()


@pytest.mark.parametrize("name", WRONG)
def test_09_pictures_that_are_none_or_too_much(http: httpx.Client, name: str) -> None:
    data, start = WRONG[name](), time.monotonic()
    for path in ("/v1/inputs", "/v1/read"):
        answer = http.post(path, content=data, headers={"Content-Type": "image/png"})
        assert answer.status_code == 400, (path, answer.text)
        assert sentence(answer)
    answer = http.post("/v1/jobs", json={**SMALL, "image": base64.b64encode(data).decode()})
    assert answer.status_code in (400, 422)
    assert time.monotonic() - start < 20


def test_10_large_bodies(server: Listening, http: httpx.Client) -> None:
    assert http.post("/v1/tokens", content=b" " * 2_000_000, headers=JSON).status_code == 413
    assert http.post("/v1/jobs", content=iter([b"x" * 2**20] * 70), headers=JSON).status_code == 413
    start = f"Host: 127.0.0.1:{port_of(server)}\r\nContent-Type: application/json\r\n"
    lie = f"POST /v1/tokens HTTP/1.1\r\n{start}Content-Length: 99999999999\r\n\r\n{{"
    assert status(raw(server, lie.encode())) == 413
    chunked = f"POST /v1/tokens HTTP/1.1\r\n{start}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert status(raw(server, chunked + b"200000\r\n" + b" " * 0x200000 + b"\r\n0\r\n\r\n")) == 413


def test_10_slow_bodies_and_headers_are_cut(server: Listening) -> None:
    """The limits of this server are a second each."""
    start = f"Host: 127.0.0.1:{port_of(server)}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    began = time.monotonic()
    assert status(raw(server, f"POST /v1/tokens HTTP/1.1\r\n{start}{{".encode(), 10)) == 408
    assert time.monotonic() - began < 8
    began = time.monotonic()
    assert raw(server, b"GET / HTTP/1.1\r\nHost: 127.0", 10) == b""
    assert time.monotonic() - began < 8
    began = time.monotonic()
    assert raw(server, b"", 10) == b""
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"5"', "-2", "9" * 5000,
                                   "18446744073709551616", "[]", "{}"])  # fmt: skip
@pytest.mark.parametrize("field", ["seed", "steps", "guidance", "width"])
def test_11_numbers(http: httpx.Client, field: str, value: str) -> None:
    body = '{"prompt": "a", "%s": %s}' % (field, value)
    answer = http.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert sentence(answer)


def test_11_depth_and_great_seeds(http: httpx.Client) -> None:
    deep = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert http.post("/v1/jobs", content=deep, headers=JSON).status_code in (400, 422)
    assert make(http, seed=2**63 - 1)["pictures"][0]["seed_text"] == str(2**63 - 1)
    assert http.post("/v1/jobs", json={**SMALL, "seed": 2**63}).status_code == 422


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000b"', '"\\u001b[31m"', '"\\u0007"'])
def test_12_text_that_is_none(http: httpx.Client, text: str) -> None:
    for body in ('{"prompt": %s}', '{"prompt": "a", %s: 1}', '{"prompt": "a", "steps": %s}',
                 '{"prompt": "a", "model": %s}', '{"prompt": "a", "image": %s}'):  # fmt: skip
        answer = http.post("/v1/jobs", content=body % text, headers=JSON)
        assert answer.status_code in (400, 422), (body, answer.text)
        assert sentence(answer)
    for path in ("/v1/tokens", "/v1/settings/page"):
        method = http.post if path == "/v1/tokens" else http.put
        assert method(path, content='{"prompt": %s}' % text, headers=JSON).status_code < 500


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "x BREAK " * 1000},
        {"prompt": "x BREAK " * 30},
        {"prompt": "word " * 2000},
        {"prompt": " AND ".join("abcdefghij")},
        {"prompt": "[" + "|".join(f"cat {n} " + "x " * 5 for n in range(90)) + "]", "steps": 100},
        {"width": 8192, "height": 8192},
        {"hires": {"scale": 8}, "width": 1024, "height": 1024},
        {"count": 1000},
        {"steps": 1000},
        {"count": 32, "steps": 150, "width": 2048, "height": 2048},
    ],
)
def test_13_costly_requests_are_refused_at_once(http: httpx.Client, values: dict) -> None:
    start = time.monotonic()
    answer = http.post("/v1/jobs", json={**SMALL, **values})
    assert answer.status_code == 400 and sentence(answer)
    assert time.monotonic() - start < 10

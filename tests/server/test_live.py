"""The live picture over its WebSocket: settings, frames, the newest wins, a kept still, one socket an owner."""

from __future__ import annotations

import io
import json
import struct

import pytest
from PIL import Image
from server_helpers import client, picture, port_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from stable_diffusion.server.listen import Listening

SETTINGS = {"prompt": "a red apple", "size": 64, "steps": 2, "strength": 0.5, "seed": 1}


def opened(server: Listening) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port_of(server)}/v1/live", compression=None, max_size=2**22)


def frame(number: int, colour: str = "teal") -> bytes:
    return struct.pack("<I", number) + picture(80, 64, "JPEG", colour)


def answer(socket: ClientConnection) -> tuple[int, Image.Image]:
    """The next picture, past sentences on dropped frames."""
    while isinstance(found := socket.recv(120), str):
        assert json.loads(found)["type"] == "dropped", found
    number, took = struct.unpack_from("<If", found)
    assert took > 0
    return number, Image.open(io.BytesIO(found[8:]))


def test_frames_come_back_as_pictures(server: Listening) -> None:
    with opened(server) as socket:
        socket.send(json.dumps(SETTINGS))
        ready = json.loads(socket.recv(120))
        assert ready["type"] == "ready" and ready["settings"]["prompt"] == "a red apple"
        socket.send(frame(7))
        number, image = answer(socket)
        assert number == 7 and image.size == (64, 64)
        for later in range(8, 14):
            socket.send(frame(later, "red"))
        seen = []
        while not seen or seen[-1] != 13:
            seen.append(answer(socket)[0])
        assert seen[-1] == 13 and len(seen) < 6
        socket.send(json.dumps({"keep": True}))
        kept = json.loads(socket.recv(120))
        assert kept["type"] == "kept"
        with client(server) as http:
            whole = http.get(f"/v1/gallery/{kept['picture']['id']}").json()
        assert whole["request"]["prompt"] == "a red apple" and whole["request"]["strength"] == 0.5


@pytest.mark.parametrize("text", ["{", "[]", '{"strength": 2}', '{"size": 5000}', '{"lora_dir": "/"}', '{"seed": NaN}',
                                  '{"model": "/etc/passwd"}', '{"prompt": "\\ud800"}'])  # fmt: skip
def test_bad_settings_are_a_sentence(server: Listening, text: str) -> None:
    with opened(server) as socket:
        socket.send(text)
        found = json.loads(socket.recv(120))
        assert found["type"] == "error" and found["message"] and "Traceback" not in found["message"]
        socket.send(struct.pack("<I", 3) + b"no picture")
        assert "no PNG" in json.loads(socket.recv(120))["message"]


def test_a_second_socket_closes_the_first(server: Listening) -> None:
    with opened(server) as first, opened(server) as second:
        with pytest.raises(ConnectionClosed) as closed:
            first.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4009
        second.send(json.dumps(SETTINGS))
        assert json.loads(second.recv(120))["type"] == "ready"

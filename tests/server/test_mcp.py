"""The tools of assistants by the protocol's own client: over HTTP behind the guard, and over stdio."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from PIL import Image
from server_helpers import TOKEN, picture, port_of, running, settings

from house import PACKAGE
from stable_diffusion.server.listen import Listening

mcp = pytest.importorskip("mcp")
T = TypeVar("T")
SMALL = {"prompt": "a red apple", "seed": 3, "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with running(settings(tmp_path_factory.mktemp("mcp"))) as found:
        yield found


def asked(listening: Listening, work: Callable[[Any], Awaitable[T]]) -> T:
    """What `work` gives, with a client of the server."""

    async def run() -> T:
        async with mcp.Client(f"http://127.0.0.1:{port_of(listening)}/mcp") as client:
            return await work(client)

    return asyncio.run(run())


def call(listening: Listening, name: str, **arguments: Any) -> Any:
    return asked(listening, lambda client: client.call_tool(name, arguments))


def opened(result: Any) -> Image.Image:
    found = next(each for each in result.content if each.type == "image")
    return Image.open(io.BytesIO(base64.b64decode(found.data)))


def sentence(result: Any) -> str:
    assert result.is_error
    text: str = result.content[0].text
    assert "\n" not in text and "Traceback" not in text and "/" not in text.replace("image/", ""), text
    return text


def test_the_tools_and_what_they_take(listening: Listening) -> None:
    tools = {tool.name: tool for tool in asked(listening, lambda client: client.list_tools()).tools}
    assert list(tools) == ["generate", "edit", "upscale", "describe", "list_models"]
    schema = tools["generate"].input_schema
    assert schema["required"] == ["prompt"] and {"width", "steps", "seed", "loras"} <= schema["properties"].keys()
    assert tools["edit"].input_schema["required"] == ["prompt", "image"]


def test_generate_then_edit_upscale_and_describe(listening: Listening) -> None:
    shares: list[float] = []

    async def work(client: Any) -> None:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            shares.append(done)

        made = await client.call_tool("generate", dict(SMALL), progress_callback=progress)
        assert not made.is_error and opened(made).size == (64, 64)
        row = made.structured_content["pictures"][0]
        assert row["seed"] == "3" and row["id"] in made.content[0].text
        data = base64.b64decode(made.content[1].data)
        assert httpx.get(f"http://127.0.0.1:{port_of(listening)}{row['file']}").content == data

        changed = await client.call_tool("edit", {**SMALL, "image": row["id"], "strength": 0.5})
        assert opened(changed).size == (64, 64) and opened(changed).tobytes() != opened(made).tobytes()
        large = await client.call_tool("upscale", {"image": row["id"], "scale": 2})
        assert opened(large).size == (128, 128)
        said = await client.call_tool("describe", {"image": large.structured_content["pictures"][0]["id"]})
        assert "a red apple" in said.content[0].text and "Postprocess upscaler: Lanczos" in said.content[0].text
        assert said.structured_content["settings"]["seed"] == 3

    asked(listening, work)
    assert shares == sorted(shares) and shares[-1] == 1.0 and any(0 < share < 1 for share in shares)


def test_inpainting_of_a_picture_in_base64(listening: Listening) -> None:
    given = picture(64, 64)
    mask = io.BytesIO()
    Image.new("L", (64, 64), 255).save(mask, "PNG")
    texts = {name: base64.b64encode(data).decode() for name, data in (("image", given), ("mask", mask.getvalue()))}
    assert opened(call(listening, "edit", **SMALL, **texts)).size == (64, 64)


def test_lists(listening: Listening) -> None:
    found = call(listening, "list_models").structured_content
    assert "embedded-fast" in found["models"] and "Lanczos" in found["upscalers"] and "euler" in found["samplers"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("generate", {}, "needs prompt"),
        ("generate", {"prompt": "a", "steps": 0}, "steps is 0; expected a whole number from 1"),
        ("generate", {"prompt": "a", "stpes": 4}, "did you mean 'steps'"),
        ("generate", {"prompt": "a", "model": "/etc/passwd"}, "is a path"),
        ("generate", {"prompt": "a", "width": 100_000}, "width is 100000; expected"),
        ("edit", {"prompt": "a", "image": "/etc/hostname"}, "image"),
        ("edit", {"prompt": "a", "image": "picture:nothing"}, "there is no picture"),
        ("upscale", {"image": "picture:nothing", "upscaler": "Lanczo"}, "there is no picture"),
        ("upscale", {"image": "x", "width": 64}, "width and height belong together"),
        ("describe", {"image": "aGVsbG8="}, "is no PNG, JPEG or WebP file"),
        ("paint", {}, "there is no tool 'paint'"),
    ],
)
def test_bad_input_is_a_sentence(listening: Listening, name: str, arguments: dict[str, Any], words: str) -> None:
    assert words in sentence(call(listening, name, **arguments))


def test_the_guard_stands_before_it(tmp_path: Path) -> None:
    with running(settings(tmp_path, token=TOKEN)) as found:
        address = f"http://127.0.0.1:{port_of(found)}/mcp"
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = {"Accept": "application/json, text/event-stream"}
        assert httpx.post(address, json=body, headers=headers).status_code == 401
        right = {**headers, "Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(address, json=body, headers={**right, "Origin": "https://evil.example"}).status_code == 403
        assert httpx.post(address, json=body, headers=right).status_code != 401


def test_over_stdio_with_files_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(picture(64, 64))
    arguments = ["-m", "stable_diffusion", "mcp", "--data", str(tmp_path / "data"), "--model", "embedded-fast"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}

    async def work() -> None:
        server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=environment)
        async with mcp.Client(server) as client:
            made = await client.call_tool("edit", {**SMALL, "image": str(tmp_path / "own.png"), "strength": 0.6})
            assert not made.is_error, made.content[0].text
            file = Path(made.structured_content["pictures"][0]["file"])
            assert file.read_bytes() == base64.b64decode(made.content[1].data)
            wrong = await client.call_tool("edit", {**SMALL, "image": str(tmp_path / "gone.png")})
            assert wrong.is_error

    asyncio.run(work())

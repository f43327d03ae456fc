"""The Model Context Protocol's own client against a running server: what an assistant does when it makes pictures.

pip install mcp "stable-diffusion[server,mcp]"
stable-diffusion serve --port 7860
python examples/clients/mcp_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from pathlib import Path
from typing import Any

import mcp


async def picture(client: mcp.Client, tool: str, file: Path, **arguments: Any) -> str:
    """Call a tool, write the picture that it gives, and return its id, which other tools take."""
    made = await client.call_tool(tool, arguments)
    if made.is_error:
        raise SystemExit(f"{tool}: {made.content[0].text}")
    image = next(each for each in made.content if each.type == "image")
    file.write_bytes(base64.b64decode(image.data))
    return made.structured_content["pictures"][0]["id"]


async def work(address: str, out: Path, size: int, steps: int) -> None:
    async with mcp.Client(address) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        asked = {"width": size, "height": size, "steps": steps, "seed": 7}
        kite = await picture(client, "generate", out / "kite.png", prompt="a red kite", **asked)
        changed = {"prompt": "a red kite in snow", "image": kite, "strength": 0.6}
        snow = await picture(client, "edit", out / "snow.png", **changed, **asked)
        print((await client.call_tool("describe", {"image": snow})).content[0].text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(work(f"http://127.0.0.1:{given.port}/mcp", given.out, given.size, given.steps))


if __name__ == "__main__":
    main()

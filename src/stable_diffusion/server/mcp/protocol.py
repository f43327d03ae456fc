"""The tools in the words of the protocol, by its official package."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

from ... import __version__
from .tools import Toolbox, ToolFailure

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

LOG = logging.getLogger("stable_diffusion.server")
INSTRUCTIONS = (
    "Makes, changes and enlarges pictures with Stable Diffusion on this machine. Every picture of an answer has an id "
    "(picture:...), which edit, upscale and describe take. list_models says what may be named."
)


def protocol_server(box: Toolbox) -> Server[Any]:
    """A server of the protocol with these tools, for any transport."""
    import mcp.types as types
    from mcp.server.lowlevel import Server

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        tools = [
            types.Tool(name=tool.name, description=tool.description, input_schema=dict(tool.schema))
            for tool in box.tools.values()
        ]
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        async def tell(share: float) -> None:
            await context.session.report_progress(round(share, 3), 1.0)

        try:
            answer = await box.call(params.name, params.arguments or {}, tell)
        except ToolFailure as failure:
            return _failed(str(failure))
        except Exception:
            LOG.exception("a tool failed")
            return _failed("the server failed here; its log says why")
        encoded = [(base64.b64encode(data).decode("ascii"), kind) for data, kind in answer.pictures]
        pictures = [types.ImageContent(type="image", data=data, mime_type=kind) for data, kind in encoded]
        text = types.TextContent(type="text", text=answer.text)
        return types.CallToolResult(content=[text, *pictures], structured_content=dict(answer.data))

    def _failed(sentence: str) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=sentence)], is_error=True)

    return Server(
        "stable-diffusion",
        version=__version__,
        title="Stable Diffusion",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def run_stdio(box: Toolbox) -> None:
    """Serve one client over standard input and output, to the end of the input."""
    from mcp.server.stdio import stdio_server

    server = protocol_server(box)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

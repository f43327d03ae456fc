"""`stable-diffusion mcp`: tools for assistants, over standard input and output."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ....errors import InvalidRequest
from ...command import Command

if TYPE_CHECKING:
    from ....server.service import Service
    from ....server.settings import ServerSettings

MISSING = 'assistants need more packages: pip install "stable-diffusion[mcp]"'
DATA = Path("~/.local/share/stable-diffusion-mcp")
MOST_FOLDERS = 32
EXAMPLES = """
stable-diffusion mcp
stable-diffusion mcp --models ~/models --loras ~/loras
claude mcp add stable-diffusion -- stable-diffusion mcp
"""
FOLDER: Any = {"multiple": True, "metavar": "FOLDER", "type": click.Path(path_type=Path)}


@click.command("mcp", cls=Command, examples=EXAMPLES)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings, as of serve.")
@click.option("--data", type=click.Path(path_type=Path), show_default=str(DATA), help="Folder of the pictures.")
@click.option("-m", "--model", help="Model of requests that name none.")
@click.option("--device", help="auto, cpu, cuda ...")
@click.option("--models", help="Folder of models; may be repeated.", **FOLDER)
@click.option("--loras", help="Folder of LoRAs; may be repeated.", **FOLDER)
@click.option("--upscalers", help="Folder of upscalers; may be repeated.", **FOLDER)
def command(config: Path | None, **options: Any) -> None:
    """Serve one assistant by the Model Context Protocol, over standard input and output.

    Tools: generate, edit, upscale, describe, list_models. Pictures go into the folder of --data. A server that runs
    (`stable-diffusion serve`) speaks the same protocol at /mcp.
    """
    if any(importlib.util.find_spec(name) is None for name in ("mcp", "fastapi", "sqlalchemy", "filelock")):
        raise InvalidRequest(MISSING)
    if sys.stdin.isatty():
        click.echo("note: an assistant is expected at standard input; end with Ctrl-D", err=True)
    import asyncio

    from ....server.mcp.protocol import run_stdio
    from ....server.mcp.tools import Toolbox
    from ....server.settings import read_settings

    options["data"] = options["data"] or DATA
    service = _service(read_settings(config, os.environ, options))
    service.start()
    try:
        asyncio.run(_with_watch(service, run_stdio(Toolbox(service, files=True))))
    finally:
        service.close()


async def _with_watch(service: Service, work: Any) -> None:
    import asyncio

    watch = asyncio.create_task(service.watch())
    try:
        await work
    finally:
        watch.cancel()


def _service(settings: ServerSettings) -> Service:
    """The work of a server in its folder, or in one beside it where another assistant has that."""
    from dataclasses import replace

    from ....jobs import FolderInUse
    from ....server.errors import Errors
    from ....server.service import Service

    for number in range(1, MOST_FOLDERS + 1):
        folder = settings.data if number == 1 else settings.data.with_name(f"{settings.data.name}-{number}")
        try:
            return Service(replace(settings, data=folder.expanduser()), Errors(settings.roots))
        except FolderInUse:
            continue
    raise InvalidRequest(f"{settings.data.name} and {MOST_FOLDERS - 1} folders beside it are in use; give --data")

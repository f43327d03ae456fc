"""The command group: finds commands without importing them, runs `generate` where no command is named, explains errors.

Nothing here imports torch, so `--help` answers at once; every command imports what it needs when it runs.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from ..server.resident.place import is_own_socket, socket_path
from .command import CONTEXT_SETTINGS, debug_option, is_debug
from .explain import explain
from .start.ahead import begin
from .start.leave import leave

COMMANDS = {
    "generate": "generate",
    "sample-grid": "sample_grid",
    "bulk": "services.bulk",
    "outpaint": "outpaint",
    "upscale": "upscale",
    "view": "services.view",
    "encode": "encode",
    "decode": "decode",
    "noise": "noise",
    "info": "info",
    "convert": "convert",
    "pull": "pull",
    "serve": "services.serve",
    "mcp": "services.mcp",
    "list": "list_names",
    "train": "train",
    "evaluate": "evaluate",
    "calibrate": "calibrate",
    "doctor": "doctor",
}
"""Command name -> module in `commands`, whose `command` it is."""

DEFAULT = "generate"
EXAMPLES = """\b
Examples:
  stable-diffusion "a beautiful sunset over the ocean"
  stable-diffusion "a red apple" --steps 30 --seed 7 --out apple.png
  stable-diffusion sample-grid "a castle" --seeds 1-4 --guidance 1,3,6
  stable-diffusion info model.safetensors
  stable-diffusion doctor
"""


class Group(click.Group):
    """A group whose commands live in modules of this package, with a default command and one-sentence errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == DEFAULT and _makes_pictures_here(ctx):
            begin()
        module = importlib.import_module(f"stable_diffusion.cli.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in where the first word is not a command and not an option of the group."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        index = next((i for i, word in enumerate(args) if word not in own), None)
        if index is not None and args[index] not in COMMANDS:
            _hint_at_command(args[index])
            args = [*args[:index], DEFAULT, *args[index:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                if not is_debug(ctx):
                    warnings.showwarning = _note
                return super().invoke(ctx)
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except BaseException as error:
            plain = None if is_debug(ctx) else explain(error)
            if plain is None:
                raise
            raise plain from None


def _makes_pictures_here(ctx: click.Context) -> bool:
    """Whether this process is likely to need torch: it is to do more than to show its help, and no server runs."""
    if ctx.resilient_parsing or {"--help", "-h", "--server"} & set(sys.argv):
        return False
    place = socket_path()
    return place is None or not is_own_socket(place)


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings as one line on stderr; those of libraries are for developers, and shown with --debug."""
    if issubclass(category, UserWarning) and Path(filename).is_relative_to(Path(__file__).parent.parent):
        click.echo(f"note: {message}", err=True)


def _hint_at_command(word: str) -> None:
    """A note where a single-word prompt looks like a misspelt command: it is generated all the same."""
    close = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.8)
    if close:
        click.echo(f"note: generating the prompt {word!r}; the command is called {close[0]!r}", err=True)


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"stable-diffusion {__version__}")
        ctx.exit()


@click.group(cls=Group, context_settings=CONTEXT_SETTINGS, epilog=EXAMPLES)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@debug_option
def cli() -> None:
    """Make pictures from sentences, and look inside the model that makes them.

    A prompt without a command makes a picture: `stable-diffusion "a cat"` means `stable-diffusion generate "a cat"`.
    Pictures and data go to stdout as paths or JSON; progress, seeds and errors go to stderr.
    """


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind on SIGTERM as on Ctrl-C, so that temporary files are removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the command `stable-diffusion`."""
    signal.signal(signal.SIGTERM, _terminated)
    if sys.stderr is None:  # closed by whoever started the process
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # to the end of the process
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="replace")  # half blocks on a terminal that has none
    try:
        cli(prog_name="stable-diffusion")
    except SystemExit as end:
        leave(end.code)
        raise

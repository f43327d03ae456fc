"""The page docs/cli.md, made from the help texts: `python -m stable_diffusion.cli.help_page > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from .main import cli

NAME = "stable-diffusion"
WIDTH = 100
HEAD = """# The command line

This page is made from the help texts of the commands; `stable-diffusion COMMAND --help` shows the same.
"""


def page() -> str:
    """The whole page in Markdown."""
    sections = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in helps(cli, click.Context(cli, info_name=NAME))]
    return "\n".join([HEAD, *sections])


def helps(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    """(command path, help text) of a command and of all below it."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    shown = click.Context(command, ctx.parent, info_name=ctx.info_name, **settings)
    yield shown.command_path, command.get_help(shown).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None:
                yield from helps(below, click.Context(below, shown, info_name=name))


if __name__ == "__main__":
    sys.stdout.write(page())

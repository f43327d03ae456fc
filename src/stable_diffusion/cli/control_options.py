"""`--control` and its group: options that belong to the `--control` before them, and so may be repeated with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stable_diffusion.cli.command import Number
from stable_diffusion.cli.options import F, apply
from stable_diffusion.errors import InvalidRequest

if TYPE_CHECKING:
    from stable_diffusion.pipeline.control import Control

MODES, RESIZES = ("balanced", "prompt", "control"), ("stretch", "crop", "fill")
PREPROCESSORS = ("none", "canny", "invert", "threshold")
"""The names of `pipeline.control`, repeated here because that module takes long to import; a test compares them."""
_ORDER = "stable_diffusion.control"
FIRST = "control"


class Grouped(click.Option):
    """An option whose place on the command line counts: what it follows is remembered in the context's `meta`."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, multiple=True, expose_value=False, **settings)
        self.section = "Controls"

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        known = next(found for name in self.opts if (found := parser._long_opt.get(name)) is not None)
        process: Callable[[Any, Any], None] = known.process

        def remembering(value: Any, state: Any) -> None:
            ctx.meta.setdefault(_ORDER, []).append((self, value))
            process(value, state)

        known.process = remembering


def _path() -> click.Path:
    return click.Path(path_type=Path)


control_options: Callable[[F], F] = apply(
    [
        click.option("--control", cls=Grouped, type=_path(), help="ControlNet, T2I- or IP-Adapter; may be repeated."),
        click.option("--control-image", cls=Grouped, type=_path(), show_default="--image", help="What it follows."),
        click.option(
            "--control-weight", cls=Grouped, type=Number(min=-10, max=10), show_default="1", help="How much it counts."
        ),
        click.option(
            "--control-start", cls=Grouped, type=Number(min=0, max=1), show_default="0", help="Part of the steps: from."
        ),
        click.option(
            "--control-end", cls=Grouped, type=Number(min=0, max=1), show_default="1", help="Part of the steps: to."
        ),
        click.option(
            "--control-mode",
            cls=Grouped,
            type=click.Choice(MODES),
            show_default="balanced",
            help="Whether prompt or control counts for more.",
        ),
        click.option(
            "--control-resize",
            cls=Grouped,
            type=click.Choice(RESIZES),
            show_default="crop",
            help="How its picture comes to size.",
        ),
        click.option(
            "--control-preprocessor",
            cls=Grouped,
            type=click.Choice(PREPROCESSORS),
            show_default="none",
            help="Made of its picture.",
        ),
        click.option(
            "--control-threshold-a", cls=Grouped, type=Number(min=0, max=255), help="Of canny (100) or threshold (127)."
        ),
        click.option("--control-threshold-b", cls=Grouped, type=Number(min=0, max=255), help="Of canny (200)."),
        click.option("--control-task", cls=Grouped, metavar="NAME", help="Kind of picture, for a union ControlNet."),
        click.option(
            "--image-encoder",
            cls=Grouped,
            type=_path(),
            show_default="image_encoder beside it",
            help="Of an IP-Adapter.",
        ),
    ]
)


def given_controls(ctx: click.Context) -> tuple[Control, ...]:
    """The controls of the command line, each with the options that follow it up to the next `--control`."""
    groups: list[dict[str, Any]] = []
    for option, text in ctx.meta.get(_ORDER, []):
        name = str(option.name).removeprefix("control_")
        value = option.type.convert(text, option, ctx)
        if name == FIRST:
            groups.append({"path": value})
            continue
        if not groups:
            raise InvalidRequest(f"{option.opts[0]} belongs to a --control before it, and there is none")
        if name in groups[-1]:
            raise InvalidRequest(f"{option.opts[0]} was given twice for the control {str(groups[-1]['path'])!r}")
        groups[-1][name] = value
    if not groups:
        return ()
    from stable_diffusion.pipeline.control import Control

    return tuple(Control(**group) for group in groups)

"""`--control` and its group: options that belong to the `--control` before them, and so may be repeated with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidRequest
from .command import Number
from .options import F, apply

if TYPE_CHECKING:
    from ..request.control import Control

MODES, RESIZES = ("balanced", "prompt", "control"), ("stretch", "crop", "fill")
PREPROCESSORS = ("none", "canny", "invert", "threshold")
"""The names of `pipeline.control`, repeated here because that module takes long to import; a test compares them."""
_ORDER = "stable_diffusion.control"
FIRST = "control"


class Grouped(click.Option):
    """An option whose place on the command line counts: what it follows is remembered in the context's `meta`."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **{**settings, "multiple": True, "expose_value": False})
        self.section = "Controls"

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        known = next(found for name in self.opts if (found := parser._long_opt.get(name)) is not None)
        process: Callable[[Any, Any], None] = known.process
        order = ctx.meta.setdefault(_ORDER, {}).setdefault(id(ctx), [])  # `meta` is shared with outer contexts

        def remembering(value: Any, state: Any) -> None:
            order.append((self, value))
            process(value, state)

        known.process = remembering


PATH = click.Path(path_type=Path)
WEIGHT, FRACTION, BYTE = Number(min=-10, max=10), Number(min=0, max=1), Number(min=0, max=255)

_OPTIONS: tuple[tuple[str, Any, str | None, str], ...] = (
    ("--control", PATH, None, "ControlNet, T2I-Adapter or IP-Adapter; may be repeated."),
    ("--control-image", PATH, "--image", "The picture that it reads."),
    ("--control-weight", WEIGHT, "1", "How much it counts."),
    ("--control-start", FRACTION, "0", "Where in the steps it begins to act."),
    ("--control-end", FRACTION, "1", "Where in the steps it stops."),
    ("--control-mode", click.Choice(MODES), "balanced", "Whether prompt or control counts for more."),
    ("--control-resize", click.Choice(RESIZES), "crop", "How its picture comes to size."),
    ("--control-preprocessor", click.Choice(PREPROCESSORS), "none", "What is made of its picture first."),
    ("--control-threshold-a", BYTE, None, "Of canny (100) or threshold (127)."),
    ("--control-threshold-b", BYTE, None, "Of canny (200)."),
    ("--control-task", None, None, "Kind of picture, for a union ControlNet."),
    ("--image-encoder", PATH, "image_encoder beside it", "CLIP image tower of an IP-Adapter."),
)
"""(name, type, default as shown, help); `--control` opens a group, and the others belong to the one before them."""

control_options: Callable[[F], F] = apply(
    [
        click.option(name, cls=Grouped, type=kind, show_default=default or False, help=text)
        for name, kind, default, text in _OPTIONS
    ]
)


def given_controls(ctx: click.Context) -> tuple[Control, ...]:
    """The controls of the command line, each with the options that follow it up to the next `--control`."""
    groups: list[dict[str, Any]] = []
    for option, text in ctx.meta.get(_ORDER, {}).get(id(ctx), []):
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
    from ..request.control import Control

    return tuple(Control(**group) for group in groups)

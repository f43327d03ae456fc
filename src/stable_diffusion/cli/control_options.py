"""`--control` and its group: options that belong to the `--control` before them, and so may be repeated with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from ..errors import InvalidRequest
from ..request.control import Control
from ..request.group import own_settings
from .command import SectionOption, apply
from .setting_options import setting_option

_ORDER = "stable_diffusion.control"
FIRST = "path"


class Grouped(SectionOption):
    """An option whose place on the command line counts: what it follows is remembered in the context's `meta`."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **{**settings, "multiple": True, "expose_value": False})

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        known = next(found for name in self.opts if (found := parser._long_opt.get(name)) is not None)
        process: Callable[[Any, Any], None] = known.process
        order = ctx.meta.setdefault(_ORDER, {}).setdefault(id(ctx), [])  # `meta` is shared with outer contexts

        def remembering(value: Any, state: Any) -> None:
            order.append((self, value))
            process(value, state)

        known.process = remembering


control_options = apply([setting_option(replace(each, group="control"), cls=Grouped) for each in own_settings(Control)])
"""`--control` and the options of its group."""


def given_controls(ctx: click.Context) -> tuple[Control, ...]:
    """The controls of the command line, each with the options that follow it up to the next `--control`."""
    groups: list[dict[str, Any]] = []
    for option, text in ctx.meta.get(_ORDER, {}).get(id(ctx), []):
        name = str(option.name).removeprefix("control__")
        value = option.type.convert(text, option, ctx)
        if name == FIRST:
            groups.append({"path": value})
            continue
        if not groups:
            raise InvalidRequest(f"{option.opts[0]} belongs to a --control before it, and there is none")
        if name in groups[-1]:
            raise InvalidRequest(f"{option.opts[0]} was given twice for the control {str(groups[-1]['path'])!r}")
        groups[-1][name] = value
    return tuple(Control(**group) for group in groups)

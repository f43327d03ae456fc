"""Options of the command line, made from the table of settings: one for each that has a flag.

`GROUP__NAME` is the parameter of a setting in a group of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..request import fields, sequences
from ..request.group import Setting
from ..request.request import COMMON, all_settings
from .command import F, Number, SectionOption, Size, Values, Whole, apply

PATH = click.Path(path_type=Path)


def setting_options(*chosen: str, without: tuple[str, ...] = (), section: str = "") -> Callable[[F], F]:
    """Options for the settings of these sections, and for those of these paths ("inpaint.blur"), in order.

    section   the heading under which they all stand, in the place of their own
    """
    wanted = [each for each in all_settings() if each.section in chosen or each.path in chosen]
    return apply([setting_option(each, section) for each in wanted if each.flag and each.path not in without])


def setting_option(each: Setting, section: str = "", **changes: Any) -> Callable[[F], F]:
    """The option of a setting; `changes` are keyword arguments of `click.option` that differ for a command."""
    facts: dict[str, Any] = {
        "cls": SectionOption,
        "help": each.help,
        "show_default": each.usual or False,
        "metavar": each.metavar or None,
        "section": section or each.section,
        **_typed(each),
        **changes,
    }
    return click.option(*each.flags, parameter(each), **facts)


def named_setting(path: str) -> Setting:
    """The setting of a path such as "inpaint.blur"."""
    return next(each for each in all_settings() if each.path == path)


def parameter(each: Setting) -> str:
    """The name under which a command gets a setting."""
    return each.path.replace(".", "__")


def _typed(each: Setting) -> dict[str, Any]:
    """How click reads the values of this kind."""
    kind = each.kind
    if isinstance(kind, fields.Flag):
        return {"is_flag": True, "flag_value": not each.default, "default": None}
    if isinstance(kind, fields.Choice) and each.metavar:
        names = f"{each.help} {', '.join(kind.names[:-1])} or {kind.names[-1]}."
        return {"type": option_type(kind), "help": names}
    if isinstance(kind, (sequences.Names, sequences.Items)):
        return {"multiple": True}
    return {"type": option_type(kind)}


def option_type(kind: fields.Kind) -> Any:
    """click's type for a kind of values; None for text."""
    match kind:
        case fields.Whole():
            return Whole(-1 if kind.random else kind.low, kind.high)
        case fields.Number():
            return Number(kind.low, kind.high)
        case fields.Choice():
            return click.Choice(kind.names, case_sensitive=not kind.folded)
        case fields.FilePath() | fields.Picture():
            return PATH
        case sequences.Pixels():
            return Size() if kind.is_size else Values(int)
        case sequences.Span():
            return Values(float)
    return None


size_option = click.option(
    "--size", cls=SectionOption, section=COMMON, type=Size(), help="Width and height, or one number for both."
)

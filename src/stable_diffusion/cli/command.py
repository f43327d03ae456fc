"""What every command shares: its class, `--debug`, number types that refuse NaN, sizes and ranges of seeds."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_DEBUG = "stable_diffusion.debug"
F = TypeVar("F", bound=Callable[..., Any])
OPTIONS = "Options"
"""The heading of options that have none of their own."""
LAST = ("Input and output", "Model and device", OPTIONS)


def apply(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    """One decorator from several, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True  # shared by the group's context and the command's


def is_debug(ctx: click.Context) -> bool:
    """Whether errors are to be shown with their traceback."""
    return bool(ctx.meta.get(_DEBUG)) or os.environ.get("STABLE_DIFFUSION_DEBUG", "") not in ("", "0")


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_remember_debug, help="Show tracebacks."
)


class SectionOption(click.Option):
    """An option that help shows under a heading of its own."""

    def __init__(self, *args: Any, section: str = OPTIONS, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command with `--debug`, `-h`, options under headings, and example lines that keep their line breaks."""

    def __init__(self, *args: Any, examples: str = "", **settings: Any) -> None:
        if examples:
            lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
            settings["epilog"] = f"\b\nExamples:\n{lines}"
        settings["context_settings"] = {**CONTEXT_SETTINGS, **settings.get("context_settings", {})}
        super().__init__(*args, **settings)
        debug_option(self)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each section in the order of its first option, but those of `LAST` last, unless a command has little else."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", OPTIONS), []).append(record)
        if next(iter(sections), OPTIONS) != OPTIONS:
            sections |= {section: sections.pop(section) for section in LAST if section in sections}
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


FAR = 2**53
"""Bounds beyond this are nothing to show."""


class Whole(click.IntRange):
    """A whole number in a closed range."""

    name = "integer"

    def _describe_range(self) -> str:
        return _range(self.min, self.max)


class Number(click.FloatRange):
    """A finite number in a closed range."""

    name = "number"

    def _describe_range(self) -> str:
        return _range(self.min, self.max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not finite:
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return super().convert(value, param, ctx)


def _range(low: float | None, high: float | None) -> str:
    """A closed range in words."""
    if low is None or high is None:
        return "any number"
    if high >= FAR:
        return "any whole number" if low <= -FAR else f"{low} or more"
    return f"{low:g} to {high:g}"


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.3
    """ "512x768" -> (512, 768): width and height in pixels."""

    name = "size"

    def get_metavar(self, *args: Any, **kwargs: Any) -> str:
        return "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*[x×*]\s*(\d{1,6}))?\s*", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size: expected WIDTHxHEIGHT in pixels, for example 512x768.", param, ctx)
        return int(match[1]), int(match[2] if match[2] is not None else match[1])


class Values(click.ParamType):  # type: ignore[type-arg]
    """A comma-separated list; for whole numbers also ranges: "1-4,9" -> (1, 2, 3, 4, 9)."""

    name = "list"

    def __init__(self, kind: type[int] | type[float] | type[str], limit: int = 64) -> None:
        self.kind, self.limit = kind, limit

    def get_metavar(self, *args: Any, **kwargs: Any) -> str:
        return "A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        found: list[Any] = []
        for word in filter(None, (part.strip() for part in str(value).split(","))):
            found.extend(self._read(word, param, ctx))
            if len(found) > self.limit:
                self.fail(f"{value!r} names more than {self.limit} values.", param, ctx)
        if not found:
            self.fail("the list is empty.", param, ctx)
        return tuple(found)

    def _read(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        span = re.fullmatch(r"(\d{1,19})-(\d{1,19})", word) if self.kind is int else None
        if span:
            first, last = int(span[1]), int(span[2])
            if last < first or last - first >= self.limit:
                self.fail(f"{word!r} is not a rising range of at most {self.limit} numbers.", param, ctx)
            return list(range(first, last + 1))
        try:
            number = self.kind(word)
        except ValueError:
            self.fail(f"{word!r} is not a {'whole number' if self.kind is int else 'number'}.", param, ctx)
        if isinstance(number, float) and not math.isfinite(number):
            self.fail(f"{word!r} is not a finite number.", param, ctx)
        return [number]

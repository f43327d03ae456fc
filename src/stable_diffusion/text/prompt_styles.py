"""Styles: named pieces of prompt in a CSV file, in A1111's form (columns name, prompt, negative_prompt)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidRequest, unknown_choice

PLACE = "{prompt}"


@dataclass(frozen=True)
class Style:
    """One row. Where a text holds `{prompt}` the prompt goes there, else the text follows it after a comma."""

    prompt: str = ""
    negative_prompt: str = ""


def parse_styles(text: str) -> dict[str, Style]:
    """The rows of a styles file by name; the first of equal names. InvalidRequest where there is no column `name`."""
    try:
        rows = list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline="")))
    except csv.Error as error:
        raise InvalidRequest(f"the styles cannot be read as CSV: {error}") from None
    if rows and "name" not in rows[0]:
        raise InvalidRequest("the styles have no column 'name'; expected a first line 'name,prompt,negative_prompt'")
    found: dict[str, Style] = {}
    for row in rows:
        prompt = row.get("prompt") or row.get("text") or ""  # "text" in the oldest files
        if row["name"]:
            found.setdefault(row["name"], Style(prompt, row.get("negative_prompt") or ""))
    return found


def apply_styles(prompt: str, negative: str, names: Sequence[str], styles: Mapping[str, Style]) -> tuple[str, str]:
    """(prompt, negative prompt) with the named styles joined to them, in this order."""
    for name in names:
        if name not in styles:
            raise unknown_choice("style", name, styles)
        prompt, negative = merged(prompt, styles[name].prompt), merged(negative, styles[name].negative_prompt)
    return prompt, negative


def merged(prompt: str, style: str) -> str:
    """A prompt with a style's text."""
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(filter(None, (prompt.strip(), style.strip())))

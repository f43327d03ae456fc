"""Whether a prompt holds signs that are read as choices and wildcards."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\\.|(\{\s*\d{1,3}(?:-\d{1,3})?\s*\$\$)|([{}|])", re.DOTALL)
_WILDCARD = re.compile(
    r"(?<!\\)__(?!_)(?:(?!__)[\w\-./*?])+__|(?<![\\\w])__(?![_\s])(?:(?!__)[\w\-./*?\\ '&+])+(?<!\s)__(?!\w)"
)


def has_choices(prompt: str) -> bool:
    """Whether a prompt holds what `text.variants` reads as choices or wildcards."""
    opened: list[bool] = []
    for match in _BRACES.finditer(prompt):
        if match[1] or match[2] == "{":
            opened.append(bool(match[1]))
        elif match[2] == "|" and opened:
            opened[-1] = True
        elif match[2] == "}" and opened and opened.pop():
            return True
    return _WILDCARD.search(prompt) is not None

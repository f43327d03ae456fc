"""How runs that go on at once share calls of the network: the values of `--share`. Read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...errors import InvalidRequest

MOST = 64
"""Rows of a shared call at most."""
_FIXED = re.compile(r"fixed[: ](\d{1,4})")


@dataclass(frozen=True)
class ShareMode:
    """Whether calls are shared, and what a picture then depends on.

    alone   never: a run's calls are its own
    fixed   every call has `rows` rows, filled up where there are fewer: a picture's bits depend on that number, and
            not on what else runs, nor on the order
    free    each call has the rows that are there, up to what is measured to pay: fastest; last bits vary with the load
    """

    kind: Literal["alone", "fixed", "free"] = "alone"
    rows: int = 0

    @classmethod
    def parse(cls, text: str) -> ShareMode:
        """From "alone", "fixed:8" or "free"; InvalidRequest for anything else."""
        if text == "alone":
            return cls()
        if text == "free":
            return cls("free")
        found = _FIXED.fullmatch(text)
        if found is not None and 1 <= int(found[1]) <= MOST:
            return cls("fixed", int(found[1]))
        raise InvalidRequest(f"share is {text!r}; expected alone, free, or fixed:N with N from 1 to {MOST}, as fixed:8")

    def __str__(self) -> str:
        """As a picture's text has it."""
        return f"fixed {self.rows}" if self.kind == "fixed" else self.kind

"""What a server gives the command line, and what the command line shows meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class NotServed(Exception):
    """No server makes this picture; it is to be made here."""


@dataclass(frozen=True)
class ServedPicture:
    """A picture as a server made it: the bytes of its PNG file."""

    file: bytes
    seed: int
    prompt: str
    width: int
    height: int


@dataclass(frozen=True)
class Watch:
    """What is called while a picture is made. `preview` None asks for none."""

    progress: Callable[[int, int, int, int], object]
    preview: Callable[[bytes], object] | None
    note: Callable[[str], object]

"""What the files of all networks have in common: names and shapes, and the layouts in which one network is found.

A layout is one way to name the tensors of a network. It is decided for each network of a file on its own, so that a
file may mix them, and tells two things: what the shapes say of the config, and which tensor is which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...errors import BrokenModel
from ..containers.limits import COUNT_LIMIT
from ..keys import KeyTable

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor, without the prefix of its network -> shape."""
Config = TypeVar("Config")


@dataclass(frozen=True)
class Layout(Generic[Config]):
    """One layout of a network.

    name    "ldm", "diffusers", "transformers", "openclip"
    marks   sets of tensors; where all of one set are there, it is this layout
    fields  fields of the config, as far as shapes tell them; BrokenModel where a tensor that decides is missing
    table   the key table of a network of that config
    """

    name: str
    marks: tuple[frozenset[str], ...]
    fields: Callable[[Shapes], dict[str, Any]]
    table: Callable[[Config], KeyTable]


def marks(*sets: str) -> tuple[frozenset[str], ...]:
    """Marks of a layout, each the names of one set with spaces between them."""
    return tuple(frozenset(names.split()) for names in sets)


def layouts(*known: Layout[Config]) -> dict[str, Layout[Config]]:
    """Layouts by their names, in the order in which a file is compared with them."""
    return {layout.name: layout for layout in known}


def layout_of(known: Mapping[str, Layout[Config]], shapes: Shapes) -> Layout[Config] | None:
    """The layout of a network of these tensors, None where it is none of them."""
    return next((layout for layout in known.values() if any(mark <= shapes.keys() for mark in layout.marks)), None)


def need(shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of a matrix or convolution; BrokenModel where it is missing or has fewer than two sides."""
    shape = shapes.get(name)
    if shape is None or len(shape) < 2:
        found = "is missing" if shape is None else f"has the shape {list(shape)}"
        raise BrokenModel(f"the tensor {name} {found}, so the shape of the network cannot be determined")
    return shape


def length(shapes: Shapes, prefix: str) -> int:
    """Length of a numbered list of modules: one more than the highest number, so that a gap shows as missing.

    BrokenModel where it is longer than any model's: a hostile file may number a layer 10^9.
    """
    start = len(prefix) + 1
    numbers = {name[start:].split(".", 1)[0] for name in shapes if name.startswith(prefix + ".")}
    counted = [int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 10]
    if max(counted, default=0) >= COUNT_LIMIT:
        raise BrokenModel(f"there is a layer {prefix}.{max(counted)}; at most {COUNT_LIMIT} in a row are plausible")
    return max(counted, default=-1) + 1

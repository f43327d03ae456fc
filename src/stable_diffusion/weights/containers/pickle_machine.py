"""A pickle interpreter that cannot run code: it builds plain data and never imports or calls what a pickle names.

The stack machine is that of Python's `pickle` (protocols 0 to 5; opcodes documented in `pickletools`), with one change:
a global is only ever the pair (module, name). "Calling" one looks the pair up in a closed table of our own functions;
names that training frameworks leave in checkpoints become `Inert` records; every other name is refused with
`UnsafeFile`. There is no setting that turns this off.

Why not `torch.load(weights_only=True)`: it stops at the objects of Lightning and OmegaConf that released checkpoints of
Stable Diffusion 1 hold beside their tensors, and reads all tensors at once.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ...errors import UnsafeFile

WORK_LIMIT = 2_000_000
"""Most operations (opcodes, and items copied by calls) in a file; one with optimizer state needs under a million."""

INERT_MODULES = (
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "omegaconf",
    "ldm",
    "torch.nn.modules",
    "torch.optim",
    "torchmetrics",
)
"""Packages whose objects are left in checkpoints by training; they are kept as inert records and never imported."""

INERT_GLOBALS = frozenset(
    {
        ("argparse", "Namespace"),
        ("typing", "Any"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib", "WindowsPath"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)


@dataclass(frozen=True)
class Global:
    """A name that a pickle asked for, as two strings and nothing more."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """An object of a known but unneeded class: what it was built from, kept as data."""

    type: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


Call = Callable[[tuple[Any, ...]], Any]
_MARK = object()
_KEYS = (str, int, float, bytes, Global)
"""Accepted kinds of dictionary key; others become a label: hashing or printing a nest of tuples can take for ever."""


class PickleMachine:
    """Runs pickles against a closed table of calls and constants.

    `calls` maps a global to the function that stands for calling it, `constants` a global to the value it stands for
    (a dtype, say), and `persistent` turns a persistent id (torch: a storage) into a value.
    """

    def __init__(
        self, what: str, calls: dict[Global, Call], constants: dict[Global, Any], persistent: Callable[[Any], Any]
    ) -> None:
        self.what = what
        self.calls = calls
        self.constants = constants
        self.persistent = persistent
        self._work = 0

    def charge(self, amount: int) -> None:
        """Count `amount` units of work; UnsafeFile once they exceed the limit, so that no pickle runs for ever."""
        self._work += amount
        if self._work > WORK_LIMIT:
            raise UnsafeFile(f"{self.what} holds a pickle of more than {WORK_LIMIT} operations")

    def load(self, file: BinaryIO) -> Any:
        """The object of the pickle that starts at the file's position, which is left just after its STOP."""
        try:
            return self._run(file)
        except UnsafeFile:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            # A hostile or damaged stream can break any expectation of the machine; all of it is one kind of error.
            raise UnsafeFile(
                f"{self.what} holds a damaged pickle ({type(error).__name__}: {str(error)[:80]})"
            ) from error

    def _run(self, file: BinaryIO) -> Any:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        argument: Any
        for opcode, argument, _ in pickletools.genops(file):
            self.charge(1)
            name = opcode.name
            if name in _LITERALS:
                stack.append(argument)
            elif name in _MAKERS:
                stack.append(_MAKERS[name]())
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[argument])
            elif name in _EDITS:
                _EDITS[name](stack)
            elif name == "STOP":
                return stack.pop()
            else:
                self._object(name, argument, stack)
        raise UnsafeFile(f"{self.what} holds a pickle without an end")

    def _object(self, name: str, argument: Any, stack: list[Any]) -> None:
        """The opcodes that in Python's own machine import, call or rebuild: here they only look names up."""
        if name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(self.find(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self.find(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, function = stack.pop(), stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif name == "INST":
            module, _, attribute = argument.partition(" ")
            stack.append(self.call(self.find(module, attribute), tuple(_pop_to_mark(stack))))
        elif name == "OBJ":
            function, *arguments = _pop_to_mark(stack)
            stack.append(self.call(function, tuple(arguments)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Inert):
                stack[-1].state = state
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name == "PERSID":
            stack.append(self.persistent(argument))
        else:
            raise UnsafeFile(f"{self.what} holds a pickle with the operation {name}, which no tensor file needs")

    def find(self, module: Any, name: Any) -> Any:
        """What a global stands for; UnsafeFile where it is on none of the lists."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global must be named by two strings")
        asked = Global(module, name)
        if asked in self.constants:
            return self.constants[asked]
        if asked in self.calls or self._is_inert(asked):
            return asked
        raise UnsafeFile(
            f"{self.what} is not loaded: its pickle asks for {str(asked)[:80]!r}, and only tensors are read"
        )

    def call(self, function: Any, arguments: Any) -> Any:
        """The value that stands for `function(*arguments)`."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise UnsafeFile(f"{self.what} is not loaded: its pickle calls something that is not a known function")
        if function in self.calls:
            return self.calls[function](arguments)
        return Inert(function, arguments)

    @staticmethod
    def _is_inert(asked: Global) -> bool:
        known = any(asked.module == package or asked.module.startswith(package + ".") for package in INERT_MODULES)
        # A dotted attribute path would let a pickle walk from a module to what that module imports; no class needs one.
        return (known and "." not in asked.name) or (asked.module, asked.name) in INERT_GLOBALS


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    """Everything above the last mark, in order; the mark goes too."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            above = stack[index + 1 :]
            del stack[index:]
            return above
    raise ValueError("no mark on the stack")


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Inert):
        target.items.extend(values)
    else:
        raise ValueError(f"cannot append to {type(target).__name__}")


def _set_items(target: Any, flat: list[Any]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if isinstance(target, dict):
        target.update((key if isinstance(key, _KEYS) else f"<{type(key).__name__}>", value) for key, value in pairs)
    elif isinstance(target, Inert):
        target.items.extend(pairs)
    else:
        raise ValueError(f"cannot set items of {type(target).__name__}")


def _top(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("stack underflow")
    values = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return values


def _pop(stack: list[Any]) -> None:
    stack.pop()


def _pop_mark(stack: list[Any]) -> None:
    _pop_to_mark(stack)


def _append(stack: list[Any]) -> None:
    (value,) = _top(stack, 1)
    _extend(stack[-1], [value])


def _appends(stack: list[Any]) -> None:
    values = _pop_to_mark(stack)
    _extend(stack[-1], values)


def _set_item(stack: list[Any]) -> None:
    pair = _top(stack, 2)
    _set_items(stack[-1], pair)


def _set_items_to_mark(stack: list[Any]) -> None:
    flat = _pop_to_mark(stack)
    _set_items(stack[-1], flat)


def _make_dict(stack: list[Any]) -> None:
    made: dict[Any, Any] = {}
    _set_items(made, _pop_to_mark(stack))
    stack.append(made)


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)

_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # sets hold nothing that we read; a list keeps unhashable members harmless
    "MARK": lambda: _MARK,
}

_EDITS: dict[str, Callable[[list[Any]], None]] = {
    "PROTO": lambda stack: None,
    "FRAME": lambda stack: None,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda stack: stack.append(stack[-1]),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items_to_mark,
    "LIST": lambda stack: stack.append(_pop_to_mark(stack)),
    "FROZENSET": lambda stack: stack.append(_pop_to_mark(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_pop_to_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_top(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_top(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_top(stack, 3))),
    "DICT": _make_dict,
}

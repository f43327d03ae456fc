"""A setting is one line of a group: its kind, its names everywhere, and its help. All else derives from that line.

    blur: float | None = setting(Number(0, 256), flag="--mask-blur", key="Mask blur", help="Blur of the mask's edge.")

From it come the check, the option of the command line, the key in a picture's text (written and read), the axis of a
grid, the name in a file of prompts, and the entry in JSON and in its schema.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from ..errors import InvalidRequest, unknown_choice
from .fields import Kind


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting, as its line in a group says.

    flag      options of the command line, with spaces between; the first names its axis in a grid
    key       in a picture's text; None where it is not written by this key alone
    also      names in other programs, with spaces between: read in files of prompts, answered with ours in Python
    label     its name in sentences, where that is not the field's
    usual     what holds where it is not given, for the help
    metavar   what help shows in the place of a value
    section   its heading in help
    nullable  None stands for the default, where that is not None itself
    axis      whether an axis of a grid may go through its values
    required  it has no default
    """

    kind: Kind
    default: Any = None
    flag: str = ""
    key: str | None = None
    also: str = ""
    label: str = ""
    usual: str = ""
    metavar: str = ""
    section: str = ""
    help: str = ""
    nullable: bool = False
    axis: bool = True
    required: bool = False
    name: str = ""
    group: str = ""

    @property
    def path(self) -> str:
        """ "inpaint.blur", or "steps" for one that is in no group."""
        return f"{self.group}.{self.name}" if self.group else self.name

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(self.flag.split())

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called in text, in small letters with `_`; the first long option comes first."""
        flags = [flag for flag in self.flags if flag.startswith("--") and not flag.startswith("--no-")]
        long = [flag[2:].replace("-", "_") for flag in flags]
        return tuple(dict.fromkeys([*long, *([] if self.group else [self.name]), *self.also.split()]))

    @property
    def is_axis(self) -> bool:
        return self.axis and self.kind.scalar is not None and bool(self.names)

    def check(self, value: Any) -> Any:
        """The value as the request holds it; InvalidRequest in a sentence where it is unusable."""
        name = self.label or self.name
        if value is None and not self.required:
            if self.default is None or self.nullable:
                return self.default
            raise InvalidRequest(f"{name} is None; expected {self.kind.expected}")
        return self.kind.check(name, value)

    def of(self, request: Any) -> Any:
        """Its value in a request; None where the request is without its group."""
        holder = getattr(request, self.group) if self.group else request
        return None if holder is None else getattr(holder, self.name)

    def put(self, values: dict[str, Any], value: Any) -> None:
        """Set it among the keyword arguments of a request."""
        if self.group:
            values.setdefault(self.group, {})[self.name] = value
        else:
            values[self.name] = value


def described(kind: Kind, **facts: Any) -> dict[str, Any]:
    """The metadata of a field that is a setting without a default."""
    return {"setting": Setting(kind=kind, required=True, **facts)}


def setting(kind: Kind, default: Any = None, **facts: Any) -> Any:
    """A field that is a setting; `facts` are the fields of `Setting`."""
    return field(default=default, metadata={"setting": Setting(kind=kind, default=default, **facts)})


T = TypeVar("T")
_OWN: dict[type, tuple[Setting, ...]] = {}


def own_settings(cls: type[Any]) -> tuple[Setting, ...]:
    """The settings of a group itself, in order."""
    if cls not in _OWN:
        section = getattr(cls, "SECTION", "")
        _OWN[cls] = tuple(
            replace(found, name=each.name, section=found.section or section)
            for each in dataclasses.fields(cls)
            if (found := each.metadata.get("setting")) is not None
        )
    return _OWN[cls]


def subgroup(kind: type[Any], *, absent: bool = False) -> Any:
    """A field that is a group of settings: with their defaults, or None where it may be `absent`."""
    if absent:
        return field(default=None, metadata={"group": kind})
    return field(default_factory=kind, metadata={"group": kind})


_EVERY: dict[type, tuple[Setting, ...]] = {}


def every_setting(cls: type[Any]) -> tuple[Setting, ...]:
    """The settings of a class and of the groups in it, in order."""
    if cls not in _EVERY:
        own = {each.name: each for each in own_settings(cls)}
        found: list[Setting] = []
        for each in dataclasses.fields(cls):
            inner = own_settings(each.metadata["group"]) if "group" in each.metadata else ()
            found += [own[each.name]] if each.name in own else [replace(one, group=each.name) for one in inner]
        _EVERY[cls] = tuple(found)
    return _EVERY[cls]


class SettingGroup:
    """What all groups share: made from themselves, from a mapping of their fields, or changed by one; frozen."""

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        cls._check_names(settings)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for each in own_settings(type(self)):
            self._put(**{each.name: each.check(getattr(self, each.name))})
        self._check_together()

    def _check_together(self) -> None:
        """Checks of settings that depend on each other."""

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _check_names(cls, given: Mapping[str, Any]) -> None:
        """InvalidRequest, with the nearest name, for a setting that there is not."""
        known = cls._names()
        for name in given:
            if name not in known:
                raise unknown_choice(f"setting of {cls.__name__}", name, known)

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in dataclasses.fields(cls)]  # type: ignore[arg-type]  # every group is a dataclass

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """The group itself, or `base` (by default the group's own defaults) with the fields of a mapping."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"{name} is {value!r}; expected {cls.__name__}(...) or a mapping of its fields")
        known = cls._names()
        for key in value:
            if key not in known:
                raise unknown_choice(f"setting of {name}", key, known)
        return cls(**value) if base is None else replace(base, **value)  # type: ignore[type-var]  # a dataclass


def documented(cls: type[T]) -> type[T]:
    """The class with a line for each setting in its docstring, where `help` shows it."""
    if cls.__doc__ is not None:
        cls.__doc__ = f"{cls.__doc__.rstrip()}\n\n" + "\n".join(lines(own_settings(cls)))
    return cls


def lines(settings: tuple[Setting, ...]) -> Iterator[str]:
    """ "    blur    Blur of the mask's edge." for each; names of options become those that Python has."""
    width = max((len(each.name) for each in settings), default=0)
    for each in settings:
        usual = f" ({each.usual})" if each.usual else ""
        text = re.sub(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), each.help)
        yield f"    {each.name:{width}}  {text}{usual}"


FORMER = {"told_size": "micro_conditioning"}
"""Old name of a setting of a request -> its name of today."""


def warn_renamed(old: str, new: str, level: int = 3) -> None:
    """A DeprecationWarning at the line that uses the old name, `level` calls above."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next version", DeprecationWarning, stacklevel=level)


def current_names(settings: Mapping[str, Any], level: int = 4) -> dict[str, Any]:
    """The settings under their names of today. InvalidRequest where one is given under both of its names."""
    found = dict(settings)
    for old, new in FORMER.items():
        if old not in found:
            continue
        if new in found:
            raise InvalidRequest(f"{old} and {new} are one setting; give {new} alone")
        found[new] = found.pop(old)
        warn_renamed(f"the setting {old}", new, level)
    return found


def with_former_names(cls: type[T]) -> type[T]:
    """The class, made with settings of both names, and with properties of the old ones."""
    plain: Any = cls.__init__

    @functools.wraps(plain)
    def init(self: T, *args: Any, **settings: Any) -> None:
        plain(self, *args, **(current_names(settings) if FORMER.keys() & settings else settings))

    cls.__init__ = init  # type: ignore[assignment]
    for old, new in FORMER.items():
        setattr(cls, old, property(functools.partial(_former, old=old, new=new)))
    return cls


def _former(holder: Any, *, old: str, new: str) -> Any:
    warn_renamed(f"{type(holder).__name__}.{old}", f"{type(holder).__name__}.{new}")
    return getattr(holder, new)

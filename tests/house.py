"""The package's files as the architecture tests read them: rooms, modules, and who imports whom."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "stable_diffusion"
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import in a file, those inside functions and TYPE_CHECKING included."""
    here = ["stable_diffusion", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            if module == "stable_diffusion":  # from stable_diffusion import ROOM
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def rooms_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in imported(path):
        parts = module.split(".")
        if parts[0] == "stable_diffusion" and len(parts) > 1:
            yield line, parts[1]


def pretended(path: Path, text: str) -> Path:
    """A path inside the package that reads as `text`."""

    class Pretended(type(path)):  # type: ignore[misc]
        def read_text(self, *arguments: object, **named: object) -> str:
            return text

    return Pretended(path)


def module_name(path: Path) -> str:
    return ".".join(["stable_diffusion", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


@functools.cache
def known_modules() -> frozenset[str]:
    return frozenset(map(module_name, MODULES))


def imported_modules(path: Path) -> list[str]:
    """Modules of the package that a file imports when it runs; packages count where a name is their own."""
    known = known_modules()
    here = module_name(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in skipped:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            subs = [f"{module}.{alias.name}" for alias in node.names]
            found += [sub if sub in known else module for sub in subs]
    return [
        name for name in dict.fromkeys(found) if name in known and name not in ("stable_diffusion", module_name(path))
    ]

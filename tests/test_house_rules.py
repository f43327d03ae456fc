"""The house rules, checked: how long files and functions are, how they are named, and what the library never does."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from house import MODULES, PACKAGE, ROOT, imported, name_of, pretended, room_of

FOLDERS = ("src", "tests", "recipes", "examples", "benchmarks", "scripts")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def test_files_are_short_enough_to_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert len(lengths) > 50
    assert not {str(path): n for path, n in lengths.items() if n > LONGEST_FILE}


def test_functions_are_short_enough_to_read() -> None:
    long = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
    }
    assert not {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION}


MOST_FILES, MOST_PARAMETERS = 16, 10


def test_folders_are_small_enough_to_overlook() -> None:
    counts = Counter(path.parent for path in MODULES)
    assert not {str(folder): count for folder, count in counts.items() if count > MOST_FILES}


INTERFACES = {"command", "measure", "unavailable", "make_engine", "router"}
"""Names that every file of a kind has: a command, a section of a report, an engine, an API of the server."""


def test_a_name_means_one_thing_in_a_room() -> None:
    homes: dict[tuple[str, str], list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                homes.setdefault((room_of(path), node.name), []).append(name_of(path))
    assert not {name: files for name, files in homes.items() if len(files) > 1 and name[1] not in INTERFACES}


def test_public_functions_have_few_parameters() -> None:
    """Commands are counted by their options, which click hands over one by one."""
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and room_of(path) != "cli":
                given = node.args
                names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    long[f"{path}:{node.lineno} {node.name}"] = count
    assert not long


def test_device_and_dtype_are_fields() -> None:
    """`next(network.parameters())` says nothing of a network that an engine holds, or of one moved in part."""
    home = PACKAGE / "pipeline" / "models.py"
    wrong = [
        f"{path}:{node.lineno}"
        for path in MODULES
        if path != home and room_of(path) not in ("training", "evaluation")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "next" and ".parameters()" in ast.unparse(node)
    ]
    assert not wrong


def test_every_module_says_what_it_is() -> None:
    assert not [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


FORBIDDEN_CALLS = {"print", "eval", "exec", "input", "breakpoint", "torch.load", "pickle.load", "pickle.loads"}
NETWORK = {"urllib", "requests", "http", "socket", "httpx", "aiohttp", "huggingface_hub", "ftplib"}
HUB = PACKAGE / "hub.py"
"""The one module that may use the network, through huggingface_hub."""
LISTENS = PACKAGE / "ui" / "local_page.py"
"""Answers at 127.0.0.1 by `http.server`, and connects to nothing."""
SERVED = {"server/resident/serve.py": {"socket"}, "cli/served/client.py": {"socket"},
          "cli/served/address.py": {"http.client", "urllib.parse"}}  # fmt: skip
"""The socket of the user's own server, both ends, and a client of the server that the user names."""
SCREEN = {"rich", "tqdm", "click"}


def faults(path: Path) -> Iterator[str]:
    """Printing, text run as code, pickles, stubs, bare excepts, the network, and progress drawn below the CLI."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            yield f"{path}:{node.lineno} calls {ast.unparse(node.func)}"
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplemented" in ast.unparse(node.exc):
            yield f"{path}:{node.lineno} is a stub"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{path}:{node.lineno} has a bare except"
    for line, module in imported(path):
        top = module.split(".")[0]
        allowed = (path == HUB and top == "huggingface_hub") or (path == LISTENS and module in ("http", "http.server"))
        allowed = allowed or module in SERVED.get(name_of(path), ())
        if (top in NETWORK and not allowed) or (top in SCREEN and room_of(path) not in ("cli", "training")):
            yield f"{path}:{line} imports {module}"


def test_what_the_library_never_does() -> None:
    assert not [fault for path in MODULES for fault in faults(path)]
    sample = PACKAGE / "nn" / "sample.py"
    lines = ["import requests", "from rich import x", "print(1)", "try:", "    torch.load(1)", "except:"]
    lines += ["    raise NotImplementedError('later')"]
    assert len(list(faults(pretended(sample, "\n".join(lines))))) == 6


def test_importing_does_nothing() -> None:
    """At module level there are definitions and values, but no loops and no calls for their effect (the CLI wires its
    commands there)."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    allowed = (ast.Import, ast.ImportFrom, *functions, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
    wrong = []
    for path in MODULES:
        if path.name == "__main__.py" or room_of(path) == "cli":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guarded = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
            if not (isinstance(node, allowed) or text or guarded):
                wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_configs_are_frozen_and_named() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config") or node.name == "ModelConfig":
                continue
            marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
            assert "frozen=True" in marks and "kw_only=True" in marks, f"{path}:{node.lineno} {node.name}"

"""The house rules, checked: who imports whom, what is public, how long files are, and what the library never does."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import stable_diffusion

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "stable_diffusion"
MODULES = sorted(PACKAGE.rglob("*.py"))

GROUND = {"errors", "types", "latents"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "latents": set(),
    "embedded": set(),
    "nn": set(),
    # The pictures of a data pack and their likeness: training and evaluation share them, and may not import each other.
    "data": set(),
    "models": {"nn"},
    "diffusion": set(),
    "text": {"models"},
    # A loaded model carries its noise schedule and prediction, so that `weights` knows the nouns of `diffusion`.
    "weights": {"models", "diffusion"},
    "engine": {"models", "nn"},
    "request": {"diffusion", "text", "pipeline"},
    "adapters": {"nn", "models", "weights"},
    "pipeline": {"nn", "models", "diffusion", "text", "weights", "engine", "adapters", "embedded", "request", "hub"},
    "training": {
        "nn",
        "models",
        "diffusion",
        "text",
        "weights",
        "engine",
        "adapters",
        "embedded",
        "pipeline",
        "request",
        "data",
    },
    "evaluation": {
        "nn",
        "models",
        "diffusion",
        "text",
        "weights",
        "engine",
        "adapters",
        "embedded",
        "pipeline",
        "request",
        "data",
    },
    "cli": {
        "request",
        "convert",
        "hub",
        "data",
        "adapters",
        "models",
        "diffusion",
        "text",
        "weights",
        "embedded",
        "pipeline",
        "training",
        "evaluation",
    },
    "server": {"diffusion", "weights", "embedded", "pipeline", "training", "evaluation"},
}
"""Room -> the rooms it may import besides itself and the ground floor (errors, types, latents)."""

PUBLIC = [
    "BrokenModel",
    "Canvas",
    "Control",
    "Hires",
    "Images",
    "Inpaint",
    "InvalidRequest",
    "ModelFileError",
    "Noise",
    "Progress",
    "Prompting",
    "Refiner",
    "Request",
    "SAMPLERS",
    "SCHEDULES",
    "SizeConditioning",
    "StableDiffusion",
    "StableDiffusionError",
    "TrainingDiverged",
    "UnknownModel",
    "UnsafeFile",
    "VariationSeed",
    "__version__",
    "generate",
    "generate_image",
    "load",
    "read_metadata",
    "save_image",
]


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


def test_imports_go_down_only() -> None:
    wrong = []
    for path in MODULES:
        room = room_of(path)
        if path.parent == PACKAGE and room not in GROUND:
            continue
        assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
        allowed = MAY_IMPORT[room] | GROUND | {room, "__version__"}
        wrong += [f"{path}:{line} imports {other}" for line, other in rooms_imported(path) if other not in allowed]
    assert not wrong, wrong


def pretended(path: Path, text: str) -> Path:
    """A path inside the package that reads as `text`."""

    class Pretended(type(path)):  # type: ignore[misc]
        def read_text(self, *arguments: object, **named: object) -> str:
            return text

    return Pretended(path)


def test_the_import_check_sees_every_spelling() -> None:
    text = "from ..pipeline import x\nfrom stable_diffusion.cli.main import y\nimport stable_diffusion.weights.load\n"
    text += "from stable_diffusion import text\nfrom .. import diffusion\ndef f():\n from .a import b\n"
    found = [room for _, room in rooms_imported(pretended(PACKAGE / "nn" / "blocks.py", text))]
    assert sorted(found) == ["cli", "diffusion", "nn", "pipeline", "text", "weights"]


def test_ground_floor_needs_torch_at_most() -> None:
    for room in GROUND:
        foreign = {m.split(".")[0] for _, m in imported(PACKAGE / f"{room}.py")}
        assert foreign <= {"torch", "collections", "dataclasses", "typing", "__future__", "difflib"}, (room, foreign)


# --- what is public ---------------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert sorted(stable_diffusion.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(stable_diffusion, name) is not None
    assert set(PUBLIC) <= set(dir(stable_diffusion))
    with pytest.raises(AttributeError, match="has no attribute 'generate_imag'"):
        stable_diffusion.generate_imag  # noqa: B018


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    """The imports under TYPE_CHECKING repeat the lazy table for editors; here they are held together."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = {
        (f"stable_diffusion.{node.module}", alias.name)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == {(home, name) for name, home in stable_diffusion._HOME_OF.items()}


def test_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert stable_diffusion.__version__ == project["version"]


LIGHT = ["stable_diffusion", "stable_diffusion.errors", "stable_diffusion.cli.main", "stable_diffusion.text.tokenizer",
         "stable_diffusion.text.prompt", "stable_diffusion.embedded"]  # fmt: skip


def test_light_modules_leave_torch_out() -> None:
    script = "import sys\n" + "".join(f"import {name}\n" for name in LIGHT)
    script += "heavy = {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(PACKAGE.parent)})


# --- files and functions ----------------------------------------------------------------------------------------------

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


def test_every_module_says_what_it_is() -> None:
    assert not [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


FORBIDDEN_CALLS = {"print", "eval", "exec", "input", "breakpoint", "torch.load", "pickle.load", "pickle.loads"}
NETWORK = {"urllib", "requests", "http", "socket", "httpx", "aiohttp", "huggingface_hub", "ftplib"}
HUB = PACKAGE / "hub.py"
"""The one module that may use the network, through huggingface_hub."""
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
        if (top in NETWORK and (path != HUB or top != "huggingface_hub")) or (
            top in SCREEN and room_of(path) not in ("cli", "training")
        ):
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
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
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

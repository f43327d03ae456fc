"""Who imports whom, what is public, and what stays out of an import."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest

import stable_diffusion
from house import (
    MODULES,
    PACKAGE,
    ROOT,
    imported,
    imported_modules,
    module_name,
    pretended,
    room_of,
    rooms_imported,
)

GROUND = {"errors", "types", "latents", "stop", "atomic", "user_cache", "mapped_pages"}
STANDARD = {"collections", "contextlib", "contextvars", "dataclasses", "typing", "__future__", "difflib"}
STANDARD |= {"os", "sys", "pathlib", "mmap", "threading", "weakref"}
FILES = {"secrets", "shutil"}
"""What `atomic` may use besides: it alone of the ground floor writes to the disk."""
NETWORKS = {"nn", "models", "diffusion", "text", "weights", "engine", "adapters", "embedded", "request"}
RESULTS = {"events", "images"}
DOORS = {*NETWORKS, *RESULTS, "upscaling", "pipeline", "runner", "live", "convert", "hub", "data"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "latents": set(),
    "stop": set(),
    "atomic": set(),
    "user_cache": set(),
    "mapped_pages": set(),
    "embedded": set(),
    "former": set(),
    "nn": set(),
    # Packs, likeness of pictures, the tower: shared by training and evaluation, which may not import each other.
    "data": {"models", "weights", "embedded"},
    "models": {"nn", "request"},
    "diffusion": set(),
    # What is asked for, and the names of it: read without torch.
    "request": set(),
    "text": {"models"},
    # A loaded model carries its noise schedule and prediction, so that `weights` knows the nouns of `diffusion`.
    "weights": {"models", "diffusion", "request"},
    "engine": {"models", "nn"},
    "adapters": {"nn", "models", "weights", "engine"},
    # Finished pictures enlarged by networks of their own.
    "upscaling": {"models", "weights", "request", *RESULTS},
    "pipeline": {*NETWORKS, *RESULTS, "hub", "upscaling"},
    "training": {*NETWORKS, *RESULTS, "pipeline", "data"},
    "evaluation": {*NETWORKS, *RESULTS, "pipeline", "data"},
    # Static files, and the page of one panorama: needs no model.
    "ui": {"request"},
    # The queue knows no network and no protocol: requests go in, and a runner makes pictures of them.
    "jobs": {*RESULTS, "request", "runner"},
    "bulk": {*RESULTS, "request", "runner", "jobs"},
    # A widget holds a loaded model, and needs no server.
    "notebook": {*RESULTS, "request", "pipeline"},
    "cli": {*DOORS, "training", "evaluation", "jobs", "bulk", "server", "cluster", "ui"},
    "server": {*DOORS, "jobs", "ui"},
    "cluster": {*DOORS, "jobs", "bulk"},
}
"""Room -> the rooms it may import besides itself and the ground floor (`GROUND`)."""

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
    "generate_many",
    "load",
    "read_metadata",
    "save_image",
    "widget",
]


def test_imports_go_down_only() -> None:
    wrong = []
    for path in MODULES:
        room = room_of(path)
        if path.parent == PACKAGE and room not in GROUND:
            continue
        assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
        allowed = MAY_IMPORT[room] | GROUND | {room, "__version__", "former"}
        wrong += [f"{path}:{line} imports {other}" for line, other in rooms_imported(path) if other not in allowed]
    assert not wrong, wrong


def test_the_import_check_sees_every_spelling() -> None:
    text = "from ..pipeline import x\nfrom stable_diffusion.cli.main import y\nimport stable_diffusion.weights.load\n"
    text += "from stable_diffusion import text\nfrom .. import diffusion\ndef f():\n from .a import b\n"
    found = [room for _, room in rooms_imported(pretended(PACKAGE / "nn" / "blocks.py", text))]
    assert sorted(found) == ["cli", "diffusion", "nn", "pipeline", "text", "weights"]


def test_ground_floor_needs_torch_at_most() -> None:
    for room in GROUND:
        foreign = {m.split(".")[0] for _, m in imported(PACKAGE / f"{room}.py")}
        files = FILES if room == "atomic" else set()
        assert foreign <= STANDARD | {"torch", PACKAGE.name} | files, (room, foreign)


def test_there_are_no_circles() -> None:
    """Of imports at the top of files and inside functions alike; those under TYPE_CHECKING run never."""
    graph = {module_name(path): imported_modules(path) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_package_imports_itself_relatively() -> None:
    absolute = [
        f"{path}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("stable_diffusion")
    ]
    assert not absolute


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
         "stable_diffusion.text.prompt", "stable_diffusion.embedded", "stable_diffusion.request.names"]  # fmt: skip


def test_light_modules_leave_torch_out() -> None:
    script = "import sys\n" + "".join(f"import {name}\n" for name in LIGHT)
    script += "heavy = {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(PACKAGE.parent)})

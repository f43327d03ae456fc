"""Names for results: by default in ./outputs, never the name of something that is already there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InvalidRequest, unknown_choice

ENDINGS = (".png", ".webp", ".jpg", ".jpeg")
OUTPUTS = Path("outputs")


def slug(text: str, limit: int = 60) -> str:
    """Letters and digits of any script joined by hyphens: "A cat, sitting!" -> "a-cat-sitting"."""
    words = re.findall(r"\w+", text.casefold().replace("_", " "))
    return "-".join(words)[:limit].rstrip("-") if words else "picture"


def destination(out: Path | None, stem: str, *, suffix: str = ".png", overwrite: bool = False) -> Path:
    """Where the file `stem` goes: ./outputs by default, into `out` where that is a folder, else `out` itself.

    A name of ours that is taken gets a number; a name of the caller's that is taken is an error unless `overwrite`.
    """
    if out is None or out.is_dir() or (out.suffix == "" and not out.exists()):
        folder = OUTPUTS if out is None else out
        return free_name(folder / f"{stem}{suffix}")
    if out.exists() and not overwrite:
        raise InvalidRequest(f"{str(out)!r} exists: choose another name for --out, or add --overwrite")
    return out


def free_name(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 ... that does not exist."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def named_model(path: Path) -> Path:
    """The file of the model with this name, as `--model` takes it; where there is none, the path as it is given."""
    if path.exists() or path.name != str(path):
        return path
    from ..embedded import fast_path, model_path
    from ..pipeline.models import EMBEDDED, EMBEDDED_FAST, model_names

    built_in = {EMBEDDED: model_path, EMBEDDED_FAST: fast_path}.get(path.name)
    known = model_names().get(path.name) if built_in is None else built_in()
    return path if known is None else known


def is_model_name(name: str | os.PathLike[str]) -> bool:
    """Whether `--model` would find something under this path or name."""
    from ..pipeline.models import BUILT_IN, find_model

    try:
        return str(name) in BUILT_IN or find_model(name).exists()
    except InvalidRequest:
        return False


def check_ending(path: Path) -> None:
    """InvalidRequest where the file name does not end as a picture's does."""
    if path.suffix.lower() not in ENDINGS:
        raise unknown_choice("picture format", path.suffix, ENDINGS)


def prepare_folder(path: Path) -> None:
    """Make the folder of `path`; a path through a file is an error that names the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidRequest(f"{str(path.parent)!r} is a file: expected a folder to write into") from None
    if path.is_dir():
        raise InvalidRequest(f"{str(path)!r} is a folder: expected the name of a file")

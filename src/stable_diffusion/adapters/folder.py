"""Adapters and embeddings by name, inside the configured folders and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidRequest, nearest

ENDINGS = (".safetensors", ".pt", ".ckpt", ".bin", ".pti")
MOST_FILES = 100_000


def listing(folder: Path, what: str) -> dict[str, Path]:
    """File name without ending -> path, for all files at any depth; the first of equal names, in order of path.

    `folder` may be several, parted as in PATH. InvalidRequest where one is none; `what` says what it is for.
    """
    found: dict[str, Path] = {}
    for each in _folders(folder):
        if not each.is_dir():
            raise InvalidRequest(f"the folder of {what} {str(each)!r} does not exist; expected a folder")
        for path in _files(each):
            found.setdefault(path.stem, path)
    return found


def joined(folders: Sequence[Path]) -> Path | None:
    """Several folders as one path, parted as in PATH; None for none."""
    return Path(os.pathsep.join(map(str, folders))) if folders else None


def _folders(folder: Path) -> list[Path]:
    if folder.is_dir():
        return [folder]
    return [Path(each) for each in str(folder).split(os.pathsep) if each] or [folder]


def _files(folder: Path) -> list[Path]:
    paths = [path for _, path in zip(range(MOST_FILES), folder.rglob("*"), strict=False)]
    return [path for path in sorted(paths) if path.suffix.lower() in ENDINGS and path.is_file()]


def _below(name: str, folders: Sequence[Path]) -> Path | None:
    """The file that is called "subfolder/name", with or without its ending, where it is listed."""
    for folder in folders:
        for path in _files(folder) if "/" in name and folder.is_dir() else ():
            inside = path.relative_to(folder)
            if name in (inside.as_posix(), inside.with_suffix("").as_posix()):
                return path
    return None


def in_folder(name: str, folder: Path | None, what: str, option: str) -> Path:
    """The path of the adapter `name`, as a prompt has it: the name of a file in the folder or folders, also with the
    subfolder that it is in ("styles/ink"); never a path of the disk.

    InvalidRequest where no folder is configured (`option` says how), the name is a path or leads out of the folder, or
    there is no such file (naming the nearest).
    """
    if folder is None:
        raise InvalidRequest(f"the prompt asks for {name!r}, but no folder of {what} is given; set {option}")
    listed = _below(name, _folders(folder))
    if listed is None and (any(sign in name for sign in "/\\\0") or name.startswith("..") or Path(name).is_absolute()):
        raise InvalidRequest(f"{name[:80]!r} is a path; expected the name of a file in the folder of {what}")
    files = listing(folder, what)
    found = listed or files.get(name) or next((path for path in files.values() if path.name == name), None)
    if found is None:
        folded = {stem.casefold(): path for stem, path in files.items()}
        found = folded.get(name.casefold())
    if found is None:
        close = nearest(name, files)
        hint = f"did you mean {close!r}?" if close is not None else f"it has {len(files)} files"
        raise InvalidRequest(f"there is no {name[:80]!r} in the folder of {what} {str(folder)!r}; {hint}")
    if not any(found.resolve().is_relative_to(each.resolve()) for each in _folders(folder)):
        raise InvalidRequest(f"{name!r} is a link that leads out of the folder of {what} {str(folder)!r}")
    return found

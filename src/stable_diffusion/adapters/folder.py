"""Adapters and embeddings by name, inside one configured folder and nowhere else."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequest, nearest

ENDINGS = (".safetensors", ".pt", ".ckpt", ".bin", ".pti")
MOST_FILES = 100_000


def listing(folder: Path, what: str) -> dict[str, Path]:
    """File name without ending -> path, for all files at any depth; the first of equal names, in order of path.

    InvalidRequest where the folder is none; `what` says what it is for.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"the folder of {what} {str(folder)!r} does not exist; expected a folder")
    found: dict[str, Path] = {}
    paths = [path for _, path in zip(range(MOST_FILES), folder.rglob("*"), strict=False)]
    for path in sorted(paths):
        if path.suffix.lower() in ENDINGS and path.is_file():
            found.setdefault(path.stem, path)
    return found


def in_folder(name: str, folder: Path | None, what: str, option: str) -> Path:
    """The path of the adapter `name`, as a prompt has it: the name of a file in the folder, never a path.

    InvalidRequest where no folder is configured (`option` says how), the name is a path or leads out of the folder, or
    there is no such file (naming the nearest).
    """
    if folder is None:
        raise InvalidRequest(f"the prompt asks for {name!r}, but no folder of {what} is given; set {option}")
    if any(sign in name for sign in "/\\\0") or name.startswith("..") or Path(name).is_absolute():
        raise InvalidRequest(f"{name[:80]!r} is a path; expected the name of a file in the folder of {what}")
    files = listing(folder, what)
    found = files.get(name) or next((path for path in files.values() if path.name == name), None)
    if found is None:
        folded = {stem.casefold(): path for stem, path in files.items()}
        found = folded.get(name.casefold())
    if found is None:
        close = nearest(name, files)
        hint = f"did you mean {close!r}?" if close is not None else f"it has {len(files)} files"
        raise InvalidRequest(f"there is no {name[:80]!r} in the folder of {what} {str(folder)!r}; {hint}")
    if not found.resolve().is_relative_to(folder.resolve()):
        raise InvalidRequest(f"{name!r} is a link that leads out of the folder of {what} {str(folder)!r}")
    return found

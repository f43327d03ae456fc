"""A large file as several small ones, for ways of copying that take no large ones, and back.

NAME becomes NAME.piece01, NAME.piece02, ... and NAME.pieces.json, which lists them in order with their SHA-256 and that
of the whole. Joining checks every piece, so that a copy cut short is named and not unpacked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.weights.containers.atomic import atomic_file

LIST = ".pieces.json"
MEBIBYTE = 2**20


def write_pieces(content: bytes, folder: str | Path, name: str, *, size: int) -> list[Path]:
    """Pieces of at most `size` bytes in `folder`, and their list; returns all files, the list last.

    Pieces of an earlier call under the same name are removed first. Raises InvalidRequest for a size under 1 and
    ModelFileError where the disk refuses.
    """
    if size < 1:
        raise InvalidRequest(f"a piece of {size} bytes is too small: give at least 1")
    folder = Path(folder)
    for old in (*folder.glob(f"{name}.piece[0-9]*"), folder / f"{name}{LIST}"):
        old.unlink(missing_ok=True)
    pieces: list[dict[str, object]] = []
    paths: list[Path] = []
    for start in range(0, len(content), size):
        piece, path = content[start : start + size], folder / f"{name}.piece{len(paths) + 1:02}"
        _write(path, piece)
        pieces.append({"name": path.name, "size": len(piece), "sha256": _digest(piece)})
        paths.append(path)
    listed = {"name": name, "size": len(content), "sha256": _digest(content), "pieces": pieces}
    _write(folder / f"{name}{LIST}", (json.dumps(listed, indent=1) + "\n").encode())
    return [*paths, folder / f"{name}{LIST}"]


def read_pieces(paths: Sequence[str | Path]) -> bytes:
    """The whole file from its pieces, in any order; their list lies beside one of them (and may be among them).

    Raises InvalidRequest where the list or a piece is missing, or a piece is not what the list says.
    """
    given = {path.name: path for path in map(Path, paths)}
    lists = sorted({found for path in given.values() for found in path.parent.glob(f"*{LIST}") if _lists(found, path)})
    if len(lists) != 1:
        raise InvalidRequest(
            f"expected one {LIST[1:]} file beside the pieces {', '.join(given) or '(none)'}, found {len(lists)}; "
            "it is written with them and must be copied with them"
        )
    listed: dict[str, Any] = json.loads(lists[0].read_text("utf-8"))
    content = b"".join(_checked(given.get(piece["name"]), piece, listed) for piece in listed["pieces"])
    if _digest(content) != listed["sha256"]:
        raise InvalidRequest(f"the pieces of {listed['name']} are whole, but {lists[0].name} is not theirs")
    return content


def _lists(found: Path, path: Path) -> bool:
    return path == found or path.name.startswith(found.name.removesuffix(LIST) + ".piece")


def _checked(path: Path | None, piece: dict[str, Any], listed: dict[str, Any]) -> bytes:
    if path is None:
        raise InvalidRequest(f"piece {piece['name']} of {listed['name']} is missing; it has {len(listed['pieces'])}")
    content = path.read_bytes()
    if _digest(content) != piece["sha256"]:
        raise InvalidRequest(
            f"{path} is damaged: it has {len(content)} bytes of other content, expected {piece['size']}; copy it again"
        )
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)

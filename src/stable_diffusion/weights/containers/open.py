"""One door to model files: what is at a path, and its tensors and metadata, whatever the container.

The first bytes say which container it is, not the name: a pickle called .safetensors gets the pickle reader's checks.
Readers of other containers than safetensors are imported when a file needs them: a new process starts sooner.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel, what_is
from .safetensors import read_safetensors
from .scaled import unscaled
from .tensors import TensorFile
from .wrappers import without_wrappers

SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
"""File name endings of models, for suggestions and listings only."""

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer of a few lines, not the model itself; fetch the real file"),
    (b"<!doctype", "a web page, probably a login or error page saved under the model's name; download it again"),
    (b"<html", "a web page, probably a login or error page saved under the model's name; download it again"),
    (b"\x89PNG", "a PNG picture, not a model"),
    (b"\xff\xd8\xff", "a JPEG picture, not a model"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
)


AnyPath = str | os.PathLike[str]


def as_paths(paths: AnyPath | Sequence[AnyPath]) -> tuple[AnyPath, ...]:
    """One path or several, as several."""
    return (paths,) if isinstance(paths, str | os.PathLike) else tuple(paths)


def read_tensors(path: str | os.PathLike[str]) -> tuple[TensorFile, dict[str, str]]:
    """Tensors (lazily mapped) and metadata of a model file; no code in the file is ever run.

    What wrappers of a network left in the names (torch.compile and others, see `wrappers`) is taken off.

    Raises ModelFileError where there is no such file or it is a folder, BrokenModel where it is cut short, UnsafeFile
    where it is malformed or asks for more than tensors, UnknownModel where it is another kind of file.
    """
    tensors, metadata = _read_container(model_file(path))
    return without_wrappers(tensors), metadata


def _read_container(file: Path) -> tuple[TensorFile, dict[str, str]]:
    """Tensors and metadata as they stand in a file."""
    start = _first_bytes(file)
    if start[:4] == b"PK\x03\x04":
        from .torch_file import read_zip

        return read_zip(file)
    # The first 8 bytes of safetensors are a length, which may look like anything; what follows opens a JSON object.
    if start[8:9] == b"{" or (len(start) < 9 and file.suffix == ".safetensors"):
        tensors, metadata = read_safetensors(file)
        return unscaled(tensors), metadata
    if start[:4] == b"GGUF":
        from .gguf import read_gguf

        return read_gguf(file)
    if start[:1] == b"\x80":
        from .torch_file import read_stream

        return read_stream(file)
    for magic, what in _FOREIGN:
        if start[: len(magic)].lower() == magic.lower():
            raise UnknownModel(f"{file} is {what}")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    raise UnknownModel(f"{file} is neither a safetensors file nor a torch checkpoint")


def model_file(path: str | os.PathLike[str]) -> Path:
    """The path of an existing regular file; ModelFileError names the nearest existing name otherwise."""
    file = existing(path)
    if file.is_dir():
        raise ModelFileError(f"{file} is a folder; a model file is expected here")
    if not file.is_file():
        raise ModelFileError(f"{file} is not a regular file; a model file is expected here")
    return file


def existing(path: str | os.PathLike[str]) -> Path:
    """The path, if something is there; ModelFileError names the nearest existing name otherwise."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequest(f"the path of a file is {what_is(path)}; expected text or a pathlib.Path")
    given = Path(path).expanduser()
    try:
        if given.exists():
            return given
    except (OSError, ValueError) as error:  # a name too long for the system, or with a null character in it
        raise ModelFileError(f"{str(path)[:80]!r} cannot be a file name ({error})") from error
    close = _nearest_path(given)
    hint = f"; did you mean {close}?" if close else ""
    raise ModelFileError(f"there is no file or folder {given}{hint}")


def _nearest_path(given: Path) -> Path | None:
    """An existing sibling with a name like the missing one's; the stem counts, so another ending is found too."""
    try:
        siblings = sorted(entry.name for entry in given.parent.iterdir())[:10_000]
    except OSError:
        return None
    models = [name for name in siblings if name.endswith(SUFFIXES)] or siblings
    same_stem = [name for name in models if Path(name).stem == given.stem]
    found = same_stem or difflib.get_close_matches(given.name, models, n=1, cutoff=0.5)
    return given.parent / found[0] if found else None


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            start = opened.read(32)
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read ({error.strerror or error})") from error
    if not start:
        raise BrokenModel(f"{file} is empty")
    return start

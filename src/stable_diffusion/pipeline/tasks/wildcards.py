"""Wildcards from a folder of text files, and styles from a file: found by name, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ...errors import InvalidRequest, nearest
from ...request.prompt_file import read_small_text
from ...text.prompt_styles import Style, parse_styles

ENDING = ".txt"
MOST_FILES = 100_000


@dataclass(frozen=True)
class WildcardFolder:
    """`WildcardFolder(folder)("animals")` -> the lines of animals.txt, without empty ones and those that begin with #.

    A name is that of a file without ending, or its path below the folder ("nature/trees"); `*` and `?` stand for any
    letters and join all files that fit. Names may hold spaces, and capitals count only where a
    file has the name in these capitals. A name that leads out of the folder is refused.
    """

    folder: Path
    _files: dict[str, Path] = field(default_factory=dict, repr=False)

    def __call__(self, name: str) -> Sequence[str]:
        """InvalidRequest where the folder has no such file."""
        name = name.replace("\\", "/").removesuffix(ENDING)
        parts = name.split("/")
        if ".." in parts or "" in parts or "\0" in name:
            raise InvalidRequest(f"the wildcard {name[:80]!r} is no name of a file in the folder of wildcards")
        files = self.files()
        found = [path for known, path in files.items() if self._fits(known, name)]
        if not found:  # other systems do not tell capitals from small letters
            found = [path for known, path in files.items() if self._fits(known.casefold(), name.casefold())]
        if not found:
            close = nearest(name, files)
            hint = f"did you mean {close!r}?" if close is not None else f"it has {len(files)} files"
            raise InvalidRequest(f"there is no {name[:80]!r} in the folder of wildcards {str(self.folder)!r}; {hint}")
        return [line for path in found for line in self._lines(path)]

    def files(self) -> dict[str, Path]:
        """Path below the folder without ending -> file, in order of name."""
        if not self._files:
            if not self.folder.is_dir():
                raise InvalidRequest(f"the folder of wildcards {str(self.folder)!r} does not exist; expected a folder")
            paths = [path for _, path in zip(range(MOST_FILES), self.folder.rglob(f"*{ENDING}"), strict=False)]
            for path in sorted(path for path in paths if path.is_file()):
                self._files[path.relative_to(self.folder).with_suffix("").as_posix()] = path
        return self._files

    def _fits(self, known: str, name: str) -> bool:
        if any(sign in name for sign in "*?"):
            return fnmatchcase(known, name)
        return name in (known, known.rpartition("/")[2])

    def _lines(self, path: Path) -> list[str]:
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InvalidRequest(f"{path.name!r} is a link that leads out of the folder of wildcards")
        lines = [line.strip() for line in read_small_text(path, "wildcard file").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


def load_styles(path: Path | None) -> dict[str, Style]:
    """The styles of a file. InvalidRequest where none is given or it cannot be read."""
    if path is None:
        raise InvalidRequest("styles are named, but no file of styles is given; set styles_file (--styles-file)")
    return parse_styles(read_small_text(path, "file of styles"))

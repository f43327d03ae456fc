"""What clients may choose by name: models, LoRAs, embeddings, controls, upscalers, styles. Never a path.

Lists are read from the configured folders once and kept for a while; `refresh` reads them again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..adapters.folder import ENDINGS, MOST_FILES
from ..errors import InvalidRequest, StableDiffusionError, nearest
from ..pipeline.models import BUILT_IN, MODEL_ENDINGS, model_names
from ..pipeline.tasks.wildcards import load_styles
from ..request.fields import UPSCALER_ENDINGS
from ..text.prompt_styles import Style
from ..upscaling.network import scale_of
from ..weights.containers.safetensors import read_safetensors
from .settings import ServerSettings

KEPT = 60.0
"""Seconds after which a folder is read again."""
SHOWN = 8
"""Names that a message lists where none is near."""


@dataclass(frozen=True)
class Entry:
    """Something with a name. `path` is for the server alone; `preview` a picture beside the file; None where absent."""

    name: str
    path: Path | None
    preview: Path | None = None
    inside: str = ""
    """The name with the subfolder of its folder: "styles/ink"."""

    @property
    def title(self) -> str:
        """As people read it: the file's name."""
        return self.name if self.path is None else self.path.name


Scan = Callable[[], dict[str, Entry]]


class Listing:
    """One kind of thing: `listing[name]`, and all of them in order."""

    def __init__(self, what: str, scan: Scan) -> None:
        self.what, self._scan = what, scan
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._folded: dict[str, Entry] = {}
        self._read = -KEPT

    def entries(self) -> dict[str, Entry]:
        """Name -> entry."""
        with self._lock:
            if time.monotonic() - self._read >= KEPT:
                self._entries = self._scan()
                self._folded = {}
                for entry in self._entries.values():
                    for form in filter(None, (entry.name, entry.title, entry.inside)):
                        self._folded.setdefault(form.casefold(), entry)
                self._read = time.monotonic()
            return self._entries

    def refresh(self) -> None:
        """Read the folders at the next question."""
        with self._lock:
            self._read = -KEPT

    def find(self, name: object) -> Entry:
        """The entry of a name, with or without its ending, in any case; InvalidRequest with the nearest one else."""
        if not isinstance(name, str):
            raise InvalidRequest(f"the {self.what} is {name!r}; expected the name of one")
        entries = self.entries()
        found = entries.get(name) or self._folded.get(name.casefold())
        if found is not None:
            return found
        if any(sign in name for sign in "/\\\0") or name.startswith(".."):
            article = "an" if self.what[0] in "aeiou" else "a"
            raise InvalidRequest(f"{name[:80]!r} is a path; expected the name of {article} {self.what} in the list")
        close = nearest(name, entries)
        if close is not None:
            raise InvalidRequest(f"there is no {self.what} {name[:80]!r}: did you mean {close!r}?")
        known = ", ".join(list(entries)[:SHOWN]) or "none, as no folder of them is configured"
        raise InvalidRequest(f"there is no {self.what} {name[:80]!r}; there are {known}")

    def of_path(self, path: str | Path) -> str | None:
        """The name of the entry with this path; None for one that is not listed."""
        wanted = Path(path)
        return next((entry.name for entry in self.entries().values() if entry.path == wanted), None)


class Library:
    """All lists of a server."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        files = {"loras": ENDINGS, "embeddings": ENDINGS, "controls": MODEL_ENDINGS, "upscalers": UPSCALER_ENDINGS}
        self.models = Listing("model", self._scan_models)
        self.loras, self.embeddings, self.controls, self.upscalers = (
            Listing(what, _scanner(getattr(settings, kind), files[kind], models=kind == "controls"))
            for what, kind in zip(("LoRA", "embedding", "control", "upscaler"), files, strict=True)
        )
        self._scales: dict[Path, int | None] = {}
        self._styles: tuple[float, dict[str, Style]] = (-KEPT, {})

    def upscaler_path(self, name: str) -> Path:
        """The file of an upscaler of the list; InvalidRequest with the nearest name where there is none."""
        path = self.upscalers.find(name).path
        assert path is not None  # only models are without one
        return path

    def upscaler_scale(self, entry: Entry) -> int | None:
        """By how much an upscaler enlarges, read once from the shapes in its file; None where they do not say."""
        if entry.path is not None and entry.path not in self._scales:
            try:
                self._scales[entry.path] = scale_of(entry.path)
            except (StableDiffusionError, OSError):
                self._scales[entry.path] = None
        return None if entry.path is None else self._scales[entry.path]

    def refresh(self) -> None:
        """Read every list again."""
        for listing in (self.models, self.loras, self.embeddings, self.controls, self.upscalers):
            listing.refresh()
        self._styles = (-KEPT, {})

    def styles(self) -> dict[str, Style]:
        """The styles of the configured file."""
        if self.settings.styles_file is None:
            return {}
        read, found = self._styles
        if time.monotonic() - read >= KEPT:
            try:
                found = load_styles(self.settings.styles_file)
            except StableDiffusionError:  # a list without it, rather than no list
                found = {}
            self._styles = (time.monotonic(), found)
        return found

    def default_model(self) -> Entry:
        """The model of requests that name none."""
        return self.models.find(self.settings.model)

    def _scan_models(self) -> dict[str, Entry]:
        found = {name: Entry(name, None) for name in BUILT_IN}
        for name, path in model_names().items():
            found.setdefault(name, Entry(name, path.resolve(), _preview(path)))
        for name, entry in _scanner(self.settings.models, MODEL_ENDINGS, models=True)().items():
            found.setdefault(name, entry)
        return found


def _scanner(folders: Sequence[Path], endings: Sequence[str], *, models: bool = False) -> Scan:
    """A function that lists the files of folders, at any depth, by their names without ending; with `models` also the
    folders of diffusers."""

    def scan() -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for folder in folders:
            root = folder.resolve()
            for path in sorted(_files(folder)):
                is_model_folder = models and (path / "model_index.json").is_file()
                if not is_model_folder and not (path.suffix.lower() in endings and path.is_file()):
                    continue
                inside = path.resolve()
                if inside.is_relative_to(root):  # a link that leads out is not listed
                    name = path.name if is_model_folder else path.stem
                    below = path.relative_to(folder)
                    listed = (below if is_model_folder else below.with_suffix("")).as_posix()
                    found.setdefault(name, Entry(name, inside, _preview(path), listed))
        return found

    return scan


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [path for _, path in zip(range(MOST_FILES), folder.rglob("*"), strict=False)]
    except OSError:
        return []


def _preview(path: Path) -> Path | None:
    """The picture that other programs keep beside a file."""
    for ending in (".preview.png", ".png", ".jpg", ".webp", ".preview.jpg"):
        found = path.with_suffix("") if path.is_file() else path
        candidate = found.with_name(found.name + ending)
        if candidate.is_file() and not candidate.is_symlink():
            return candidate
    return None


def trigger_words(path: Path, most: int = 12) -> list[str]:
    """Words that call a LoRA up, as its file says: its own phrase, else the most frequent tags of its training."""
    if path.suffix.lower() != ".safetensors":
        return []
    try:
        metadata = read_safetensors(path)[1]
    except (StableDiffusionError, OSError):
        return []
    phrase = metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return [phrase[:200]]
    counts: dict[str, int] = {}
    try:
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            for tag, count in tags.items():
                counts[str(tag).strip()[:80]] = counts.get(str(tag).strip()[:80], 0) + int(count)
    except (ValueError, TypeError, AttributeError):
        return []
    return [tag for tag, _ in sorted(counts.items(), key=lambda pair: -pair[1])[:most] if tag]

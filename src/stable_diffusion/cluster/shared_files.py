"""Requests that leave this machine: the files that they name go into the store, and come out on the other machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..events import Event, Images
from ..request.control import Control
from ..request.lora import Lora
from ..request.request import Request
from .models import LocalModels, ModelStore, StoredFile

PATHS = ("model", "refiner", "loras", "controls", "lora_dir", "embeddings_dir", "prompting")
"""Fields of a request that may hold paths."""
_TAG = re.compile(r"<(?:lora|lyco|hypernet):([^:<>\n]+)")


@dataclass(frozen=True)
class StoredTree:
    """A file, or a folder of them by the path in it; `name` is that of the file or folder."""

    name: str
    files: tuple[tuple[str, StoredFile], ...]
    is_folder: bool


@dataclass(frozen=True)
class SharedRequest:
    """A request, and what is behind each path in it."""

    request: Request
    trees: tuple[tuple[str, StoredTree], ...]

    def placed(self, models: LocalModels) -> Request:
        """The request with paths of this machine; missing files are copied here first."""
        digests = {file.digest for _, tree in self.trees for _, file in tree.files}
        places = {path: str(_place(tree, models, digests)) for path, tree in self.trees}
        return with_paths(self.request, places)


class SharedFiles:
    """Puts what requests name into a store."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store

    def shared(self, request: Request) -> SharedRequest:
        """The request and its files. InvalidRequest where one cannot be read."""
        trees = {path: self._tree(path, wanted) for path, wanted in _paths_of(request)}
        return SharedRequest(request, tuple(trees.items()))

    def _tree(self, path: str, wanted: frozenset[str] | None) -> StoredTree:
        place = Path(path)
        if not place.is_dir():
            return StoredTree(place.name, ((place.name, self.store.add(place)),), is_folder=False)
        inside = sorted(each for each in place.rglob("*") if each.is_file())
        kept = [each for each in inside if wanted is None or each.stem.casefold() in wanted]
        files = ((each.relative_to(place).as_posix(), self.store.add(each)) for each in kept)
        return StoredTree(place.name, tuple(files), is_folder=True)


def with_paths(request: Request, places: dict[str, str]) -> Request:
    """The request with other paths in the place of those that are keys of `places`."""

    def at(path: Any) -> Any:
        found = places.get(str(path))
        return path if found is None else type(path)(found)

    prompting, refiner = request.prompting, request.refiner
    return replace(
        request,
        model=at(request.model),
        refiner=None if refiner is None else replace(refiner, model=at(refiner.model)),
        loras=tuple(replace(each, path=at(each.path)) for each in request.loras),
        controls=tuple(
            replace(each, path=at(each.path), image_encoder=at(each.image_encoder)) for each in request.controls
        ),
        lora_dir=at(request.lora_dir),
        embeddings_dir=at(request.embeddings_dir),
        prompting=replace(prompting, wildcards_dir=at(prompting.wildcards_dir), styles_file=at(prompting.styles_file)),
    )


def with_own_paths(event: Event, original: Request) -> Event:
    """An event of another machine with the paths of this one."""
    if not isinstance(event, Images):
        return event
    requests = []
    for each in event.requests:
        own = {name: getattr(original, name) for name in PATHS if name != "prompting"}
        prompting = replace(
            each.prompting,
            wildcards_dir=original.prompting.wildcards_dir,
            styles_file=original.prompting.styles_file,
        )
        requests.append(replace(each, **own, prompting=prompting))
    return replace(event, requests=tuple(requests))


def _paths_of(request: Request) -> Iterator[tuple[str, frozenset[str] | None]]:
    """Paths that exist here, with the names (without ending) that are wanted of a folder; None is all of it."""
    loras: tuple[Lora, ...] = request.loras
    controls: tuple[Control, ...] = request.controls
    prompts = f"{request.prompt}\n{request.negative_prompt}"
    styles, wildcards = request.prompting.styles_file, request.prompting.wildcards_dir
    names = None if styles is not None or "__" in prompts else frozenset(map(_folded, _TAG.findall(prompts)))
    found: list[tuple[Any, frozenset[str] | None]] = [(request.model, None)]
    found += [(None if request.refiner is None else request.refiner.model, None)]
    found += [(each.path, None) for each in loras]
    found += [(each.path, None) for each in controls] + [(each.image_encoder, None) for each in controls]
    found += [(request.lora_dir, names), (request.embeddings_dir, None), (wildcards, None), (styles, None)]
    for path, wanted in found:
        if path is not None and Path(path).exists():
            yield str(path), wanted


def _folded(name: str) -> str:
    return Path(name.strip()).stem.casefold() if Path(name.strip()).suffix else name.strip().casefold()


def _place(tree: StoredTree, models: LocalModels, digests: set[str]) -> Path:
    """A file of the cache, or a folder in it."""
    if not tree.is_folder:
        return models.fetch(tree.files[0][1], digests)
    return models.fetch_folder(tree.name, tree.files, digests)

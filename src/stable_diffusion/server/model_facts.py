"""What a model of the list is, from its header alone: size, steps and sampler it was made for, family, grid."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters.file import read_adapter
from ..embedded import fast_path, model_path
from ..errors import StableDiffusionError
from ..models.mmdit import MMDiTConfig
from ..models.unet import UNetConfig
from ..models.vae import VAEConfig
from ..pipeline.models import EMBEDDED_FAST
from ..weights.containers.hashes import SHORT, known_sha256
from ..weights.load import read_blueprint
from ..weights.parts import Defaults
from .library import Entry


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model's family, what it was made for, and its grid: sides are multiples of `factor`, those of edges that meet
    and of windows of `coarse`. `problem` says why a file cannot be used; None where it can."""

    family: str = ""
    label: str = ""
    defaults: Defaults = field(default_factory=Defaults)
    factor: int = 8
    coarse: int = 64
    alpha: bool = False
    problem: str | None = None


class FactsOfModels:
    """Facts by file, read again when the file changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], ModelFacts] = {}
        self._hashes: dict[tuple[str, int, int], str | None] = {}
        self._lock = threading.Lock()

    def of(self, entry: Entry) -> ModelFacts:
        """The facts of a model of the list; never an error."""
        key = _key(entry)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = _read(entry)
            with self._lock:
                self._known[key] = found
        return found

    def short_hash(self, entry: Entry) -> str | None:
        """The first ten digits of its sha256, as A1111 shows them; None for folders. Reads the whole file once."""
        path, key = _file(entry), _key(entry)
        with self._lock:
            if key in self._hashes:
                return self._hashes[key]
        found = known_sha256(path)[:SHORT] if path is not None and path.is_file() else None
        with self._lock:
            self._hashes[key] = found
        return found


def _file(entry: Entry) -> Path | None:
    """The file that says who the model is."""
    if entry.path is not None:
        return entry.path
    return fast_path() if entry.name == EMBEDDED_FAST else model_path()


def _key(entry: Entry) -> tuple[str, int, int]:
    path = _file(entry)
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return (entry.name, 0 if stat is None else stat.st_mtime_ns, 0 if stat is None else stat.st_size)


def _read(entry: Entry) -> ModelFacts:
    try:
        path = model_path() if entry.path is None else entry.path
        if path is None:
            return ModelFacts(problem="this installation has no embedded model")
        found = read_blueprint(path)
        network, vae = found.networks["unet"].config, found.networks["vae"].config
        coarse = 2
        if isinstance(network, MMDiTConfig):
            coarse = network.patch_size
        elif isinstance(network, UNetConfig):
            coarse = 2 ** (len(network.channels) - 1)
        return ModelFacts(
            family=found.family,
            label=found.label,
            defaults=_fast(found.defaults) if entry.name == EMBEDDED_FAST and entry.path is None else found.defaults,
            factor=found.latents.downscale,
            coarse=found.latents.downscale * coarse,
            alpha=isinstance(vae, VAEConfig) and vae.image_channels == 4,
        )
    except (StableDiffusionError, OSError) as error:
        return ModelFacts(problem=str(error))


def _fast(base: Defaults) -> Defaults:
    """What the few-step model was made for, as its file says."""
    path = fast_path()
    if path is None:
        return base
    said = read_adapter(path).metadata
    return Defaults(
        width=base.width,
        height=base.height,
        steps=int(said.get("steps", base.steps)),
        guidance=float(said.get("guidance", base.guidance)),
        sampler=said.get("sampler", base.sampler),
        schedule=said.get("schedule", base.schedule),
    )

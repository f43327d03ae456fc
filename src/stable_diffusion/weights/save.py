"""Writing a model as a diffusers folder, complete: configs, weights, tokenizers, scheduler and index.

What is written appears when it is complete: under a temporary name beside its place, which it takes at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import InvalidRequest, ModelFileError
from .checkpoints.folder import INDEX, SCHEDULER, TOKENIZER
from .checkpoints.save_folder import components, index_words, text_folders_of
from .checkpoints.scheduler import schedule_to_words
from .containers.safetensors_writer import write_safetensors
from .parts import Parts, TokenizerSource

WriteTokenizer = Callable[[Path, TokenizerSource], None]
"""(folder to write, where the tokenizer comes from)."""


def save_folder(
    place: Path,
    parts: Parts,
    write_tokenizer: WriteTokenizer,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> None:
    """Write `parts` to the new folder `place`; `dtype` None keeps each tensor's own, `variant` goes into file names.

    `scheduler` is a scheduler_config.json to keep; None writes that of the model's family.

    InvalidRequest where diffusers has no words for the model, ModelFileError where the disk refuses.
    """
    networks = components(parts)
    scheduler = schedule_to_words(parts) if scheduler is None else scheduler
    tokenizers = {part.replace("text_encoder", "tokenizer"): source for part, _, source in text_folders_of(parts)}
    if parts.t5 is not None and parts.tokenizer3 is not None:
        tokenizers[TOKENIZER] = parts.tokenizer3
    dotted = "" if variant is None else f".{variant}"
    with atomic_folder(place) as folder:
        for part, network in networks.items():
            _write_json(folder / part / "config.json", network.config)
            file = folder / part / f"{network.stem}{dotted}.safetensors"
            write_safetensors(file, network.state, {"format": "pt"}, dtype=dtype)
        for part, source in tokenizers.items():
            write_tokenizer(folder / part, source)
        _write_json(folder / SCHEDULER, scheduler)
        _write_json(folder / INDEX, index_words(parts, networks, str(scheduler["_class_name"]), tuple(tokenizers)))


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A new folder that becomes `place` once the block is through, and vanishes on any error."""
    temporary = place.parent / f".{place.name[:40]}.{secrets.token_hex(6)}.part"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if os.path.lexists(place):
            raise InvalidRequest(f"{str(place)!r} exists; give a name that is free")
        os.rename(temporary, place)
    except OSError as error:
        raise ModelFileError(
            f"{place} could not be written ({error.strerror or error}); nothing was changed"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

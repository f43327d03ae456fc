"""Writing a model as a diffusers folder, complete: configs, weights, tokenizers, scheduler and index.

What is written appears when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .checkpoints.folder import INDEX, SCHEDULER, TOKENIZER
from .checkpoints.save_folder import components, index_words, text_folders_of
from .checkpoints.scheduler import schedule_to_words
from .containers.atomic import atomic_folder
from .containers.safetensors import write_safetensors
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


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

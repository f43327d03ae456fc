"""Text encoders of Stable Diffusion 3 that are files of their own: found beside the model's file.

Most single files of 3 and all of 3.5 hold the transformer and the autoencoder alone. Their makers publish beside them a
folder `text_encoders/` with clip_l, clip_g and t5xxl as files, and T5's vocabulary in `tokenizer_3/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..containers.open import read_tensors
from ..containers.tensors import TensorFile
from .families import SD3_CLIP_G, SD3_CLIP_L, SD3_T5

FOLDER = "text_encoders"
TOKENIZER = "tokenizer_3"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
NAMES: dict[str, tuple[str, ...]] = {
    SD3_CLIP_L.prefix: ("clip_l",),
    SD3_CLIP_G.prefix: ("clip_g",),
    SD3_T5: ("t5xxl", "t5xxl_fp16", "t5xxl_bf16", "t5xxl_fp8_e4m3fn_scaled", "t5xxl_fp8_e4m3fn"),
}
"""Prefix in a whole file -> names of the file that holds this text encoder alone, the best first."""
Folder = str | os.PathLike[str]


def holds_texts(folder: Path) -> bool:
    """Whether a folder has text encoders as files of these names."""
    return any((folder / f"{name}.safetensors").is_file() for names in NAMES.values() for name in names)


def places(file: Path, folder: Folder | None) -> Iterator[Path]:
    """Where text encoders of a model file are looked for: `folder`, `text_encoders/` beside the file, and beside it."""
    if folder is not None:
        yield Path(folder)
    yield from (file.parent / FOLDER, file.parent)


def with_texts(tensors: TensorFile, folder: Folder | None, *, t5: bool) -> tuple[TensorFile, tuple[str, ...]]:
    """The file with the text encoders that it lacks under the names of a whole file, and which were read from where.

    `t5` False leaves out T5. What is found nowhere stays missing; recognition says what it needs.
    """
    added: dict[str, tuple[TensorFile, str]] = {}
    notes = []
    for prefix, names in NAMES.items():
        if any(name.startswith(prefix) for name in tensors) or (prefix == SD3_T5 and not t5):
            continue
        candidates = (place / f"{name}.safetensors" for place in places(tensors.path, folder) for name in names)
        found = next((path for path in candidates if path.is_file()), None)
        if found is not None:
            text, _ = read_tensors(found)
            added.update({prefix + name: (text, name) for name in text})
            notes.append(f"the text encoder {names[0]} is {found}, since the file has none")
    if not added:
        return tensors, ()
    infos = {name: tensors.info(name) for name in tensors}
    infos.update({name: file.info(short) for name, (file, short) in added.items()})

    def read(name: str) -> Tensor:
        file, short = added.get(name, (tensors, name))
        return file[short]

    return TensorFile(tensors.path, infos, read, kind=tensors.kind), tuple(notes)


def t5_tokenizer(file: Path, folder: Folder | None) -> Path | None:
    """The folder of T5's vocabulary beside a model file or its text encoders; None where there is none."""
    around = [*places(file, folder), *(place / TOKENIZER for place in places(file, folder))]
    found = (place for place in around if any((place / name).is_file() for name in TOKENIZER_FILES))
    return next(found, None)

"""The files of a `tokenizer/` folder: CLIP's vocabulary as transformers reads it, or copies of another folder's."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

from .tokenizer import CLIP_CONTEXT, END, START, clip_tables

FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer files of `source` into the folder `folder`, which is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_clip_tokenizer(folder: Path, pad_token_id: int | None) -> None:
    """CLIP's vocabulary into the new folder `folder`; it is filled up with `pad_token_id` (None: the end token)."""
    folder.mkdir(parents=True)
    vocabulary, merges = _clip_texts()
    pad = END if pad_token_id is None else _clip_token(pad_token_id)
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {
        **marks,
        "add_prefix_space": False,
        "do_lower_case": True,
        "model_max_length": CLIP_CONTEXT,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


@functools.cache
def _clip_texts() -> tuple[str, str]:
    """What is in vocab.json and merges.txt."""
    vocabulary, merges = clip_tables()
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return json.dumps(vocabulary, ensure_ascii=False), "\n".join(lines) + "\n"


@functools.cache
def _clip_token(index: int) -> str:
    return next(token for token, found in clip_tables()[0].items() if found == index)

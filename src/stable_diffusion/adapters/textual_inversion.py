"""Textual inversion: new words, each one or more vectors that stand where tokens of text stand.

Source: Gal et al. 2022, "An image is worth one word". Layouts: A1111 (`string_to_param` with one tensor, in a pickle or
a safetensors file), safetensors with `emb_params`, diffusers (one tensor under the token's name), files for models with
two text encoders (`clip_l` and `clip_g`, or `text_encoders_0` and `text_encoders_1` in a .pti of pivotal tuning), and
words bundled with a LoRA (`bundle_emb.WORD.` before any of these, as OneTrainer, kohya and A1111 write and read them).
A pickle is read by our own reader, which runs nothing.

Shapes: n vectors of the text encoder's width D.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BrokenModel, UnknownModel, brief
from ..weights.containers.hashes import sha256
from ..weights.containers.open import model_file, read_tensors
from ..weights.containers.tensors import TensorFile
from ..weights.identify import identify

MOST_VECTORS = 256
TWO_ENCODERS = {"clip_l": "clip_l", "clip_g": "clip_g", "text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
"""Names of tensors that are made for one text encoder -> what we call it."""
A1111 = "string_to_param."
BUNDLED = "bundle_emb."
BUNDLED_WORD = re.compile(r"bundle_emb\.(.+?)\.(string_to_param\..+|emb_params|clip_l|clip_g)", re.DOTALL)
"""(word, what its tensor is) of words bundled with a LoRA."""
PIVOTAL_WORDS = "special_params.json"
"""Beside a .pti: {"TOK": "<s0><s1>"}, the word of a prompt and the tokens that it stands for."""


@dataclass(frozen=True)
class Embedding:
    """`vectors`: what an encoder is called ("clip_l", "clip_g", "" where the file does not say) -> [n,D] in float32.

    `names` are the words that stand for it in a prompt: the file's name, and the one that the file gives itself.
    """

    path: Path
    names: tuple[str, ...]
    vectors: Mapping[str, Tensor] = field(repr=False)

    @property
    def hash(self) -> str:
        """sha256 of the file; pictures carry the first 12 digits."""
        return sha256(self.path)

    def fitting(self, widths: Sequence[int]) -> Tensor:
        """[n, sum of widths] for a model whose text encoders have these widths, side by side.

        One encoder takes the vectors that have its width; two take `clip_l` and `clip_g`. BrokenModel names the widths
        where they do not fit.
        """
        candidates = [self.vectors[name] for name in ("clip_l", "clip_g", "") if name in self.vectors]
        if len(widths) == 1:
            candidates = [vectors for vectors in candidates if vectors.shape[1] == widths[0]][:1]
        found = [vectors.shape[1] for vectors in candidates]
        if found != list(widths) or len({vectors.shape[0] for vectors in candidates}) != 1:
            ours = " and ".join(map(str, widths))
            theirs = " and ".join(str(vectors.shape[1]) for vectors in self.vectors.values())
            encoders = "text encoder has" if len(widths) == 1 else "text encoders have"
            raise BrokenModel(f"{self.path} is an embedding of width {theirs}; this model's {encoders} width {ours}")
        return torch.cat(candidates, dim=1)


def embedding_tensors(tensors: TensorFile) -> tuple[dict[str, str], str]:
    """(text encoder -> name of its tensor, the word that the file itself uses or an empty text); no encoder where the
    file is no embedding. The encoder is an empty text where the file does not say it.

    A1111: `string_to_param` holds one tensor; others: `emb_params`, one tensor under its token, or `clip_l`/`clip_g`.
    """
    two = {encoder: name for name, encoder in TWO_ENCODERS.items() if _vectors(tensors, name)}
    if two:
        return two, ""
    first = next((name for name in tensors if name.startswith(A1111)), "emb_params")
    if first in tensors:
        return {"": first}, ""
    name = next(iter(tensors), "")
    if len(tensors) == 1 and _vectors(tensors, name) and not name.endswith((".weight", ".bias", ".alpha")):
        return {"": name}, name
    return {}, ""


def _vectors(tensors: TensorFile, name: str) -> bool:
    shape = tensors.shape(name)
    return shape is not None and 1 <= len(shape) <= 2


def read_embedding(path: str | os.PathLike[str], name: str | None = None) -> Embedding:
    """The embedding in a file, under `name` where one is given.

    Raises ModelFileError where the file is damaged, and UnknownModel where it is something else.
    """
    file = model_file(path)
    tensors, metadata = read_tensors(file)
    found, token = embedding_tensors(tensors)
    if not found:
        kind = identify({each: tensors.info(each).shape for each in tensors}, metadata)
        if kind is not None and "embedding" in kind:
            raise UnknownModel(
                f"{file} has {len(tensors)} words, {brief(', '.join(tensors))}; a file of one is expected"
            )
        raise UnknownModel(f"{file} is {kind or 'no file that is known here'}; expected a textual inversion embedding")
    vectors = {encoder: _checked(tensors, key) for encoder, key in found.items()}
    own = [metadata.get("name", "") if next(iter(found.values())).startswith(A1111) else "", token]
    if "text_encoders_0" in tensors or "text_encoders_1" in tensors:
        own += _pivotal_words(file, next(iter(vectors.values())).shape[0])
    names = (name,) if name is not None else tuple(dict.fromkeys([file.stem, *(each for each in own if each.strip())]))
    return Embedding(file, names, vectors)


def _pivotal_words(file: Path, count: int) -> list[str]:
    """What stands for the vectors of a .pti: its tokens <s0><s1> ..., and the word that the file beside it has."""
    tokens = "".join(f"<s{index}>" for index in range(count))
    beside = file.with_name(PIVOTAL_WORDS)
    try:
        said = json.loads(beside.read_text(encoding="utf-8")) if 0 < beside.stat().st_size < 2**16 else {}
    except (OSError, ValueError, RecursionError):
        said = {}
    words = [word for word, stands in said.items() if stands == tokens] if isinstance(said, dict) else []
    return [tokens, *words]


def bundled_words(tensors: TensorFile) -> tuple[tuple[Embedding, ...], list[str]]:
    """(the words that a LoRA brings along, names of tensors that are bundled and cannot be used: vectors for T5, and
    those that OneTrainer adds to what a text encoder puts out)."""
    words: dict[str, dict[str, str]] = {}
    unread: list[str] = []
    for name in tensors:
        if not name.startswith(BUNDLED):
            continue
        match = BUNDLED_WORD.fullmatch(name)
        if match is None:
            unread.append(name)
        else:
            words.setdefault(match[1], {})[TWO_ENCODERS.get(match[2], "")] = name
    return tuple(
        Embedding(tensors.path, (word,), {encoder: _checked(tensors, name) for encoder, name in names.items()})
        for word, names in words.items()
    ), unread


def _checked(tensors: TensorFile, name: str) -> Tensor:
    """The tensor as [n,D] in float32, finite and of a sensible size."""
    info = tensors.info(name)
    shape = info.shape if len(info.shape) == 2 else (1, *info.shape)
    if len(shape) != 2 or not info.dtype.is_floating_point or not 1 <= shape[0] <= MOST_VECTORS or not shape[1]:
        raise BrokenModel(
            f"{tensors.path}: {name[:80]!r} is {info.dtype} of shape {list(info.shape)}; expected 1 to {MOST_VECTORS} "
            "vectors of floats"
        )
    vectors = tensors[name].reshape(shape).to(torch.float32, copy=True)
    if not bool(torch.isfinite(vectors).all()):
        raise BrokenModel(f"{tensors.path}: {name[:80]!r} holds numbers that are not finite")
    return vectors

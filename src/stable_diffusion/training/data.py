"""What is trained on: a choice from a data pack, captions as token ids, and an order of samples that has no state.

Legend: N records, B batch, S picture size in the pack, R training size, T context length.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stable_diffusion.data.pack import TOKENIZER, Pack, Record
from stable_diffusion.errors import InvalidRequest, unknown_choice
from stable_diffusion.training.config import DataConfig

START, END = "<|startoftext|>", "<|endoftext|>"


class TrainingPack(Pack):
    """A data pack of which a config says what is trained on, and how often each picture is drawn."""

    def select(self, config: DataConfig, split: str = "train") -> NDArray[np.int64]:
        """Indices of the records of `split` that the config keeps, in pack order; at least one, or InvalidRequest."""
        concepts = self._concepts(config.concepts)
        for name in config.shards:
            if name not in self.shard_names:
                raise unknown_choice("shard of the data pack", name, self.shard_names)
        keep = [
            index
            for index, record in enumerate(self.records)
            if record.split == split
            and (not config.kinds or record.kind in config.kinds)
            and (not config.styles or record.style in config.styles)
            and (concepts is None or record.concept in concepts)
            and (not config.shards or self.shard_names[record.shard] in config.shards)
            and record.style not in config.exclude_styles
        ]
        if not keep:
            raise InvalidRequest(f"the data pack {self.folder} has no {split!r} record that the [data] filter keeps")
        return np.array(keep[: config.limit] if config.limit else keep, dtype=np.int64)

    def _concepts(self, patterns: Sequence[str]) -> set[str] | None:
        """The concepts that the patterns name, None without patterns; InvalidRequest for a pattern that names none."""
        if not patterns:
            return None
        known = {record.concept for record in self.records}
        chosen: set[str] = set()
        for pattern in patterns:
            found = {pattern} & known or set(fnmatch.filter(known, pattern))
            if not found:
                raise unknown_choice("concept of the data pack", pattern, sorted(known))
            chosen |= found
        return chosen

    def weights(self, indices: NDArray[np.int64], config: DataConfig) -> NDArray[np.float64]:
        """Relative draw rate of each record: the product of the weights of what it is called.

        A record is called by its kind, style, source, concept and shard; names may hold * and ? (as in file names).
        """
        names = [self._names(record) for record in self.records]
        known = {name for group in names for name in group}
        table: dict[str, float] = dict.fromkeys(known, 1.0)
        for pattern, weight in config.weights.items():
            found = fnmatch.filter(known, pattern)
            if not found:
                raise InvalidRequest(
                    f"data.weights.{pattern}: no record of the pack has that kind, style, source, concept or shard"
                )
            for name in found:
                table[name] *= weight
        return np.array([math.prod(table[name] for name in names[index]) for index in indices], dtype=np.float64)

    def _names(self, record: Record) -> set[str]:
        return {record.kind, record.style, record.source, record.concept, self.shard_names[record.shard]}

    def pictures(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of the pictures, uint8 [B,S,S,4], straight alpha."""
        return self.rows([self.records[int(index)] for index in indices])


def to_network(pictures: Tensor, size: int) -> Tensor:
    """uint8 [B,S,S,4] straight alpha -> float32 [B,4,R,R] in [-1,1], premultiplied, area-averaged to R = `size`.

    Averaging happens after premultiplication, so invisible colours never bleed into edges.
    """
    image = pictures.permute(0, 3, 1, 2).float() / 255.0  # [B, 4, S, S]
    alpha = image[:, 3:]
    image = torch.cat([image[:, :3] * alpha, alpha], dim=1)
    if image.shape[-1] != size:
        image = F.interpolate(image, size=(size, size), mode="area")
    return image * 2.0 - 1.0


def to_pictures(image: Tensor, background: float | None = None) -> NDArray[np.uint8]:
    """[B,4,R,R] premultiplied in [-1,1] -> uint8 [B,R,R,4] straight alpha, or [B,R,R,3] over a grey `background`."""
    image = (image.detach().float().cpu().clamp(-1, 1) + 1) / 2
    colour, alpha = image[:, :3], image[:, 3:]
    if background is not None:
        image = colour + (1 - alpha) * background
    else:
        image = torch.cat([torch.where(alpha > 1 / 512, colour / alpha.clamp(min=1 / 512), colour), alpha], dim=1)
    array: NDArray[np.uint8] = (image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return array


class Order:
    """Which record sample number p is: a function of (seed, p) alone, so a resumed run sees what an unbroken one sees.

    An epoch has round(sum of weights) samples drawn by systematic resampling (every record
    floor or ceil of its weight times), then shuffled; epochs differ by their number.
    """

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        if len(weights) == 0 or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            raise InvalidRequest("sampling weights must be finite, not negative, and not all zero")
        self.edges = np.cumsum(weights)
        self.length = max(1, round(float(self.edges[-1])))
        self.seed = seed
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Positions [length] into the weights, in the order of epoch `number`."""
        if self._epoch is None or self._epoch[0] != number:
            random = np.random.default_rng([self.seed, 1, number])
            marks = (np.arange(self.length) + random.random()) / self.length * self.edges[-1]
            drawn = np.searchsorted(self.edges, marks, side="right").clip(max=len(self.edges) - 1)
            self._epoch = (number, random.permutation(drawn))
        return self._epoch[1]

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Rows of this rank in the global batch of `size` samples at `step` (size must be a multiple of world)."""
        share = size // world
        first = step * size + rank * share
        positions = np.arange(first, first + share)
        return np.array([self.epoch(int(p) // self.length)[int(p) % self.length] for p in positions], dtype=np.int64)


class Captions:
    """All captions of a selection as token ids, one table for both languages.

    ids [captions, T] int32; spans[record] = (english start, end, chinese start, end) into it; texts in the same order.
    """

    def __init__(self, pack: TrainingPack, indices: NDArray[np.int64], tokenizer: Any, context_length: int) -> None:
        self.texts: list[str] = []
        spans = []
        for index in indices:
            record = pack.records[int(index)]
            start = len(self.texts)
            self.texts.extend(record.english)
            middle = len(self.texts)
            self.texts.extend(record.chinese)
            spans.append((start, middle, middle, len(self.texts)))
        self.spans = np.array(spans, dtype=np.int64)
        self.ids = torch.from_numpy(encode_texts(tokenizer, self.texts, context_length))
        self.empty = torch.from_numpy(encode_texts(tokenizer, [""], context_length))[0]

    def choose(
        self, rows: NDArray[np.int64], *, seed: int, step: int, first: int, chinese: float, dropout: float
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """(token ids [B,T] int64, caption numbers [B], -1 for none) for `rows`, the samples first.. of batch `step`.

        The choice depends on (seed, step, position in the global batch) only.
        """
        random = np.random.default_rng([seed, 2, step]).random((first + len(rows), 3))[first:]
        english_start, english_end, chinese_start, chinese_end = self.spans[rows].T
        has_english, has_chinese = english_end > english_start, chinese_end > chinese_start
        use_chinese = has_chinese & ((random[:, 0] < chinese) | ~has_english)
        start = np.where(use_chinese, chinese_start, english_start)
        count = np.where(use_chinese, chinese_end, english_end) - start
        numbers = start + np.floor(random[:, 1] * count).astype(np.int64)
        numbers = np.where((count == 0) | (random[:, 2] < dropout), -1, numbers)
        ids = self.ids[torch.from_numpy(numbers.clip(min=0))]
        ids = torch.where(torch.from_numpy(numbers < 0)[:, None], self.empty, ids)
        return ids.long(), numbers

    def english_twin(self, record_row: int, number: int) -> int:
        """The caption number whose meaning `number` has: itself, or for a Chinese one its English counterpart."""
        english_start, english_end, chinese_start, _ = (int(value) for value in self.spans[record_row])
        if number < chinese_start or english_end == english_start:
            return number
        return english_start + (number - chinese_start) % (english_end - english_start)


def load_tokenizer(folder: str | Path) -> Any:
    """The pack's tokenizer.json as a `tokenizers.Tokenizer`."""
    from tokenizers import Tokenizer

    path = Path(folder) / TOKENIZER
    if not path.is_file():
        raise InvalidRequest(f"the data pack {folder} has no tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InvalidRequest(f"{path} is not a tokenizer: {error}") from None


def special_ids(tokenizer: Any) -> tuple[int, int]:
    """Ids of the start and end tokens."""
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    if start is None or end is None:
        raise InvalidRequest(f"the tokenizer has no {START} or {END} token")
    return int(start), int(end)


def encode_texts(tokenizer: Any, texts: Sequence[str], context_length: int) -> NDArray[np.int32]:
    """Token ids int32 [len(texts), T]: start, pieces (cut to fit), end, then padding with end."""
    start, end = special_ids(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    out = np.full((len(texts), context_length), end, dtype=np.int32)
    for row, encoding in zip(out, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        pieces = encoding.ids[: context_length - 2]
        row[0] = start
        row[1 : 1 + len(pieces)] = pieces
    return out

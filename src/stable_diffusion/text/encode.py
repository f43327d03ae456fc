"""Prompts to conditioning: windows of one context length, attention weights, the layer to read, and a report.

A prompt longer than one window is read as several (A1111's way): each window is encoded by itself and the outputs lie
side by side, so that cross-attention sees them all. A window that is full breaks after its last comma where one is
near, and `BREAK` starts a new one.

Shapes: T tokens in a window (77 for CLIP), n windows, D token width, P pooled width.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..errors import InvalidRequest, unknown_choice, what_is
from ..models.clip import CLIPText
from ..types import Conditioning
from .embeddings import NewWords
from .prompt import Span, parse_prompt, plain_prompt
from .tokenizer import Piece, Tokenizer
from .windows import Window, split_windows

Emphasis = Literal["restore_mean", "from_empty", "no_norm", "ignore", "none"]
EMPHASES: tuple[Emphasis, ...] = ("restore_mean", "from_empty", "no_norm", "ignore", "none")
MAX_WEIGHT = 100.0


class Word(NamedTuple):
    """A word of a prompt and the places of its tokens in `Conditioning.tokens`."""

    text: str
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt as the denoiser gets it (one row), and how it was read.

    `tokens` counts the tokens of text that were used, `dropped` is the text that was cut off (empty unless the number
    of windows was limited).
    """

    conditioning: Conditioning
    windows: tuple[Window, ...]
    tokens: int
    dropped: str = ""

    def note(self) -> str | None:
        """One plain sentence where the prompt did not fit in one window, else None."""
        if self.dropped:
            return f"the prompt is too long: {self.tokens} tokens were used and this was dropped: {self.dropped!r}"
        if len(self.windows) > 1:
            return f"the prompt's {self.tokens} tokens were read in {len(self.windows)} windows; nothing was dropped"
        return None


class TextEncoder:
    """The text part of a model, usable alone: `text_encoder("a cat")` -> Conditioning.

    `layer` is the hidden layer that the model reads (-1 last, -2 the one before), passed through the final norm unless
    `final_norm` says otherwise. `zero_empty` says that an empty negative prompt is all zeros.
    `vector` says that the pooled sentence is also added to the time embedding. `emphasis` says how weights act:

    restore_mean   tokens times their weight, then the window scaled back to its old mean (A1111; for CLIP)
    from_empty     empty + weight (token - empty), with `empty` the empty prompt's token at the same place (ComfyUI; for
                   encoders whose outputs have mean zero, where there is no mean to restore)
    no_norm        tokens times their weight      ignore   the signs are read, and do nothing
    none           the weighting signs are plain text

    `embeddings` are words beyond the vocabulary: name -> vectors [n,D] that stand where its tokens would. `others` are
    encoders that read the same prompt (SDXL).
    """

    others: tuple[TextEncoder, ...] = ()

    def __init__(
        self,
        clip: CLIPText,
        tokenizer: Tokenizer,
        *,
        layer: int = -1,
        vector: bool = False,
        emphasis: Emphasis = "restore_mean",
        final_norm: bool = True,
        zero_empty: bool = False,
    ) -> None:
        if emphasis not in EMPHASES:
            raise unknown_choice("emphasis", emphasis, EMPHASES)
        self.clip, self.tokenizer = clip, tokenizer
        self.layer, self.vector = layer, vector
        self.emphasis: Emphasis = emphasis
        self.final_norm, self.zero_empty = final_norm, zero_empty
        self._new = NewWords({}, clip.config.vocab_size)

    @property
    def embeddings(self) -> Mapping[str, Tensor]:
        return self._new.vectors

    @embeddings.setter
    def embeddings(self, embeddings: Mapping[str, Tensor]) -> None:
        width = self.clip.config.width
        for name, vectors in embeddings.items():
            if not name.strip() or vectors.dim() != 2 or not vectors.shape[0] or vectors.shape[1] != width:
                raise InvalidRequest(
                    f"the embedding {name!r} has shape {list(vectors.shape)}; expected a name and [n, {width}]"
                )
        self._new = NewWords(embeddings, self.clip.config.vocab_size)

    def with_embeddings(self, more: Mapping[str, Tensor]) -> Self:
        """An encoder of the same networks that knows further words; of two with one name the newer is meant."""
        if not more:
            return self
        made = self._copy()
        made.embeddings = {**self.embeddings, **more}
        return made

    def with_emphasis(self, emphasis: Emphasis | None) -> Self:
        """An encoder of the same networks whose weights act in this way; None leaves the model's own."""
        if emphasis is None:
            return self
        made = self._copy()
        encoders: list[TextEncoder] = [made, *made.others]
        for encoder in encoders:
            encoder.emphasis = emphasis
        return made

    def with_networks(self, networks: Mapping[nn.Module, nn.Module]) -> Self:
        """An encoder that runs other networks in place of those of its own that are keys of `networks`."""
        if not networks:
            return self
        made = self._copy()
        encoders: list[TextEncoder] = [made, *made.others]
        for encoder in encoders:
            encoder.clip = networks.get(encoder.clip, encoder.clip)  # type: ignore[assignment]  # of the same class
        return made

    def _copy(self) -> Self:
        """The same encoder, which can be changed without this one being changed."""
        made = copy.copy(self)
        made.others = tuple(copy.copy(other) for other in self.others)
        return made

    def __call__(self, prompts: str | Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
        """One row per prompt; tokens [B, n T, D]. Prompts of fewer windows are filled up with empty ones."""
        prompts = listed_prompts(prompts)
        read = [self.windows(prompt) for prompt in prompts]
        most = max(len(windows) for windows in read)
        filled = [[*windows, *[Window((), ())] * (most - len(windows))] for windows in read]
        return Conditioning.cat([self._condition(windows, clip_skip) for windows in filled])

    def encode(
        self, prompt: str, *, clip_skip: int | None = None, max_windows: int | None = None, negative: bool = False
    ) -> EncodedPrompt:
        """One prompt with a report. `clip_skip` as A1111 counts: 1 the last layer, 2 the last but one, None the
        model's own choice. `max_windows` limits the length; what is cut off then is in `dropped`. `negative` says what
        the prompt is for: an empty one is all zeros in models that were trained so (see `zero_empty`)."""
        windows = self.windows(prompt)
        cut: list[Window] = []
        if max_windows is not None:
            if max_windows < 1:
                raise InvalidRequest(f"max_windows is {max_windows}; expected at least 1")
            windows, cut = windows[:max_windows], windows[max_windows:]
        conditioning = self._condition(windows, clip_skip)
        if negative and self.zero_empty and not prompt.strip():
            conditioning = conditioning.map(torch.zeros_like)
        return EncodedPrompt(
            conditioning=conditioning,
            windows=tuple(windows),
            tokens=sum(len(window.ids) for window in windows),
            dropped=self._text([i for window in cut for i in window.ids]),
        )

    def windows(self, prompt: str) -> list[Window]:
        """How the prompt falls into windows; at least one, which may be empty. InvalidRequest where it is no text."""
        if not isinstance(prompt, str):
            raise InvalidRequest(f"the prompt is {what_is(prompt)}; expected text")
        sections = plain_prompt(prompt) if self.emphasis == "none" else parse_prompt(prompt)
        comma = self.tokenizer.encode(",")
        windows: list[Window] = []
        for section in sections:
            weighted = [(i, span.weight) for span in section for i in self._ids(span)]
            windows += split_windows(
                weighted, self.tokenizer.capacity, comma[0] if len(comma) == 1 else None, self._new.goes_on
            )
        while len(windows) > 1 and not windows[-1].ids:
            windows.pop()
        return windows

    def words(self, prompt: str) -> list[Word]:
        """The words of a prompt and where their vectors lie in the conditioning's tokens, for heat maps."""
        plain = self.emphasis == "none"
        found: list[Word] = []
        number = 0  # of the token, counted over the whole prompt
        places = [
            n * self.tokenizer.context_length + 1 + i
            for n, w in enumerate(self.windows(prompt))
            for i in range(len(w.ids))
        ]
        for section in plain_prompt(prompt) if plain else parse_prompt(prompt):
            for segment in (segment for span in section for segment in self._new.split(span.text)):
                for text, count in self._counted(segment.text, segment.ids):
                    found.append(Word(text, tuple(places[number : number + count])))
                    number += count
        return found

    def _counted(self, text: str, ids: tuple[int, ...] | None) -> list[tuple[str, int]]:
        """(word, number of its tokens) of a run of text."""
        return split_words(text, self.tokenizer.pieces(text)) if ids is None else [(text, len(ids))]

    def _text(self, ids: Sequence[int]) -> str:
        """Readable text of ids, new words by their names."""
        runs: list[str] = []
        for new, run in itertools.groupby(ids, key=lambda i: i >= self.clip.config.vocab_size):
            same = list(run)
            names = " ".join(filter(None, map(self._new.name_of, same)))
            runs.append(names if new else self.tokenizer.decode(same))
        return " ".join(filter(None, runs))

    def hidden_layer(self, clip_skip: int | None) -> int:
        """The layer read for an A1111 clip skip (1 to the number of layers), or the model's own for None."""
        if clip_skip is None:
            return self.layer
        layers = self.clip.config.layers
        if not 1 <= clip_skip <= layers:
            raise InvalidRequest(
                f"clip_skip is {clip_skip}; expected 1 to {layers}, as the text encoder has {layers} layers"
            )
        # What a model does not norm was never meant to be the last layer's: 1 is its own choice there, as in A1111.
        return -clip_skip if self.final_norm else -max(clip_skip, -self.layer)

    def _ids(self, span: Span) -> list[int]:
        if not math.isfinite(span.weight) or abs(span.weight) > MAX_WEIGHT:
            raise InvalidRequest(
                f"the weight of {span.text[:40]!r} in the prompt is {span.weight:g}; "
                f"expected -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            )
        ids: list[int] = []
        for segment in self._new.split(span.text):
            ids += self.tokenizer.encode(segment.text) if segment.ids is None else segment.ids
        return ids

    @torch.no_grad()
    def _condition(self, windows: Sequence[Window], clip_skip: int | None) -> Conditioning:
        layer = self.hidden_layer(clip_skip)
        # Window by window: the encoding of one never depends on how many others run beside it.
        outputs = [self._window(window, layer) for window in windows]
        tokens = torch.cat([tokens for tokens, _ in outputs], dim=1)  # [1, n T, D]
        counts = [max(len(window.ids), 1) for window in windows] if any(w.ids for w in windows) else [1] * len(windows)
        shares = [count / sum(counts) for count in counts]
        pooled = outputs[0][1] if len(outputs) == 1 else sum_of(shares, [pooled for _, pooled in outputs])  # [1, P]
        return Conditioning(tokens=tokens, pooled=pooled, vector=pooled if self.vector else None)

    def _window(self, window: Window, layer: int) -> tuple[Tensor, Tensor]:
        ids = self._tensor(window.ids)
        table = self._new.table()
        extra = None if table is None else table.to(ids.device)
        features = self.clip(ids, layer=layer, final_norm=self.final_norm, extra=extra)
        if self.emphasis == "ignore" or all(weight == 1.0 for weight in window.weights):
            return features.tokens, features.pooled
        weights = [1.0, *window.weights]
        weights += [1.0] * (self.tokenizer.context_length - len(weights))
        factors = torch.tensor(weights, device=features.tokens.device)[None, :, None]  # [1, T, 1]
        if self.emphasis == "restore_mean":
            return restore_mean(features.tokens, factors), features.pooled
        if self.emphasis == "no_norm":
            return (features.tokens.float() * factors).to(features.tokens.dtype), features.pooled
        empty = self.clip(self._tensor(()), layer=layer, final_norm=self.final_norm).tokens
        return from_empty(features.tokens, empty, factors), features.pooled

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        device = self.clip.token_embedding.weight.device
        return torch.tensor([self.tokenizer.window(ids)], device=device)  # [1, T]


def split_words(text: str, pieces: Sequence[Piece]) -> list[tuple[str, int]]:
    """(word, number of its pieces): pieces that share a character, or that touch within a run of letters of a script
    that parts words by spaces, belong together."""
    words: list[list[int]] = []  # start, end, count
    for piece in pieces:
        last = words[-1] if words else None
        if last is not None and (
            piece.start < last[1]
            or (piece.start == last[1] and spaced(text[piece.start - 1 : piece.start]) and spaced(text[piece.start]))
        ):
            last[1], last[2] = max(last[1], piece.end), last[2] + 1
        else:
            words.append([piece.start, piece.end, 1])
    return [(text[start:end].strip(), count) for start, end, count in words]


def listed_prompts(prompts: str | Iterable[str]) -> list[str]:
    """One prompt or several as a list; InvalidRequest where they are none."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes) or hasattr(prompts, "shape"):
        raise InvalidRequest(f"the prompt is {what_is(prompts)}; expected text, or a list of texts")
    listed = list(prompts)
    if not listed:
        raise InvalidRequest("no prompts were given; expected at least one")
    return listed


def spaced(letter: str) -> bool:
    """Whether this is a letter or digit of a script that parts its words by spaces (below the CJK blocks)."""
    return letter.isalnum() and letter < "\u2e80"


def restore_mean(tokens: Tensor, factors: Tensor) -> Tensor:
    """Scale each token, then the window so that its mean is what it was (A1111's "Original" emphasis).

    tokens [1,T,D], factors [1,T,1]; in float32. Left unscaled where the new mean is too near zero to divide by.
    """
    before = tokens.float()
    after = before * factors
    mean = after.mean()
    if abs(float(mean)) > 1e-6:
        after = after * (before.mean() / mean)
    return after.to(tokens.dtype)


def from_empty(tokens: Tensor, empty: Tensor, factors: Tensor) -> Tensor:
    """empty + factor (token - empty): weight 0 means "as if nothing stood here"; tokens, empty [1,T,D]."""
    start = empty.float()
    return (start + (tokens.float() - start) * factors).to(tokens.dtype)


def sum_of(shares: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """Weighted sum, in the order given."""
    total = parts[0] * shares[0]
    for share, part in zip(shares[1:], parts[1:], strict=True):
        total = total + part * share
    return total

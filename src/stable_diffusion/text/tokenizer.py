"""Text to token ids, over the `tokenizers` library, never over the network.

Three sources: CLIP's own vocabulary (package data), the `tokenizer/` folder of a diffusers model, and the text of a
`tokenizer.json` that travels inside a model file. All three give the same small object.

CLIP's scheme (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", and the
reference tokenizer of openai/CLIP): NFC, white space collapsed, lower case, split into words, single digits and runs of
other signs, then byte-level BPE in which the last piece of a word ends in `</w>`. The optional `ftfy` repair of the
reference is left out, as it is in the tokenizers that Stable Diffusion tools use.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from ..errors import BrokenModel, ModelFileError, brief
from .tokenizer_limits import MOST_TOKENS, check_tokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
CLIP_CONTEXT = 77
SIZE_LIMIT = 16 * 2**20
"""Most bytes of a tokenizer's file; those of CLIP have under 4 MiB."""
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Piece:
    """One token of a text: its id and the characters text[start:end] that it stands for."""

    id: int
    start: int
    end: int


class Tokenizer:
    """Text to ids and back.

    `bos` and `eos` are the ids that open and close a prompt (T5 has no `bos`), `pad` fills the rest of the window, and
    `context_length` counts the window with `bos` and `eos` in it (77 for CLIP, so 75 tokens of text fit).
    """

    def __init__(
        self, backend: Backend, *, bos: int | None, eos: int, pad: int, context_length: int = CLIP_CONTEXT
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.bos, self.eos, self.pad = bos, eos, pad
        self.context_length = context_length

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self._backend.get_vocab_size())

    @property
    def highest(self) -> int:
        """The highest id that any token has; one less than `vocab_size` unless ids are left out."""
        return max(self._backend.get_vocab().values(), default=0)

    @property
    def capacity(self) -> int:
        """Tokens of text that fit in one window."""
        return self.context_length - len(self._opening) - 1

    @property
    def _opening(self) -> list[int]:
        return [] if self.bos is None else [self.bos]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without `bos`, `eos` or padding, however long it is."""
        return [int(i) for i in self._encoding(text).ids]

    def pieces(self, text: str) -> list[Piece]:
        """The same ids with the span of `text` each one covers (for heat maps and for saying what was dropped)."""
        encoding = self._encoding(text)
        return [Piece(int(i), int(s), int(e)) for i, (s, e) in zip(encoding.ids, encoding.offsets, strict=True)]

    def _encoding(self, text: str) -> Any:
        encoding = guarded(
            "the model's tokenizer cannot read a text", lambda: self._backend.encode(text, add_special_tokens=False)
        )
        if len(encoding.ids) > MOST_TOKENS * (len(text) + 1):
            raise BrokenModel(
                f"the model's tokenizer makes {len(encoding.ids)} tokens of {len(text)} characters; "
                f"expected at most {MOST_TOKENS} of each"
            )
        return encoding

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of `ids`; special tokens are left out."""
        kept = [i for i in ids if i not in (self.bos, self.eos, self.pad)]
        text: str = self._backend.decode(kept, skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip()

    def window(self, ids: Sequence[int]) -> list[int]:
        """One full window: bos where there is one, at most `capacity` ids, eos, padding.  # [context_length]"""
        if len(ids) > self.capacity:
            raise ValueError(f"{len(ids)} tokens do not fit in a window of {self.capacity}")
        body = [*self._opening, *ids, self.eos]
        return body + [self.pad] * (self.context_length - len(body))

    @classmethod
    def clip(cls, *, pad: int | None = None, context_length: int = CLIP_CONTEXT) -> Tokenizer:
        """CLIP's tokenizer from package data. `pad` is `eos` for SD 1.x (the default) and 0 for SD 2.x."""
        vocab, merges = clip_tables()
        return cls._from_tables(vocab, merges, pad=vocab[END] if pad is None else pad, context_length=context_length)

    @classmethod
    def from_folder(cls, folder: str | Path, *, context_length: int | None = None) -> Tokenizer:
        """The `tokenizer/` folder of a diffusers model: vocab.json and merges.txt, or tokenizer.json alone.

        The padding token is only padding: an SD 2.x folder pads with "!", yet a "!" in a prompt keeps the id that the
        text encoder was trained with (OpenCLIP's), not the padding id 0 that `transformers` gives it.
        Raises ModelFileError where neither is there, or where a file is malformed.
        """
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json", default={})
        special = {**config, **_read_json(folder / "special_tokens_map.json", default={})}
        pad = _token_text(special.get("pad_token"))
        if context_length is None:
            length = config.get("model_max_length", CLIP_CONTEXT)
            context_length = length if isinstance(length, int) and 2 < length <= 4096 else CLIP_CONTEXT
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocab = _read_json(folder / "vocab.json")
            merges = _parse_merges(_read_text(folder / "merges.txt"))
            missing = [token for token in (START, END, pad or END) if token not in vocab]
            if missing:
                raise BrokenModel(f"{folder / 'vocab.json'} lacks the token {missing[0]!r} that a CLIP vocabulary has")
            return cls._from_tables(vocab, merges, pad=vocab[pad or END], context_length=context_length)
        if (folder / "tokenizer.json").is_file():
            text = _read_text(folder / "tokenizer.json")
            return cls.from_json(text, pad=pad, context_length=context_length)
        raise ModelFileError(f"{folder} holds no tokenizer: expected vocab.json and merges.txt, or tokenizer.json")

    @classmethod
    def from_json(cls, text: str, *, pad: str | None = None, context_length: int = CLIP_CONTEXT) -> Tokenizer:
        """From `tokenizer.json` text with CLIP-like special tokens; `pad` is a token's text (the end token)."""
        check_tokenizer(text)
        backend = guarded("the tokenizer is not valid tokenizer.json text", lambda: Backend.from_str(text))
        ids: dict[str, int] = {}
        for token in (START, END, pad or END):
            index = backend.token_to_id(token)
            if index is None:
                raise BrokenModel(f"the tokenizer lacks the special token {token!r}")
            ids[token] = index
        return cls(backend, bos=ids[START], eos=ids[END], pad=ids[pad or END], context_length=context_length)

    @classmethod
    def _from_tables(
        cls, vocab: dict[str, int], merges: list[tuple[str, str]], *, pad: int, context_length: int
    ) -> Tokenizer:
        backend = _clip_backend(vocab, merges)
        return cls(backend, bos=vocab[START], eos=vocab[END], pad=pad, context_length=context_length)


def guarded(what: str, call: Callable[[], Any]) -> Any:
    """What a call of the library gives; BrokenModel, beginning with `what`, where it raises or panics."""
    try:
        return call()
    except BaseException as error:  # its own errors are bare Exceptions, its panics no Exceptions and without a name
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BrokenModel(f"{what}: {brief(error, 200)}") from None


def _clip_backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Backend:
    settings = {"continuing_subword_prefix": "", "end_of_word_suffix": WORD_END, "fuse_unk": False, "unk_token": END}
    model = guarded(  # a merge's parts may not be in the vocabulary
        "the tokenizer's vocabulary and merges do not fit each other",
        lambda: models.BPE(vocab=vocab, merges=merges, **settings),
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END)])
    return backend


@functools.cache
def clip_tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary follows from its merges: 256 bytes, the same with `</w>`, the merges in order, two marks."""
    packed = resources.files("stable_diffusion.text").joinpath("clip_vocab/merges.txt.gz").read_bytes()
    merges = _parse_merges(gzip.decompress(packed).decode("utf-8"))
    letters = byte_letters()
    tokens = [*letters, *(letter + WORD_END for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def byte_letters() -> list[str]:
    """The 256 printable letters by which byte-level BPE writes bytes (GPT-2's table), in CLIP's order of ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def _parse_merges(text: str) -> list[tuple[str, str]]:
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith("#version"))
    pairs = [tuple(line.split()) for line in lines]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise BrokenModel(f"a merge rule must be two pieces, not {' '.join(wrong)[:80]!r}")
    return [(pair[0], pair[1]) for pair in pairs]


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise BrokenModel(f"{path} has more than {SIZE_LIMIT} bytes; a file of a tokenizer is expected")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise BrokenModel(f"{path} cannot be read ({error.strerror or error})") from error


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.is_file():
        return default
    text = _read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenModel(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenModel(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _token_text(value: object) -> str | None:
    """`special_tokens_map.json` writes a token as text or as {"content": text, ...}."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None

"""T5's tokenizer: a unigram model over pieces of words (SentencePiece), from a folder's tokenizer.json or spiece.model.

Sources: Kudo 2018, "Subword regularization" (the unigram model); Kudo & Richardson 2018, "SentencePiece"; the published
message definitions of SentencePiece's model file; Raffel et al. 2020, section 2.4 (T5's vocabulary).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ..errors import BrokenModel, ModelFileError, brief
from .tokenizer import Tokenizer, guarded
from .tokenizer_limits import check_steps, check_tokenizer

SPECIAL = END, PADDING, UNKNOWN = "</s>", "<pad>", "<unk>"
SPACE = "\u2581"
SENTINELS = 100
"""`<extra_id_0>` and so on, which stand for gaps in T5's training and follow the vocabulary, the last one first."""
CONTEXT = 256
"""Tokens that Stable Diffusion 3 reads of a prompt, padding included."""
SIZE_LIMIT = 64 * 2**20
PIECES, SPEC = 1, 3
"""Fields of a model file: the pieces, and the normaliser's settings."""
TEXT, SCORE, CHARSMAP = 1, 2, 2
"""Fields of a piece: its text and score; field of the settings: the compiled map of characters."""


def t5_tokenizer(folder: str | Path, *, context_length: int = CONTEXT) -> Tokenizer:
    """The tokenizer of a `tokenizer_3/` folder. ModelFileError where neither file is there or one is malformed."""
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        try:
            text = _bytes(path).decode("utf-8")
            check_tokenizer(text)
        except (UnicodeDecodeError, BrokenModel) as error:
            raise BrokenModel(f"{path} is no valid tokenizer: {brief(error, 400)}") from error
        backend = guarded(f"{path} is no valid tokenizer", lambda: Backend.from_str(text))
    elif (folder / "spiece.model").is_file():
        path = folder / "spiece.model"
        backend = _unigram(path)
    else:
        raise ModelFileError(f"{folder} holds no tokenizer of T5: expected tokenizer.json or spiece.model")
    ids: dict[str, int] = {}
    for token in (END, PADDING):
        index = backend.token_to_id(token)
        if index is None:
            raise BrokenModel(f"{path} lacks the token {token!r} that a vocabulary of T5 has")
        ids[token] = index
    return Tokenizer(backend, bos=None, eos=ids[END], pad=ids[PADDING], context_length=context_length)


def _unigram(path: Path) -> Backend:
    """The tokenizer of a SentencePiece model file, set up as T5 uses it."""
    data = _bytes(path)
    try:
        pieces = [_piece(value) for value in _values(data, PIECES)]
        maps = [value for settings in _values(data, SPEC) for value in _values(settings, CHARSMAP)]
    except (IndexError, ValueError, struct.error) as error:
        raise BrokenModel(f"{path} is not a SentencePiece model: {brief(error, 200)}") from error
    names = [text for text, _ in pieces]
    missing = next((token for token in SPECIAL if token not in names), None)
    if missing is not None:
        raise BrokenModel(f"{path} is not a SentencePiece model of T5: it has no piece {missing!r}")
    pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(SENTINELS))]
    what = f"{path} holds no usable vocabulary"
    unknown = names.index(UNKNOWN)
    backend: Backend = guarded(what, lambda: Backend(models.Unigram(pieces, unk_id=unknown, byte_fallback=False)))
    if maps and maps[0]:
        check_steps([{"type": "Precompiled", "precompiled_charsmap": base64.b64encode(maps[0]).decode()}], "normalizer")
        backend.normalizer = guarded(what, lambda: normalizers.Precompiled(maps[0]))
    metaspace = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    backend.add_special_tokens(list(SPECIAL))
    return backend


def _piece(message: bytes) -> tuple[str, float]:
    """(text, log-probability) of a piece; a score that is left out is 0."""
    text = next(_values(message, TEXT)).decode("utf-8") if message else ""
    score = next(_values(message, SCORE), b"\0\0\0\0")
    return text, float(struct.unpack("<f", score)[0])


def _values(message: bytes, wanted: int) -> Iterator[bytes]:
    """The values of one field of a protocol buffer message, in order, as the bytes they are stored in."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            start, (_, at) = at, _varint(message, at)
        elif kind in (1, 5):
            start, at = at, at + (8 if kind == 1 else 4)
        elif kind == 2:
            length, start = _varint(message, at)
            at = start + length
        else:
            raise ValueError(f"a field of wire type {kind} was found")
        if at > len(message):
            raise ValueError("it is cut short")
        if field == wanted:
            yield message[start:at]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(number, place after it): seven bits in each byte, the lowest first, the eighth says that more follow."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number of more than ten bytes was found")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise BrokenModel(f"{path} has more than {SIZE_LIMIT} bytes; a tokenizer is expected")
        return path.read_bytes()
    except OSError as error:
        raise BrokenModel(f"{path} cannot be read ({error.strerror or error})") from error

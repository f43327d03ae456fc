"""T5's tokenizer from both kinds of files against transformers', and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import tiny_sd3 as sd3
from stable_diffusion.errors import BrokenModel, ModelFileError
from stable_diffusion.text.t5_tokenizer import t5_tokenizer

PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.5), ("▁sun", -3.0), ("set", -3.5), ("▁s", -5.0)]
PIECES += [(letter, -6.0 - 0.1 * index) for index, letter in enumerate("abcdefghijklmnopqrstuvwxyzé,.")]
TEXTS = ["a sunset", "  Sunset  over\nthe sea, ", "", "日 é sunsets", "sunset</s>sunset"]


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def spiece(pieces: list[tuple[str, float]], charsmap: bytes = b"") -> bytes:
    """A SentencePiece model file: pieces with text, score and type, training settings, and the normaliser's."""
    out = b""
    for index, (text, score) in enumerate(pieces):
        kind = varint(3 << 3) + varint(3 if index < 2 else 2 if index == 2 else 1)
        out += field(1, field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + kind)
    trainer = field(1, b"text.txt") + varint(4 << 3) + varint(32000) + bytes([9 << 3 | 1]) + struct.pack("<d", 0.5)
    return out + field(2, trainer) + field(3, field(1, b"identity") + field(2, charsmap))


@pytest.fixture
def reference():
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=list(PIECES))


@pytest.mark.parametrize("kind", ["tokenizer.json", "spiece.model"])
def test_ids_are_those_of_transformers(kind: str, reference, tmp_path: Path) -> None:
    if kind == "tokenizer.json":
        reference.save_pretrained(tmp_path)
    else:
        (tmp_path / kind).write_bytes(spiece(PIECES))
    tokenizer = t5_tokenizer(tmp_path, context_length=20)
    assert (tokenizer.eos, tokenizer.pad, tokenizer.bos, tokenizer.capacity) == (1, 0, None, 19)
    for text in TEXTS:
        expected = reference(text, padding="max_length", max_length=20).input_ids
        assert tokenizer.window(tokenizer.encode(text)) == expected, text
    assert tokenizer.decode(tokenizer.encode("a sunset")) == "a sunset"
    assert tokenizer.vocab_size == len(PIECES) + 100


def test_the_file_of_the_tiny_model(tmp_path: Path) -> None:
    reference = sd3.write_t5_tokenizer(tmp_path)
    tokenizer = t5_tokenizer(tmp_path)
    text = "a beautiful sunset over the ocean, oil on canvas"
    assert tokenizer.window(tokenizer.encode(text)) == reference(text, padding="max_length", max_length=256).input_ids


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (spiece(PIECES)[:-30], "is not a SentencePiece model"),
        (b"\xff" * 40, "is not a SentencePiece model"),
        (b"\x0b" * 40, "wire type 3"),
        (spiece(PIECES[:2]), "it has no piece '<unk>'"),
        (spiece(PIECES[1:]), "it has no piece '<pad>'"),
        (spiece(PIECES, b"nonsense"), "holds no usable vocabulary"),
        (b"", "it has no piece '</s>'"),
    ],
)
def test_damaged_models_are_refused(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(BrokenModel, match=says):
        t5_tokenizer(tmp_path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"expected tokenizer\.json or spiece\.model"):
        t5_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BrokenModel, match="is no valid tokenizer"):
        t5_tokenizer(tmp_path)

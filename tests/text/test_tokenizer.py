"""CLIP's tokenizer from package data, tokenizer folders, and tokenizer.json text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from stable_diffusion.errors import BrokenModel, ModelFileError
from stable_diffusion.text.tokenizer import Tokenizer, clip_tables

# Published examples of openai/CLIP and of the CLIP tokenizers in other libraries.
KNOWN = {
    "": [],
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A  Photo\nof a CAT": [320, 1125, 539, 320, 2368],
    "hello world!": [3306, 1002, 256],
    "don't": [847, 713],
}


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.clip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers tokenizer folder with CLIP's own tables."""
    path = tmp_path_factory.mktemp("tokenizer")
    vocab, merges = clip_tables()
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    return path


@pytest.mark.parametrize("text", KNOWN)
def test_known_ids(clip: Tokenizer, text: str) -> None:
    assert clip.encode(text) == KNOWN[text]


def test_clip_constants(clip: Tokenizer) -> None:
    assert (clip.bos, clip.eos, clip.pad, clip.vocab_size) == (49406, 49407, 49407, 49408)
    assert clip.capacity == 75
    assert Tokenizer.clip(pad=0).window([5]) == [49406, 5, 49407] + [0] * 74


def test_equals_transformers_on_many_strings(clip: Tokenizer, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.CLIPTokenizer.from_pretrained(str(folder))
    ours = Tokenizer.from_folder(folder)
    rng = random.Random(0)
    words = ["cat", "don't", "HELLO", "8k", "naïve", "日落", "e\u0301", "👩‍👩‍👧", "!!", "...", "'ll've", "İ", "ß", "½",
             "<|endoftext|>", "\t", "\u3000", "\xa0", "(masterpiece:1.2)", "\u200b", "</w>"]  # fmt: skip
    for _ in range(500):
        mixed = "".join(rng.choice(words) + rng.choice(["", " ", ", "]) for _ in range(rng.randint(1, 12)))
        signs = "".join(chr(rng.choice([rng.randint(32, 126), rng.randint(0, 0x2FFF)])) for _ in range(20))
        for text in (mixed, signs):
            expected = reference(text, add_special_tokens=False).input_ids
            assert clip.encode(text) == expected, text
            assert ours.encode(text) == expected, text


def test_folder_pad_is_only_padding(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.pad, tokenizer.eos, tokenizer.context_length) == (0, 49407, 77)
    assert tokenizer.encode("hello world!") == KNOWN["hello world!"]


def test_pieces_cover_the_text_they_stand_for(clip: Tokenizer) -> None:
    text = "a  Beautiful sunset"
    assert [text[p.start : p.end] for p in clip.pieces(text)] == ["a", "Beautiful", "sunset"]
    assert [p.id for p in clip.pieces(text)] == clip.encode(text)


def test_decode_gives_the_words_back(clip: Tokenizer) -> None:
    assert clip.decode([clip.bos, *clip.encode("A red 日落"), clip.eos, clip.pad]) == "a red 日落"


def test_from_json_equals_the_source(clip: Tokenizer) -> None:
    text = clip._backend.to_str()
    again = Tokenizer.from_json(text, context_length=32)
    assert again.encode("a photo of 日落") == clip.encode("a photo of 日落")
    assert again.context_length == 32 and again.pad == again.eos == 49407


def test_from_json_ignores_truncation_and_padding(clip: Tokenizer) -> None:
    backend = Backend.from_str(clip._backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    assert Tokenizer.from_json(backend.to_str()).encode("one two three four five six") == clip.encode(
        "one two three four five six"
    )


def test_window_refuses_what_does_not_fit(clip: Tokenizer) -> None:
    with pytest.raises(ValueError, match="76 tokens do not fit in a window of 75"):
        clip.window([1] * 76)


def test_bad_tokenizer_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelFileError, match="holds no tokenizer"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(BrokenModel, match="not valid JSON"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(BrokenModel, match="lacks the token"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.json").write_bytes((folder / "vocab.json").read_bytes())
    (tmp_path / "merges.txt").write_text("only-one-piece\n")
    with pytest.raises(BrokenModel, match="merge rule must be two pieces"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(BrokenModel, match=r"not valid tokenizer.json"):
        Tokenizer.from_json("{}")

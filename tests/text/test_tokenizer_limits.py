"""Tokenizers that would multiply a prompt or search it without end: refused in one sentence and a moment, before the
library runs a rule; those that models have are read."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, models, normalizers
from tokenizers import Tokenizer as Backend

from stable_diffusion.embedded import model_path
from stable_diffusion.errors import BrokenModel
from stable_diffusion.text.t5_tokenizer import t5_tokenizer
from stable_diffusion.text.tokenizer import END, START, Tokenizer
from stable_diffusion.text.tokenizer_limits import (
    LONGEST,
    MOST_BYTES,
    charsmap_growth,
    check_steps,
    check_tokenizer,
    pattern_fault,
)
from stable_diffusion.weights.containers.open import read_tensors

SECONDS = 5.0
"""Of processor time that no refusal may take; most take milliseconds."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def replace(pattern: str, content: str, regex: bool = False) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def charsmap(longest: int, tree: int = 8) -> bytes:
    return tree.to_bytes(4, "little") + bytes(tree) + b"x\0" + b"y" * longest + b"\0"


def several(*steps: dict[str, Any], inner: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", inner: list(steps)}


def compiled(data: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def tokenizer(**parts: Any) -> str:
    vocabulary = {START: 0, END: 1, **{letter: 2 + i for i, letter in enumerate("abcdefghij ")}}
    about = json.loads(Backend(models.BPE(vocab=vocabulary, merges=[], unk_token=END)).to_str())
    return json.dumps({**about, **parts})


NESTED: dict[str, Any] = replace("a", "a" * 10)
for _ in range(5):
    NESTED = several(NESTED, NESTED)

HOSTILE: dict[str, dict[str, Any]] = {
    "ten rules": {"normalizer": several(*[replace("a", "a" * 10)] * 10)},
    "sequences in sequences": {"normalizer": NESTED},
    "one long text": {"normalizer": replace("a", "b" * 10_000_000)},
    "a text between all letters": {"normalizer": several(*[replace("", "ab")] * 12)},
    "patterns that match nothing": {"normalizer": several(*[replace("(?=a)", "aaaa", regex=True)] * 12)},
    "prepended again and again": {"normalizer": several(*[{"type": "Prepend", "prepend": "a" * 1_000_000}] * 20)},
    "a map of characters": {"normalizer": compiled(charsmap(1_000_000))},
    "maps after one another": {"normalizer": several(*[compiled(charsmap(30))] * 6)},
    "signs that unfold": {"normalizer": several(*[replace("ص", "ﷺ"), {"type": "NFKD"}] * 8)},
    "bytes of bytes": {"pre_tokenizer": several(*[{"type": "ByteLevel"}] * 30, inner="pretokenizers")},
    "too many steps": {"normalizer": several(*[{"type": "NFC"}] * 100_000)},
    "a pattern without end": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed"}
    },
    "choices in a run": {"normalizer": replace("(a|a|aa)*c", "b", regex=True)},
    "runs after runs": {"normalizer": replace("a*a*a*a*a*a*a*c", "b", regex=True)},
    "the decoder": {"decoder": several(*[replace("a", "a" * 10)] * 10, inner="decoders")},
    "added words": {
        "added_tokens": [
            {"id": 20 + i, "content": "a" * 1000 + str(i), "special": False, "normalized": True, "single_word": False,
             "lstrip": False, "rstrip": False} for i in range(1000)
        ]
    },
    "words of the whole text": {
        "model": {"type": "WordPiece", "unk_token": END, "continuing_subword_prefix": "", "vocab": {START: 0, END: 1},
                  "max_input_chars_per_word": 10**9}
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_rules_without_measure_are_refused(name: str, tmp_path: Path) -> None:
    text = tokenizer(**HOSTILE[name])
    start = time.process_time()
    with pytest.raises(BrokenModel) as error:
        Tokenizer.from_json(text)
    assert time.process_time() - start < SECONDS
    assert (
        str(error.value).startswith("the tokenizer ") and "\n" not in str(error.value) and len(str(error.value)) < 400
    )
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(BrokenModel, match="tokenizer"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(BrokenModel, match=r"tokenizer\.json is no valid tokenizer: the tokenizer "):
        t5_tokenizer(tmp_path)


def test_it_is_the_library_that_would_run_them() -> None:
    """The premise: three of the ten rules already make a thousand letters of one, and nothing stops the library."""
    rules = normalizers.Sequence([normalizers.Replace("a", "a" * 10)] * 3)
    assert len(rules.normalize_str("a")) == 1000
    code = (
        "from tokenizers import Regex, normalizers\n"
        "normalizers.Sequence([normalizers.Replace('a', 'a' * 10)] * 9).normalize_str('a' * 50)"
    )
    with pytest.raises((subprocess.TimeoutExpired, subprocess.CalledProcessError)):
        subprocess.run(["bash", "-c", f"ulimit -v 8000000; exec {sys.executable} -c \"{code}\""], check=True, timeout=3,
                       capture_output=True)  # fmt: skip


def test_those_of_models_are_read() -> None:
    path = model_path()
    assert path is not None
    check_tokenizer(read_tensors(path)[1]["tokenizer"])
    check_tokenizer(tokenizer(
        normalizer=several({"type": "NFC"}, replace(r"\s+", " ", regex=True), {"type": "Lowercase"}),
        pre_tokenizer=several(
            {"type": "Split", "pattern": {"Regex": CLIP}, "behavior": "Removed", "invert": True}, {"type": "ByteLevel"},
            inner="pretokenizers",
        ),
    ))  # fmt: skip
    t5 = several(compiled(charsmap(33)), {"type": "Strip"}, replace(" {2,}", "▁", regex=True))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    check_tokenizer(json.dumps({
        "model": {"type": "Unigram"}, "normalizer": t5, "decoder": metaspace,
        "pre_tokenizer": several({"type": "WhitespaceSplit"}, metaspace, inner="pretokenizers"),
    }))  # fmt: skip


@pytest.mark.parametrize(
    "pattern", [GPT2, CLIP, r"\s+", " {2,}", "^ (?=[^a-z])", "(?=[x])(?:x(?:y|z)|w)", "[]a]+", "a+?"]
)
def test_patterns_that_are_fast(pattern: str) -> None:
    assert pattern_fault(pattern) is None
    start = time.process_time()
    for text in ("a" * 10_000, " " * 10_000, "a " * 5_000, "x" * 10_000, "]" * 10_000):
        normalizers.Replace(Regex(pattern), "").normalize_str(text)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a|b)*c", "a+b", r"(a)\1", "(?(1)a|b)", "a?" * 9 + "b", "(?:a{1,9}){9}", r"\X", "(?:x+|y)z", "a++b"],
)
def test_patterns_that_may_be_slow(pattern: str) -> None:
    assert pattern_fault(pattern) is not None


def test_the_growth_of_a_map_of_characters() -> None:
    assert charsmap_growth(charsmap(33)) == 33
    assert charsmap_growth(b"") == charsmap_growth(b"\0\0\0\0") == charsmap_growth(b"\xff\xff\xff\xff1234") == 0
    with pytest.raises(BrokenModel, match="make too much of a text"):
        check_steps([compiled(charsmap(MOST_BYTES // LONGEST + 1))], "normalizer")


def test_more_tokens_than_a_text_can_have() -> None:
    made = Tokenizer.from_json(tokenizer(normalizer=replace("a", "ab" * 50)))
    with pytest.raises(BrokenModel, match="makes 2000 tokens of 20 characters; expected at most 64 of each"):
        made.encode("a" * 20)
    assert len(made.encode("b" * 20)) == 20


def test_what_the_library_raises_is_told() -> None:
    about = json.loads(tokenizer())
    about["model"]["unk_token"] = "[missing]"
    about["model"]["type"], about["model"]["vocab"] = "WordLevel", {START: 0, END: 1}
    about["model"] = {key: about["model"][key] for key in ("type", "vocab", "unk_token")}
    made = Tokenizer.from_json(json.dumps(about))
    with pytest.raises(BrokenModel, match="the model's tokenizer cannot read a text"):
        made.encode("zebra")


def test_random_parts_are_read_or_refused() -> None:
    """Anything may stand where a part belongs."""
    dice = random.Random(4)
    values: list[Any] = [None, 1, -1.5, "a", "", [], {}, [[]], {"type": "Replace"}, {"type": 3}, {"Regex": 1}, "NFC"]
    values += [True, {"type": "Sequence", "normalizers": 3}, {"type": "Precompiled", "precompiled_charsmap": "!"}]
    keys = [
        "type",
        "pattern",
        "content",
        "normalizers",
        "pretokenizers",
        "prepend",
        "replacement",
        "precompiled_charsmap",
    ]
    for _ in range(300):
        step = {dice.choice(keys): dice.choice(values) for _ in range(dice.randint(1, 4))}
        step.setdefault("type", dice.choice(["Replace", "Prepend", "Precompiled", "Metaspace", "Split", "ByteLevel"]))
        part = dice.choice(["normalizer", "pre_tokenizer", "decoder", "added_tokens", "model"])
        try:
            Tokenizer.from_json(tokenizer(**{part: dice.choice([step, [step], dice.choice(values)])})).encode("a b")
        except BrokenModel as error:
            assert "\n" not in str(error)

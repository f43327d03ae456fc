"""The tokenizer of the embedded model: byte-level BPE over all captions, CLIP-like special tokens, context 32."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import Split

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 32
PARTICLES = "的在和有一两三个只位匹头条朵棵辆艘架座把张件颗根杯本支顶副双道束轮团枚"


def chinese_words(names: Iterable[str], longest: int = 4) -> list[str]:
    """The Chinese words that may become pieces: the given names of two to `longest` characters, longest first.

    Names that contain a particle are phrases, not words, and are left to their parts.
    """
    plain = {
        name
        for name in names
        if re.fullmatch(rf"[\u4e00-\u9fff]{{2,{longest}}}", name) and not set(name) & set(PARTICLES)
    }
    return sorted(plain, key=lambda name: (-len(name), name))


def word_pattern(words: Sequence[str]) -> str:
    """A regular expression that matches the longest listed word or a particle, and fails fast on other scripts."""
    endings: dict[str, list[str]] = {}
    for word in words:
        endings.setdefault(word[0], []).append(word[1:])
    groups = [f"{first}(?:{'|'.join(rest)})" for first, rest in endings.items()]
    return "(?=[\u4e00-\u9fff])(?:" + "|".join([*groups, f"[{PARTICLES}]"]) + ")"


def train_tokenizer(captions: Iterable[str], words: Sequence[str] = (), vocabulary: int = 8000) -> Tokenizer:
    """Byte-level BPE over captions. Ids: start 0, end 1 (also the padding), then 256 bytes, then merges.

    Text is NFKC-normalised and lower-cased, and starts with a space where it starts with a letter or digit, so that a
    word is the same piece everywhere. Chinese has no spaces: `words` (longest first) and single particles are cut out
    before merging, else whole phrases would become one piece and their parts would be lost.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Strip(),
            normalizers.Prepend(" "),
            normalizers.Replace(Regex("^ (?=[^a-z0-9])"), ""),
        ]
    )
    cut = Split(Regex(word_pattern(words)), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=4,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(pad_id=end, pad_token=END, length=CONTEXT)
    return tokenizer


def given_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, or of one of our models (.safetensors), whose metadata holds that file's text.

    Raises ValueError when the file holds none.
    """
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="np") as file:
            text = (file.metadata() or {}).get("tokenizer")
        if text is None:
            raise ValueError(f"{path} holds no tokenizer in its metadata; give a tokenizer.json or a model of ours")
    else:
        text = path.read_text("utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is not a tokenizer.json: {error}") from None


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """tokenizer.json, written atomically."""
    temporary = path.with_name(path.name + ".tmp")
    tokenizer.save(str(temporary))
    os.replace(temporary, path)

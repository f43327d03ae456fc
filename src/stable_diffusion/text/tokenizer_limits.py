"""What the text of a tokenizer.json may ask for: rules that multiply a text, or search it without end, are refused.

A tokenizer that travels with a model is a little program: it replaces pieces of a prompt by longer ones, and looks for
patterns. Ten rules "a" -> "aaaaaaaaaa" one after another make ten thousand million letters of one, and the library runs
them to the end. So they are read before the library sees them. Counted are bytes, for the longest prompt:

Replace, Prepend, a compiled map of characters   as many times more as their text is longer than what it replaces
normal forms, lower case, signs for spaces ...   nothing the first time, since their growth is small and fixed; then 18
patterns                                         one run of repeated signs at the end of each choice, as those of CLIP
                                                 and GPT-2 have, so that a search never goes back far
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import BrokenModel, brief

LONGEST = 40_000
"""Bytes of the longest prompt that a request may have."""
MOST_BYTES = 128 * LONGEST
"""Most bytes that rules may make of it; those of T5 may make 99 of one, of which 33 by the map of characters."""
MOST_WORK = 2**31
"""Most bytes times letters of patterns; the pattern of the built-in model has 8,000 letters."""
MOST_STEPS = 64
MOST_TOKENS = 64
"""Most tokens for each character of a prompt: one sign may stand for a sentence of 18 letters of two bytes."""
KINDS = ("BPE", "Unigram", "WordLevel")
"""Kinds of vocabularies whose time grows with the text alone."""
REPEATED = 18
"""Growth of a normal form: one sign becomes at most 18."""
PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
"""Part of a tokenizer -> where a sequence of its kind has its steps."""
MOST_OPTIONAL = 8
_TOKEN = re.compile(r"\\[pPx]\{[^}]*\}|\\.|\[|\(\?!\\S\)|\(\?<?[=!]|\(\?[imx-]*[:>)]|\(\?.|\{\d*,?\d*\}|.", re.DOTALL)


def check_tokenizer(text: str) -> None:
    """BrokenModel where the text of a tokenizer.json asks for more than a tokenizer needs; other faults are left to
    the library."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenModel(f"the tokenizer is not valid tokenizer.json text: {brief(error, 200)}") from error
    if not isinstance(about, dict):
        raise BrokenModel(f"the tokenizer is not valid tokenizer.json text: it is a {type(about).__name__}")
    model = about.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind is not None and kind not in KINDS:
        raise BrokenModel(f"the tokenizer is of kind {brief(kind, 40)!r}; expected one of {', '.join(KINDS)}")
    for part in PARTS:
        check_steps(list(_steps(about.get(part), PARTS[part])), part)
    added = about.get("added_tokens")
    contents = [each.get("content") for each in added if isinstance(each, dict)] if isinstance(added, list) else []
    total = sum(len(content) for content in contents if isinstance(content, str))
    if total > LONGEST * 4:
        raise BrokenModel(f"the tokenizer has added words of {total} letters; expected at most {LONGEST * 4}")


def check_steps(steps: list[dict[str, Any]], part: str) -> None:
    """BrokenModel where the steps of one part, one after another, make too much of the longest prompt."""
    if len(steps) > MOST_STEPS:
        raise BrokenModel(f"the tokenizer has a {part} of {len(steps)} steps; expected at most {MOST_STEPS}")
    size, letters, seen = float(LONGEST), 1, set[str]()
    for step in steps:
        kind, pattern = str(step.get("type")), _regex(step)
        if pattern is not None:
            letters += len(pattern)
            _check_pattern(pattern, part)
        size = size * _growth(step, kind, kind in seen) + len(str(step.get("prepend", "")).encode())
        seen.add(kind)
        if size > MOST_BYTES or size * letters > MOST_WORK:
            raise BrokenModel(
                f"the tokenizer has a {part} whose rules make too much of a text: {size:.3g} bytes of {LONGEST}, "
                f"searched for patterns of {letters} letters"
            )


def charsmap_growth(charsmap: bytes) -> int:
    """The most bytes that a compiled map of characters (SentencePiece) puts in the place of one: its longest text.

    Layout: 4 bytes little-endian length of a search tree, the tree, then texts that end in a zero byte.
    """
    tree = int.from_bytes(charsmap[:4], "little")
    return max(map(len, charsmap[4 + tree :].split(b"\0")), default=0)


def _steps(node: Any, several: str) -> Iterator[dict[str, Any]]:
    """The steps of a part in their order, sequences within sequences unfolded."""
    waiting = [node]
    while waiting:
        step = waiting.pop()
        inner = step.get(several) if isinstance(step, dict) else None
        if isinstance(inner, list):
            waiting += reversed(inner)
        elif isinstance(step, dict):
            yield step


def _growth(step: dict[str, Any], kind: str, again: bool) -> float:
    """How many bytes a step makes of one."""
    if kind == "Replace":
        content, pattern = len(str(step.get("content", "")).encode()), step.get("pattern")
        plain = pattern.get("String") if isinstance(pattern, dict) else None
        if isinstance(plain, str) and plain:
            return max(1.0, content / len(plain.encode()))
        regex = _regex(step)
        empty = regex is None or (any(sign in regex for sign in "*?|^$\\{(") and not _is_run(regex))
        return max(1.0, content + float(empty and content > 0))  # what matches nothing is put between all letters
    if kind == "Precompiled":
        try:
            return max(1, charsmap_growth(base64.b64decode(str(step.get("precompiled_charsmap") or ""))))
        except (binascii.Error, ValueError):
            return 1.0  # the library says what is wrong with it
    return float(REPEATED) if again and kind not in ("Split", "Prepend", "Strip", "Digits", "Punctuation") else 1.0


def _is_run(pattern: str) -> bool:
    r"""Whether a pattern is one sign or class at least once, as `\s+` and ` {2,}` are."""
    return re.fullmatch(r"(\\[a-zA-Z]|[^\\\[\](){}|^$*+?.])(\+|\{[1-9]\d*,?\d*\})?", pattern) is not None


def _regex(step: dict[str, Any]) -> str | None:
    pattern = step.get("pattern")
    found = pattern.get("Regex") if isinstance(pattern, dict) else None
    return found if isinstance(found, str) else None


def _check_pattern(pattern: str, part: str) -> None:
    fault = pattern_fault(pattern)
    if fault is not None:
        raise BrokenModel(f"the tokenizer has a {part} with the pattern {brief(pattern, 60)!r}, in which {fault}")


def pattern_fault(pattern: str) -> str | None:
    """Why a pattern may take long, or None: each choice may end in one run, and nothing else may repeat."""
    ended, groups, optional, position, before = False, list[bool](), 0, 0, ""
    while position < len(pattern):
        found = _TOKEN.match(pattern, position)
        assert found is not None
        token, position = found[0], found.end()
        if token == "[":
            position = _after_class(pattern, position)
        run = token in ("*", "+") or (token.startswith("{") and len(token) > 2)
        if (run and before in ("*", "+", "?", "{")) or (token == "?" and before in ("*", "+", "{")):
            continue  # a run that gives back late or never
        if run or token == "?":
            optional += token == "?"
            if before == ")" or optional > MOST_OPTIONAL:
                return "a group is repeated" if before == ")" else f"more than {MOST_OPTIONAL} signs are optional"
            ended = ended or run
        elif token == "|":
            groups, ended = [*groups[:-1], groups[-1] or ended] if groups else groups, False
        elif token == ")":
            ended = groups.pop() or ended if groups else ended
        elif ended and token != r"(?!\S)":
            return "signs follow a run of others"
        elif token.startswith("(?") and token[-1] not in ":>=!)":
            return f"{token[:8]!r} is more than a tokenizer needs"
        elif token.startswith("\\") and token[1] in "123456789kgKXRG":
            return f"{token!r} is more than a tokenizer needs"
        elif token.startswith("(") and token != r"(?!\S)" and not (token.endswith(")")):
            groups.append(False)
        before = "{" if run and token.startswith("{") else token
    return None


def _after_class(pattern: str, position: int) -> int:
    """The place behind a class of signs whose bracket was opened before `position`; classes may lie in it."""
    depth, start = 1, position
    while position < len(pattern) and depth:
        sign = pattern[position]
        first = pattern[start:position] in ("", "^")
        depth += (sign == "[") - (sign == "]" and not first)
        position += 2 if sign == "\\" else 1
    return position

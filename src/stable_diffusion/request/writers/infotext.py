"""A text in A1111's form, written and split: the prompt, `Negative prompt: ...`, and one line of `Key: value` pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

NEGATIVE = "Negative prompt:"
EXACT, EXACT_NEGATIVE = "Exact prompt", "Exact negative prompt"
"""Keys of the prompts where the text alone would not say where they begin and end."""
FEWEST_PAIRS = 3
"""A line of fewer pairs belongs to the prompt."""
FARTHEST = 400
"""Lines that may stand behind the values."""
MOST_LINES = 60
"""A value in quotes goes on to no more lines."""
KEYS = ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "Clip skip", "Version")
"""Keys that nearly every program writes: a line that has several is no prompt."""
SPELLINGS = {
    **{key.casefold(): key for key in (*KEYS, "Denoising strength")},
    **dict.fromkeys(("cfgscale", "cfg_scale", "guidance scale", "guidance_scale"), "CFG scale"),
    **dict.fromkeys(("scheduler", "schedule", "schedule_type"), "Schedule type"),
    **dict.fromkeys(("clip_skip", "clipskip"), "Clip skip"),
    **dict.fromkeys(("denoise", "denoising_strength"), "Denoising strength"),
    **dict.fromkeys(("model name", "model_name", "checkpoint"), "Model"),
    **dict.fromkeys(("sampler name", "sampler_name", "sampling method"), "Sampler"),
}
"""Other spellings of a key, in small letters -> A1111's."""
_KEY = re.compile(r"[^\S\n]*(\w[\w \-/]{1,60}):[^\S\n]*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"', re.DOTALL)
_REST = re.compile(r"[^,\n]*")
_ENDS = re.compile(r"[^\S\n]*(?:,|\n|\Z)")
_STEPS = re.compile(r"\s*steps:", re.IGNORECASE)
_JSON = json.JSONDecoder(strict=False)


class Pairs(NamedTuple):
    """The values of a line, whether it has some of the usual keys, and how many lines it takes."""

    values: dict[str, str]
    usual: bool
    lines: int


def write_infotext(prompt: str, negative: str, values: Mapping[str, object]) -> str:
    """The text that `split_text` takes apart into the same prompts and values; a value of None is left out."""
    pairs = ", ".join(f"{key}: {quoted(value)}" for key, value in values.items() if value is not None)
    text = "\n".join([prompt, *([f"{NEGATIVE} {negative}"] if negative else []), pairs])
    if split_text(text)[:2] == (prompt, negative):
        return text
    exact = {EXACT: prompt, EXACT_NEGATIVE: negative}
    more = {key: json.dumps(value, ensure_ascii=False) for key, value in exact.items() if value}
    return text + "".join(f", {key}: {value}" for key, value in more.items())


def quoted(value: object) -> str:
    """Numbers without a needless ".0"; text in JSON quotes where it holds a sign of the format."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if any(sign in text for sign in ',:\n"') or text != text.strip():
        return json.dumps(text, ensure_ascii=False)
    return text


def split_text(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, values) of a text in A1111's form.

    The values stand on the last line that has several pairs, as A1111 reads it; where other programs wrote lines behind
    it (the templates of dynamic prompts), on the last that begins with `Steps:`. A line that starts `Negative prompt:`
    begins the negative part. Inner white space is kept.
    """
    lines = text.strip().split("\n")
    place, found = _values_line(lines)
    if found is not None:
        behind = "\n".join(lines[place + found.lines :]).strip()
        lines = lines[:place]
    start = next((n for n, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    prompt, negative = "\n".join(lines[:start]), "\n".join(lines[start:])
    values = {} if found is None else dict(found.values)
    if found is not None and behind:
        values.setdefault("Template", behind)
    values |= _usual_spellings(values)
    exact = values.pop(EXACT, None), values.pop(EXACT_NEGATIVE, None)
    if exact != (None, None):
        return exact[0] or "", exact[1] or "", values
    return prompt.strip(), negative.lstrip().removeprefix(NEGATIVE).strip(), values


def _usual_spellings(values: Mapping[str, str]) -> dict[str, str]:
    """Values under A1111's keys, of keys that are spelt otherwise."""
    found: dict[str, str] = {}
    for key, value in values.items():
        usual = SPELLINGS.get(key.casefold())
        if usual is not None and usual not in values:
            found.setdefault(usual, value)
    return found


def _values_line(lines: list[str]) -> tuple[int, Pairs | None]:
    """Number of the line where the values begin, and what they are."""
    last = len(lines) - 1
    at_the_end = read_pairs(lines[-1:])
    if at_the_end.usual:
        return last, at_the_end
    first = max(-1, last - FARTHEST)
    for number in range(last, first, -1):
        if _STEPS.match(lines[number]) and (found := read_pairs(lines[number:])).usual:
            return number, found
    if len(at_the_end.values) >= FEWEST_PAIRS:
        return last, at_the_end
    for number in range(last, first, -1):
        if (found := read_pairs(lines[number:])).usual:
            return number, found
    return last, None


def read_pairs(lines: list[str]) -> Pairs:
    """The pairs of the first of these lines, and of those that a quoted value with line breaks goes on to."""
    text = "\n".join(lines[:MOST_LINES]) if '"' in lines[0] else lines[0]
    values: dict[str, str] = {}
    place = end = 0
    while place >= 0:
        match = _KEY.match(text, place)
        end = place
        if match is not None:
            value, end = _value(text, match.end())
            values.setdefault(match[1].strip(), value)
        rest = _REST.match(text, end)
        end = end if rest is None else rest.end()
        place = end + 1 if text[end : end + 1] == "," else -1
    usual = sum(key.casefold() in SPELLINGS for key in values) >= 2 and len(values) >= FEWEST_PAIRS
    return Pairs(values, usual, text.count("\n", 0, end) + 1)


def _value(text: str, place: int) -> tuple[str, int]:
    """(the value that begins here, where it ends): in quotes, JSON, or up to a comma."""
    sign = text[place : place + 1]
    match = _QUOTED.match(text, place) if sign == '"' else None
    if match is not None and _ENDS.match(text, match.end()):
        return unquoted(match[0]), match.end()
    if sign and sign in "[{":
        try:
            end = _JSON.raw_decode(text, place)[1]
            return text[place:end], end
        except (ValueError, RecursionError):
            pass
    rest = _REST.match(text, place)
    end = place if rest is None else rest.end()
    return text[place:end].strip(), end


def unquoted(value: str) -> str:
    """A value without its JSON quotes; as it stands where it is no JSON."""
    try:
        return str(_JSON.decode(value))
    except ValueError:
        return value[1:-1]

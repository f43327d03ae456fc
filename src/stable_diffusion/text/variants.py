r"""Prompts with choices in them, resolved by a seed before anything else reads them ("dynamic prompts").

    {a|b|c}          one of them            {3::a|b}         `a` three times as often as `b`
    {2$$a|b|c}       two of them, with ", " between; `{1-3$$...}` one to three, `{2$$ and $$a|b|c}` with another text
    __name__         a line of the wildcard `name`; `__folder/name__`, `__name*__` for all that fit

They may stand inside one another and in wildcards. Braces without `|` or `$$` are text, and a backslash takes a sign's
meaning away. The draw is a hash of the seed and of the number of the draw, the same for ever and everywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidRequest

Lookup = Callable[[str], Sequence[str]]
"""Name of a wildcard -> its lines."""

_WILDCARD = re.compile(
    r"(?<!\\)__((?!_)(?:(?!__)[\w\-./*?])+)__|(?<![\\\w])__((?![_\s])(?:(?!__)[\w\-./*?\\ '&+])+(?<!\s))__(?!\w)"
)
"""A wildcard: a name of letters, or one with spaces and the like that no word touches."""
_COUNT = re.compile(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*")
_WEIGHT = re.compile(r"\s*(\d+\.?\d*|\.\d+)::")
MAX_DEPTH = 20
MAX_LENGTH = 10_000


def has_variants(prompt: str) -> bool:
    """Whether the prompt has choices or wildcards, so that pictures of other seeds may get other words."""
    return bool(_WILDCARD.search(prompt)) or any(_is_choice(prompt[a + 1 : b]) for a, b in _all_groups(prompt))


def resolve_variants(prompt: str, seed: int, lookup: Lookup | None = None, *, role: str = "prompt") -> str:
    """The prompt with every choice made by `seed`; wildcards stay as they are where there is no `lookup`.

    role   another name draws other numbers, so that prompt and negative prompt of one seed are independent
    """
    return _Resolver(lookup, f"{role}:{seed}").resolved(prompt, ())


def wildcard_names(prompt: str) -> list[str]:
    """Names of the wildcards in a prompt."""
    return [_name(match) for match in _WILDCARD.finditer(prompt)]


def _name(match: re.Match[str]) -> str:
    return match[1] or match[2]


@dataclass
class _Resolver:
    """Makes the choices of one prompt in reading order."""

    lookup: Lookup | None
    key: str
    draws: int = field(default=0)

    def resolved(self, text: str, inside: tuple[str, ...]) -> str:
        """`inside` are the wildcards whose lines this text is part of."""
        if len(inside) > MAX_DEPTH:
            raise InvalidRequest(f"the wildcard {inside[0]!r} leads to more than {MAX_DEPTH} others, one in another")
        pieces, done = [], 0
        for start, end in _groups(text):
            pieces += [self._wildcards(text[done:start], inside), self._group(text[start + 1 : end], inside)]
            done = end + 1
        pieces.append(self._wildcards(text[done:], inside))
        result = "".join(pieces)
        if len(result) > MAX_LENGTH:
            raise InvalidRequest(f"the prompt's choices make {len(result)} characters; expected at most {MAX_LENGTH}")
        return result

    def _group(self, inner: str, inside: tuple[str, ...]) -> str:
        if not _is_choice(inner):
            return "{" + self.resolved(inner, inside) + "}"
        least, most, separator, body = _counted(inner)
        options = [_weighted(option) for option in _split(body, "|")]
        count = least + self._below(most - least + 1)
        if count > len(options):
            raise InvalidRequest(f"'{{{inner[:60]}}}' asks for {count} of {len(options)} choices; expected fewer")
        chosen = []
        for _ in range(count):
            chosen.append(options.pop(self._choice([weight for weight, _ in options])))
        return separator.join(self.resolved(text, inside).strip() if count > 1 else self.resolved(text, inside)
                              for _, text in chosen)  # fmt: skip

    def _wildcards(self, text: str, inside: tuple[str, ...]) -> str:
        lookup = self.lookup
        if lookup is None:
            return text

        def line(match: re.Match[str]) -> str:
            name = _name(match)
            if name in inside:
                raise InvalidRequest(f"the wildcard {name!r} leads back to itself")
            options = [_weighted(option) for option in lookup(name)]
            if not options:
                raise InvalidRequest(f"the wildcard {name!r} has no lines; expected one at least")
            return self.resolved(options[self._choice([weight for weight, _ in options])][1], (*inside, name))

        return _WILDCARD.sub(line, text)

    def _number(self) -> int:
        """64 bits that only the seed and the number of the draw tell."""
        digest = hashlib.blake2b(f"{self.key}:{self.draws}".encode(), digest_size=8).digest()
        self.draws += 1
        return int.from_bytes(digest, "little")

    def _below(self, limit: int) -> int:
        return 0 if limit <= 1 else self._number() % limit

    def _choice(self, weights: Sequence[float]) -> int:
        """An index, each as often as its weight says; evenly where all are 0."""
        if len(weights) == 1:
            return 0
        if len(set(weights)) == 1 or not any(weights):
            return self._below(len(weights))
        point = self._number() / 2**64 * sum(weights)
        for index, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return index
        return len(weights) - 1


def _signs(text: str, signs: str) -> Iterator[int]:
    skip = False
    for place, letter in enumerate(text):
        if skip:
            skip = False
        elif letter == "\\":
            skip = True
        elif letter in signs:
            yield place


def _all_groups(text: str) -> list[tuple[int, int]]:
    """(open, close) of every pair of braces."""
    opened: list[int] = []
    found = []
    for place in _signs(text, "{}"):
        if text[place] == "{":
            opened.append(place)
        elif opened:
            found.append((opened.pop(), place))
    return sorted(found)


def _groups(text: str) -> list[tuple[int, int]]:
    """Those that stand in no other."""
    outer: list[tuple[int, int]] = []
    for start, end in _all_groups(text):
        if not outer or start > outer[-1][1]:
            outer.append((start, end))
    return outer


def _split(text: str, sign: str) -> list[str]:
    """Parts between `sign`s that stand in no braces."""
    groups = _groups(text)
    cuts = [p for p in _signs(text, sign) if not any(start < p < end for start, end in groups)]
    return [text[a:b] for a, b in zip([0, *(c + 1 for c in cuts)], [*cuts, len(text)], strict=True)]


def _is_choice(inner: str) -> bool:
    return len(_split(inner, "|")) > 1 or (_COUNT.fullmatch(inner.split("$$")[0]) is not None and "$$" in inner)


def _counted(inner: str) -> tuple[int, int, str, str]:
    """(least, most, separator, choices) of the inside of braces."""
    head, sign, body = inner.partition("$$")
    match = _COUNT.fullmatch(head)
    if not sign or match is None:
        return 1, 1, "", inner
    least = int(match[1])
    most = int(match[2] or least)
    if most < least:
        raise InvalidRequest(f"{head.strip()!r} in a prompt's braces is no rising range; expected such as 1-3")
    separator, sign, rest = body.partition("$$")
    return (least, most, separator, rest) if sign else (least, most, ", ", body)


def _weighted(option: str) -> tuple[float, str]:
    match = _WEIGHT.match(option)
    return (1.0, option) if match is None else (float(match[1]), option[match.end() :])

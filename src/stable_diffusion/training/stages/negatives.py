"""Captions made wrong in one word, so that the towers learn to read colours, numbers and relations, not only things.

Source: Yuksekgonul et al. 2023, "When and why vision-language models behave like bags-of-words" (hard negatives).
"""

from __future__ import annotations

import re

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "teal")
CHINESE_COLOURS = ("红色", "橙色", "黄色", "绿色", "蓝色", "紫色", "粉色", "棕色", "黑色", "白色", "灰色", "青色")
GROUPS: tuple[tuple[str, ...], ...] = (
    ("left of", "right of"),
    ("above", "below"),
    ("in front of", "behind"),
    ("two", "three"),
    ("左边", "右边"),
    ("前面", "后面"),
    ("上方", "下方"),
    ("两", "三"),
    ("day", "night"),
    ("sunrise", "sunset", "night", "noon"),
    ("rain", "snow", "fog"),
    COLOURS,
    CHINESE_COLOURS,
)
"""Words of one group contradict each other in a caption."""
GROUP_OF = {word: group for group in reversed(GROUPS) for word in group}
PATTERN = re.compile(
    "|".join(rf"\b{re.escape(w)}\b" if w.isascii() else re.escape(w) for w in sorted(GROUP_OF, key=len, reverse=True))
)


def wrong(caption: str, random: np.random.Generator) -> str | None:
    """The caption with one of its words replaced by another of the word's group, or None where it has no such word."""
    found = list(PATTERN.finditer(caption))
    if not found:
        return None
    match = found[int(random.integers(len(found)))]
    others = [word for word in GROUP_OF[match[0]] if word != match[0]]
    word = others[int(random.integers(len(others)))]
    article = "an " if word[0] in "aeiou" else "a "  # a wrong article would give the caption away
    before = re.sub(r"\ban? $", article, caption[: match.start()])
    return before + word + caption[match.end() :]

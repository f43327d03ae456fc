"""Two or three of one thing on a transparent ground: what "two cats" means, which no collection draws.

Emoji collections show most things once, so a model that learns from them alone paints one apple for "three apples".
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .captions import CHINESE_PLAIN, CHINESE_STYLE, ENGLISH_PLAIN, ENGLISH_STYLE, coloured_chinese, coloured_english
from .concepts import Concept
from .grammar import counted, some, uncountable
from .render import Picture, premultiplied_resize, trimmed

STYLES = ("3d", "flat", "emoji", "cartoon")
GROUPS = tuple(
    "animal- cat-face monkey-face heart plant- food-fruit food-vegetable food-prepared food-sweet drink dishware "
    "place-building transport-ground transport-water transport-air sky-weather event award-medal sport game clothing "
    "sound musical-instrument phone computer light-video book-paper mail writing lock tool science household".split()
)
"""Beginnings of the emoji list's subgroups whose things are counted; people, signs and places are not."""
LAYOUTS: dict[int, tuple[tuple[tuple[float, float], ...], ...]] = {
    2: (((0.27, 0.5), (0.73, 0.5)), ((0.28, 0.36), (0.72, 0.64)), ((0.28, 0.64), (0.72, 0.36))),
    3: (((0.5, 0.27), (0.26, 0.73), (0.74, 0.73)), ((0.26, 0.27), (0.74, 0.27), (0.5, 0.73))),
}
"""Number -> centres (x, y) of the things, as shares of the side."""
SIDE = 0.42
"""Longer side of one thing as a share of the picture's: two fit beside each other with a little air."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """So many of one drawn concept. `seed` decides the layout and the small differences."""

    concept: str
    style: str
    number: int
    seed: str


def countable(concept: Concept) -> bool:
    """Whether "two ..." makes sense: a thing with a plural, of a group of things that are drawn once."""
    return concept.group.startswith(GROUPS) and not uncountable(concept.english[0])


def sample_groups(concepts: Iterable[Concept], drawn: Iterable[tuple[str, str]], total: int, seed: str) -> list[Group]:
    """`total` groups, spread evenly over the countable things that are drawn in `STYLES`; twos and threes in turn."""
    able = {concept.id for concept in concepts if countable(concept)}
    pool = sorted((concept, style) for concept, style in drawn if concept in able and style in STYLES)
    random.Random(f"{seed}counted").shuffle(pool)
    picked = [pool[index % len(pool)] for index in range(total)] if pool else []
    return [
        Group(concept=concept, style=style, number=2 + (index + index // len(pool)) % 2, seed=f"{seed}-{index}")
        for index, (concept, style) in enumerate(picked)
    ]


def draw_group(group: Group, picture: Picture) -> Picture:
    """The thing of `picture` uint8 [S,S,4] `group.number` times in one size."""
    size, source = len(picture), random.Random(group.seed)
    thing = trimmed(picture)
    scale = SIDE * source.uniform(0.94, 1.02) * size / max(thing.size)
    width, height = (max(1, round(side * scale)) for side in thing.size)
    small = Image.fromarray(premultiplied_resize(thing, (width, height)), "RGBA")
    canvas = Image.new("RGBA", (size, size))
    for x, y in source.choice(LAYOUTS[group.number]):
        left = (x + source.uniform(-0.01, 0.01)) * size - width / 2
        top = (y + source.uniform(-0.01, 0.01)) * size - height / 2
        canvas.alpha_composite(small, (max(0, round(left)), max(0, round(top))))
    return np.array(canvas)


def group_captions(
    english: Sequence[str],
    chinese: Sequence[str],
    style: str,
    colour: str | None,
    number: int,
    seed: str,
    limit: int = 8,
) -> dict[str, list[str]]:
    """Captions {"en": [...], "zh": [...]} that all say the number, at most `limit` each."""
    source = random.Random(seed)
    able = [name for name in english if not uncountable(name)]
    plain = [text for text in ENGLISH_PLAIN if "{an}" in text]
    styled = [text for text in ENGLISH_STYLE[style] if "{an}" in text]
    plain_zh = [text for text in CHINESE_PLAIN if "{yi}" in text]
    styled_zh = [text for text in CHINESE_STYLE[style] if "{yi}" in text]
    texts: dict[str, list[str]] = {"en": [], "zh": []}
    for turn in range(4 * limit):
        name = able[0] if turn == 0 or source.random() < 0.5 else source.choice(able)
        name_zh = chinese[0] if turn == 0 or source.random() < 0.5 else source.choice(list(chinese))
        if colour is not None and turn and source.random() < 0.25:
            name = coloured_english(name, colour)
            name_zh = coloured_chinese(name_zh, colour, short=True)
        many = some(name, number)
        texts["en"].append(source.choice(plain[:3] if turn % 2 == 0 else [*plain, *styled]).format(an=many))
        many_zh = counted(name_zh, number)
        texts["zh"].append(source.choice(plain_zh[:1] if turn % 2 == 0 else [*plain_zh, *styled_zh]).format(yi=many_zh))
    return {language: list(dict.fromkeys(found))[:limit] for language, found in texts.items()}

"""Captions of single objects: English and Chinese, varied grammar, style and colour named or left out.

Every record gets a handful of captions per language. The bare noun is always among them, then up to four of its other
names; the rest are drawn from the templates with the record's own seed, so a rebuilt pack has the same captions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from .colours import COLOUR_NAMES
from .grammar import counted, indefinite, uncountable

ENGLISH_STYLE: dict[str, tuple[str, ...]] = {
    "3d": (
        "3d {n}", "{a} 3d {n}", "{an}, 3d", "a 3d render of {an}", "{an} in 3d style", "{an}, 3d style",
        "{a} glossy 3d {n}", "3d emoji of {an}",
    ),
    "flat": (
        "flat {n}", "{a} flat {n}", "{an}, flat style", "{an} in flat style", "a flat illustration of {an}",
        "{an}, flat design", "flat design {n}",
    ),
    "emoji": (
        "{n} emoji", "{n} sticker", "an emoji of {an}", "a sticker of {an}", "{an}, emoji style", "{an}, sticker style",
        "{an} as an emoji",
    ),
    "cartoon": (
        "cartoon {n}", "{a} cartoon {n}", "{an}, cartoon style", "{an} in cartoon style", "a cartoon of {an}",
        "{a} simple cartoon {n}",
    ),
    "icon": ("{n} icon", "{ai} {n} icon", "an icon of {an}", "{an}, icon style", "{an} symbol", "a simple {n} icon"),
    "classic": (
        "classic {n}", "{a} classic {n} emoji", "{an}, classic style", "{an} in classic emoji style",
        "a classic emoji of {an}", "{an}, classic emoji", "old style {n} emoji",
    ),
    "blob": (
        "blob {n}", "{a} blob {n}", "{an}, blob style", "{an} in blob style", "a blob emoji of {an}", "{n} blob emoji",
    ),
    "outlined": (
        "outlined {n}", "{o} outlined {n}", "{an}, outlined style", "{an} in outlined style", "{an} with an outline",
        "an outlined drawing of {an}", "{an}, bold outlines",
    ),
    "gradient": (
        "gradient {n}", "{a} gradient {n}", "{an}, gradient style", "{an} in gradient style",
        "a soft gradient illustration of {an}", "{an}, smooth gradients", "{a} shiny gradient {n}",
    ),
    "line": (
        "{n} line icon", "a line icon of {an}", "{an}, line style", "{n} outline icon", "line art of {an}",
        "{an}, thin lines", "{an}, line icon",
    ),
    "duotone": (
        "duotone {n}", "{a} duotone {n} icon", "{an}, duotone style", "{n} duotone icon", "a two-tone icon of {an}",
        "{an} in two tones",
    ),
    "doodle": (
        "{n} doodle", "a doodle of {an}", "{an}, doodle style", "hand-drawn {n}", "{a} hand-drawn {n}",
        "a sketch of {an}", "{an}, hand-drawn",
    ),
    "badge": (
        "{n} badge", "{a} round badge with {an}", "{an} in a circle", "{an}, badge style", "{n} on a round badge",
        "a flat badge of {an}",
    ),
    "clipart": (
        "clip art of {an}", "{n} clip art", "{an}, clip art style", "{an}, clip art", "{a} clip art {n}",
        "{an} in clip art style", "vector clip art of {an}",
    ),
}  # fmt: skip
ENGLISH_GROUND = (
    "{c} {n} icon on {g} background", "{ac} {n} icon on {g} background", "{ac} {n} on {g} background",
    "{ac} {n} icon, {plain} background", "{ac} {n} on {g} square", "an icon of {ac} {n} on {g} background",
    "{ac} {n}, {plain} background",
)  # fmt: skip
CHINESE_GROUND = (
    "{g}背景上的{c}{n}图标", "{g}背景上的{c}{n}", "{g}底上的{c}{n}图标", "{c}的{n}图标，{g}背景", "{c}的{n}，{g}背景",
    "{g}方块上的{c}{n}",
)  # fmt: skip
ENGLISH_PLAIN = (
    "{an}", "{n}", "{an}", "a picture of {an}", "an illustration of {an}", "an image of {an}", "a drawing of {an}",
    "draw {an}", "please draw {an}", "show me {an}", "i want a picture of {an}", "{an}, isolated",
    "{an} on a transparent background", "{n}, no background", "a simple picture of {an}", "just {an}",
)  # fmt: skip
CHINESE_STYLE: dict[str, tuple[str, ...]] = {
    "3d": ("3D{n}", "立体{n}", "3D风格的{n}", "3d渲染的{n}", "{yi}，3D风格"),
    "flat": ("扁平{n}", "扁平风格的{n}", "{yi}，扁平风格", "{n}扁平插画"),
    "emoji": ("{n}表情", "{n}贴纸", "{n}表情符号", "贴纸风格的{n}", "{yi}，表情风格"),
    "cartoon": ("卡通{n}", "卡通风格的{n}", "{yi}，卡通风格", "简单的卡通{n}"),
    "icon": ("{n}图标", "{n}的图标", "{yi}，图标风格", "简单的{n}图标"),
    "classic": ("经典{n}", "经典风格的{n}", "{yi}，经典风格", "经典{n}表情", "怀旧风格的{n}"),
    "blob": ("团子{n}", "团子风格的{n}", "{yi}，团子风格", "{n}团子表情"),
    "outlined": ("描边{n}", "描边风格的{n}", "{yi}，描边风格", "勾线{n}", "{n}描边插画"),
    "line": ("{n}线条图标", "{n}线性图标", "{yi}，线条风格", "线条风格的{n}", "细线条{n}"),
    "duotone": ("双色{n}", "双色{n}图标", "{yi}，双色风格", "双色调的{n}"),
    "doodle": ("手绘{n}", "{n}涂鸦", "{yi}，手绘风格", "手绘风格的{n}", "{n}简笔画"),
    "badge": ("{n}徽章", "圆形{n}徽章", "{yi}，徽章风格", "圆圈里的{n}"),
    "clipart": ("{n}剪贴画", "剪贴画风格的{n}", "{yi}，剪贴画风格", "{n}的剪贴画"),
    "gradient": ("渐变{n}", "渐变风格的{n}", "{yi}，渐变风格", "渐变色的{n}", "{n}渐变插画"),
}
CHINESE_PLAIN = (
    "{yi}", "{n}", "{yi}", "{n}的图片", "{n}插画", "画{yi}", "请画{yi}", "帮我画{yi}", "一张{n}的图片", "{n}，透明背景",
    "透明背景的{n}", "{n}的画",
)  # fmt: skip

CHINESE_NOT_COLOURS = frozenset("橙子 橙子片 青蛙 青椒 黄瓜 黄油 青柠 白云 红绿灯 金字塔 黑桃 棕榈树 灰熊".split())
CHINESE_WORDS = (
    "立体",
    "风格",
    "渲染",
    "扁平",
    "插画",
    "表情",
    "表情符号",
    "贴纸",
    "卡通",
    "经典",
    "怀旧",
    "团子",
    "描边",
    "勾线",
    "渐变",
    "渐变色",
    "线条",
    "线性",
    "双色",
    "手绘",
    "涂鸦",
    "简笔画",
    "徽章",
    "剪贴画",
    "圆形",
    "背景",
    "方块",
    "简单",
    "图标",
    "图片",
    "画",
)


def says_colour(name: str) -> bool:
    """Whether a name already says a colour: 'red apple', '红苹果'; a fruit called orange does not."""
    if name.isascii():
        return name != "orange slice" and any(word in COLOUR_NAMES for word in name.split()[:-1])
    spelled = any(colour in name for colour in COLOUR_NAMES.values())
    return spelled or (name[0] in "红橙黄绿蓝紫粉棕黑白灰金青" and name not in CHINESE_NOT_COLOURS)


def colourless(names: Sequence[str]) -> list[str]:
    """The names that say no colour; all of them where each says one."""
    return [name for name in names if not says_colour(name)] or list(names)


def coloured_english(name: str, colour: str) -> str:
    """'apple', 'red' -> 'red apple', unless the name already says a colour."""
    return name if says_colour(name) else f"{colour} {name}"


def coloured_chinese(name: str, colour: str, short: bool = False) -> str:
    """'苹果', 'red' -> '红色的苹果', or `short` '红色苹果'."""
    return name if says_colour(name) else f"{COLOUR_NAMES[colour]}{'' if short else '的'}{name}"


def fill_english(template: str, name: str) -> str:
    """Fill one English template; a plural or mass noun takes no article before its style word either."""
    bare = indefinite(name) == name
    text = template.format(
        n=name,
        an=indefinite(name),
        a="" if bare else "a",
        o="" if bare else "an",
        ai="a" if name[:1] not in "aeiou" else "an",
    )
    return " ".join(text.split())


def fill_chinese(template: str, name: str) -> str:
    """Fill one Chinese template."""
    return template.format(n=name, yi=counted(name))


def pick_names(names: Sequence[str], random_source: random.Random) -> str:
    """A name for one caption: the main one half of the time, else one of the synonyms."""
    return names[0] if len(names) == 1 or random_source.random() < 0.5 else random_source.choice(list(names[1:]))


def object_captions(
    english: Sequence[str],
    chinese: Sequence[str],
    style: str,
    colour: str | None,
    named: bool,
    seed: str,
    count: int = 10,
    cute: bool = False,
) -> dict[str, list[str]]:
    """Captions of one object record: {"en": [...], "zh": [...]}, at most `count` each, all different.

    `named` says that the colour must be in every caption (a recoloured picture: 'apple' alone would be wrong);
    otherwise the object's own colour is named in about a quarter of them. `cute` adds that word for animals.
    """
    source = random.Random(seed)
    captions: dict[str, list[str]] = {"en": [], "zh": []}
    for language, names, plain, styled in (
        ("en", english, ENGLISH_PLAIN, ENGLISH_STYLE[style]),
        ("zh", chinese, CHINESE_PLAIN, CHINESE_STYLE[style]),
    ):
        if named:  # a name must not contradict the new colour
            names = colourless(names)
        fill = fill_english if language == "en" else fill_chinese
        drawn = list(names[1:])
        source.shuffle(drawn)
        plan = [(names[0], template) for template in (plain[:2] if not named else plain[:1])]
        plan += [(names[0], template) for template in source.sample(styled, 2) + source.sample(plain, 1)]
        for name in drawn[:4]:
            plan += [(name, source.choice(plain[:3])), (name, source.choice(styled))]
        plan += [(pick_names(names, source), source.choice(plain + styled)) for _ in range(4 * count)]
        for name, template in plan:
            if colour is not None and (named or source.random() < 0.3):
                short = language == "zh" and source.random() < 0.5
                name = coloured_chinese(name, colour, short) if language == "zh" else coloured_english(name, colour)
            captions[language].append(fill(template, name))
        if cute and not named:
            captions[language].insert(2, fill("{a} cute {n}", names[0]) if language == "en" else f"可爱的{names[0]}")
        if language == "en" and not named and not uncountable(names[0]) and source.random() < 0.3:
            captions[language].insert(2, f"one {names[0]}")
        captions[language] = list(dict.fromkeys(captions[language]))[:count]
    return captions


def ground_captions(
    english: Sequence[str], chinese: Sequence[str], style: str, colour: str, ground: str, seed: str, count: int = 8
) -> dict[str, list[str]]:
    """Captions of a single-colour icon on a coloured ground; both colours are in every one."""
    source = random.Random(seed)
    captions: dict[str, list[str]] = {"en": [], "zh": []}
    nouns, things = colourless(english), colourless(chinese)
    for _ in range(4 * count):
        name = pick_names(nouns, source)
        text = source.choice(ENGLISH_GROUND).format(
            c=colour,
            n=name,
            ac=colour if uncountable(name) else indefinite(colour),
            g=indefinite(ground),
            plain=ground,
        )
        captions["en"].append(text)
        captions["zh"].append(
            source.choice(CHINESE_GROUND).format(
                c=COLOUR_NAMES[colour], g=COLOUR_NAMES[ground], n=pick_names(things, source)
            )
        )
    return {language: list(dict.fromkeys(texts))[:count] for language, texts in captions.items()}

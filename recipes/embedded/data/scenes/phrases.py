"""Captions of scenes in English and Chinese, from the scene graph; whatever a caption states is true of the picture."""

from __future__ import annotations

import random

from ..grammar import counted, some
from ..words import names, rows
from .graph import Placeable, Scene
from .landscape import INDOORS, SKYLESS

ADJECTIVES = ("beautiful", "calm", "golden", "peaceful", "stunning", "colorful", "lovely", "dreamy", "quiet", "scenic")
ADJECTIVES_ZH = ("美丽的", "宁静的", "漂亮的", "绚丽的", "平静的", "壮观的", "梦幻的")
GROUND_WORDS = {row[0]: tuple(names(cell) for cell in row[1:]) for row in rows("grounds.tsv")}
"""Ground -> phrases after 'over', bare phrases, places of things; Chinese nouns, Chinese places."""
MOMENT_WORDS = {row[0]: tuple(names(cell) for cell in row[1:]) for row in rows("moments.tsv")}
"""Time of day or weather -> head nouns ('{} over the sea'), adverbs, Chinese nouns, Chinese adverbs."""
ADJECTIVE_OF = {"rain": "rainy", "snow": "snowy", "storm": "stormy", "fog": "foggy", "clouds": "cloudy"}
TIMELESS = SKYLESS
RELATION_EN = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "next to": ("next to", "beside", "near"), "in front of": ("in front of",), "behind": ("behind",),
    "under": ("under", "beneath"), "above": ("above", "over", "flying over"), "on": ("on", "on top of"),
}  # fmt: skip
RELATION_ZH = {
    "left of": ("左边",), "right of": ("右边",), "next to": ("旁边", "边上"), "in front of": ("前面", "前"),
    "behind": ("后面", "后"), "under": ("下", "下面"), "above": ("上方", "上空"), "on": ("上", "上面"),
}  # fmt: skip


def landscape_english(scene: Scene, source: random.Random) -> str:
    """One English caption of a scene without placed things."""
    the, bare, place, _, _ = GROUND_WORDS[scene.ground]
    over, plain, adjective = source.choice(the), source.choice(bare), source.choice(ADJECTIVES)
    if scene.ground in TIMELESS:
        return source.choice((plain, plain, f"a {adjective} view of {over}", source.choice(place)))
    if scene.ground in INDOORS:
        late = {"night": " at night", "sunset": " at sunset"}.get(scene.time, "")
        return source.choice((plain, f"{plain}{late}", f"{plain}{late}", f"a {adjective} view of {over}{late}"))
    heads, adverbs = MOMENT_WORDS[scene.time][:2]
    options: list[str] = []
    if scene.weather in ("clear", "clouds"):
        tail = source.choice(("", "", " with clouds")) if scene.weather == "clouds" else ""
        options += [f"{plain} {source.choice(adverbs)}{tail}"]
        if scene.time in ("dawn", "sunset"):
            head = source.choice(heads)
            verb = "setting" if scene.time == "sunset" else "rising"
            options += [f"a {adjective} {head} over {over}{tail}"] * 4
            options += [
                f"{head} over {over}{tail}",
                f"a {head} over {over}{tail}",
                f"the sun {verb} over {over}{tail}",
                f"{head} at {over}" if scene.ground in ("beach", "harbour") else f"{over} {adverbs[0]}{tail}",
            ]
        elif scene.time == "night":
            options += [
                f"a {adjective} night over {over}",
                f"a starry night over {over}",
                f"{plain} under the stars",
                f"the night sky over {over}",
                f"stars over {over}",
                f"{plain} at night with stars",
            ]
            if scene.moon != "none":
                moon = source.choice(("the moon", f"a {scene.moon} moon", "moonlight"))
                options += [
                    f"{moon} over {over}",
                    f"{plain} at night with a {scene.moon} moon",
                    f"{plain} under a {scene.moon} moon",
                    f"{moon} over {over} at night",
                ]
        else:
            sky = "a blue sky" if scene.weather == "clear" else source.choice(("white clouds", "a cloudy sky"))
            options += [
                plain,
                f"{plain} under {sky}",
                f"a {adjective} day at {over}" if over.startswith("the") else f"{plain} on a {adjective} day",
                f"a sunny day over {over}",
                f"{sky} over {over}",
            ]
        return source.choice(options)
    head, adverb = (source.choice(words) for words in MOMENT_WORDS[scene.weather][:2])
    late = "" if scene.time == "noon" else f" {MOMENT_WORDS[scene.time][1][0]}"
    options = [
        f"{head} over {over}{late}",
        f"{plain} {adverb}{late}",
        f"{over} {adverb}{late}",
        f"a {adjective} picture of {over} {adverb}{late}",
    ]
    if scene.weather in ADJECTIVE_OF:
        options.append(f"a {ADJECTIVE_OF[scene.weather]} {'night' if scene.time == 'night' else 'day'} at {over}")
    return source.choice(options)


def landscape_chinese(scene: Scene, source: random.Random) -> str:
    """One Chinese caption of a scene without placed things."""
    noun, place = (source.choice(words) for words in GROUND_WORDS[scene.ground][3:])
    adjective = source.choice(ADJECTIVES_ZH)
    if scene.ground in TIMELESS:
        return source.choice((noun, f"{adjective}{noun}", f"{noun}的景色"))
    if scene.ground in INDOORS:
        late = {"night": "夜晚的", "sunset": "傍晚的"}.get(scene.time, "")
        return source.choice((noun, f"{late}{noun}", f"{adjective}{noun}", f"{late}{adjective}{noun}"))
    head = source.choice(MOMENT_WORDS[scene.time][2]) if MOMENT_WORDS[scene.time][2] else ""
    adverb = source.choice(MOMENT_WORDS[scene.time][3])
    if scene.weather in ("clear", "clouds"):
        options = [f"{adverb}的{noun}", f"{noun}，{adverb}"]
        if head:
            options += [
                f"{place}的{head}",
                f"{adjective}{place}{head}",
                f"{place}{adjective}{head}",
                f"{noun}{head}",
                f"{adverb}{adjective}{noun}",
            ]
        if scene.time == "night":
            options += [f"星空下的{noun}", f"{place}的星空"] + (
                [f"月光下的{noun}", f"{place}的月亮"] if scene.moon != "none" else []
            )
            options += {"full": [f"满月下的{noun}"], "crescent": [f"弯月下的{noun}"]}.get(scene.moon, [])
        if scene.time == "noon":
            options += [
                noun,
                f"蓝天下的{noun}" if scene.weather == "clear" else f"白云下的{noun}",
                f"{adjective}{noun}",
            ]
        if scene.weather == "clouds":
            options += [f"{adverb}多云的{noun}"]
        return source.choice(options)
    thing, when = (source.choice(words) for words in MOMENT_WORDS[scene.weather][2:])
    late = "" if scene.time == "noon" else adverb
    return source.choice(
        (f"{when}的{noun}" if not late else f"{late}{when}的{noun}", f"{late}{place}的{thing}", f"{noun}，{late}{when}")
    )


def placed_english(scene: Scene, table: dict[str, Placeable], source: random.Random) -> str:
    """One English caption of a scene with things in it."""
    words = [some(pick_name(table[t.concept].english, source), t.count) for t in scene.things]
    if scene.relation is None:
        subject = words[0]
    elif scene.relation == "next to" and source.random() < 0.3:
        subject = f"{words[0]} and {words[1]}"
    else:
        subject = f"{words[0]} {source.choice(RELATION_EN[scene.relation])} {words[1]}"
    sky = scene.relation is None and table[scene.things[0].concept].habitat == "sky" and scene.ground != "space"
    place = (
        f"over {source.choice(GROUND_WORDS[scene.ground][0])}" if sky else source.choice(GROUND_WORDS[scene.ground][2])
    )
    when = "" if scene.ground in TIMELESS else source.choice(MOMENT_WORDS[scene.time][1])
    if scene.ground in INDOORS:
        when = {"night": "at night", "sunset": "in the evening"}.get(scene.time, "")
    if scene.weather not in ("clear", "clouds"):
        late = when if scene.time != "noon" else ""
        when = f"{source.choice(MOMENT_WORDS[scene.weather][1])} {late}".strip()
    if (
        scene.time == "night"
        and scene.weather == "clear"
        and when
        and scene.ground not in INDOORS
        and source.random() < 0.3
    ):
        when = source.choice(("at night with stars", "under the stars", "under a starry sky"))
    alone = f"{subject} {when or place}"  # the bare noun is the name of a picture without a scene
    return source.choice(
        (f"{subject} {place}", f"{subject} {place} {when}", f"{subject} {place} {when}", alone)
    ).strip()


def placed_chinese(scene: Scene, table: dict[str, Placeable], source: random.Random) -> str:
    """One Chinese caption of a scene with things in it."""
    nouns = [pick_name(table[t.concept].chinese, source) for t in scene.things]
    words = [counted(name, t.count) for name, t in zip(nouns, scene.things, strict=True)]
    place = source.choice(GROUND_WORDS[scene.ground][4])
    if table[scene.things[0].concept].habitat == "sky" and scene.ground != "space":
        place = source.choice(GROUND_WORDS[scene.ground][3]) + "上空" if scene.relation is None else ""
    when = "" if scene.ground in TIMELESS else source.choice(MOMENT_WORDS[scene.time][3])
    if scene.ground in INDOORS:
        when = {"night": "夜里", "sunset": "傍晚"}.get(scene.time, "")
    if scene.weather not in ("clear", "clouds"):
        when = ("" if scene.time == "noon" else when) + source.choice(MOMENT_WORDS[scene.weather][3])
    if scene.relation is None:
        return source.choice(
            (
                f"{place}的{words[0]}",
                f"{words[0]}在{place}",
                f"{when}{place}的{words[0]}",
                f"{when}，{words[0]}在{place}".lstrip("，"),
                f"{place}的{nouns[0]}" if scene.things[0].count == 1 else f"{place}有{words[0]}",
            )
        )
    side = source.choice(RELATION_ZH[scene.relation])
    core = source.choice((f"{words[0]}在{nouns[1]}{side}", f"{nouns[1]}{side}的{words[0]}"))
    if scene.relation == "next to" and source.random() < 0.3:
        core = f"{words[0]}和{words[1]}"
    return source.choice((core, f"{core}，{place}", f"{when}，{core}", f"{place}，{core}")).strip("，")


def pick_name(choices: tuple[str, ...], source: random.Random) -> str:
    """The main name most of the time, else a synonym."""
    return choices[0] if source.random() < 0.7 else source.choice(choices)


def scene_captions(scene: Scene, table: dict[str, Placeable], count: int = 8) -> dict[str, list[str]]:
    """Captions of one scene: {"en": [...], "zh": [...]}, up to `count` different ones each."""
    source = random.Random(scene.seed + "captions")
    captions: dict[str, list[str]] = {"en": [], "zh": []}
    for _ in range(4 * count):
        english = placed_english(scene, table, source) if scene.things else landscape_english(scene, source)
        chinese = placed_chinese(scene, table, source) if scene.things else landscape_chinese(scene, source)
        captions["en"].append(" ".join(english.split()))
        captions["zh"].append(chinese)
    return {language: list(dict.fromkeys(texts))[:count] for language, texts in captions.items()}


def chinese_phrases() -> list[str]:
    """Every Chinese word the scene captions are made of."""
    words = [word.rstrip("的") for word in ADJECTIVES_ZH]
    words += [word for ground in GROUND_WORDS.values() for word in (*ground[3], *ground[4])]
    words += [word for moment in MOMENT_WORDS.values() for word in (*moment[2], *moment[3])]
    words += [word for side in RELATION_ZH.values() for word in side]
    return [*words, "星空", "月光", "月亮", "满月", "弯月", "蓝天", "多云", "景色", "上空"]

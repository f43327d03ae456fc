"""Captions: grammar, both languages, colours, and agreement with the scene graph."""

from __future__ import annotations

import re

import pytest
from recipes.embedded.data.captions import CHINESE_STYLE, ENGLISH_STYLE, ground_captions, object_captions, says_colour
from recipes.embedded.data.colours import COLOUR_NAMES, PAINT
from recipes.embedded.data.concepts import mood_names, read_names, read_synonyms
from recipes.embedded.data.glyphs import read_glyphs
from recipes.embedded.data.grammar import counted, indefinite, plural
from recipes.embedded.data.scenes.graph import Scene, Thing, read_placeables, sample_scene
from recipes.embedded.data.scenes.phrases import GROUND_WORDS, scene_captions
from recipes.embedded.data.sources import SETS

from stable_diffusion.evaluation.sections.questions import style_words

HAN = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("apple", "an apple"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("grapes", "grapes"),
        ("bus", "a bus"),
        ("glass of milk", "a glass of milk"),
        ("person with red hair", "a person with red hair"),
        ("bread", "bread"),
        ("santa claus", "santa claus"),
        ("two hearts", "two hearts"),
    ],
)
def test_indefinite(name: str, phrase: str) -> None:
    assert indefinite(name) == phrase


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("cat", "cats"),
        ("wolf", "wolves"),
        ("palm tree", "palm trees"),
        ("church", "churches"),
        ("butterfly", "butterflies"),
    ],
)
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


@pytest.mark.parametrize(
    ("name", "number", "phrase"),
    [
        ("猫", 1, "一只猫"),
        ("苹果", 1, "一个苹果"),
        ("帆船", 2, "两艘帆船"),
        ("树", 3, "三棵树"),
        ("恐龙", 1, "一只恐龙"),
    ],
)
def test_measure_words(name: str, number: int, phrase: str) -> None:
    assert counted(name, number) == phrase


@pytest.mark.parametrize("style", sorted(ENGLISH_STYLE))
def test_object_captions_are_complete(style: str) -> None:
    for colour, named in ((None, False), ("red", False), ("blue", True)):
        captions = object_captions(("apple", "fruit"), ("苹果", "水果"), style, colour, named, f"seed{style}")
        for language in ("en", "zh"):
            texts = captions[language]
            assert 4 <= len(texts) <= 10
            assert len(set(texts)) == len(texts)
            assert not any(re.search(r"[{}]|\s\s|^\s|\s$", text) for text in texts)
        assert all(HAN.search(text) for text in captions["zh"])
        assert not any(HAN.search(text) for text in captions["en"])
        if named:
            assert all("blue" in text for text in captions["en"])
            assert all("蓝色" in text for text in captions["zh"])
        else:
            assert "an apple" in captions["en"] or "a red apple" in captions["en"]


def test_every_style_has_words() -> None:
    styles = {style for entry in SETS for style in (entry.style, *(style for _, style in entry.endings))} - {"", "-"}
    assert styles <= set(ENGLISH_STYLE) and set(ENGLISH_STYLE) == set(CHINESE_STYLE)
    assert styles == set(style_words())


def test_recoloured_names_do_not_contradict() -> None:
    captions = object_captions(("apple", "red apple"), ("苹果", "红苹果"), "flat", "blue", True, "x")
    assert not any("red" in text for text in captions["en"])
    assert not any("红" in text for text in captions["zh"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("red apple", True),
        ("orange", False),
        ("orange slice", False),
        ("红苹果", True),
        ("橙子", False),
        ("口红", False),
    ],
)
def test_says_colour(name: str, says: bool) -> None:
    assert says_colour(name) is says


def test_captions_use_the_other_names() -> None:
    names = ("dog", "puppy", "doggy", "hound", "pup")
    texts = object_captions(names, ("狗", "小狗", "狗狗"), "flat", None, False, "s")
    assert all(any(re.search(rf"\b{name}\b", text) for text in texts["en"]) for name in names[:1])
    assert sum(any(re.search(rf"\b{name}\b", text) for text in texts["en"]) for name in names) >= 3
    assert any("小狗" in text for text in texts["zh"]) and any("狗狗" in text for text in texts["zh"])


def test_synonyms_and_moods() -> None:
    table = read_synonyms()
    assert "kitty" in table["cat"][0] and all(english and chinese for english, chinese in table.values())
    assert all(name.isascii() for english, _ in table.values() for name in english)
    assert mood_names(["sad", "tear", "mad", "angry"]) == (["sad face", "angry face"], ["难过的脸", "生气的脸"])


def test_object_captions_are_deterministic() -> None:
    first = object_captions(("dog", "puppy"), ("狗",), "3d", None, False, "a")
    assert first == object_captions(("dog", "puppy"), ("狗",), "3d", None, False, "a")
    assert first != object_captions(("dog", "puppy"), ("狗",), "3d", None, False, "b")


def english_on_ground(names: tuple[str, ...], colour: str, ground: str) -> set[str]:
    return {text for n in range(99) for text in ground_captions(names, ("猫",), "icon", colour, ground, str(n))["en"]}


def test_ground_captions_say_both_colours() -> None:
    captions = ground_captions(("cat", "kitten"), ("猫",), "icon", "teal", "yellow", "s")
    assert all("teal" in text and "yellow" in text for text in captions["en"])
    assert all("青色" in text and "黄色" in text for text in captions["zh"])
    texts = english_on_ground(("cat",), "teal", "orange")
    assert "a teal cat icon on an orange background" in texts
    texts = english_on_ground(("socks",), "red", "blue")
    assert "red socks on a blue background" in texts and "a red socks on a blue square" not in texts


def test_scene_captions_in_both_languages() -> None:
    table = read_placeables()
    for number in range(300):
        scene = sample_scene(f"captions{number}", number % 2 == 0, table)
        captions = scene_captions(scene, table)
        assert captions["en"] and captions["zh"]
        for text in captions["en"]:
            assert not re.search(r"[{}]|\s\s|,$|^\s|\s$", text) and not HAN.search(text), text
        for text in captions["zh"]:
            assert not re.search(r"[{}a-z]|，，|^，|，$", text) and HAN.search(text), text


def test_a_thing_in_a_scene_is_never_captioned_by_its_bare_noun() -> None:
    """Since that is what a picture without a scene is called."""
    table = read_placeables()
    bare = {indefinite(name) for place in table.values() for name in place.english}
    for number in range(300):
        captions = scene_captions(sample_scene(f"bare{number}", True, table), table)
        assert not bare & set(captions["en"])


def test_the_sunset_over_the_ocean_is_in_distribution() -> None:
    scenes = [Scene(time="sunset", weather="clear", ground="ocean", seed=str(n)) for n in range(80)]
    captions = [scene_captions(scene, {}) for scene in scenes]
    assert any("a beautiful sunset over the ocean" in entry["en"] for entry in captions)
    assert any("海上的日落" in entry["zh"] for entry in captions)


def test_relation_words_follow_the_graph() -> None:
    table = read_placeables()
    things = (Thing(concept="cat"), Thing(concept="deciduous-tree"))
    scene = Scene(time="noon", weather="rain", ground="field", things=things, relation="under", style="flat", seed="r")
    captions = scene_captions(scene, table)
    assert all(re.search(r"(cat|kitten) (under|beneath) a tree", text) for text in captions["en"])
    assert all("树" in text and "猫" in text and "下" in text for text in captions["zh"])
    flipped = Scene(
        time="noon", weather="clear", ground="field", things=things, relation="left of", style="flat", seed="r"
    )
    assert all("left of a tree" in text for text in scene_captions(flipped, table)["en"])


def test_tables_are_whole() -> None:
    assert set(PAINT) <= set(COLOUR_NAMES)
    assert len(PAINT) == 11
    assert all(english and chinese for english, chinese in read_names().values())
    assert all((glyph.english and HAN.search(glyph.chinese[0])) or glyph.chinese for glyph in read_glyphs())
    assert all(all(cells) for cells in GROUND_WORDS.values())

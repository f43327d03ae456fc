from __future__ import annotations

from pathlib import Path

import pytest
from recipes.embedded.data.concepts import Concept
from recipes.embedded.data.lexicon import WordNet, lexicon, lexicon_lines, meaning, nearest, read_wordnet, usual

NOUNS = """\
  1 a licence, indented
00000010 05 n 01 animal 0 002 ~ 00000020 n 0000 ~ 00000070 n 0000 | a living thing
00000020 05 n 01 bird 0 002 @ 00000010 n 0000 ~ 00000030 n 0000 | it flies
00000030 05 n 01 duck 0 003 @ 00000020 n 0000 ~ 00000040 n 0000 ~ 00000050 n 0000 | it swims
00000040 05 n 02 mallard 0 Anas_platyrhynchos 0 001 @ 00000030 n 0000 | a wild duck
00000050 05 n 01 duckling 0 001 @ 00000030 n 0000 | a young duck
00000060 04 n 01 duck 0 000 | a score of nothing
00000070 05 n 02 dog 0 domestic_dog 0 001 @ 00000010 n 0000 | it barks
00000080 15 n 01 inferno 0 000 | a great fire
"""
SENSES = """\
animal%1:05:00:: 00000010 1 50
bird%1:05:00:: 00000020 1 20
domestic_dog%1:05:00:: 00000070 1 0
dog%1:05:00:: 00000070 1 42
duck%1:04:00:: 00000060 1 0
duck%1:05:00:: 00000030 2 9
duckling%1:05:00:: 00000050 1 0
inferno%1:15:00:: 00000080 1 1
mallard%1:05:00:: 00000040 1 0
quack%2:32:00:: 00000099 1 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "dict").mkdir()
    (folder / "dict/data.noun").write_text(NOUNS)
    (folder / "dict/index.sense").write_text(SENSES)
    return folder


@pytest.fixture(scope="module")
def net(root: Path) -> WordNet:
    return read_wordnet(root / "dict")


def concept(name: str, group: str, *other: str, chinese: str = "") -> Concept:
    return Concept(id=name, code="", group=group, english=(name, *other), chinese=(chinese,) if chinese else ())


def test_the_nouns_are_read_without_latin(net: WordNet) -> None:
    assert net.synsets["00000040"].words == ("mallard",)
    assert net.synsets["00000070"].words == ("dog", "domestic dog")
    assert net.synsets["00000030"].above == ("00000020",)
    assert net.synsets["00000030"].below == ("00000040", "00000050")
    assert net.senses["duck"] == ["00000060", "00000030"] and "quack" not in net.senses


def test_the_sense_suits_the_kind_of_thing(net: WordNet) -> None:
    assert meaning(net, "duck", "animal-bird") == "00000030"  # its second sense
    assert meaning(net, "inferno", "animal-bird") is None
    assert meaning(net, "inferno", "sky-weather") == "00000080"  # nothing drawable: the first sense
    assert meaning(net, "unheard of", "") is None


def test_a_kind_belongs_to_the_nearest_thing(net: WordNet) -> None:
    found = nearest(net, {"00000020": "bird", "00000030": "duck"})
    assert found["00000040"] == (1, "duck") and found["00000030"] == (0, "duck") and found["00000020"] == (0, "bird")
    alone = nearest(net, {"00000020": "bird"})
    assert alone["00000040"] == (2, "bird")  # a cousin, by way of the animal
    assert "00000070" not in nearest(net, {"00000020": "bird"}, farthest=3)


def test_rare_senses_and_long_names_without_use_are_left_out(net: WordNet) -> None:
    assert usual(net, "mallard", "00000040", 1)
    assert usual(net, "domestic dog", "00000070", 0) and not usual(net, "domestic dog", "00000070", 1)


def test_pairs_of_words_and_names(net: WordNet) -> None:
    things = [concept("duck", "animal-bird", "quacker", chinese="鸭子"), concept("bird", "animal-bird")]
    pairs = dict(lexicon(net, things))
    assert pairs["mallard"] == pairs["duckling"] == pairs["quacker"] == pairs["鸭子"] == "duck"
    assert "duck" not in pairs and "bird" not in pairs and "anas platyrhynchos" not in pairs


def test_kinds_of_a_second_name_belong_to_the_main_one(net: WordNet) -> None:
    assert dict(lexicon(net, [concept("waterfowl", "animal-bird", "duck")]))["mallard"] == "waterfowl"


def test_words_that_lie_near_nothing_have_no_name(root: Path) -> None:
    lines = lexicon_lines(root, [concept("duck", "animal-bird")], [])
    assert "mallard\tduck" in lines and "inferno\t" in lines
    assert not any(line.startswith("duck\t") for line in lines)

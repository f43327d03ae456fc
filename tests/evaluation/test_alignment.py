"""Alignment: a painter that follows its prompt scores 1, one that ignores it exactly chance, one that errs 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import (
    BlindEye,
    FakeEye,
    bench,
    ignorant,
    noun_pairs,
    obedient,
    picture_of,
    record,
    speaks_chinese,
    write_pack,
)
from torch import Tensor

from stable_diffusion.evaluation.bench import Plan
from stable_diffusion.evaluation.report import Alignment, Score
from stable_diffusion.evaluation.sections.alignment import chinese_score, measure, synonym_score
from stable_diffusion.evaluation.sections.questions import PAINTED, nouns, style_words, synonyms

PLAN = Plan(chinese=10, colour=24, counting=15, relations=16, style=15)
KINDS = tuple(PAINTED)
EYE = FakeEye(noun_pairs())


def found(make: Any, eye: FakeEye = EYE, **more: Any) -> Alignment:
    result = measure(bench(make, PLAN, eye=eye, **more))
    assert result is not None
    return result


def test_a_painter_that_follows_its_prompt() -> None:
    result = found(speaks_chinese(obedient, noun_pairs()))
    for name in ("retrieval", "retrieval_chinese", "chinese_picture", *KINDS):
        assert getattr(result, name).value == 1.0, name
    assert result.retrieval == Score(value=1.0, chance=1 / 100, count=100)
    assert result.retrieval_chinese == Score(value=1.0, chance=1 / 10, count=10)
    assert math.isclose(result.chinese_cosine, 1.0, rel_tol=1e-6)
    assert abs(result.other_cosine) < 0.1  # random pictures are almost orthogonal
    assert [getattr(result, kind).count for kind in KINDS] == [24, 15, 16, 15]


def test_a_painter_that_ignores_its_prompt_is_at_chance() -> None:
    result = found(ignorant)
    assert math.isclose(result.retrieval.value, 1 / 100, rel_tol=1e-9)
    assert math.isclose(result.retrieval_chinese.value, 1 / 10, rel_tol=1e-9)
    assert math.isclose(result.chinese_picture.value, 1 / 10, rel_tol=1e-9)
    assert math.isclose(result.chinese_cosine, 1.0, rel_tol=1e-6)  # all pictures are one,
    assert math.isclose(result.other_cosine, 1.0, rel_tol=1e-6)  # which this number gives away


def test_a_painter_that_knows_no_chinese() -> None:
    result = found(obedient)
    assert result.retrieval.value == 1.0
    assert result.chinese_cosine < 0.2 and result.retrieval_chinese.value < 0.5 and result.chinese_picture.value < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_painter_that_errs_in_one_word(kind: str) -> None:
    """It paints the next sentence of the question, so that this kind of question is never answered right."""
    questions = PAINTED[kind](getattr(PLAN, kind))
    wrong = {q.prompt: q.sentences[(q.right + 1) % len(q.sentences)] for q in questions}

    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        return picture_of(wrong.get(prompt, prompt))

    result = found(make)
    assert getattr(result, kind).value == 0.0
    assert getattr(result, kind).chance == 1 / len(questions[0].sentences)


def test_an_eye_that_tells_no_words_apart_is_at_chance() -> None:
    result = found(obedient, BlindEye())
    for kind in KINDS:
        score = getattr(result, kind)
        assert math.isclose(score.value, score.chance, rel_tol=1e-9), kind
    assert math.isclose(result.retrieval.value, 1 / 100, rel_tol=1e-9)
    assert math.isclose(result.synonyms.value, result.synonyms.chance, rel_tol=1e-9)
    assert math.isclose(result.chinese_words.value, 1 / 100, rel_tol=1e-9)


def test_synonyms_with_known_vectors() -> None:
    """An eye that knows all, and one that is wrong in a known quarter."""
    pairs, names = synonyms(), sorted({name for _, name in synonyms()})
    know = dict(pairs)
    assert synonym_score(FakeEye(know)) == Score(value=1.0, chance=1 / len(names), count=200)
    for word, name in pairs[:50]:
        know[word] = next(other for other in names if other != name)
    assert math.isclose(synonym_score(FakeEye(know)).value, 150 / 200, rel_tol=1e-12)


def test_chinese_words_with_known_vectors() -> None:
    known = {noun.bare_chinese: noun.bare for noun in nouns()}
    assert chinese_score(FakeEye(known)) == Score(value=1.0, chance=1 / 100, count=100)
    swapped = {**known, nouns()[0].bare_chinese: nouns()[1].bare, nouns()[1].bare_chinese: nouns()[0].bare}
    assert math.isclose(chinese_score(FakeEye(swapped)).value, 98 / 100, rel_tol=1e-12)


# --- real pictures ----------------------------------------------------------------------------------------------------

REAL = [
    record(0, "heldout", "a red apple", colour="red"),
    record(1, "heldout", "a blue car", colour="blue"),
    record(2, "heldout", "two sheep"),
    record(3, "heldout", "three fish"),
    record(4, "heldout", "a cat to the left of a tree", style="scene"),
    record(5, "heldout", "a bird above a house", style="scene"),
    record(6, "heldout", "a robot", style=next(iter(style_words()))),
    record(7, "train", "a ship"),
]


def real_pack(folder: Path, caption_of: Any) -> Any:
    return write_pack(folder, [(fields, picture_of(caption_of(fields))) for fields in REAL])


def test_real_pictures_that_show_their_captions(tmp_path: Path) -> None:
    words = style_words()

    def caption(fields: dict[str, Any]) -> str:
        english = fields["captions"]["en"][0]
        return f"{english}, {words[fields['style']]}" if fields["style"] in words else english

    pack = real_pack(tmp_path, caption)
    chinese = {fields["captions"]["zh"][0]: fields["captions"]["en"][0] for fields in REAL}
    scores = found(obedient, FakeEye(chinese), pack=pack).real
    assert set(scores) == {"retrieval", "retrieval_chinese", *KINDS}
    assert {kind: scores[kind].count for kind in KINDS} == {"colour": 2, "counting": 2, "relations": 2, "style": 1}
    assert all(scores[kind].value == 1.0 for kind in KINDS)
    # the styled picture is not its bare caption's, so six of seven are found, and the last one by luck or not at all
    assert scores["retrieval"].count == 7 and scores["retrieval"].chance == 1 / 7
    assert scores["retrieval"].value >= 6 / 7 and scores["retrieval_chinese"].value >= 6 / 7


def test_real_pictures_with_one_wrong_word(tmp_path: Path) -> None:
    wrong = {
        "a red apple": "a blue apple", "a blue car": "a red car", "two sheep": "three sheep", "three fish": "two fish",
        "a cat to the left of a tree": "a cat to the right of a tree", "a bird above a house": "a bird below a house",
        "a robot": f"a robot, {list(style_words().values())[1]}",
    }  # fmt: skip
    pack = real_pack(tmp_path, lambda fields: wrong.get(fields["captions"]["en"][0], "a ship"))
    scores = found(obedient, pack=pack).real
    assert all(scores[kind].value == 0.0 for kind in KINDS)


def test_score_error_is_that_of_a_share() -> None:
    assert math.isclose(Score(value=0.5, chance=0.1, count=100).error, 0.05)
    assert Score(value=1.0, chance=0.1, count=7).error == 0.0

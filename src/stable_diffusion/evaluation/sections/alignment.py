"""Alignment: whether a picture shows what its prompt said, judged by the eye; and whether the eye knows the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..bench import Bench
from ..metrics.retrieval import forced_choice, retrieval
from ..report import Alignment, Score
from ..tower import Eye
from .quality import SECTION
from .questions import PAINTED, Question, nouns, real_question, synonyms

AMONG = 100


def measure(bench: Bench) -> Alignment | None:
    """Needs the eye; the pack adds held-out captions as prompts, and the same questions to real pictures."""
    if bench.eye is None:
        bench.skip("alignment", "no image tower was given to judge with (--tower)")
        return None
    answers: dict[str, Any] = {kind: _painted(bench, kind) for kind in PAINTED}
    return Alignment(
        **_languages(bench),
        **answers,
        synonyms=synonym_score(bench.eye),
        chinese_words=chinese_score(bench.eye),
        real=_real(bench),
    )


def _languages(bench: Bench) -> dict[str, Any]:
    """Retrieval of the caption that was painted, in both languages, and likeness of the two pictures."""
    assert bench.eye is not None
    pairs, painter = bench.prompts(), bench.painter
    seeds = [bench.plan.seed + k for k in range(len(pairs))]
    english = bench.eye.look(painter.paint_all(SECTION, [pair[0] for pair in pairs], seeds)).embedding
    rows = _spaced(len(pairs), bench.plan.chinese)
    asked = [pairs[row][1] for row in rows]
    pictures = painter.paint_all("Chinese prompts", asked, [seeds[row] for row in rows])
    captions = [f"{pairs[row][1]} ({pairs[row][0]})" for row in rows]
    bench.show("alignment", "Painted from Chinese captions", captions, pictures)
    chinese, words = bench.eye.look(pictures).embedding, bench.eye.read([pair[0] for pair in pairs])
    cosines = chinese @ english[rows].T
    own = float(cosines.diagonal().mean())
    others = float((cosines.sum() - cosines.trace()) / max(1, len(rows) * (len(rows) - 1)))
    return {
        "retrieval": retrieval_score(english, words),
        "retrieval_chinese": retrieval_score(chinese, words[rows]),
        "chinese_picture": retrieval_score(chinese, english[rows]),
        "chinese_cosine": own,
        "other_cosine": others,
    }


def _painted(bench: Bench, kind: str) -> Score:
    """Paint the right sentence of every question; the eye must find it again."""
    assert bench.eye is not None
    questions = PAINTED[kind](getattr(bench.plan, kind))
    prompts = [question.prompt for question in questions]
    pictures = bench.painter.paint_all(kind, prompts, [bench.plan.seed + k for k in range(len(prompts))])
    found = choices(bench.eye, bench.eye.look(pictures).embedding, questions)
    captions = [f"{'✓' if right == 1 else '✗'} {prompt}" for prompt, right in zip(prompts, found.tolist(), strict=True)]
    bench.show("alignment", f"Painted for {kind}: does the tower choose the prompt again?", captions, pictures)
    return choice_score(questions, found)


def _real(bench: Bench) -> dict[str, Score]:
    """The same questions to real held-out pictures: how well the eye itself sees. Empty without a pack."""
    assert bench.eye is not None
    if bench.pack is None:
        bench.skip("alignment of real pictures", "no data pack was given (--data)")
        return {}
    records = bench.pack.distinct("heldout", bench.plan.held_out)
    scores: dict[str, Score] = {}
    if records:
        seen = bench.look(records).embedding
        scores["retrieval"] = retrieval_score(seen, bench.eye.read([str(record.caption) for record in records]))
        scores["retrieval_chinese"] = retrieval_score(
            seen, bench.eye.read([str(record.chinese_caption) for record in records])
        )
    for kind in PAINTED:
        asked = [(real_question(kind, record), record) for record in bench.pack.choose("heldout")]
        kept = [(question, record) for question, record in asked if question is not None][: bench.plan.held_out]
        if kept:
            seen = bench.look([record for _, record in kept]).embedding
            questions = [question for question, _ in kept]
            scores[kind] = choice_score(questions, choices(bench.eye, seen, questions))
    return scores


def retrieval_score(pictures: Tensor, sentences: Tensor) -> Score:
    """For every picture its own sentence among 100, or among all where there are fewer."""
    among = min(AMONG, len(pictures))
    return Score(value=retrieval(pictures, sentences, among), chance=1 / among, count=len(pictures))


def choices(eye: Eye, pictures: Tensor, questions: Sequence[Question]) -> Tensor:
    """Whether each picture [N,P] is nearest to the right sentence of its question, [N] as `forced_choice`."""
    width = len(questions[0].sentences)
    words = eye.read([sentence for question in questions for sentence in question.sentences])
    right = torch.tensor([question.right for question in questions])
    return forced_choice(pictures, words.view(len(questions), width, -1), right)


def choice_score(questions: Sequence[Question], answers: Tensor) -> Score:
    """Share of right answers [N] to questions that all have equally many sentences."""
    return Score(value=float(answers.mean()), chance=1 / len(questions[0].sentences), count=len(questions))


def synonym_score(eye: Eye) -> Score:
    """Share of synonyms whose nearest name, among all names of the list, is the one they stand for."""
    pairs = synonyms()
    names = sorted({name for _, name in pairs})
    return _nearest_word(eye, [word for word, _ in pairs], [names.index(name) for _, name in pairs], names)


def chinese_score(eye: Eye) -> Score:
    """Share of Chinese nouns whose nearest English noun, among 100, is their translation."""
    known = nouns()
    return _nearest_word(eye, [noun.bare_chinese for noun in known], list(range(len(known))), [n.bare for n in known])


def _nearest_word(eye: Eye, words: list[str], right: list[int], names: list[str]) -> Score:
    candidates = eye.read(names)
    answers = forced_choice(eye.read(words), candidates.expand(len(words), -1, -1), torch.tensor(right))
    return Score(value=float(answers.mean()), chance=1 / len(names), count=len(words))


def _spaced(count: int, wanted: int) -> list[int]:
    wanted = min(count, wanted)
    return [(2 * k + 1) * count // (2 * wanted) for k in range(wanted)]

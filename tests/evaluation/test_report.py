"""The report on a tiny model without pack and tower: what needs neither is there, the rest is said to be left out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import FakeEye, FakePainter, identity_autoencoder, obedient

from stable_diffusion.cli.commands.evaluate import SECTIONS as COMMAND_SECTIONS
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.evaluation.bench import QUICK, Bench
from stable_diffusion.evaluation.page import page
from stable_diffusion.evaluation.run import SECTIONS, evaluate
from stable_diffusion.evaluation.sections import alignment, diversity, stability
from stable_diffusion.evaluation.sections.questions import PAINTED, nouns, synonyms

SMALL = dataclasses.replace(
    QUICK, diverse_prompts=2, diverse_seeds=2, sensitive=1, timed=1, samplers=("heun",), precisions=("int8",)
)


def test_report_without_pack_and_tower(tiny_native_model: Any, tmp_path: Path) -> None:
    report = evaluate(tiny_native_model, plan=SMALL)
    assert report.quality is None and report.alignment is None
    assert {"quality", "alignment", "Vendi score and memorisation"} <= {item.what for item in report.left_out}
    assert report.stability is not None and report.efficiency is not None and report.diversity is not None
    assert report.stability.not_finite == 0 and report.diversity.pixel_distance > 0
    assert report.stability.equalities[0].equal  # one at a time by default
    assert report.efficiency.flops > report.efficiency.flops_decoder > 0 and report.efficiency.share > 0
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["orders"]
    assert page(report).count("data:image/webp") >= 4 and "$" not in page(report).split("<pre>")[0]


def test_sections() -> None:
    assert COMMAND_SECTIONS == SECTIONS
    with pytest.raises(InvalidRequest, match="no section"):
        evaluate(None, sections=("speed",))  # type: ignore[arg-type]


def test_the_quick_form_paints_as_much_as_documented() -> None:
    """docs/evaluation.md counts it in pictures of a model with 20 steps; here they cost nothing."""
    model = identity_autoencoder()
    model.defaults = dataclasses.replace(model.defaults, steps=20, sampler="dpmpp_2m")
    made = Bench(painter=FakePainter(obedient, model), plan=QUICK, eye=FakeEye())  # type: ignore[arg-type]
    alignment.measure(made)
    diversity.measure(made)
    stability.measure(dataclasses.replace(made, plan=dataclasses.replace(QUICK, precisions=())), None)
    cost = 0.0
    for order in made.painter.orders:
        evaluations = 2 if order.settings.get("sampler") == "heun" else 1
        cost += order.settings.get("count", 1) * evaluations * order.settings.get("steps", 20) / 20
    timing = QUICK.timed + 2  # the warm-up, and one for counting operations
    precisions, restart = QUICK.sensitive * len(QUICK.precisions), 1
    assert round(cost + timing + precisions + restart) == 286
    assert "286 pictures" in (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text("utf-8")


def test_word_lists_and_questions() -> None:
    pairs = synonyms()
    assert len(pairs) == len({word for word, _ in pairs}) == 200
    assert len({noun.english for noun in nouns()}) == len({noun.chinese for noun in nouns()}) == 100
    for make in PAINTED.values():
        questions = make(15)
        assert len({len(question.sentences) for question in questions}) == 1
        assert all(len(set(question.sentences)) == len(question.sentences) for question in questions)

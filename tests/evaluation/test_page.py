"""The page: every section with its numbers, pictures in their place, nothing from elsewhere, and small."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from stable_diffusion.evaluation import page as page_module
from stable_diffusion.evaluation.cards import CLAIMS, cards
from stable_diffusion.evaluation.page import page
from stable_diffusion.evaluation.report import (
    Alignment,
    Diversity,
    Efficiency,
    Equality,
    LeftOut,
    Quality,
    Report,
    Score,
    Sensitivity,
    Shown,
    Stability,
)
from stable_diffusion.evaluation.tables import sections


def score(value: float, chance: float = 0.5) -> Score:
    return Score(value=value, chance=chance, count=40)


def example() -> Report:
    """A report in which every number is another one."""
    four = torch.linspace(0, 1, 96).expand(4, 4, 96, 96)
    return Report(
        model={
            "name": "<b>tiny</b>",
            "parameters": {"together": 34_400_000},
            "defaults": {"width": 96, "height": 64, "steps": 20},
        },
        settings={},
        machine={"dtype": "float32", "device": "cpu", "threads": 2},
        seconds=90.0,
        quality=Quality(
            frechet=0.123,
            frechet_of_training=0.0456,
            kernel=0.0321,
            kernel_of_training=0.0021,
            cmmd_clip=0.789,
            frechet_clip=7.65,
            painted=100,
            held_out=439,
            psnr=31.4,
            ssim=0.957,
            alpha_iou=0.983,
            reconstructed=48,
        ),
        alignment=Alignment(
            retrieval=score(0.41, 0.01),
            retrieval_chinese=score(0.37, 0.025),
            chinese_picture=score(0.62, 0.025),
            chinese_cosine=0.71,
            other_cosine=0.11,
            colour=score(0.83, 0.1),
            counting=score(0.47, 1 / 3),
            relations=score(0.56),
            style=score(0.67, 0.25),
            synonyms=score(0.81, 0.01),
            chinese_words=score(0.92, 0.01),
            real={"retrieval": score(0.88, 0.01), "colour": score(0.95, 0.1)},
        ),
        diversity=Diversity(
            seeds=8,
            prompts=("a cat", "a dog"),
            pixel_distance=0.21,
            vendi=3.4,
            vendi_by_prompt=(3.1, 3.7),
            vendi_of_held_out=5.2,
            distance=0.33,
            distance_between_prompts=0.55,
            nearest_training=0.07,
            nearest_training_of_held_out=0.09,
            threshold=0.013,
            repeated=0.022,
            repeated_of_held_out=0.031,
            training=3000,
        ),
        stability=Stability(
            equalities=(
                Equality(what="one", equal=True, largest=0),
                Equality(what="other", equal=False, largest=9),
            ),
            pictures=264,
            not_finite=3,
            extremes=5,
            extremes_not_finite=1,
            sensitivity=(Sensitivity(setting="precision", value="int8", psnr=28.6, ssim=0.94),),
        ),
        efficiency=Efficiency(
            seconds=1.234,
            timed=3,
            steps=20,
            load_seconds=0.87,
            peak_memory=512 * 2**20,
            flops=612_000_000_000,
            flops_text=1_000_000_000,
            flops_decoder=40_000_000_000,
            peak_flops=9e11,
            share=0.551,
        ),
        left_out=(LeftOut(what="something", why="a & b"),),
        shown=(
            Shown(section="quality", title="Singles", captions=("<i>cat</i>", "dog"), pictures=four[:2]),
            Shown(section="diversity", title="Pairs", captions=("a", "b"), pictures=four, together=2),
        ),
    )


class Reader(HTMLParser):
    """Tags that are opened and closed in order, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.figures = 0
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.figures += tag == "figure"
        self.fetched += [value or "" for name, value in attributes if name in ("src", "srcset", "data")]
        self.ids += [value or "" for name, value in attributes if name == "id"]
        assert tag not in ("link", "script", "iframe", "object")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_every_section_is_there_and_nothing_comes_from_elsewhere() -> None:
    text = page(example())
    reader = read(text)
    assert reader.ids == list(CLAIMS)
    assert reader.figures == 4 and all(value.startswith("data:image/") for value in reader.fetched)
    assert sum(value.startswith("data:image/webp") for value in reader.fetched) == 6
    assert "$" not in text and "url(" not in text and "<b>tiny</b>" not in text and "&lt;i&gt;cat" in text
    assert 'name="viewport"' in text and "a &amp; b" in text


def test_big_numbers_are_those_of_the_report() -> None:
    big = {name: [card.number for card in made] for name, made in cards(example()).items()}
    assert big == {
        "quality": ["0.123", "0.789", "31.4 dB", "98.3 %"],
        "alignment": ["41 %", "83 %", "47 %", "56 %", "67 %", "62 %"],
        "diversity": ["3.4 of 8", "2.2 %"],
        "stability": ["1 of 2", "3 of 264", "28.6 dB"],
        "efficiency": ["1.23 s", "512 MiB", "612 GFLOP", "55.1 %"],
    }
    bars = {card.name: card.bar for card in cards(example())["alignment"]}
    assert bars["colour"] == 0.83
    marks = next(card.marks for card in cards(example())["alignment"] if card.name == "colour")
    assert [(mark.what, mark.place) for mark in marks] == [("chance", 0.1), ("real pictures", 0.95)]


def test_every_number_is_in_the_tables() -> None:
    rows = " ".join(" ".join(row) for _, found in sections(example()) for row in found)
    wanted = (
        "0.123 0.0456 0.0321 0.0021 7.65 0.789 31.40 0.9570 0.9830 "
        "41.0 37.0 62.0 83.0 47.0 56.0 67.0 81.0 92.0 88.0 95.0 0.710 0.110 "
        "3.40 5.20 0.330 0.550 0.210 2.2 3.1 0.013 0.070 0.090 3000 28.6 0.940 1.234 0.87 512 612.0 900 55.1"
    )
    for number in wanted.split():
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", rows), number
    assert "largest difference 9 of 255" in rows and "3 of 264" in rows and "1 of 5" in rows


def test_a_report_of_one_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the others, without pictures, and without matplotlib."""
    nothing: dict[str, Any] = dict.fromkeys(("quality", "alignment", "diversity", "efficiency"))
    monkeypatch.setattr(page_module, "plots", lambda report: iter(()))
    text = page(dataclasses.replace(example(), **nothing, shown=(), left_out=()))
    assert read(text).ids == ["stability"] and "<img" not in text and "Nothing." in text


def test_the_page_of_a_quick_report_is_small() -> None:
    """300 pictures of a photograph's roughness stay under 3 MB."""
    noise = torch.rand(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(noise, size=96, mode="bicubic").clamp(0, 1).expand(300, 4, 96, 96)
    shown = Shown(section="quality", title="All", captions=("a picture",) * 300, pictures=smooth)
    assert len(page(dataclasses.replace(example(), shown=(shown,)))) < 3_000_000

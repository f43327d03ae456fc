"""The few numbers that say most, each with a sentence for somebody who sees such a report for the first time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .report import Alignment, Diversity, Efficiency, Quality, Report, Score, Stability
from .tables import decibel, percent

CLAIMS = {
    "quality": ("Quality", "Do the pictures look like real ones?"),
    "alignment": ("Alignment", "Do they show what the sentence says?"),
    "diversity": ("Diversity", "Is every picture a new one?"),
    "stability": ("Stability", "Does the same request give the same picture?"),
    "efficiency": ("Efficiency", "What does a picture cost?"),
}
"""Section -> its name, and the question that it answers."""


@dataclass(frozen=True)
class Mark:
    """A place on a card's bar from 0 to 1: "chance", or what real pictures reach."""

    what: str
    place: float


@dataclass(frozen=True, kw_only=True)
class Card:
    """One number, what it is called and what it means; `bar` shows it from 0 to 1 beside the `marks`."""

    number: str
    name: str
    meaning: str
    bar: float | None = None
    marks: tuple[Mark, ...] = ()


def cards(report: Report) -> dict[str, list[Card]]:
    """Section -> cards, for every section that was measured."""
    made: dict[str, list[Card]] = {}
    if report.quality is not None:
        made["quality"] = list(_quality(report.quality))
    if report.alignment is not None:
        made["alignment"] = list(_alignment(report.alignment))
    if report.diversity is not None:
        made["diversity"] = list(_diversity(report.diversity))
    if report.stability is not None:
        made["stability"] = list(_stability(report.stability))
    if report.efficiency is not None:
        made["efficiency"] = list(_efficiency(report.efficiency))
    return made


def _quality(found: Quality) -> Iterator[Card]:
    for value, scale, name in (
        (found.frechet, found.frechet_of_training, "Fréchet distance"),
        (found.cmmd_clip, found.cmmd_clip_of_training, "CMMD, in CLIP's eyes"),
    ):
        if value is not None:
            compare = "" if scale is None else f" As many real pictures are at {scale:.3g}, which is hard to beat."
            yield Card(
                number=f"{value:.3g}",
                name=f"{name} (lower is better)",
                meaning=f"How far {found.painted} painted pictures are from {found.held_out} real ones.{compare}",
            )
    if found.psnr is not None:
        yield Card(
            number=f"{found.psnr:.1f} dB",
            name="through the autoencoder and back",
            meaning="Likeness of a real picture to what the model unpacks after packing it: above 30 dB the loss is "
            "hard to see, under 25 dB easy.",
        )
    if found.alpha_iou is not None:
        yield Card(
            number=percent(found.alpha_iou),
            name="of the outline survives",
            meaning="Overlap of what is opaque before and after the autoencoder.",
            bar=found.alpha_iou,
        )


def _alignment(found: Alignment) -> Iterator[Card]:
    among = round(1 / found.retrieval.chance)
    yield _score(
        "finds its own sentence",
        f"Share of pictures that fit their own sentence better than {among - 1} others.",
        found.retrieval,
        found.real.get("retrieval"),
    )
    for kind, meaning in (
        ("colour", "“a blue apple” is painted blue, and not one of the other colours."),
        ("counting", "One, two or three things, as many as were asked for."),
        ("relations", "“a bird above a house” and not below it."),
        ("style", "“a cat, flat style” has that style, and not another."),
    ):
        yield _score(kind, meaning, getattr(found, kind), found.real.get(kind))
    yield _score("same picture in Chinese", "The picture of the Chinese sentence is nearest to that of its English "
                 "twin.", found.chinese_picture, None)  # fmt: skip


def _diversity(found: Diversity) -> Iterator[Card]:
    if found.vendi is not None:
        real = "" if found.vendi_of_held_out is None else f" As many real pictures: {found.vendi_of_held_out:.1f}."
        yield Card(
            number=f"{found.vendi:.1f} of {found.seeds}",
            name="different pictures, in effect",
            meaning=f"Of {found.seeds} seeds of one sentence (the Vendi score, as the tower sees them).{real}",
            bar=(found.vendi - 1) / max(1, found.seeds - 1),
        )
    else:
        yield Card(
            number=f"{found.pixel_distance:.2f}",
            name="distance between seeds",
            meaning=f"Root mean square difference of pixels from 0 to 1, of {found.seeds} seeds of one sentence.",
        )
    if found.repeated is not None and found.repeated_of_held_out is not None:
        yield Card(
            number=percent(found.repeated),
            name="copies of a training picture",
            meaning=f"Share of painted pictures suspiciously near to one of {found.training} training pictures; it is "
            f"{percent(found.repeated_of_held_out)} of real pictures that were never trained on.",
            bar=found.repeated,
            marks=(Mark("real pictures", found.repeated_of_held_out),),
        )


def _stability(found: Stability) -> Iterator[Card]:
    equal = sum(item.equal for item in found.equalities)
    others = [f"{item.what} (by {item.largest} of 255 at most)" for item in found.equalities if not item.equal]
    unequal = f" Not equal: {', '.join(others)}." if others else ""
    yield Card(
        number=f"{equal} of {len(found.equalities)}",
        name="repetitions equal, byte for byte",
        meaning=f"One seed alone, in a batch, with other numbers of threads and in a new process.{unequal}",
        bar=equal / max(1, len(found.equalities)),
    )
    yield Card(
        number=f"{found.not_finite} of {found.pictures}",
        name="requests with broken numbers",
        meaning="Infinite or undefined values; extreme settings are among them. It should be 0.",
    )
    usual = [row for row in found.sensitivity if row.setting == "precision" and row.value == "int8"]
    for row in usual:
        yield Card(
            number=decibel(row.psnr),
            name="with weights of 8 bits",
            meaning="Likeness of the picture to that of the weights as they are. Above 30 dB is hard to see.",
        )


def _efficiency(found: Efficiency) -> Iterator[Card]:
    yield Card(
        number=f"{found.seconds:.2f} s",
        name="for a picture",
        meaning=f"{found.steps} steps on this machine, median of {found.timed}.",
    )
    if found.peak_memory is not None:
        yield Card(
            number=f"{found.peak_memory / 2**20:.0f} MiB",
            name="of memory at most",
            meaning="Of a new process that loads the model and paints one picture.",
        )
    yield Card(
        number=f"{found.flops / 1e9:.0f} GFLOP",
        name="of arithmetic for a picture",
        meaning="Counted, not measured: it is the same on every machine.",
    )
    yield Card(
        number=percent(found.share),
        name="of the machine's peak",
        meaning="How much of the best speed of a plain matrix product here the model reaches.",
        bar=min(1.0, found.share),
    )


def _score(name: str, meaning: str, score: Score, real: Score | None) -> Card:
    """Real pictures get a mark only where their question was as hard, so that the two can be compared."""
    marks = [Mark("chance", score.chance)]
    compare = f"{score.count} pictures, chance {percent(score.chance)}"
    if real is not None:
        fair = math.isclose(real.chance, score.chance, rel_tol=0.05)
        marks += [Mark("real pictures", real.value)] if fair else []
        compare += f"; real pictures {percent(real.value)}" + ("" if fair else f" with chance {percent(real.chance)}")
    return Card(
        number=f"{100 * score.value:.0f} %",
        name=name,
        meaning=f"{meaning} ({compare}.)",
        bar=score.value,
        marks=tuple(marks),
    )

"""The report as rows of text: what the terminal shows, and the tables of the page."""

from __future__ import annotations

from collections.abc import Iterator

from ..data.similarity import CEILING
from .plots import alignment_rows
from .report import Alignment, Diversity, Efficiency, Quality, Report, Score, Stability

Row = tuple[str, str, str]
"""What was measured, the number as text, and what it is to be compared with."""


def sections(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Title and rows of every section that was measured; what the terminal shows, too."""
    if report.quality is not None:
        yield "Quality", list(_quality(report.quality))
    if report.alignment is not None:
        yield "Alignment", list(_alignment(report.alignment))
    if report.diversity is not None:
        yield "Diversity", list(_diversity(report.diversity))
    if report.stability is not None:
        yield "Stability", list(_stability(report.stability))
    if report.efficiency is not None:
        yield "Efficiency", list(_efficiency(report.efficiency))


def _quality(found: Quality) -> Iterator[Row]:
    if found.frechet is not None and found.kernel is not None:
        of = f"{found.painted} painted, {found.held_out} held-out pictures; "
        yield "Fréchet distance", f"{found.frechet:.4g}", of + _training(found.frechet_of_training)
        yield "kernel distance", f"{found.kernel:.4g}", _training(found.kernel_of_training)
    if found.frechet_clip is not None and found.cmmd_clip is not None:
        yield "Fréchet distance, CLIP", f"{found.frechet_clip:.4g}", _training(found.frechet_clip_of_training)
        yield "CMMD, CLIP", f"{found.cmmd_clip:.4g}", _training(found.cmmd_clip_of_training)
    if found.psnr is not None and found.ssim is not None:
        yield "reconstruction, PSNR", f"{found.psnr:.2f} dB", f"{found.reconstructed} held-out pictures, over white"
        yield "reconstruction, SSIM", f"{found.ssim:.4f}", ""
    if found.alpha_iou is not None:
        yield "reconstruction, alpha IoU", f"{found.alpha_iou:.4f}", ""


def _alignment(found: Alignment) -> Iterator[Row]:
    for name, (score, real) in alignment_rows(found).items():
        note = f"chance {percent(score.chance)}, of {score.count}"
        if real is not None:
            note += f"; real pictures {_score(real)}, chance {percent(real.chance)}, of {real.count}"
        yield name.replace("_", " "), _score(score), note
    yield "English and Chinese pictures, cosine", f"{found.chinese_cosine:.3f}", f"others: {found.other_cosine:.3f}"


def _diversity(found: Diversity) -> Iterator[Row]:
    of = f"{found.seeds} seeds of {len(found.prompts)} prompts"
    if found.vendi is not None:
        scale = (
            "" if found.vendi_of_held_out is None else f"; {found.seeds} real pictures: {found.vendi_of_held_out:.2f}"
        )
        yield "Vendi score", f"{found.vendi:.2f}", f"{of}, so at most {found.seeds}{scale}"
    if found.distance is not None:
        between = found.distance_between_prompts
        note = "" if between is None else f"between prompts: {between:.3f}"
        yield "mean pairwise distance", f"{found.distance:.3f}", note
    yield "mean pairwise distance of pixels", f"{found.pixel_distance:.3f}", of
    if found.repeated is not None and found.repeated_of_held_out is not None:
        note = f"nearer than {found.threshold:.2g}, 1st percentile of {found.training} training pictures; "
        yield (
            "repeats a training picture",
            percent(found.repeated),
            f"{note}held out: {percent(found.repeated_of_held_out)}",
        )
        note = f"held-out pictures: {found.nearest_training_of_held_out:.3f}"
        yield "median distance to the nearest", f"{found.nearest_training:.3f}", note


def _stability(found: Stability) -> Iterator[Row]:
    for item in found.equalities:
        note = "" if item.equal else f"largest difference {item.largest} of 255"
        yield f"equal bytes: {item.what}", "yes" if item.equal else "no", note
    yield "numbers not finite", f"{found.not_finite} of {found.pictures}", "pictures"
    yield (
        "of these with extreme settings",
        f"{found.extremes_not_finite} of {found.extremes}",
        "steps 1, 2; guidance 0, 1, 30",
    )
    for row in found.sensitivity:
        yield f"{row.setting} {row.value}", decibel(row.psnr), f"to the model's own settings; SSIM {row.ssim:.3f}"


def _efficiency(found: Efficiency) -> Iterator[Row]:
    yield "seconds per picture", f"{found.seconds:.3f}", f"{found.steps} steps, median of {found.timed}"
    if found.load_seconds is not None:
        yield "seconds to load", f"{found.load_seconds:.2f}", "in a new process"
    if found.peak_memory is not None:
        yield "peak memory", f"{found.peak_memory / 2**20:.0f} MiB", "of a process that loads and paints one picture"
    parts = f"text {found.flops_text / 1e9:.2f}, decoder {found.flops_decoder / 1e9:.2f}"
    yield "operations per picture", f"{found.flops / 1e9:.1f} GFLOP", parts
    peak = f"best matrix product here: {found.peak_flops / 1e9:.0f} GFLOP/s"
    yield "share of the machine's peak", percent(found.share), peak


def _score(score: Score) -> str:
    return f"{100 * score.value:.1f} ± {100 * score.error:.1f} %"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def decibel(psnr: float) -> str:
    return "equal" if psnr >= CEILING else f"{psnr:.1f} dB"


def _training(value: float | None) -> str:
    return "" if value is None else f"training pictures: {value:.4g}"

"""Quality: distance of painted pictures to real ones they were never trained on, and what the autoencoder loses."""

from __future__ import annotations

from typing import Any

import torch

from ..data.similarity import alpha_iou, over_white, psnr, ssim
from .bench import Bench
from .frechet import frechet_distance
from .kernel import kernel_distance
from .report import Quality

SECTION = "pictures of held-out captions"


def measure(bench: Bench) -> Quality | None:
    """Needs the pack; the distances need the eye too."""
    if bench.pack is None:
        bench.skip("quality", "no data pack was given, so there are no held-out pictures to compare with (--data)")
        return None
    found = _reconstruction(bench)
    if bench.eye is None:
        bench.skip("Fréchet and kernel distance", "no image tower was given (--tower)")
        return Quality(**found)
    return Quality(**found, **_distances(bench))


def _distances(bench: Bench) -> dict[str, Any]:
    """Painted from held-out captions, against held-out pictures; and as many training pictures against them."""
    assert bench.eye is not None and bench.pack is not None
    prompts, plan = [english for english, _ in bench.prompts()], bench.plan
    pictures = bench.painter.paint_all(SECTION, prompts, [plan.seed + k for k in range(len(prompts))])
    bench.show("Painted from held-out captions", prompts, pictures, 48)
    if len(prompts) < 2 or len(bench.pack.choose("heldout", 2)) < 2:
        bench.skip("Fréchet and kernel distance", "the data pack has fewer than two held-out pictures with captions")
        return {}
    painted, held_out = bench.eye.look(pictures).features, bench.seen("heldout", plan.held_out).features
    found: dict[str, Any] = {
        "frechet": frechet_distance(painted, held_out),
        "kernel": kernel_distance(painted, held_out),
        "painted": len(painted),
        "held_out": len(held_out),
    }
    if len(bench.pack.choose("train", 2)) < 2:
        bench.skip("Fréchet and kernel distance of training pictures", "the data pack has none, or one")
        return found
    training = bench.seen("train", plan.training).features
    training = training[torch.linspace(0, len(training) - 1, min(len(prompts), len(training))).long()]
    return found | {
        "frechet_of_training": frechet_distance(training, held_out),
        "kernel_of_training": kernel_distance(training, held_out),
    }


def _reconstruction(bench: Bench) -> dict[str, Any]:
    """Held-out pictures through encoder (its mean) and decoder, at the model's size but not above that of the pack."""
    assert bench.pack is not None
    records = bench.pack.choose("heldout", bench.plan.reconstructed)
    if not records:
        bench.skip("reconstruction", "the data pack holds no picture out")
        return {}
    model, rows = bench.model, []
    size = min(model.defaults.width, model.defaults.height, max(model.factor, bench.pack.size))
    before = bench.real(records, size // model.factor * model.factor)
    for done, picture in enumerate(before):
        bench.painter.report("reconstructing", done, len(before))
        colour, alpha = picture[:3], picture[3:]
        ready = torch.cat([colour * alpha, alpha]) if alpha.numel() else colour
        rows.append(model.image_decoder.straight(model.image_encoder(ready[None] * 2 - 1)).cpu())
    after = torch.cat(rows)
    bench.show(
        "Held-out pictures and their reconstructions",
        [word for record in records for word in (record.name, "reconstructed")],
        torch.stack([before, after], dim=1).flatten(0, 1),
        2 * len(records),
    )
    return {
        "psnr": float(psnr(over_white(after), over_white(before)).mean()),
        "ssim": float(ssim(over_white(after), over_white(before)).mean()),
        "alpha_iou": float(alpha_iou(after, before).mean()) if after.shape[1] == 4 else None,
        "reconstructed": len(records),
    }

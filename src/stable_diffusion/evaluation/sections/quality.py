"""Quality: distance of painted pictures to real ones they were never trained on, and what the autoencoder loses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...data.similarity import alpha_iou, over_white, psnr, ssim
from ..bench import Bench
from ..metrics.frechet import frechet_distance
from ..metrics.kernel import cmmd, kernel_distance
from ..report import Quality

SECTION = "pictures of held-out captions"


def measure(bench: Bench) -> Quality | None:
    """Needs the pack; the distances need an eye too."""
    if bench.pack is None:
        bench.skip("quality", "no data pack was given, so there are no held-out pictures to compare with (--data)")
        return None
    found = _reconstruction(bench)
    if bench.eye is None:
        bench.skip("Fréchet and kernel distance", "no image tower was given (--tower)")
    if bench.eye is None and bench.clip is None:
        return Quality(**found)
    prompts = [english for english, _ in bench.prompts()]
    if len(prompts) < 2 or len(bench.pack.choose("heldout", 2)) < 2:
        bench.skip("Fréchet and kernel distance", "the data pack has fewer than two held-out pictures with captions")
        return Quality(**found)
    pictures = bench.painter.paint_all(SECTION, prompts, [bench.plan.seed + k for k in range(len(prompts))])
    bench.show("quality", "Painted from captions that training never saw", prompts, pictures, limit=48)
    found |= {"painted": len(pictures), "held_out": len(bench.pack.choose("heldout", bench.plan.held_out))}
    for training in (False, True):
        found |= _distances(bench, pictures, training=training)
    return Quality(**found)


def _distances(bench: Bench, pictures: Tensor, *, training: bool) -> dict[str, Any]:
    """What was painted against held-out pictures; or, for scale, as many training pictures against them."""
    assert bench.pack is not None
    records, ending = bench.pack.choose("train", len(pictures)), "_of_training" if training else ""
    if training and len(records) < 2:
        bench.skip("Fréchet and kernel distance of training pictures", "the data pack has none, or one")
        return {}
    found: dict[str, Any] = {}
    if bench.eye is not None:
        seen = (bench.look(records) if training else bench.eye.look(pictures)).features
        held_out = bench.seen("heldout", bench.plan.held_out).features
        found |= {"frechet": frechet_distance(seen, held_out), "kernel": kernel_distance(seen, held_out)}
    if bench.clip is not None:
        seen = bench.clip.look(bench.real(records) if training else pictures)
        held_out = bench.seen_by_clip("heldout", bench.plan.held_out)
        found |= {"frechet_clip": frechet_distance(seen, held_out), "cmmd_clip": cmmd(seen, held_out)}
    return {f"{name}{ending}": value for name, value in found.items()}


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
        "quality",
        "Held-out pictures, each with its way through the autoencoder and back",
        [record.name for record in records],
        torch.stack([before, after], dim=1).flatten(0, 1),
        together=2,
    )
    return {
        "psnr": float(psnr(over_white(after), over_white(before)).mean()),
        "ssim": float(ssim(over_white(after), over_white(before)).mean()),
        "alpha_iou": float(alpha_iou(after, before).mean()) if after.shape[1] == 4 else None,
        "reconstructed": len(records),
    }

"""Diversity: how much pictures of one prompt differ over seeds, and whether any repeats a training picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..bench import Bench
from ..metrics.neighbours import nearest, own_distances, percentile
from ..metrics.vendi import mean_pairwise_distance, vendi_score
from ..report import Diversity
from .quality import SECTION

PROMPTS = (
    "a cat",
    "a beautiful sunset over the ocean",
    "a red apple",
    "a house",
    "a smiling face",
    "a castle on a hill at night",
    "two dogs",
    "a robot",
    "a car",
    "a flower",
    "a ship on the sea",
    "a birthday cake",
    "a bird above a tree",
    "a mountain in the snow",
    "a blue heart",
    "a city at night",
)
REPEATED = 0.01
"""Percentile of the training pictures' own nearest distances under which a painted picture counts as repeated."""


def measure(bench: Bench) -> Diversity:
    """Without the eye only the distance of pixels; without the pack nothing on memorisation."""
    plan = bench.plan
    prompts, seeds = PROMPTS[: plan.diverse_prompts], range(plan.seed, plan.seed + plan.diverse_seeds)
    asked = [prompt for prompt in prompts for _ in seeds]
    pictures = bench.painter.paint_all("seeds", asked, [*seeds] * len(prompts))
    bench.show("diversity", "One prompt, several seeds", list(prompts), pictures, together=len(seeds))
    groups = pictures.view(len(prompts), len(seeds), *pictures.shape[1:])
    found: dict[str, Any] = {"pixel_distance": sum(map(pixel_distance, groups)) / len(groups)}
    if bench.eye is None:
        bench.skip("Vendi score and memorisation", "no image tower was given (--tower)")
    else:
        found |= _by_eye(bench, groups)
    return Diversity(seeds=len(seeds), prompts=prompts, **found)


def _by_eye(bench: Bench, groups: Tensor) -> dict[str, Any]:
    assert bench.eye is not None
    seen = torch.stack([bench.eye.look(group).embedding for group in groups])  # [prompts, seeds, P]
    scores = tuple(vendi_score(group) for group in seen)
    found: dict[str, Any] = {
        "vendi": sum(scores) / len(scores),
        "vendi_by_prompt": scores,
        "distance": sum(map(mean_pairwise_distance, seen)) / len(seen),
        "distance_between_prompts": mean_pairwise_distance(seen[:, 0]) if len(seen) > 1 else None,
    }
    if bench.pack is None:
        bench.skip("memorisation", "no data pack was given, so the training pictures are not known (--data)")
        return found
    return found | _memorisation(bench, groups, seen)


def _memorisation(bench: Bench, groups: Tensor, seen: Tensor) -> dict[str, Any]:
    """Nearest training pictures of everything painted for this section and from held-out captions."""
    assert bench.eye is not None and bench.pack is not None
    plan, prompts = bench.plan, [english for english, _ in bench.prompts()]
    if len(bench.pack.choose("heldout", 2)) < 2:
        bench.skip("memorisation", "the data pack holds fewer than two pictures out")
        return {}
    held_out = bench.seen("heldout", plan.held_out).embedding
    scale = {"vendi_of_held_out": vendi_score(held_out[torch.linspace(0, len(held_out) - 1, groups.shape[1]).long()])}
    if len(bench.pack.choose("train", 2)) < 2:
        bench.skip("memorisation", "the data pack holds no training pictures, or one")
        return scale
    training = bench.seen("train", plan.training).embedding
    pictures = bench.painter.paint_all(SECTION, prompts, [plan.seed + k for k in range(len(prompts))])
    painted = torch.cat([seen.flatten(0, 1), bench.eye.look(pictures).embedding])
    threshold = percentile(own_distances(training), REPEATED)
    distances, rows = nearest(painted, training)
    real, _ = nearest(held_out, training)
    _show_closest(bench, torch.cat([groups.flatten(0, 1), pictures]), distances, rows)
    return scale | {
        "nearest_training": float(distances.median()),
        "nearest_training_of_held_out": float(real.median()),
        "threshold": threshold,
        "repeated": float((distances < threshold).double().mean()),
        "repeated_of_held_out": float((real < threshold).double().mean()),
        "training": len(training),
    }


def _show_closest(bench: Bench, pictures: Tensor, distances: Tensor, rows: Tensor, count: int = 8) -> None:
    """The painted pictures that are nearest to a training picture, each beside it."""
    assert bench.pack is not None
    order = distances.argsort()[:count]
    known = bench.pack.choose("train", bench.plan.training)
    records = [known[int(rows[k])] for k in order]
    real = bench.real(records, pictures.shape[-1]) if pictures.shape[-1] == pictures.shape[-2] else None
    if real is None:
        return
    captions = [f"{float(distances[k]):.3f} to {record.name}" for k, record in zip(order, records, strict=True)]
    pairs = torch.stack([pictures[order], real], dim=1).flatten(0, 1)
    title = "The painted pictures nearest to a training picture, each beside it"
    bench.show("diversity", title, captions, pairs, together=2)


def pixel_distance(pictures: Tensor) -> float:
    """Root of the mean square difference of pixels over pairs of different pictures [N,C,H,W]; 0 under two."""
    count, flat = len(pictures), pictures.double().flatten(1)
    if count < 2:
        return 0.0
    squares = torch.cdist(flat, flat).square().sum() / (count * (count - 1) * flat.shape[1])
    return float(squares.sqrt())

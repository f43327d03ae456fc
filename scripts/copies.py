"""Which painted pictures are copies of training pictures: named one by one, and shown beside what they resemble.

Near is what is near among the training pictures themselves: a painted picture closer to one of them than the 1st
percentile of their own nearest distances is named (see `neighbours`). Near twins of a pack (an icon that two sets
share) push that threshold towards 0; the percentiles beside it say so.
Legend: N painted pictures, M training pictures, P embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stable_diffusion.data.pack import Record
from stable_diffusion.data.similarity import over_white
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.evaluation.metrics.neighbours import nearest, own_distances, percentile
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.evaluation.painter import Report, silent
from stable_diffusion.evaluation.sections.diversity import REPEATED
from stable_diffusion.evaluation.tower import CHUNK, Eye

SCALE = (0.01, 0.05, 0.25, 0.5)
"""Percentiles of the training pictures' own nearest distances that are told."""


@dataclass(frozen=True, kw_only=True)
class Closest:
    """The training picture nearest to a painted one, and how far it is (1 - cosine, from 0 to 2)."""

    prompt: str
    seed: int
    training: str
    caption: str | None
    distance: float
    copied: bool


@dataclass(frozen=True, kw_only=True)
class Copies:
    """`closest` has one entry for every painted picture, in the order in which they were given."""

    threshold: float
    percentiles: dict[str, float]
    median: float
    training: int
    closest: tuple[Closest, ...]

    @property
    def named(self) -> tuple[Closest, ...]:
        """Those that are closer than the threshold, the closest first."""
        return tuple(sorted((each for each in self.closest if each.copied), key=lambda each: each.distance))


def training_records(pack: PicturePack, styles: Sequence[str] = ()) -> list[Record]:
    """What was trained on, of these styles only where any are named. InvalidRequest where there are fewer than two."""
    records = [record for record in pack.choose("train") if not styles or record.style in styles]
    if len(records) < 2:
        known = sorted({record.style for record in pack.choose("train")})
        raise InvalidRequest(
            f"the data pack {pack.name!r} holds {len(records)} training pictures of the styles "
            f"{', '.join(styles) or 'of any kind'}; expected two or more, of {', '.join(known) or 'which it has none'}"
        )
    return records


def look_at(
    eye: Eye, pack: PicturePack, records: Sequence[Record], *, alpha: bool = True, report: Report = silent
) -> Tensor:
    """Unit vectors [M,P] of pictures of the pack, read a few at a time; over white for a model without `alpha`."""
    rows = []
    for start in range(0, len(records), CHUNK):
        report("looking at training pictures", start, len(records))
        pictures = pack.pictures(records[start : start + CHUNK])
        rows.append(eye.look(pictures if alpha else over_white(pictures)).embedding)
    return torch.cat(rows)


def find_copies(
    painted: Tensor, orders: Sequence[tuple[str, int]], training: Tensor, records: Sequence[Record]
) -> Copies:
    """Compare painted [N,P] of these (prompt, seed) with training [M,P] of these records; rows are unit vectors."""
    own = own_distances(training)
    threshold = percentile(own, REPEATED)
    distances, rows = nearest(painted, training)
    closest = [
        Closest(
            prompt=prompt,
            seed=seed,
            training=records[row].name,
            caption=records[row].caption,
            distance=distance,
            copied=distance < threshold,
        )
        for (prompt, seed), distance, row in zip(orders, distances.tolist(), rows.tolist(), strict=True)
    ]
    return Copies(
        threshold=threshold,
        percentiles={f"{share:.0%}": percentile(own, share) for share in SCALE},
        median=float(distances.median()),
        training=len(records),
        closest=tuple(closest),
    )

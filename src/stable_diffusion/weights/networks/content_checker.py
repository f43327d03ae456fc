"""The check of pictures for content on disk: diffusers' folder `safety_checker/`, a pipeline that has one, or one file.

    load_content_checker("safety_checker").flags([picture])  # [False]

Source: the module tree of the safety checker that CompVis released and diffusers loads.
"""

from __future__ import annotations

import os

import torch

from ...errors import UnknownModel
from ...models.clip_vision import CLIPVisionConfig, ContentChecker
from ..build import Prefixed, build
from ..checkpoints.folder import component
from ..containers.limits import using_config
from ..containers.open import existing, read_tensors
from ..keys import KeyTable, Rule
from .clip_vision import clip_vision_fields, clip_vision_settings, clip_vision_transformers
from .layout import need

FOLDER = "safety_checker"
TOWER = "vision_model."
"""The released files have it twice, `vision_model.vision_model.`; those that transformers 5 writes once."""
VALUES = {
    "concepts": "concept_embeds",
    "concept_thresholds": "concept_embeds_weights",
    "care": "special_care_embeds",
    "care_thresholds": "special_care_embeds_weights",
}


def content_checker_table(config: CLIPVisionConfig, prefix: str = TOWER) -> KeyTable:
    """The layout of the released files; with the prefix "" that of transformers 5."""

    def theirs(name: str) -> str:
        return prefix + name if name.startswith(TOWER) else name

    tower = clip_vision_transformers(config)
    rules = [
        Rule(tuple(f"tower.{name}" for name in rule.ours), tuple(map(theirs, rule.theirs)), rule.op)
        for rule in tower.rules
    ]
    rules += [Rule((ours,), (value,)) for ours, value in VALUES.items()]
    return KeyTable(tuple(rules), ignored=frozenset(map(theirs, tower.ignored)))


def load_content_checker(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> ContentChecker:
    """The checker at `path`.

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is no such checker,
    BrokenModel where tensors are missing, unexpected or of the wrong shape.
    """
    place = existing(path)
    if place.is_dir() and (place / FOLDER).is_dir():
        place = place / FOLDER
    tensors = component(place) if place.is_dir() else read_tensors(place)[0]
    if not all(name in tensors for name in VALUES.values()):
        raise UnknownModel(f"{tensors.path} is no checker of content; expected concept_embeds and its relatives in it")
    theirs = Prefixed(tensors)
    prefix = TOWER if any(name.startswith(TOWER + TOWER) for name in theirs) else ""
    shapes = {name.removeprefix(prefix): theirs.shape(name) for name in theirs}
    counts = need(shapes, "concept_embeds")[0], need(shapes, "special_care_embeds")[0]
    with using_config(place):
        fields = clip_vision_fields(shapes)
        folder = place if place.is_dir() else place.parent
        config = CLIPVisionConfig(**fields, **clip_vision_settings(folder, fields["width"]))
    table = content_checker_table(config, prefix)
    return build(lambda: ContentChecker(config, *counts), theirs, table, what=f"{place}", dtype=dtype, device=device)

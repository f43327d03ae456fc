"""Checks of configs that come with a file, before anything is built from them.

A config is a few numbers that decide how many layers are made, so a hostile one could keep a machine busy for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import BrokenModel, InvalidRequest, ModelFileError, brief
from ...latents import LatentFormat

NUMBER_LIMIT = 2**20
LIST_LIMIT = 4096
COUNT_LIMIT = 64
STAGE_LIMIT = 16

COUNTS = frozenset(
    "blocks_per_stage transformer_depth mid_depth decoder_blocks layers layers_per_block transformer_layers_per_block "
    "num_hidden_layers num_layers depth reverse_transformer_layers_per_block up_depth mid_blocks".split()
)
"""Settings that say how many layers there are; the largest public model has 32."""

STAGES = frozenset("channels decoder_channels block_out_channels down_block_types up_block_types".split())


def check_plausible(config: Any, where: Path, name: str = "") -> None:
    """BrokenModel where a parsed JSON value holds a number or list that no model has."""
    if isinstance(config, dict):
        for key, value in config.items():
            check_plausible(value, where, key)
    elif isinstance(config, list):
        limit = STAGE_LIMIT if name in STAGES else LIST_LIMIT
        if len(config) > limit:
            raise BrokenModel(f"{where} has {len(config)} numbers for {name[:40]!r}; at most {limit} are plausible")
        for item in config:
            check_plausible(item, where, name)
    elif isinstance(config, (int, float)):
        limit = COUNT_LIMIT if name in COUNTS else NUMBER_LIMIT
        if not abs(config) <= limit:  # written so that NaN fails too
            raise BrokenModel(f"{where} has {name[:40]!r} of {str(config)[:40]}; at most {limit} is plausible")


def check_latent_numbers(latents: LatentFormat) -> None:
    """InvalidRequest where scale or shift of a latent space is no finite number, or a scale is about 0."""
    for name, least in (("scale", 1e-6), ("shift", 0.0)):
        given = getattr(latents, name)
        for number in given if isinstance(given, tuple) else (given,):
            known = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
            if not known or abs(number) < least:
                raise InvalidRequest(f"the {name} of a latent is {repr(number)[:40]}; expected a number like 0.18")


@contextmanager
def using_config(where: Path) -> Iterator[None]:
    """Turns what a nonsensical config does to the code that reads it into one BrokenModel."""
    try:
        yield
    except ModelFileError:
        raise
    except (InvalidRequest, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, IndexError) as error:
        raise BrokenModel(f"{where} has a config that this version cannot use: {brief(error, 300)}") from error

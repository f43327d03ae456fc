"""A file that holds an image tower and its text encoder, as a start for training.

`stable-diffusion evaluate --save-tower` writes it: safetensors with metadata `format` and `config` (JSON: tower, text),
tensors under `tower.` and `text.`, packed as `weights.packing` packs them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stable_diffusion.errors import BrokenModel
from stable_diffusion.weights.packing import unpack
from stable_diffusion.weights.safetensors_reader import read_safetensors

FORMAT = "stable_diffusion.tower.v1"
PARTS = ("text", "tower")


def read_tower_file(path: Path) -> tuple[Mapping[str, Any], dict[str, dict[str, Tensor]]] | None:
    """(config, part -> its tensors) of a tower file; None where the file is of another kind.

    A file without a text encoder of its own has no "text". BrokenModel where its config is damaged.
    """
    if path.suffix != ".safetensors":
        return None
    stored, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        return None
    try:
        config = dict(json.loads(metadata["config"]))
    except (KeyError, ValueError, TypeError) as error:
        raise BrokenModel(f"{path} is a tower file, but its config is missing or damaged ({error!r})") from None
    parts = {part: {n[len(part) + 1 :]: stored[n] for n in stored if n.startswith(f"{part}.")} for part in PARTS}
    return config, {part: unpack(tensors) for part, tensors in parts.items() if tensors}

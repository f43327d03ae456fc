"""A few-step model: a base model with a LoRA made part of its weights, and the LoRA's word on how it is run.

Such a file is what the training stage `student` writes. Its metadata holds `format`, `base_sha256` (of the model it was
distilled from), `steps`, `guidance`, `sampler` and `schedule`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import BrokenModel, UnknownModel
from ..weights.parts import Defaults, Parts, Source
from .attach import match
from .file import read_adapter
from .patch import stack_of
from .targets import networks

FORMAT = "stable_diffusion.lora.v1"
SETTINGS = ("steps", "guidance", "sampler", "schedule")


def distilled(parts: Parts, path: str | os.PathLike[str]) -> Parts:
    """`parts` with the LoRA at `path` fused into their weights, which are changed, and with its defaults.

    The source, and so the hash that pictures carry, is the LoRA's file: that names its base model by hash. Errors:
    UnknownModel where the file is no few-step LoRA, BrokenModel where it was made for another model or is damaged.
    """
    file = read_adapter(path)
    said = file.metadata
    if said.get("format") != FORMAT or any(name not in said for name in SETTINGS):
        raise UnknownModel(f"{file.path} does not say how it is run; expected a few-step LoRA of this package")
    wanted = said.get("base_sha256")
    if parts.source is None or wanted != parts.source.sha256:
        raise BrokenModel(f"{file.path} was distilled from a model with sha256 {str(wanted)[:64]!r}, not from this one")
    changed = networks(parts.unet, parts.clip, parts.clip2, parts.t5)
    layers = match(file, changed).layers(1.0, None)
    for network in changed:
        if network.role in layers:
            stack_of(network.module).fuse(layers[network.role])
    return replace(parts, defaults=_defaults(parts.defaults, said, file.path), source=Source(file.path))


def _defaults(base: Defaults, said: Mapping[str, str], path: Path) -> Defaults:
    try:
        steps, guidance = int(said["steps"]), float(said["guidance"])
    except ValueError:
        found = f"steps {said['steps'][:20]!r} and guidance {said['guidance'][:20]!r}"
        raise BrokenModel(f"{path} asks for {found}; two numbers are expected") from None
    return replace(base, steps=steps, guidance=guidance, sampler=said["sampler"], schedule=said["schedule"])

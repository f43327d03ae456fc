"""One spelling for single files: what other programs name otherwise, under the names of the released checkpoints.

Files that hold a denoiser alone leave its prefix out. stable-diffusion.cpp writes every CLIP in the layout of
transformers, as `cond_stage_model.transformer.` and `cond_stage_model.1.transformer.`; those that were OpenCLIP's are
given OpenCLIP's names and shapes again, tensor by tensor when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...errors import BrokenModel
from ...models.clip import CLIPTextConfig
from ..containers.tensors import TensorFile, TensorInfo, without_prefix
from ..keys import Rule, apply
from ..networks.diffusers import clip_transformers
from ..networks.openclip import clip_openclip
from ..networks.shapes import clip_fields

UNET = "model.diffusion_model."
BARE = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
"""How the names of a U-Net begin without the prefix."""
BARE_MMDIT = (
    *(f"{name}_embedder." for name in ("x", "t", "y", "context")),
    "joint_blocks.",
    "final_layer.",
    "pos_embed",
)
"""How the names of the transformer of Stable Diffusion 3 begin without the prefix."""
CPP_FIRST, CPP_SECOND = "cond_stage_model.transformer.", "cond_stage_model.1.transformer."
XL_FIRST, XL_SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
SD2_TEXT = "cond_stage_model.model."
PROJECTION = "text_model.text_projection"
"""Where stable-diffusion.cpp keeps OpenCLIP's projection, in OpenCLIP's orientation."""


def canonical(tensors: TensorFile) -> TensorFile:
    """The same tensors under the names of the released checkpoints; a file that has those is returned as it is."""
    tensors = without_prefix(tensors, "state_dict.")
    tensors = _with_unet_prefix(tensors)
    if any(name.startswith(CPP_SECOND) for name in tensors):
        first = {XL_FIRST + name.removeprefix(CPP_FIRST): name for name in tensors if name.startswith(CPP_FIRST)}
        others = {name: name for name in tensors if not name.startswith((CPP_FIRST, CPP_SECOND))}
        return merged(tensors.renamed({**others, **first}), as_openclip(tensors, CPP_SECOND, XL_SECOND))
    if _is_linear(tensors) and any(name.startswith(CPP_FIRST) for name in tensors):
        others = {name: name for name in tensors if not name.startswith(CPP_FIRST)}
        return merged(tensors.renamed(others), as_openclip(tensors, CPP_FIRST, SD2_TEXT))
    return tensors


def _with_unet_prefix(tensors: TensorFile) -> TensorFile:
    for first, bare in (("input_blocks.0.0.weight", BARE), ("x_embedder.proj.weight", BARE_MMDIT)):
        if first in tensors:
            return tensors.renamed({UNET + name if name.startswith(bare) else name: name for name in tensors})
    if "diffusion_model.input_blocks.0.0.weight" in tensors:
        return tensors.renamed({UNET + name.removeprefix("diffusion_model."): name for name in tensors})
    return tensors


def _is_linear(tensors: TensorFile) -> bool:
    """Whether the U-Net's transformers project with matrices, as in Stable Diffusion 2, and not with convolutions."""
    name = next((name for name in tensors if name.startswith(UNET) and name.endswith(".proj_in.weight")), None)
    return name is not None and len(tensors.info(name).shape) == 2


def as_openclip(tensors: TensorFile, prefix: str, target: str) -> TensorFile:
    """The text encoder under `prefix`, in the layout of transformers, under `target` in that of OpenCLIP.

    BrokenModel where a tensor is missing.
    """
    names = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    shapes = {short: tensors.info(name).shape for short, name in names.items() if short != PROJECTION}
    try:
        config = CLIPTextConfig(**clip_fields(shapes), heads=1)
        table = clip_transformers(config)
        missing, _ = table.compare(shapes)
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} has a text encoder under {prefix} of which {error}") from error
    if missing:
        raise BrokenModel(f"{tensors.path} has a text encoder under {prefix} without {missing[0]}")
    found = {table.aliases.get(short, short): name for short, name in names.items()}
    ours = {rule.ours[0]: found[rule.theirs[0]] for rule in table.rules}
    made: dict[str, tuple[TensorInfo, Callable[[], Tensor]]] = {}
    for rule in clip_openclip(config).rules:
        sources = [ours[name] for name in rule.ours]
        example = _joined(rule, [_empty(tensors, name) for name in sources])
        info = TensorInfo(example.dtype, tuple(example.shape))
        made[target + rule.theirs[0]] = (info, _reader(rule, tensors, sources))
    if PROJECTION in names:
        name = names[PROJECTION]
        made[target + "text_projection"] = (tensors.info(name), lambda: tensors[name])
    infos = {name: info for name, (info, _) in made.items()}
    return TensorFile(tensors.path, infos, lambda name: made[name][1](), tensors.kind)


def _joined(rule: Rule, tensors: list[Tensor]) -> Tensor:
    return apply(rule.op.inverse, tensors, 1)[0]


def _reader(rule: Rule, tensors: TensorFile, sources: list[str]) -> Callable[[], Tensor]:
    return lambda: _joined(rule, [tensors[name] for name in sources])


def _empty(tensors: TensorFile, name: str) -> Tensor:
    info = tensors.info(name)
    return torch.empty(info.shape, dtype=info.dtype, device="meta")


def merged(first: TensorFile, *others: TensorFile) -> TensorFile:
    """The tensors of several files as one, which keeps the path and kind of the first; later ones replace earlier."""
    place: dict[str, TensorFile] = {}
    for file in (first, *others):
        place.update(dict.fromkeys(file, file))
    infos = {name: file.info(name) for name, file in place.items()}
    stored: Mapping[str, str] = {name: file.stored(name) for name, file in place.items()}
    origins = {name: file.origin(name) for name, file in place.items()}
    return TensorFile(first.path, infos, lambda name: place[name][name], first.kind, stored, origins)

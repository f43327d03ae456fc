"""Words that programs leave in the names of tensors, and that are no part of a network: taken off where a file is read.

torch.compile, DataParallel, DeepSpeed and FSDP put a network into another one, whose name then stands before its own
or, where a part alone was put in, in the middle of names. Lightning and trainers of ControlNets put all under `model.`,
and pickled checkpoints under `state_dict.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .tensors import TensorFile

INSIDE = ("_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Wrappers that may stand before a name or in its middle."""
BEFORE = ("state_dict", "model_state_dict")
"""Wrappers that stand before a name alone, however often they are repeated."""
TOP = "model."
"""A wrapper where all names begin with it, and at home in names that go on as one of `AT_HOME`."""
AT_HOME = re.compile(r"model\.(diffusion_model\.|\d)")
_INSIDE = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(INSIDE)})\.")
_BEFORE = re.compile(rf"(?:(?:{'|'.join(BEFORE)})\.)+")
_FLAT = re.compile(r"^(lora|lycoris)_")
_FLAT_INSIDE = re.compile(r"(?<=_)(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)_")
_FLAT_MODULE = re.compile(r"^((?:lora|lycoris)_(?:unet|te\d?|transformer)_)module_")
_WORD = re.compile("module|_orig_mod|state_dict")
"""What every name with a wrapper has, but for `model.`."""


def bare_name(name: str) -> str:
    """A name without its wrappers; in the flat names of kohya (lora_unet_...) they have underscores for dots."""
    if not _WORD.search(name):
        return name
    if _FLAT.match(name):
        return _FLAT_MODULE.sub(r"\1", _FLAT_INSIDE.sub("", name))
    return _INSIDE.sub("", _BEFORE.sub("", name, count=1) if _BEFORE.match(name) else name)


def without_wrappers(tensors: TensorFile) -> TensorFile:
    """The same tensors under their names without wrappers; a file without any is returned as it is.

    Where two names would become one, the one that is so already keeps it and the other stays as it stands.
    """
    short = {name: bare_name(name) for name in tensors}
    if _all_inside(short.values()):
        short = {name: new.removeprefix(TOP) for name, new in short.items()}
    if all(name == new for name, new in short.items()):
        return tensors
    kept = {name for name, new in short.items() if name == new}
    names: dict[str, str] = {name: name for name in kept}
    for name, new in short.items():
        names[name if new in names else new] = name
    order = {name: index for index, name in enumerate(tensors)}
    return tensors.renamed(dict(sorted(names.items(), key=lambda item: order[item[1]])))


def _all_inside(names: Iterable[str]) -> bool:
    """Whether all names are below `model.`, as a wrapper and not as a part of the layout of the released files."""
    found = False
    for name in names:
        if not name.startswith(TOP) or AT_HOME.match(name):
            return False
        found = True
    return found

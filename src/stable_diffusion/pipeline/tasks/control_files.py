"""The controls of one request: their networks loaded, their pictures at the request's size, and what the text says.

Networks stay in the model's cache for the next request with the same model. The model's own weights are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...adapters.patch import stack_of
from ...errors import InvalidRequest, ModelFileError, unknown_choice
from ...models.clip_image import clip_pixels
from ...models.clip_vision import CLIPVision
from ...models.controlnet import ControlNet
from ...models.ip_adapter import IPAdapter
from ...models.t2i_adapter import T2IAdapter
from ...models.unet import UNet
from ...request.control import MODES, RESIZES, Control
from ...weights.containers.hashes import legacy_hash, sha256
from ...weights.containers.open import existing
from ...weights.control import load_control_network
from ...weights.networks.clip_vision import load_clip_vision
from ...weights.networks.controlnet import UNION_TASKS
from ..image import to_straight
from ..loras import HASH
from .control import ControlUnit, Hint, LoadedControls
from .preprocess import THRESHOLDS, control_picture

if TYPE_CHECKING:
    from ..models import StableDiffusion

IMAGE_ENCODER = "image_encoder"


def load_controls(model: StableDiffusion, controls: Sequence[Control]) -> LoadedControls:
    """Load the networks of controls, and prepare their pictures.

    Raises ModelFileError where a file is no control network, is damaged or is made for another family, and
    InvalidRequest where a union ControlNet has no task.
    """
    units = tuple(_unit(model, control, _network(model, control.path)) for control in controls)
    hashes = {control.path: _hashes(model, control.path) for control in controls}
    entries = [
        (f"ControlNet {index}", _written(unit, hashes[unit.control.path][0])) for index, unit in enumerate(units)
    ]
    digits = {control.name: hashes[control.path][1] for control in controls}
    named = ", ".join(f"{name}: {each}" for name, each in digits.items() if each)
    if named:
        entries.append(("ControlNet hashes", named))
    return LoadedControls(units, tuple(entries), tuple(note for unit in units for note in _without_effect(unit)))


@torch.no_grad()
def _unit(model: StableDiffusion, control: Control, network: nn.Module) -> ControlUnit:
    if isinstance(network, IPAdapter):
        return ControlUnit(control=control, network=network, tokens=_image_tokens(model, control, network))
    assert isinstance(network, ControlNet | T2IAdapter)
    if isinstance(network, T2IAdapter):
        hint, stages = _hint(control, network.config.picture_channels), len(_unet(model).config.channels)
        return ControlUnit(control=control, network=network, hint=hint, factor=model.factor, stages=stages)
    if network.config.hint_factor != model.factor:
        raise InvalidRequest(
            f"the ControlNet {control.name!r} reads {network.config.hint_factor} pixels per latent; "
            f"this model has {model.factor}"
        )
    seen, given = network.config.in_channels, _unet(model).config.in_channels
    if seen > given:
        raise InvalidRequest(
            f"the ControlNet {control.name!r} reads latents of {seen} channels; this model has {given}"
        )
    hint, task = _hint(control, network.config.hint_channels), _task(control, network.config.tasks)
    return ControlUnit(control=control, network=network, hint=hint, factor=model.factor, task=task)


def _hint(control: Control, channels: int) -> Hint:
    """(width, height) -> [1,channels,height,width] in [0, 1]: colour, or grey for networks that read one channel."""
    if channels not in (1, 3):
        raise InvalidRequest(f"the network {control.name!r} reads pictures of {channels} channels; expected 1 or 3")

    def hint(width: int, height: int) -> Tensor:
        shown = control_picture(control, width, height)
        return to_straight(shown if channels == 3 else shown.convert("L"))[:, :channels]

    return hint


def _task(control: Control, tasks: int) -> int | None:
    """The number by which a union ControlNet knows the kind of picture; None for a plain one."""
    if not tasks:
        return None
    known = [name for name, number in UNION_TASKS.items() if number < tasks]
    task = control.preprocessor if control.task is None and control.preprocessor in known else control.task
    if task is None:
        raise InvalidRequest(f"{control.name!r} reads many kinds of picture; give its task: {', '.join(known)}")
    if isinstance(task, int) and not isinstance(task, bool):
        if not 0 <= task < tasks:
            raise InvalidRequest(f"the task of {control.name!r} is {task}; expected 0 to {tasks - 1}, or a name")
        return task
    if task not in known:
        raise unknown_choice("task of a union ControlNet", task, known)
    return UNION_TASKS[str(task)]


def _image_tokens(model: StableDiffusion, control: Control, network: IPAdapter) -> tuple[Tensor, Tensor]:
    """Image tokens [1,N,D] of the picture, and those of no picture, which the rows of negative prompts get.

    No picture is an embedding of zeros for the plain form; for the plus form what the tower sees in a picture of the
    mean colour, which are pixels of zeros.
    """
    assert control.image is not None
    tower = _tower(model, control)
    wanted = tower.config.width if network.config.plus else tower.config.projection_dim
    if wanted != network.config.feature_width:
        raise InvalidRequest(
            f"the IP-Adapter {control.name!r} reads features of width {network.config.feature_width}; "
            f"the image encoder gives {wanted}"
        )
    pixels = clip_pixels([control.image], tower.config.image_size).to(model.device, model.dtype)
    if network.config.plus:
        features, nothing = (tower(each, layer=-2).tokens for each in (pixels, torch.zeros_like(pixels)))
    else:
        features = tower(pixels).embedding
        nothing = torch.zeros_like(features)
    return network(features), network(nothing)


def _tower(model: StableDiffusion, control: Control) -> CLIPVision:
    path = control.image_encoder
    if path is None:
        path = control.path.parent / IMAGE_ENCODER
        if not path.exists():
            raise ModelFileError(
                f"the IP-Adapter {control.path} needs a CLIP image encoder, and there is none at {path}; "
                "give its file or folder as image_encoder (--image-encoder)"
            )
    tower = _kept(model, path, lambda: load_clip_vision(path, dtype=model.dtype, device=model.device))
    assert isinstance(tower, CLIPVision)
    return tower


def _unet(model: StableDiffusion) -> UNet:
    unet = model.parts.unet
    if not isinstance(unet, UNet):
        raise InvalidRequest(
            f"{model.name} is a model of family {model.parts.family!r}; control networks are run with U-Nets only"
        )
    return unet


def _network(model: StableDiffusion, path: Path) -> nn.Module:
    unet = _unet(model)

    def read() -> nn.Module:
        stack = stack_of(unet)
        own = {name: stack.original(name) for name, _ in unet.named_parameters()}
        return load_control_network(path, unet, originals=own, dtype=model.dtype, device=model.device)

    return _kept(model, path, read)


def _kept(model: StableDiffusion, path: Path, read: Callable[[], nn.Module]) -> nn.Module:
    """The network of a file as it is now, for this model."""
    return model.cache.kept("control", existing(path), read, model.dtype, model.device, owner=_unet(model))


def _without_effect(unit: ControlUnit) -> Iterator[str]:
    """Settings that this kind of network does not have."""
    control, network = unit.control, unit.network
    if isinstance(network, IPAdapter):
        given = {
            "mode": control.mode != "balanced",
            "preprocessor": control.preprocessor != "none",
            "resize": control.resize != "crop",
            "task": control.task is not None,
        }
        names: Sequence[str] = [name for name, is_given in given.items() if is_given]
        if names:
            yield f"{', '.join(names)} of the IP-Adapter {control.name!r} is ignored"
        return
    if control.task is not None and not (isinstance(network, ControlNet) and network.config.tasks):
        yield f"the task of {control.name!r} is ignored: it is no union ControlNet"
    if control.image_encoder is not None:
        yield f"the image encoder of {control.name!r} is ignored: it is no IP-Adapter"


def _written(unit: ControlUnit, legacy: str) -> str:
    """The entry of a picture's text, in the form and order of A1111's extension; `legacy` is its hash of the file."""
    control = unit.control
    low, high = THRESHOLDS.get(control.preprocessor, (None, None))
    values: dict[str, object] = {
        "Module": control.preprocessor,
        "Model": f"{control.name} [{legacy}]" if legacy else control.name,
        "Weight": f"{control.weight:g}",
        "Resize Mode": RESIZES[control.resize],
        "Threshold A": low if control.threshold_a is None else control.threshold_a,
        "Threshold B": high if control.threshold_b is None else control.threshold_b,
        "Guidance Start": f"{control.start:g}",
        "Guidance End": f"{control.end:g}",
        "Pixel Perfect": True,
        "Control Mode": MODES[control.mode],
    }
    if unit.task is not None:
        values["Union Control Type"] = unit.task
    return ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in values.items()
        if value is not None
    )


def _hashes(model: StableDiffusion, path: Path) -> tuple[str, str]:
    """(A1111's eight digits, the first twelve of sha256) of a file; empty for a folder."""
    if not path.is_file():
        return "", ""
    return model.cache.kept("hash", path, lambda: (legacy_hash(path), sha256(path)[:HASH]))

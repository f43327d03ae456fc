"""The controls of one request: their networks loaded, their pictures at the request's size, and what the text says.

Networks stay in memory for the next request with the same model, the last few of them. The model's own weights are
never changed.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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
from .control import Picture, Side
from .preprocess import THRESHOLDS

if TYPE_CHECKING:
    from ...request.request import Request
    from ..models import StableDiffusion

KEPT = 4
"""Networks that stay in memory for each U-Net."""
IMAGE_ENCODER = "image_encoder"


@dataclass(frozen=True)
class RequestControls:
    """The side networks of a request, entries for the picture's text, and notes on what has no effect."""

    sides: tuple[Side, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def request_controls(model: StableDiffusion, request: Request) -> RequestControls:
    """Load what a resolved request names, and prepare its pictures.

    Raises ModelFileError where a file is no side network, is damaged or is made for another family, and InvalidRequest
    where a union ControlNet is not told its task.
    """
    networks = [_network(model, control.path) for control in request.controls]
    sides = [_side(model, *pair) for pair in zip(request.controls, networks, strict=True)]
    entries = [
        (f"ControlNet {index}", _written(control, network))
        for index, (control, network) in enumerate(zip(request.controls, networks, strict=True))
    ]
    hashes = {control.name: _hashes(control.path)[1] for control in request.controls}
    told = ", ".join(f"{name}: {digits}" for name, digits in hashes.items() if digits)
    if told:
        entries.append(("ControlNet hashes", told))
    notes = [
        note
        for control, network in zip(request.controls, networks, strict=True)
        for note in _without_effect(control, network)
    ]
    return RequestControls(tuple(sides), tuple(entries), tuple(notes))


@torch.no_grad()
def _side(model: StableDiffusion, control: Control, network: nn.Module) -> Side:
    common: dict[str, Any] = {"weight": control.weight, "span": (control.start, control.end)}
    if isinstance(network, IPAdapter):
        return Side(network=network, tokens=_image_tokens(model, control, network), **common)
    assert isinstance(network, ControlNet | T2IAdapter)
    common |= {"factor": model.factor, "soft": control.mode != "balanced", "prompt_only": control.mode == "control"}
    if isinstance(network, T2IAdapter):
        picture = _picture(control, network.config.picture_channels)
        return Side(network=network, picture=picture, stages=len(_unet(model).config.channels), **common)
    if network.config.hint_factor != model.factor:
        raise InvalidRequest(
            f"the ControlNet {control.name!r} reads {network.config.hint_factor} pixels per latent; "
            f"this model has {model.factor}"
        )
    if network.config.pooled:  # trained to act on what the prompt says alone, and wrong on the negative prompt
        common["prompt_only"] = True
    picture = _picture(control, network.config.hint_channels)
    return Side(network=network, picture=picture, task=_task(control, network.config.tasks), **common)


def _picture(control: Control, channels: int) -> Picture:
    """(width, height) -> [1,channels,height,width] in [0, 1]: colour, or grey for networks that read one channel."""
    if channels not in (1, 3):
        raise InvalidRequest(f"the network {control.name!r} reads pictures of {channels} channels; expected 1 or 3")

    def picture(width: int, height: int) -> Tensor:
        shown = control.picture(width, height)
        return to_straight(shown if channels == 3 else shown.convert("L"))[:, :channels]

    return picture


def _task(control: Control, tasks: int) -> int | None:
    """The number of the kind of picture that a union ControlNet is told; None for a plain one."""
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
    like = next(tower.parameters())
    pixels = clip_pixels([control.image], tower.config.image_size).to(like)
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
    tower = _kept(_unet(model), path, lambda: load_clip_vision(path, dtype=model.dtype, device=model.device))
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

    return _kept(unet, path, read)


_KEPT: WeakKeyDictionary[UNet, OrderedDict[tuple[Any, ...], nn.Module]] = WeakKeyDictionary()


def _kept(unet: UNet, path: Path, read: Any) -> nn.Module:
    """The network of a file as it is now: from memory where it was read before for this U-Net and has not changed."""
    stat = existing(path).stat()
    like = next(unet.parameters())
    key = (path.resolve(), stat.st_mtime_ns, stat.st_size, like.dtype, like.device)
    known = _KEPT.setdefault(unet, OrderedDict())
    if key not in known:
        known[key] = read()
    known.move_to_end(key)
    while len(known) > KEPT:
        known.popitem(last=False)
    return known[key]


def _without_effect(control: Control, network: nn.Module) -> Iterator[str]:
    """Settings that this kind of network does not have."""
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


def _written(control: Control, network: nn.Module) -> str:
    """The entry of a picture's text, in the form and order of A1111's extension."""
    low, high = THRESHOLDS.get(control.preprocessor, (None, None))
    legacy = _hashes(control.path)[0]
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
    if isinstance(network, ControlNet) and network.config.tasks:
        values["Union Control Type"] = _task(control, network.config.tasks)
    return ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in values.items()
        if value is not None
    )


def _hashes(path: Path) -> tuple[str, str]:
    """(A1111's eight digits, the first twelve of sha256) of a file; empty for a folder."""
    if not path.is_file():
        return "", ""
    stat = path.stat()
    return _hashes_of(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _hashes_of(path: Path, changed: int, size: int) -> tuple[str, str]:
    return legacy_hash(path), sha256(path)[:HASH]

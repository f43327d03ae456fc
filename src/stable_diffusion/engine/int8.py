"""The torch engine with weights and activations in 8 bits: `--dtype int8`.

Only the denoising network is computed so: a decoder's rounding would be seen. A run with LoRAs has only the layers that
they change quantised again. Layers that lose most can be kept in the precision of the weights (`keep`), which
`stable-diffusion calibrate` measures on the model's own denoising and writes into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InvalidRequest
from ..nn.sharing import origin
from ..user_cache import cache_folder
from .base import Features, Network, Part
from .cpu_layers import fused, in_channels_last
from .guided_pair import with_pairs
from .int8_layers import can_quantise, quantised
from .torch import TORCH, TorchEngine, gains_from_fusing, method_of

_REFUSED = {
    "seamless": "edges that meet are not computed in 8 bits",
    "image_prompt": "image prompts are not computed in 8 bits",
    "attention_maps": "attention is not recorded in 8 bits",
}


class Int8Engine(TorchEngine):
    """Denoising networks in 8 bits, all else as torch does it."""

    precision = "int8"

    def __init__(self) -> None:
        super().__init__()
        self._networks: weakref.WeakKeyDictionary[nn.Module, nn.Module] = weakref.WeakKeyDictionary()
        self._layers: weakref.WeakKeyDictionary[nn.Module, dict[str, _Made]] = weakref.WeakKeyDictionary()
        self._kept: weakref.WeakKeyDictionary[nn.Module, frozenset[str]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()

    def network(self, module: nn.Module, part: Part) -> Network:
        if part != "denoiser":
            return TORCH.network(module, part)
        with self._lock:
            if module not in self._networks:
                if gains_from_fusing(module):
                    in_channels_last(module)
                self._networks[module] = self._converted(module)
            return method_of(self._networks[module], part)

    def refuses(self, features: Features) -> str | None:
        return next((_REFUSED[name] for name in features.names if name in _REFUSED), None)

    def weights_changed(self, module: nn.Module) -> None:
        """What was made of the module is dropped; layers whose weights are the same tensors are used again."""
        with self._lock:
            self._networks.pop(module, None)

    def keep(self, module: nn.Module, names: Iterable[str]) -> None:
        """Layers of these names stay in the precision of the weights, for this network and all that share with it."""
        with self._lock:
            self._kept[origin(module)] = frozenset(names)
            self._networks.clear()

    def kept(self, module: nn.Module) -> frozenset[str]:
        """The names of the layers that stay as they are: those that were said, or that a calibration wrote."""
        base = origin(module)
        with self._lock:
            if base not in self._kept:
                self._kept[base] = read_kept(base)
            return self._kept[base]

    def quantisable(self, layer: nn.Module) -> bool:
        """Whether a layer is computed in 8 bits, as long as nobody keeps it."""
        return can_quantise(layer)

    def quantised(self, layer: nn.Module) -> nn.Module:
        """A layer that is `quantisable`, in 8 bits."""
        return quantised(layer)

    def whole(self, name: str, layer: nn.Module) -> nn.Module | None:
        """What takes the place of a layer that is not computed in 8 bits; None leaves it."""
        return fused(name, layer) if isinstance(layer, nn.Conv2d) else None

    def _converted(self, module: nn.Module) -> nn.Module:
        kept, known = self.kept(module), self._layers.setdefault(origin(module), {})
        own = module is origin(module)

        def layer(name: str, part: nn.Module) -> nn.Module | None:
            if not self.quantisable(part) or name in kept:
                return self.whole(name, part)
            made = known.get(name)
            if made is None or not made.of(part.weight):  # type: ignore[arg-type]  # linear layers and convolutions
                made = _Made(part, self.quantised(part))
                if own:
                    known[name] = made
            return made.layer

        return with_pairs(module, layer)


class _Made:
    """A layer in 8 bits, and the tensor that it was made of."""

    def __init__(self, layer: nn.Module, made: nn.Module) -> None:
        self.layer = made
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self._tensor = weight.detach()  # holds the memory, so that its address means this tensor
        self._version = self._tensor._version

    def of(self, weight: Tensor) -> bool:
        same = weight.data_ptr() == self._tensor.data_ptr() and weight.dtype == self._tensor.dtype
        return same and weight._version == self._version


def make_engine(precision: str = "int8") -> Int8Engine:
    """The engine for 8 bits. InvalidRequest where this torch or this processor has no operators for it."""
    reason = without_int8()
    if reason is not None:
        raise InvalidRequest(f"dtype 'int8' cannot be used here: {reason}; choose 'auto' or 'float32'")
    return Int8Engine()


def without_int8() -> str | None:
    """Why 8 bits cannot be computed here, found by computing a layer; None where they can."""
    if not hasattr(torch.ops.onednn, "qlinear_pointwise") or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return "this build of torch has no oneDNN operators for 8 bits"
    linear, conv = nn.Linear(64, 64), nn.Conv2d(64, 64, 1)
    try:
        with torch.no_grad():
            for layer, x in ((linear, torch.ones(64, 64)), (conv, torch.ones(1, 64, 4, 4))):
                quantised(layer)(x)
    except RuntimeError:
        return "this processor cannot run torch's operators for 8 bits"
    return None


def fingerprint(module: nn.Module) -> str:
    """What tells a network's weights from others: names, shapes and the first numbers of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        first = tensor.detach().flatten()[:32].float().contiguous()
        digest.update(f"{name} {list(tensor.shape)}".encode() + first.cpu().numpy().tobytes())
    return digest.hexdigest()[:24]


def kept_path(module: nn.Module) -> Path:
    """Where the calibration of a network is remembered."""
    return cache_folder() / "int8" / f"{fingerprint(module)}.json"


def read_kept(module: nn.Module) -> frozenset[str]:
    """The layers that a calibration kept; none where there was no calibration."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        names = json.loads(kept_path(module).read_text(encoding="utf-8"))["kept"]
        return frozenset(name for name in names if isinstance(name, str))
    return frozenset()

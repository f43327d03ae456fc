"""The closed table of what a torch checkpoint's pickle may name, and what each name means to `PickleMachine`.

Everything here builds plain records: a `Storage` is a claim about bytes elsewhere in the file, a `StoredTensor` a claim
about a view of it. `torch_file` checks both claims against the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from ...errors import UnsafeFile
from .pickle_machine import Call, Global, Inert, PickleMachine


@dataclass(frozen=True)
class Storage:
    """A flat run of `count` elements, stored under `key`."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A strided view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}

TENSOR_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float16 bfloat16 float32 float64 float8_e4m3fn float8_e5m2 "
        "int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool"
    ).split()
}

NUMPY_DTYPES = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())

_PARAMETER = Global("torch.nn.parameter", "Parameter")


class TorchMachine(PickleMachine):
    """A `PickleMachine` that reads torch checkpoints; `storages` holds every storage mentioned, by key."""

    def __init__(self, what: str) -> None:
        super().__init__(what, self._calls(), _constants(), self._storage)
        self.storages: dict[str, Storage] = {}

    def _storage(self, persistent_id: Any) -> Storage | Global:
        """("storage", dtype, key, location, count[, view]) -> Storage; a view (torch before 0.4) must be the whole.

        The stream layout also has ("module", class, file, source) for classes of modules: only the name is kept.
        """
        if isinstance(persistent_id, tuple) and len(persistent_id) == 4 and persistent_id[0] == "module":
            if isinstance(persistent_id[1], Global):
                return persistent_id[1]
        if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6) or persistent_id[0] != "storage":
            raise ValueError("a persistent id that is not a storage")
        _, dtype, key, _, count, *view = persistent_id
        if not isinstance(dtype, torch.dtype) or type(count) is not int or not 0 <= count < 2**62:
            raise ValueError("a storage of unknown type or size")
        # Keys name zip entries; torch numbers them, and nothing that could be a path is let through.
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", key):
            raise UnsafeFile(f"{self.what} names the storage {str(key)[:40]!r}; a number is expected")
        if any(item is not None for item in view):
            raise ValueError("a storage that is a view of another, as torch before 0.4 wrote them")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} described in two ways")
        return storage

    def _calls(self) -> dict[Global, Call]:
        calls: dict[Global, Call] = {
            Global("collections", "OrderedDict"): self._ordered_dict,
            Global("collections", "defaultdict"): lambda arguments: {},
            Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
            Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
            Global("torch._utils", "_rebuild_parameter"): lambda arguments: arguments[0],
            Global("torch._utils", "_rebuild_parameter_with_state"): lambda arguments: arguments[0],
            Global("torch._tensor", "_rebuild_from_type_v2"): self._rebuild_from_type,
            _PARAMETER: lambda arguments: arguments[0],
            Global("torch", "Size"): lambda arguments: arguments[0],
            Global("torch", "device"): lambda arguments: None,
            Global("torch.serialization", "_get_layout"): lambda arguments: None,
            Global("_codecs", "encode"): _encode,
            Global("numpy", "dtype"): lambda arguments: Inert(Global("numpy", "dtype"), arguments),
            Global("numpy.core.multiarray", "scalar"): _numpy_scalar,
            Global("numpy._core.multiarray", "scalar"): _numpy_scalar,
        }
        for module in ("__builtin__", "builtins"):
            for name in ("set", "frozenset", "list", "tuple"):
                calls[Global(module, name)] = lambda arguments: arguments[0] if arguments else []
            calls[Global(module, "dict")] = self._ordered_dict
        return calls

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """No argument, or (Python 2) one list of [key, value] pairs."""
        pairs = arguments[0] if arguments else []
        self.charge(len(pairs))
        return {key: value for key, value in pairs if isinstance(key, (str, int))}

    def _rebuild_from_type(self, arguments: tuple[Any, ...]) -> Any:
        """(function, type, arguments, state): a tensor subclass, read as the plain tensor inside."""
        function, _, inner, _ = arguments
        return self.call(function, inner)


def _constants() -> dict[Global, Any]:
    constants: dict[Global, Any] = {Global("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}
    constants.update({Global("torch.storage", name): dtype for name, dtype in STORAGE_DTYPES.items()})
    constants.update({Global("torch", name): dtype for name, dtype in TENSOR_DTYPES.items()})
    for module in ("__builtin__", "builtins"):
        constants.update({Global(module, name): None for name in ("int", "float", "str", "bool", "bytes", "object")})
    return constants


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > 16:
        raise ValueError("a tensor shape that is not a short tuple")
    if not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise ValueError("a tensor shape or stride that is not of natural numbers")
    return tuple(values)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """(storage, offset, shape, stride, ...): what follows (requires_grad, hooks, metadata) is dropped."""
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without a storage")
    shape, stride = _naturals(shape), _naturals(stride)
    if len(shape) != len(stride):
        raise ValueError("a tensor with more sizes than strides")
    return StoredTensor(storage, offset, shape, stride)


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> StoredTensor:
    """(untyped storage, offset, shape, stride, requires_grad, hooks, dtype, ...): the dtype is the tensor's own."""
    plain = _rebuild_tensor(arguments)
    dtype = arguments[6]
    if not isinstance(dtype, torch.dtype) or plain.storage.dtype != torch.uint8:
        raise ValueError("a tensor of unknown dtype")
    # The storage counts bytes; seen through the tensor's dtype it holds that many fewer elements.
    storage = Storage(plain.storage.key, dtype, plain.storage.count // dtype.itemsize)
    return StoredTensor(storage, plain.offset, plain.shape, plain.stride)


def _encode(arguments: tuple[Any, ...]) -> Any:
    """Protocol 2's way to write bytes; only the few bytes of a number are ever needed."""
    text = arguments[0]
    if not isinstance(text, str) or len(text) > 64:
        return Inert(Global("_codecs", "encode"))
    return text.encode("latin-1")


def _numpy_scalar(arguments: tuple[Any, ...]) -> Any:
    """(dtype, bytes) -> a Python number, for `best_loss` and the like."""
    dtype, data = arguments
    code = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.arguments else None
    if not isinstance(code, str) or code not in NUMPY_DTYPES or not isinstance(data, bytes):
        return Inert(Global("numpy", "scalar"))
    values = np.frombuffer(data, dtype=np.dtype("<" + code))
    return values[0].item() if prod(values.shape) == 1 else None

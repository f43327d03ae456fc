"""`import torch` without what only compilers, exporters and training need: 0.6 seconds of processor time and not 1.0.

A third of the thousand modules that `import torch` reads is never used by a process that makes a picture with the
built-in model. Here they stand in `sys.modules` unread. When somebody asks one of them for anything, or imports what
traces or compiles, all of them are read, in the order of a plain `import torch`, so that from then on nothing is
different from it.

Only versions of torch for which this was tested are imported so, and only by the command line: a library must not
change what others import. STABLE_DIFFUSION_WHOLE_TORCH=1 switches it off.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

OFF = "STABLE_DIFFUSION_WHOLE_TORCH"
TESTED = ("2.13.",)
"""Beginnings of the versions of torch that are imported so."""
LATER = (
    *("torch.utils.data", "torch.distributions", "torch.hub", "torch.nested", "torch.optim", "torch.profiler"),
    *("torch.ao", "torch.nn.intrinsic", "torch.nn.qat", "torch.nn.quantizable", "torch.nn.quantized"),
    *("torch.quantization", "torch.quasirandom", "torch.masked", "torch.fx.operator_schemas", "torch.export"),
    *("torch.func", "torch._higher_order_ops", "torch.distributed._meta_registrations", "torch._meta_registrations"),
    *("torch.compiler", "torch.fx", "torch.fx.experimental", "torch.fx.traceback"),
)
"""Modules that are not read at first, in the order in which `import torch` reads them."""
ALONE = "torch.fx.experimental.sym_node"
"""Is read at once, but without its parents: torch's own C++ asks it for a class, and must not wait for anything."""
NEEDING = ("torch._dynamo", "torch._inductor", "torch._subclasses", "torch._functorch", "torch.onnx")
"""What needs what they register, and asks none of them for it."""


def _handed_on(module: str, name: str) -> Any:
    """A function that stands for one of a module that is not read yet."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(sys.modules[module], name)(*args, **kwargs)

    call.__name__ = name
    return call


_LENT: dict[tuple[str, str], Any] = {
    ("torch.func", "vmap"): _handed_on("torch.func", "vmap"),
    ("torch._higher_order_ops", "cond"): _handed_on("torch._higher_order_ops", "cond"),
    ("torch._higher_order_ops", "while_loop"): _handed_on("torch._higher_order_ops", "while_loop"),
    ("torch.fx.operator_schemas", "_SCHEMA_TO_SIGNATURE_CACHE"): {},
}
"""What `torch/__init__.py` takes out of such modules, and what it is given in place of it."""


_QUESTIONS = ("is_compiling", "is_dynamo_compiling")
_LISTING = "_device_constructors"
"""torch's list of what `with torch.device(...)` acts on; it is made for the first such block, and made again later."""


class UnreadModule(ModuleType):
    """A module that is read, with all others, when something of it is asked for or a part of it imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not (name == "__path__" and _part_is_imported()):
            raise AttributeError(name)
        if _STATE.importing and (self.__name__, name) in _LENT:
            return _LENT[self.__name__, name]
        if self.__name__ == "torch.compiler" and name in _QUESTIONS and "torch._dynamo" not in sys.modules:
            return bool  # of nothing: false, for nothing that compiles was imported
        if name == "nested_tensor" and sys._getframe(1).f_code.co_name == _LISTING:
            return _handed_on(self.__name__, name)
        read_all()
        if type(self) is UnreadModule:  # asked for by one that is being read
            import_module(self.__name__)
        if name not in self.__dict__ and "__path__" in self.__dict__ and "__getattr__" not in self.__dict__:
            return import_module(f"{self.__name__}.{name}")  # `from package import part`
        return getattr(self, name)


def _part_is_imported() -> bool:
    """Whether the import system asks for a `__path__`, and not `from package import name`, which only looks for one."""
    return sys._getframe(2).f_code.co_name == "_find_and_load_unlocked"


class _Reading(MetaPathFinder, Loader):
    """Lets the import system read these modules into the objects that others already hold."""

    def __init__(self) -> None:
        self.importing, self.complete = False, True
        self.lock, self.unread, self.loaders = threading.RLock(), dict[str, ModuleType](), dict[str, Loader]()
        self.read, self.specs = dict[str, ModuleType](), dict[str, ModuleSpec | None]()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in NEEDING and not self.importing:
            read_all()
            if fullname in sys.modules:  # read with the others; taken out, or the import system makes another
                self.read[fullname] = sys.modules.pop(fullname)
                return ModuleSpec(fullname, self, is_package=True)
        if fullname not in self.unread:
            return None
        found = PathFinder.find_spec(fullname, path)
        assert found is not None and found.loader is not None
        self.loaders[fullname], found.loader = found.loader, self
        return found

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        found = self.read.get(spec.name)
        if found is None:
            return self.unread[spec.name]
        self.specs[spec.name] = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        if self.read.pop(module.__name__, None) is not None:
            module.__spec__ = self.specs.pop(module.__name__)
            return
        module.__class__ = ModuleType
        module.__loader__ = self.loaders[module.__name__]
        module.__loader__.exec_module(module)


_STATE = _Reading()


def read_all() -> None:
    """Read what was left unread; nothing where that was done, or this thread is doing it."""
    with _STATE.lock:
        if _STATE.complete:
            return
        _STATE.complete = True
        for name in LATER:
            sys.modules.pop(name, None)
        for name in LATER:
            import_module(name)
        parent, _, last = ALONE.rpartition(".")
        setattr(sys.modules[parent], last, sys.modules[ALONE])
        getattr(import_module("torch.utils._device"), _LISTING).cache_clear()
        sys.meta_path.remove(_STATE)


def import_torch_lightly() -> bool:
    """Import torch so, where its version was tested and it is not imported yet; whether it was."""
    if "torch" in sys.modules or os.environ.get(OFF):
        return False
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None or not _version(Path(found.origin).parent).startswith(TESTED):
        return False
    with _STATE.lock:
        _STATE.unread = {name: UnreadModule(name) for name in (*LATER, ALONE)}
        _STATE.importing, _STATE.complete = True, False
        sys.modules |= _STATE.unread
        try:
            import torch

            _read_alone(_STATE.unread.pop(ALONE), Path(found.origin).parent)
            # What torch._prims.rng_prims does when it is read; generators of random numbers are refused without it.
            torch._C._set_generator_metaclass(import_module("torch._opaque_base").OpaqueBaseMeta)
        finally:
            _STATE.importing = False
        for name, module in _STATE.unread.items():  # as the import system does with a module that it has read
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, module)
        sys.meta_path.insert(0, _STATE)
    return True


def _read_alone(module: ModuleType, torch: Path) -> None:
    """Read a module of torch, which lies in this folder, as if its parents had been read."""
    place = torch.joinpath(*module.__name__.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(module.__name__, place)
    assert spec is not None and spec.loader is not None
    module.__class__ = ModuleType
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__package__ = spec.parent
    spec.loader.exec_module(module)


def _version(folder: Path) -> str:
    """The version of the torch in a folder, which is not imported; "" where it does not say."""
    try:
        found = re.search(r"__version__ = '([^']*)'", (folder / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""

"""Torch checkpoints: tensors come out as torch wrote them, and nothing in a pickle can run, reach out or blow up."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import random
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from stable_diffusion.errors import BrokenModel, ModelFileError, UnsafeFile
from stable_diffusion.weights.containers import pickle_machine, torch_file
from stable_diffusion.weights.containers.open import read_tensors

LAYOUTS = {"zip": True, "stream": False}


def save(path: Path, value: Any, layout: str = "zip", protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=LAYOUTS[layout], pickle_protocol=protocol)
    return path


def state() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0)
    return collections.OrderedDict(
        {
            "plain": torch.randn(2, 3),
            "half": torch.randn(5).half(),
            "bfloat": torch.randn(3, 1, 2).bfloat16(),
            "transposed": torch.randn(3, 4).t(),
            "slice": base[4:16].reshape(3, 4)[:, 1:3],
            "same_storage": base,
            "ids": torch.arange(77).expand(1, -1),
            "scalar": torch.tensor(3.5),
            "none": torch.empty(0, 4),
            "flag": torch.tensor([True, False]),
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        }
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_come_out_as_torch_wrote_them(tmp_path: Path, layout: str, protocol: int) -> None:
    tensors, _ = read_tensors(save(tmp_path / "a.ckpt", state(), layout, protocol))
    expected = torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name


def test_newer_dtypes(tmp_path: Path) -> None:
    values = {"f8": torch.randn(4).to(torch.float8_e4m3fn), "u16": torch.arange(3).to(torch.uint16)}
    tensors, _ = read_tensors(save(tmp_path / "a.pt", values))
    assert all(torch.equal(tensors[name].view(torch.uint8), values[name].view(torch.uint8)) for name in values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nested_state_dict_and_scalars(tmp_path: Path, layout: str) -> None:
    inner = {"w": torch.ones(2), "note": "text", "list": [1, 2]}
    value = {
        "state_dict": {"state_dict": inner, "epoch": 3},
        "global_step": 875000,
        "best": np.float64(0.25),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
    }
    tensors, scalars = read_tensors(save(tmp_path / "a.ckpt", value, layout))
    assert list(tensors) == ["w"]
    assert scalars["global_step"] == "875000" and scalars["epoch"] == "3" and scalars["best"] == "0.25"


def test_a_dictionary_inside_itself_ends(tmp_path: Path) -> None:
    value: dict[str, Any] = {"w": torch.ones(2)}
    value["state_dict"] = value
    value["again"] = value
    assert "w" in read_tensors(save(tmp_path / "a.ckpt", value))[0]


def test_leftovers_of_training_frameworks_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.best = 0.5

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    value = {"state_dict": {"w": torch.ones(3)}, "callbacks": {ModelCheckpoint: ModelCheckpoint()}}
    path = save(tmp_path / "a.ckpt", value)
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    assert list(read_tensors(path)[0]) == ["w"]


# --- hostile files ------------------------------------------------------------------------------------------------


class Runs:
    """Pickles into a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, Any]:
    """Values whose loading would create `marker`, or reach something that could."""
    return {
        "os.system": Runs(os.system, f"touch {marker}"),
        "builtins.eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.exec": Runs(exec, f"open({str(marker)!r}, 'w')"),
        "builtins.open": Runs(open, str(marker), "w"),
        "builtins.getattr": Runs(getattr, os, "system"),
        "builtins.__import__": Runs(__import__, "os"),
        "torch.load": Runs(torch.load, str(marker)),
        "torch.hub": Runs(torch.hub.load, "x/y", "z"),
        "numpy.load": Runs(np.load, str(marker)),
        "pickle.loads": Runs(pickle.loads, b""),
        "os.path as inert key": {os.system: 1},
    }


def harmless(value: Any) -> Any:
    return {"state_dict": {"w": torch.ones(2)}, "callbacks": [value]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", hostile(Path("x")))
def test_calls_are_refused_and_not_made(tmp_path: Path, kind: str, layout: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "a.ckpt"
    value = hostile(marker)[kind]
    if "hub" in kind or "getattr" in kind or "numpy" in kind or "load" in kind:
        value = Raw(value)
    save_raw(path, value, layout)
    with pytest.raises(UnsafeFile, match=r"asks for|calls something"):
        read_tensors(path)
    assert not marker.exists()


class Raw(Runs):
    """`Runs` whose arguments may be unpicklable: they are dropped."""

    def __init__(self, inner: Runs) -> None:
        super().__init__(inner.call[0])


def save_raw(path: Path, value: Any, layout: str) -> None:
    save(path, harmless(value), layout)


def write_zip(path: Path, pickled: bytes, entries: dict[str, bytes] | None = None, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in (entries or {}).items():
            archive.writestr(name, content)
    return path


def globals_pickle(module: str, name: str) -> bytes:
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n)R."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.utils._config_module", "install_config_module"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.nn.modules.module", "torch.os.system"),
        ("ldm.x", "a.b"),
        ("pytorch_lightningx", "Evil"),
        ("collections", "OrderedDict.__init__"),
        ("numpy.testing._private.utils", "runstring"),
        ("webbrowser", "open"),
    ],
)
def test_globals_outside_the_list_are_refused(tmp_path: Path, module: str, name: str) -> None:
    with pytest.raises(UnsafeFile, match="only tensors are read"):
        read_tensors(write_zip(tmp_path / "a.ckpt", globals_pickle(module, name)))


def test_no_module_is_imported_for_an_inert_name(tmp_path: Path) -> None:
    pickled = b"\x80\x02}(X\x01\x00\x00\x00acldm.models.diffusion\nDDPM\n)Ru."
    tensors, _ = read_tensors(write_zip(tmp_path / "a.ckpt", pickled))
    assert len(tensors) == 0 and "ldm" not in sys.modules


STREAMS = {
    "build on a global": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00a}sb.",
    "call a string": b"\x80\x02X\x02\x00\x00\x00os)R.",
    "call a dictionary": b"\x80\x02})R.",
    "global from numbers": b"\x80\x04K\x01K\x02\x93.",
    "extension registry": b"\x80\x02\x82\x01.",
    "empty stack": b"\x80\x020000.",
    "no mark": b"\x80\x02K\x01t.",
    "memo unset": b"\x80\x02h\x05.",
    "cut short": b"\x80\x02X\xff\xff\xff\x7fabc",
    "length overflow": b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.",
    "no end": b"\x80\x02K\x01",
    "unknown opcode": b"\x80\x02\xff.",
    "list as key": b"\x80\x02}]K\x01s.",
    "huge decimal": b"I" + b"9" * 10_000 + b"\n.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "storage key is a path": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x07\x00\x00\x00../../aX\x03\x00"
    b"\x00\x00cpuK\x04tQ.",
    "persistent id is not a storage": b"\x80\x02X\x02\x00\x00\x00hiQ.",
    "tensor without storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x01\x85K\x01\x85\x89Nt R.",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_streams_that_break_the_machine_are_one_error(tmp_path: Path, stream: bytes) -> None:
    path = write_zip(tmp_path / "a.ckpt", stream)
    if stream == STREAMS["build on a global"] or stream == STREAMS["list as key"]:
        assert len(read_tensors(path)[0]) == 0  # harmless here, since nothing is an object
        return
    with pytest.raises(UnsafeFile) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_of_nested_references_is_not_unfolded(tmp_path: Path) -> None:
    """2^60 strings by sharing: printing, hashing or copying them would never end."""
    bomb = b"\x80\x02}" + b"X\x03\x00\x00\x00lol" + b"2\x86" * 60 + b"K\x01s."
    assert len(read_tensors(write_zip(tmp_path / "a.ckpt", bomb))[0]) == 0


def test_copies_of_one_list_are_counted_as_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "WORK_LIMIT", 50_000)
    pairs = b"](" + b"K\x01K\x02\x86" * 1000 + b"e"
    call = b"ccollections\nOrderedDict\nh\x00\x85R0"
    stream = b"\x80\x02" + pairs + b"q\x00" + call * 1000 + b"."
    with pytest.raises(UnsafeFile, match="more than 50000 operations"):
        read_tensors(write_zip(tmp_path / "a.ckpt", stream))


def rebuild(storage_count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"w": tensor} with these claims, over the storage "0"."""

    class Storage:
        pass

    class Claims(pickle._Pickler):  # the Python pickler, whose persistent_id takes any object
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", storage_count) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, stride, False, collections.OrderedDict())

    out = io.BytesIO()
    Claims(out, 2).dump({"w": Tensor()})
    return out.getvalue()


@pytest.mark.parametrize(
    ("count", "offset", "shape", "stride"),
    [
        (4, 0, (5,), (1,)),
        (4, 1, (4,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, 0, (10**9, 10**9), (0, 0)),
        (4, -1, (2,), (1,)),
        (4, 0, (-1,), (1,)),
        (4, 0, (2,), (-1,)),
        (4, 0, (2, 2), (1,)),
        (2**61, 0, (2,), (1,)),
        (5, 0, (5,), (1,)),
        (-4, 0, (0,), (1,)),
    ],
)
def test_tensors_that_reach_outside_their_storage(
    tmp_path: Path, count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = write_zip(tmp_path / "a.ckpt", rebuild(count, offset, shape, stride), {"archive/data/0": bytes(16)})
    with pytest.raises((UnsafeFile, BrokenModel)):
        read_tensors(path)


def test_the_claims_helper_makes_a_good_file_too(tmp_path: Path) -> None:
    content = {"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)}
    tensors, _ = read_tensors(write_zip(tmp_path / "a.ckpt", rebuild(4, 1, (3,), (1,)), content))
    assert tensors["w"].tolist() == [2, 3, 4]


def test_zip_bombs_and_foreign_archives(tmp_path: Path) -> None:
    good = rebuild(4, 0, (4,), (1,))
    bomb = write_zip(tmp_path / "b.ckpt", good, {"archive/data/0": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFile, match="compressed"):
        read_tensors(bomb)
    with pytest.raises(ModelFileError, match="without a torch checkpoint"):
        with zipfile.ZipFile(tmp_path / "c.ckpt", "w") as archive:
            archive.writestr("../../escape.txt", "x")
        read_tensors(tmp_path / "c.ckpt")
    with pytest.raises(UnsafeFile, match="TorchScript"):
        read_tensors(
            write_zip(tmp_path / "d.pt", good, {"archive/code/__torch__.py": b"", "archive/data/0": bytes(16)})
        )
    with pytest.raises(ModelFileError, match="big-endian"):
        read_tensors(write_zip(tmp_path / "e.pt", good, {"archive/byteorder": b"big", "archive/data/0": bytes(16)}))
    with pytest.raises(BrokenModel, match="lacks the data of storage '0'"):
        read_tensors(write_zip(tmp_path / "f.pt", good))


def test_a_pickle_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "PICKLE_LIMIT", 100)
    with pytest.raises(UnsafeFile, match="at most 100"):
        read_tensors(save(tmp_path / "a.ckpt", state()))


def test_names_with_paths_write_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = {"../escape": torch.ones(1), "/etc/passwd": torch.ones(1), "a/../../b": torch.ones(1)}
    tensors, _ = read_tensors(save(inside / "a.ckpt", names))
    assert set(tensors) == set(names) and sorted(p.name for p in tmp_path.rglob("*")) == ["a.ckpt", "inside"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_files(tmp_path: Path, layout: str) -> None:
    whole = save(tmp_path / "a.ckpt", state(), layout).read_bytes()
    for keep in (4, 50, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        (tmp_path / "b.ckpt").write_bytes(whole[:keep])
        with pytest.raises((BrokenModel, UnsafeFile)):
            read_tensors(tmp_path / "b.ckpt")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_checkpoints_are_read_or_refused_and_nothing_else(tmp_path: Path, layout: str) -> None:
    """1,000 random edits; a reader that trusts any offset, size or key would crash or raise another error."""
    good = save(tmp_path / "a.ckpt", {"state_dict": state(), "global_step": 3}, layout).read_bytes()
    source, refused, path = random.Random(1), 0, tmp_path / "m.ckpt"
    for _ in range(1000):
        mutant = bytearray(good)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(mutant))
            if source.random() < 0.7:
                mutant[at] = source.randrange(256)
            else:
                mutant[at : at + 1] = source.randbytes(source.randint(0, 3))
        path.write_bytes(mutant)
        try:
            for tensor in read_tensors(path)[0].values():
                tensor.clone()
        except ModelFileError:
            refused += 1
    assert refused > 100


def test_our_machine_agrees_with_pickle_on_plain_data() -> None:
    value = {"a": [1, -5, 2**40, 2**70, 1.5, None, True, False], "b": (1, (2,), (), (1, 2), (1, 2, 3), (1, 2, 3, 4))}
    value["text"] = ["é" * 300, b"bytes", b"x" * 300, "same", "same"]  # type: ignore[assignment]
    machine = pickle_machine.PickleMachine("test", {}, {}, lambda persistent: None)
    for protocol in range(3, 6):
        assert machine.load(io.BytesIO(pickle.dumps(value, protocol))) == value
    value["text"] = ["é" * 300]  # type: ignore[assignment]
    for protocol in range(3):
        assert machine.load(io.BytesIO(pickle.dumps(value, protocol))) == value
    names = {operation.name for operation in pickletools.opcodes}
    assert pickle_machine._LITERALS <= names and set(pickle_machine._MAKERS) | set(pickle_machine._EDITS) <= names

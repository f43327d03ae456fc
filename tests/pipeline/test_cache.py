"""What is kept in memory: made once however many threads ask, made again for a changed file, dropped when it must."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from control_files import write_controlnet
from painting import speckled
from stable_diffusion.errors import ModelFileError
from stable_diffusion.models.unet import UNet
from stable_diffusion.pipeline.cache import FileCache
from stable_diffusion.pipeline.models import ModelCache, StableDiffusion
from stable_diffusion.pipeline.tasks.control_files import load_controls
from stable_diffusion.request.control import Control
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.parts import Parts


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        path = tmp_path / name
        path.write_text(name)
        return path

    return write


def test_a_value_is_made_once_and_again_when_the_file_changes(files: Callable[[str], Path]) -> None:
    cache, path, made = FileCache({"hash": 2}), files("a"), list[int]()

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [cache.kept("hash", path, make) for _ in range(3)] == [0, 0, 0]
    assert cache.kept("hash", path, make, "float16") == 1
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    assert cache.kept("hash", path, make) == 2


def test_the_one_used_least_recently_is_dropped(files: Callable[[str], Path]) -> None:
    cache, made = FileCache({"hash": 2}), list[str]()
    paths = [files(name) for name in "abc"]
    for index in (0, 1, 0, 2, 0, 1):
        cache.kept("hash", paths[index], lambda index=index: made.append("abc"[index]))
    assert made == ["a", "b", "c", "b"]


def test_an_error_is_not_kept(files: Callable[[str], Path]) -> None:
    cache, path = FileCache({"hash": 2}), files("a")

    def fail() -> str:
        raise ModelFileError("damaged")

    for _ in range(2):
        with pytest.raises(ModelFileError):
            cache.kept("hash", path, fail)
    assert cache.kept("hash", path, lambda: "fine") == "fine"


def test_threads_wait_for_one_making(files: Callable[[str], Path]) -> None:
    cache, path, other = FileCache({"hash": 4}), files("a"), files("b")
    made, found, begun = list[object](), list[object](), threading.Event()

    def slow() -> object:
        begun.set()
        time.sleep(0.2)
        made.append(object())
        return made[-1]

    threads = [threading.Thread(target=lambda: found.append(cache.kept("hash", path, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    assert cache.kept("hash", other, lambda: "quick") == "quick" and not made, "nobody waits for another file"
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and found == made * 4


def test_models_and_what_is_loaded_for_them(tiny_native_parts: Parts, tmp_path: Path) -> None:
    cache = ModelCache()
    path = tmp_path / "model.safetensors"
    save_native(path, tiny_native_parts, dtype="float32")
    model = cache.get(path, "cpu")
    assert cache.get(str(path), "cpu") is model and model.cache is cache
    assert cache.get(path, "cpu", "bfloat16") is not model
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert cache.refiner(str(path), model) is not model, "a refiner does not push the base out"


def test_control_networks_go_with_their_model(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    cache, unet = ModelCache(), UNet(tiny_model.parts.unet.config)
    path = write_controlnet(tmp_path / "edges.safetensors", unet.config)
    model = StableDiffusion.from_parts(replace(tiny_model.parts, unet=unet), name="own", cache=cache)
    control = Control(path, speckled((48, 32)))
    first, second = (load_controls(model, [control]).units[0].network for _ in range(2))
    assert first is second and any(kind == "control" for kind, _ in cache._shelves)
    del model, unet, first, second
    gc.collect()
    assert not any(kind == "control" for kind, _ in cache._shelves)

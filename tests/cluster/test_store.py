"""Models by their hash: shared, copied, checked, removed; and requests that carry their files."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stable_diffusion.cluster.models import LocalModels, ModelStore
from stable_diffusion.cluster.shared_files import SharedFiles, with_own_paths
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.events import Images
from stable_diffusion.request.control import Control
from stable_diffusion.request.request import Request


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def local(tmp_path: Path, store: ModelStore) -> LocalModels:
    return LocalModels(store, tmp_path / "cache", 10**6)


def file(path: Path, text: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_equal_bytes_are_one_file_and_keep_their_names(tmp_path: Path, store: ModelStore, local: LocalModels) -> None:
    first, second = (store.add(file(tmp_path / name)) for name in ("a.safetensors", "b.safetensors"))
    assert first.digest == second.digest and len(list(store.folder.rglob("*/*"))) == 1
    assert [local.fetch(each).name for each in (first, second)] == ["a.safetensors", "b.safetensors"]
    assert local.fetch(first).read_text() == "weights"


def test_a_copy_is_made_once(tmp_path: Path, store: ModelStore, local: LocalModels) -> None:
    held = store.add(file(tmp_path / "a.ckpt"))
    place = local.fetch(held)
    store.path(held.digest).unlink()
    assert local.fetch(held) == place


def test_a_file_that_changed_is_another(tmp_path: Path, store: ModelStore) -> None:
    path = file(tmp_path / "a.ckpt")
    before = store.add(path)
    file(path, "other weights")
    assert store.add(path).digest != before.digest


def test_damage_is_found_and_nothing_half_is_left(tmp_path: Path, store: ModelStore, local: LocalModels) -> None:
    held = store.add(file(tmp_path / "a.ckpt"))
    store.path(held.digest).write_text("weightz")
    with pytest.raises(StableDiffusionError, match="damaged"):
        local.fetch(held)
    assert not [path for path in local.folder.glob("[0-9a-f]*/*")]
    store.path(held.digest).unlink()
    with pytest.raises(StableDiffusionError, match=r"has no 'a\.ckpt'"):
        local.fetch(held)


def test_the_copies_used_longest_ago_make_room(tmp_path: Path, store: ModelStore) -> None:
    local = LocalModels(store, tmp_path / "cache", 25)
    held = [store.add(file(tmp_path / f"{name}.ckpt", name * 10)) for name in "abc"]
    places = []
    for age, each in zip((300, 200, 100), held, strict=True):
        places.append(local.fetch(each))
        os.utime(places[-1], (time.time() - age,) * 2)
    assert [place.exists() for place in places] == [False, True, True]
    local.fetch(held[0], keep=[held[1].digest])
    assert [place.exists() for place in places] == [True, True, False]


def test_a_request_finds_its_files_on_another_machine(tmp_path: Path, store: ModelStore, local: LocalModels) -> None:
    here = tmp_path / "here"
    model, lora = file(here / "model.safetensors", "m"), file(here / "style.safetensors", "l")
    folder = file(here / "diffusers" / "unet" / "config.json", "{}").parents[1]
    wanted, other = file(here / "loras" / "sub" / "ink.safetensors", "i"), file(here / "loras" / "other.safetensors")
    request = Request(
        "a cat <lora:ink:0.5>", model=str(model), loras=[(lora, 0.8)], lora_dir=here / "loras",
        refiner=str(folder), controls=[Control(folder / "unet" / "config.json", Image.new("RGB", (8, 8)))],
    )  # fmt: skip
    shared = SharedFiles(store).shared(request)
    for each in (model, lora, wanted, other):
        each.unlink()
    found = shared.placed(local)
    assert found.model is not None and Path(found.model).name == "model.safetensors"
    assert Path(found.model).read_text() == "m" and found.loras[0].path.read_text() == "l"
    assert found.loras[0].strength == 0.8 and found.loras[0].path.stem == "style"
    assert found.refiner is not None and (Path(found.refiner.model) / "unet" / "config.json").read_text() == "{}"
    assert found.controls[0].path.name == "config.json" and found.controls[0].path.is_relative_to(local.folder)
    assert found.lora_dir is not None
    files = [path for path in found.lora_dir.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["ink.safetensors"]
    assert files[0].resolve().is_relative_to(found.lora_dir.resolve())
    event = with_own_paths(Images(images=(), first=0, requests=(replace(found, seed=7),)), request)
    assert isinstance(event, Images) and event.requests == (replace(request, seed=7),)


def test_names_of_models_stay_names(store: ModelStore, local: LocalModels) -> None:
    request = Request("a cat", model="embedded-fast")
    assert SharedFiles(store).shared(request).placed(local) == request


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(InvalidRequest, match=r"'none.ckpt' cannot be read"):
        store.add(tmp_path / "none.ckpt")

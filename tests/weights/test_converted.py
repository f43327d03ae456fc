"""Networks that were cast once are mapped from the disk afterwards, with the same bits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from stable_diffusion.atomic import ABANDONED, make_room
from stable_diffusion.errors import BrokenModel
from stable_diffusion.mapped_pages import is_mapped
from stable_diffusion.user_cache import CACHE_FOLDER, CACHE_LIMIT
from stable_diffusion.weights import converted
from stable_diffusion.weights.converted import conversions, wait_until_written
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Parts

NETWORKS = ("unet", "vae", "clip")


@pytest.fixture
def file(folder: Path, kind: tiny.Kind, tmp_path: Path) -> Path:
    return tiny.write_single(kind, folder, tmp_path / "model.safetensors")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache folder of its own, in which networks of any size are kept."""
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(converted, "LEAST", 1)
    yield
    wait_until_written()


def entries() -> list[Path]:
    return sorted(conversions().glob("*.safetensors"))


def same_bits(one: Parts, two: Parts) -> bool:
    for name in NETWORKS:
        first, second = (getattr(parts, name).state_dict() for parts in (one, two))
        for key, tensor in first.items():
            other = second[key]
            if not torch.equal(tensor.view(torch.int16), other.view(torch.int16)) or tensor.stride() != other.stride():
                return False
    return True


def test_the_second_load_is_a_view_of_the_disk_with_the_same_bits(file: Path) -> None:
    first = load_parts(file, dtype=torch.bfloat16)
    wait_until_written()
    assert len(entries()) == 3
    second = load_parts(file, dtype=torch.bfloat16)
    assert same_bits(first, second)
    assert not is_mapped(first.unet.conv_in.weight) and is_mapped(second.unet.conv_in.weight)
    assert all(is_mapped(each) for each in second.unet.parameters() if each.nbytes)


def test_mapped_does_not_wait_for_a_second_load(file: Path) -> None:
    found = load_parts(file, dtype=torch.bfloat16, mapped=True)
    assert is_mapped(found.unet.conv_in.weight) and len(entries()) == 3
    assert same_bits(found, load_parts(file, dtype=torch.bfloat16))


def test_another_file_in_the_same_place_is_another_entry(file: Path) -> None:
    load_parts(file, dtype=torch.bfloat16, mapped=True)
    state = load_file(file)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**state, name: state[name] + 1}, file)
    found = load_parts(file, dtype=torch.bfloat16, mapped=True)
    assert torch.equal(found.unet.conv_in.weight, (state[name] + 1).bfloat16())


def test_what_is_damaged_is_made_again(file: Path) -> None:
    before = load_parts(file, dtype=torch.bfloat16, mapped=True)
    for entry in entries():
        cut = entry.with_suffix(".cut")
        cut.write_bytes(entry.read_bytes()[:-8])
        cut.replace(entry)  # as another process would: what is mapped stays
    assert same_bits(before, load_parts(file, dtype=torch.bfloat16))


def test_numbers_that_are_not_finite_are_not_kept(file: Path) -> None:
    state = load_file(file)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**state, name: state[name] * float("nan")}, file)
    found = load_parts(file, dtype=torch.bfloat16, mapped=True)
    assert len(entries()) == 2
    x = torch.zeros(1, found.unet.config.in_channels, 8, 8, dtype=torch.bfloat16)
    tokens = torch.zeros(1, 2, found.unet.config.context_dim, dtype=torch.bfloat16)
    with pytest.raises(BrokenModel, match="not finite"):
        found.unet(x, torch.tensor([1.0]), tokens)


def test_what_is_given_up_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[converted.Conversion] = []
    monkeypatch.setattr("stable_diffusion.weights.build.write_later", made.append)
    load_parts(file, dtype=torch.bfloat16)
    asked = iter(range(1000))
    with pytest.raises(converted.Abandoned):
        made[0].write(lambda: next(asked) > 2)
    assert not list(conversions().iterdir())
    made[0].write()
    assert entries() == [made[0].path]


def test_the_limit_of_the_cache_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_LIMIT, "0")
    load_parts(file, dtype=torch.bfloat16, mapped=True)
    assert not conversions().exists()
    conversions().mkdir(parents=True)
    old, new = conversions() / "old.safetensors", conversions() / "new.safetensors"
    for age, path in enumerate((new, old)):
        path.write_bytes(b"0" * 1000)
        os.utime(path, (time.time() - age * 60,) * 2)
    part = conversions() / ".killed.safetensors.0123.part"
    part.write_bytes(b"0")
    make_room(conversions(), 1500, now=time.time())
    assert entries() == [new] and part.exists()
    make_room(conversions(), 0, now=time.time() + 2 * ABANDONED, keep=new)
    assert entries() == [new] and not part.exists()


def test_float32_and_files_of_the_same_type_are_not_kept(file: Path) -> None:
    load_parts(file, dtype=torch.float32, mapped=True)
    load_parts(file, dtype=None, mapped=True)
    assert not conversions().exists()

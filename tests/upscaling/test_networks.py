"""Files of upscalers are recognised by their names and shapes, and compute what `spandrel` computes."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from upscaler_files import compact, random, rrdb

from stable_diffusion.errors import BrokenModel, InvalidRequest, UnknownModel, UnsafeFile
from stable_diffusion.models.upscalers import CompactConfig, RRDBConfig
from stable_diffusion.upscaling.network import load_upscaler

FORMS = [
    RRDBConfig(width=8, growth=4, blocks=2),
    RRDBConfig(width=8, growth=4, blocks=1, doublings=1),
    RRDBConfig(width=8, growth=4, blocks=2, doublings=3),
    RRDBConfig(width=8, growth=4, blocks=2, doublings=0),
    RRDBConfig(width=8, growth=4, blocks=2, unshuffle=2),
    RRDBConfig(width=8, growth=4, blocks=2, unshuffle=4),
]
PICTURE = torch.rand(1, 3, 11, 14, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", ["old", "bsrgan", "new"])
@pytest.mark.parametrize("config", FORMS, ids=lambda config: f"{config.doublings}-{config.unshuffle}")
def test_every_layout_and_form(tmp_path: Path, layout: str, config: RRDBConfig) -> None:
    network, tensors = rrdb(config, layout)
    path = tmp_path / "x.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    found = load_upscaler(path, "cpu")
    assert found.scale == config.scale and found.network.config == config  # type: ignore[attr-defined]
    assert torch.equal(found.network(PICTURE), network(PICTURE))
    assert found(PICTURE).shape == (1, 3, 11 * found.scale, 14 * found.scale)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", ""])
def test_wrappers(tmp_path: Path, wrapper: str) -> None:
    network, tensors = rrdb()
    torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "x.pth")
    assert torch.equal(load_upscaler(tmp_path / "x.pth", "cpu").network(PICTURE), network(PICTURE))


def test_averaged_weights_are_taken_where_both_are_there(tmp_path: Path) -> None:
    network, tensors = rrdb()
    other = {name: value + 1 for name, value in tensors.items()}
    torch.save({"params": other, "params_ema": tensors}, tmp_path / "x.pth")
    assert torch.equal(load_upscaler(tmp_path / "x.pth", "cpu").network(PICTURE), network(PICTURE))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact(tmp_path: Path, scale: int) -> None:
    network, tensors = compact(CompactConfig(width=8, layers=2, scale=scale))
    torch.save({"params": tensors}, tmp_path / "x.pth")
    found = load_upscaler(tmp_path / "x.pth", "cpu")
    assert found.scale == scale and torch.equal(found.network(PICTURE), network(PICTURE))


# --- against spandrel -------------------------------------------------------------------------------------------------


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with a stand-in for torchvision, of which these networks use nothing."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            module: Any = types.ModuleType(name)
            module.InterpolationMode, module.rotate, module.normalize = object, None, None
            monkeypatch.setitem(sys.modules, name, module)
    return pytest.importorskip("spandrel")


@pytest.mark.parametrize(
    "form",
    [{"scale": 4}, {"scale": 2}, {"scale": 1}, {"scale": 8}, {"in_nc": 12, "shuffle_factor": 2},
     {"in_nc": 48, "shuffle_factor": 4}],
    ids=str,
)  # fmt: skip
def test_rrdb_is_as_in_spandrel(spandrel: Any, tmp_path: Path, form: dict[str, int]) -> None:
    made = random(spandrel.architectures.ESRGAN.ESRGAN(num_filters=16, num_blocks=2, **form))
    torch.save(made.state_dict(), tmp_path / "x.pth")
    found = load_upscaler(tmp_path / "x.pth", "cpu")
    theirs = spandrel.ModelLoader().load_from_state_dict(made.state_dict())
    assert found.scale == theirs.scale
    assert torch.allclose(found.network(PICTURE), made(PICTURE), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["old", "bsrgan", "new"])
def test_layouts_are_as_in_spandrel(spandrel: Any, layout: str) -> None:
    network, tensors = rrdb(RRDBConfig(width=8, growth=32, blocks=3), layout)
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(tensors)).eval()
    expected = theirs.model(PICTURE)
    assert torch.allclose(network(PICTURE), expected, atol=1e-5, rtol=0) and expected.std() > 0.01


def test_compact_is_as_in_spandrel(spandrel: Any) -> None:
    network, tensors = compact(CompactConfig(width=16, layers=3))
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(tensors)).eval()
    assert torch.allclose(network(PICTURE), theirs.model(PICTURE), atol=1e-5, rtol=0)


def test_other_networks_go_through_spandrel(spandrel: Any, tmp_path: Path) -> None:
    made = random(spandrel.architectures.SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2))
    torch.save({"params": made.state_dict()}, tmp_path / "span.pth")
    found = load_upscaler(tmp_path / "span.pth", "cpu")
    assert found.scale == 2 and found(PICTURE).shape == (1, 3, 22, 28)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_other_networks_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InvalidRequest, match=r'pip install "stable-diffusion\[upscale\]"'):
        load_upscaler(tmp_path / "x.pth", "cpu")


def test_a_pickle_that_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"params": Evil()}, tmp_path / "x.pth")
    with pytest.raises(UnsafeFile):
        load_upscaler(tmp_path / "x.pth", "cpu")
    assert not (tmp_path / "ran").exists()


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    _, tensors = rrdb()
    del tensors["conv_hr.weight"]
    torch.save(tensors, tmp_path / "x.pth")
    with pytest.raises(BrokenModel, match=r"conv_hr\.weight"):
        load_upscaler(tmp_path / "x.pth", "cpu")


def test_a_model_of_pictures_is_no_upscaler(tmp_path: Path) -> None:
    names = ("double_blocks.0.img_attn.qkv.weight", "double_blocks.0.txt_attn.qkv.weight")
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "x.pth")
    with pytest.raises(UnknownModel, match="Flux"):
        load_upscaler(tmp_path / "x.pth", "cpu")

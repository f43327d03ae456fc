"""Our own file format: a model comes back equal, packing errs within its bound, and writing is all or nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError
from stable_diffusion.latents import LatentFormat
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.native import config_of, save_native
from stable_diffusion.weights.containers.packing import PACKINGS, dequantise, pack, quantise, unpack
from stable_diffusion.weights.load import load_parts as load
from stable_diffusion.weights.parts import Card, Defaults, Parts, TokenizerSource

NETWORKS = ("unet", "vae", "clip")


def tiny_parts(**changes: Any) -> Parts:
    torch.manual_seed(0)
    unet = UNetConfig(
        in_channels=8, out_channels=8, channels=(32, 64), blocks_per_stage=1, transformer_depth=(0, 1), head_dim=16,
        context_dim=48, vector_dim=24, groups=8,
    )  # fmt: skip
    vae = VAEConfig(
        image_channels=4, latent_channels=8, channels=(16, 24), decoder_channels=(8, 16), decoder_blocks=1,
        blocks_per_stage=1, mid_attention=False, patch_size=2, groups=8,
    )  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=300, width=48, layers=2, heads=3, mlp_width=96, context_length=32, activation="gelu",
        projection_dim=24, eos_token_id=299,
    )  # fmt: skip
    values: dict[str, Any] = {
        "unet": UNet(unet),
        "vae": VAE(vae),
        "clip": CLIPText(clip),
        "tokenizer": TokenizerSource(json='{"text": "日没"}', pad_token_id=299),
        "latents": LatentFormat(
            channels=8, downscale=4, scale=tuple(0.5 + i for i in range(8)), shift=tuple(i / 3 for i in range(8)),
            preview=tuple((i / 7, -i / 3, 0.1) for i in range(8)), preview_bias=(0.1, 0.2, 0.3),
        ),
        "schedule": ddpm_schedule("cosine", zero_terminal_snr=True),
        "prediction": "v",
        "family": "embedded",
        "defaults": Defaults(width=256, height=128, steps=8, guidance=0.0, sampler="ddim", schedule="simple"),
        "clip_layer": -2,
        "card": Card(name="first light", version="0.1", licence="CC-BY-4.0"),
    }  # fmt: skip
    return Parts(**{**values, **changes})


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    parts = tiny_parts()
    save_native(tmp_path / "a.safetensors", parts, dtype="float32")
    back = load(tmp_path / "a.safetensors")
    for part in NETWORKS:
        before, after = getattr(parts, part), getattr(back, part)
        assert before.config == after.config and not after.training
        assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
        assert not any(parameter.requires_grad for parameter in after.parameters())
    for name in ("tokenizer", "latents", "prediction", "family", "defaults", "clip_layer", "card"):
        assert getattr(back, name) == getattr(parts, name), name
    sigmas = [p.schedule.sigma(torch.arange(0.0, 1000.0, 37.0)) for p in (parts, back)]
    assert torch.equal(*sigmas)
    assert back.source is not None and back.source.name == "a" and len(back.source.short_hash or "") == 10


@pytest.mark.parametrize("schedule", [FlowSchedule(shift=3.0), ddpm_schedule("linear", steps=50)])
def test_schedules_come_back(tmp_path: Path, schedule: Any) -> None:
    save_native(tmp_path / "a.safetensors", tiny_parts(schedule=schedule, prediction="flow"))
    assert load(tmp_path / "a.safetensors").schedule.to_config() == schedule.to_config()  # type: ignore[attr-defined]


def test_the_vocabulary_of_clip_is_not_written(tmp_path: Path) -> None:
    save_native(tmp_path / "a.safetensors", tiny_parts(tokenizer=TokenizerSource(pad_token_id=0)))
    assert load(tmp_path / "a.safetensors").tokenizer == TokenizerSource(pad_token_id=0)


def test_a_tokenizer_folder_goes_into_the_file(tmp_path: Path) -> None:
    parts = tiny_parts(tokenizer=TokenizerSource(folder=tmp_path))
    with pytest.raises(ModelFileError, match=r"no tokenizer\.json"):
        save_native(tmp_path / "a.safetensors", parts)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_native(tmp_path / "a.safetensors", parts)
    assert load(tmp_path / "a.safetensors").tokenizer.json == "{}"
    save_native(tmp_path / "a.safetensors", parts, tokenizer_json="[]")
    assert load(tmp_path / "a.safetensors").tokenizer.json == "[]"


def test_the_reference_library_reads_the_file_and_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_native(tmp_path / name, tiny_parts(), dtype="int8")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="pt") as opened:
        assert opened.metadata()["format"] == "stable_diffusion.v1"
        assert json.loads(opened.metadata()["config"]) == json.loads(json.dumps(config_of(tiny_parts())))
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.int8, torch.float32, torch.float16}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packing_errs_within_its_bound(tmp_path: Path, packing: str) -> None:
    parts = tiny_parts()
    save_native(tmp_path / "a.safetensors", parts, dtype=packing)
    back = load(tmp_path / "a.safetensors")
    for name, before in parts.unet.state_dict().items():
        wrong = (back.unet.state_dict()[name] - before).abs().flatten(1 if before.ndim > 1 else 0)
        if packing == "float32":
            assert wrong.max() == 0
        elif packing == "int8" and before.ndim > 1:
            # Half a step of a channel's own scale, with room for the 16-bit floats of small tensors.
            assert (wrong.amax(1) <= before.abs().flatten(1).amax(1) / 127 * 0.5001 + 1e-6).all(), name
        else:
            assert wrong.max() <= before.abs().max() * 2.0**-8 + 1e-7


def test_quantising_twice_changes_nothing_more() -> None:
    weight = torch.randn(7, 3, 5, 2) * torch.logspace(-6, 3, 7)[:, None, None, None]
    weight[3] = 0
    once = dequantise(*quantise(weight))
    assert torch.allclose(dequantise(*quantise(once)), once, rtol=1e-6, atol=0) and (once[3] == 0).all()
    assert ((once - weight).flatten(1).norm(dim=1) <= 0.02 * weight.flatten(1).norm(dim=1)).all()


def test_numbers_beyond_float16_are_kept_in_float32() -> None:
    stored = pack({"norm.weight": torch.tensor([1.0, 1e6]), "norm.bias": torch.tensor([1.0])}, "int8")
    assert stored["norm.weight"].dtype == torch.float32 and stored["norm.bias"].dtype == torch.float16


def test_the_error_of_integers_is_that_of_rounding() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    wrong = unpack(pack({"w": weight}, "int8"))["w"] - weight
    # The step is about 2.5 sigma / 127 wide; a uniform error has a standard deviation of a step / sqrt(12).
    assert float(wrong.std() / weight.std()) == pytest.approx(2.5 / 127 / 12**0.5, rel=0.15)


@pytest.mark.parametrize("scale", [None, torch.ones(3), torch.ones(4, 4)])
def test_scales_that_do_not_fit(scale: torch.Tensor | None) -> None:
    stored = {"w": torch.ones(4, 4, dtype=torch.int8)} | ({} if scale is None else {"w.scale": scale})
    with pytest.raises(BrokenModel, match="scales are missing or do not fit"):
        unpack(stored)


def test_an_unknown_packing_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'float16'"):
        pack({}, "flaot16")


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with its config changed."""
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    config = json.loads(metadata["config"])
    config.update(changes)
    save_file(load_file(path), path, metadata={**metadata, "config": json.dumps(config)})
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prediction": "epslon"}, "unknown prediction"),
        ({"schedule": {"kind": "linear", "beta_start": -1}}, "betas"),
        ({"unet": {"widths": [3]}}, "widths"),
        ({"unet": 3}, "cannot use"),
        ({"unet": {"blocks_per_stage": 10**9}}, "at most 64 is plausible"),
        ({"vae": {"channels": [10**30]}}, "plausible"),
        ({"card": ["x"]}, "cannot use"),
        ({"defaults": {"width": [256]}}, "the default width is"),
        ({"defaults": {"steps": 0}}, "the default steps is 0"),
        ({"defaults": {"guidance": "much"}}, "the default guidance is 'much'"),
        ({"latents": {"channels": 8, "scale": [1.0, 2.0]}}, "the latent scale is"),
        ({"latents": {"channels": 8, "colour": 1}}, "no 'colour'"),
        ({"defaults": {"step": 1}}, "no 'step'"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    save_native(tmp_path / "a.safetensors", tiny_parts())
    with pytest.raises(BrokenModel, match=says):
        load(rewritten(tmp_path / "a.safetensors", **changes))


def test_shapes_that_do_not_fit_the_config_are_listed(tmp_path: Path) -> None:
    parts = tiny_parts()
    save_native(tmp_path / "a.safetensors", parts)
    config = {**parts.unet.config.to_dict(), "context_dim": 40}
    with pytest.raises(BrokenModel, match=r"unet of .*of the wrong shape: .*\[64, 48\] instead of \[64, 40\]"):
        load(rewritten(tmp_path / "a.safetensors", unet=config))


def test_a_later_version_of_the_format(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors", metadata={"format": "stable_diffusion.v2"})
    with pytest.raises(BrokenModel, match=r"this version reads stable_diffusion\.v1"):
        load(tmp_path / "a.safetensors")


def test_a_foreign_tensor_in_our_file(tmp_path: Path) -> None:
    save_native(tmp_path / "a.safetensors", tiny_parts())
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    save_file({**load_file(tmp_path / "a.safetensors"), "x": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(BrokenModel, match="names begin with unet"):
        load(tmp_path / "a.safetensors")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        save_native(path, tiny_parts())
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_defaults_of_zero_survive(tmp_path: Path) -> None:
    parts = tiny_parts()
    save_native(tmp_path / "a.safetensors", replace(parts, defaults=replace(parts.defaults, guidance=0.0)))
    assert load(tmp_path / "a.safetensors").defaults.guidance == 0.0

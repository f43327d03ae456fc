"""A run that leaves a machine in pieces can be gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import settings

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import load_part, read_state
from stable_diffusion.training.export import export
from stable_diffusion.training.run import train
from stable_diffusion.weights.load import load_parts

ship = pytest.importorskip("recipes.embedded.ship", reason="the recipes lie beside the package")
main, split = ship.main, ship.split


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal up to the rounding of float16."""
    return all(torch.equal(value.half(), b[name].half()) for name, value in a.items())


def test_a_shipped_denoiser_goes_on(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = str(pack_folder / "tokenizer.json")
    sent, model = tmp_path / "sent", tmp_path / "back/model.safetensors"
    assert (
        main(["split", str(runs["denoiser"]), "--tokenizer", tokenizer, "--out", str(sent), "--piece-size", "0.02"])
        == 0
    )
    pieces = sorted(sent.glob("*.piece*"))
    assert len(pieces) > 3 and all(path.stat().st_size <= 0.02 * 2**20 for path in pieces)
    assert main(["join", *map(str, pieces), "--out", str(model)]) == 0
    again = tmp_path / "again"
    given = {"start_from": str(model), "start_parts": ["unet"], "vae_run": str(model), "text_run": str(model)}
    still = {"optimiser.learning_rate": 0.0, "optimiser.muon_learning_rate": 0.0, "ema": 0.0}
    train("denoiser", data=pack_folder, out=again, overrides=settings("denoiser", runs, steps=1) | given | still)
    for name in ("unet", "text"):
        assert close(load_part(again, name)[0], load_part(runs["denoiser"], name)[0]), name
    assert close(dict(load_parts(model).vae.state_dict()), load_part(runs["vae"], "vae")[0])


def test_a_frozen_text_encoder_loses_nothing_in_int8(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Its weights came from integers, which the same scales give again."""
    packed = export(runs["denoiser"], tmp_path / "int8.safetensors", tokenizer=pack_folder)
    given = {"vae_run": str(packed), "text_run": str(packed), "text_learning_rate": 0.0}
    run = tmp_path / "run"
    train("denoiser", data=pack_folder, out=run, overrides=settings("denoiser", runs, steps=1) | given)
    pieces = split(run, tmp_path, tokenizer=pack_folder / "tokenizer.json", text_dtype="int8")
    assert main(["join", *map(str, pieces), "--out", str(tmp_path / "m.safetensors")]) == 0
    before, after = load_parts(packed).clip.state_dict(), load_parts(tmp_path / "m.safetensors").clip.state_dict()
    assert all(torch.allclose(after[name], value, rtol=1e-5, atol=0) for name, value in before.items())


def test_an_autoencoder_travels_in_the_model_it_started_from(
    pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    model = export(runs["denoiser"], tmp_path / "m.safetensors", tokenizer=pack_folder, dtype="float32")
    run = tmp_path / "vae"
    train("vae", data=pack_folder, out=run, overrides=settings("vae", runs, steps=2) | {"start_from": str(model)})
    pieces = split(run, tmp_path / "sent", dtype="float32")
    assert main(["join", *map(str, pieces), "--out", str(tmp_path / "n.safetensors")]) == 0
    old, new = load_parts(model), load_parts(tmp_path / "n.safetensors")
    assert all(torch.equal(value, old.unet.state_dict()[name]) for name, value in new.unet.state_dict().items())
    assert all(torch.equal(value, load_part(run, "vae")[0][name]) for name, value in new.vae.state_dict().items())
    stored = read_state(run / "checkpoint.safetensors")["facts"]["latents"]
    assert list(new.latents.scale) == pytest.approx(stored["scale"]) and new.latents != old.latents


def test_what_cannot_be_shipped(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    for run, message in (
        (tmp_path, "holds no checkpoint"),
        (runs["vae"], "started from nothing"),
        (runs["text"], "unknown stage to export 'text'"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            split(run, tmp_path / "sent", tokenizer=pack_folder / "tokenizer.json")
    with pytest.raises(InvalidRequest, match="tokenizer is not given"):
        split(runs["denoiser"], tmp_path / "sent")
    assert not (tmp_path / "sent").exists()

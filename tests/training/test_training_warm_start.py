from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import UNET, settings

from stable_diffusion.errors import BrokenModel, InvalidRequest
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.training.checkpoint import load_part, read_state
from stable_diffusion.training.export import export
from stable_diffusion.training.run import train
from stable_diffusion.training.warm_start import folded
from stable_diffusion.weights.load import load_parts


def start(pack: Path, out: Path, runs: dict[str, Path], **more: object) -> Path:
    """A denoiser run of one step at a rate of zero: what it ends with is what it began with."""
    still = {"optimiser.learning_rate": 0.0, "optimiser.muon_learning_rate": 0.0, "ema": 0.0}
    train("denoiser", data=pack, out=out, overrides=settings("denoiser", runs, steps=1) | still | more, device="cpu")
    return out


def unet(run: Path) -> dict[str, torch.Tensor]:
    return load_part(run, "unet")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_starts_from_another_runs_average(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    fresh = start(pack_folder, tmp_path / "fresh", runs)
    warm = start(pack_folder, tmp_path / "warm", runs, start_from=str(runs["denoiser"]), start_parts=["unet"])
    assert same(unet(warm), unet(runs["denoiser"])) and not same(unet(fresh), unet(runs["denoiser"]))
    text = load_part(warm, "text")[0]
    assert same(text, load_part(runs["text"], "text")[0])  # not among start_parts
    assert read_state(warm / "checkpoint.safetensors")["step"] == 1


def test_a_run_starts_from_a_model_file(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    model = export(runs["denoiser"], tmp_path / "m.safetensors", tokenizer=pack_folder, dtype="float32")
    warm = start(pack_folder, tmp_path / "warm", runs, start_from=str(model))
    assert same(unet(warm), unet(runs["denoiser"]))


def test_the_earlier_stages_may_be_a_model_file(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    model = str(export(runs["denoiser"], tmp_path / "m.safetensors", tokenizer=pack_folder, dtype="float32"))
    run = start(pack_folder, tmp_path / "run", runs, vae_run=model, text_run=model)
    assert same(load_part(run, "text")[0], load_part(runs["denoiser"], "text")[0])
    again = load_parts(export(run, tmp_path / "n.safetensors", tokenizer=pack_folder, dtype="float32"))
    assert same(dict(again.vae.state_dict()), load_part(runs["vae"], "vae")[0])
    assert again.latents == load_parts(model).latents


def test_a_resumed_run_does_not_start_again(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    out = start(pack_folder, tmp_path / "warm", runs, start_from=str(runs["denoiser"]))
    train(
        "denoiser",
        data=pack_folder,
        out=out,
        overrides=settings("denoiser", runs, steps=3) | {"start_from": str(runs["denoiser"]), "ema": 0.0},
        device="cpu",
    )
    assert not same(unet(out), unet(runs["denoiser"]))


def test_what_does_not_fit_is_refused(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"unknown part to start from 'unett'.*unet"):
        start(pack_folder, tmp_path / "a", runs, start_from=str(runs["denoiser"]), start_parts=["unett"])
    with pytest.raises(InvalidRequest, match="holds no unet, text"):
        start(pack_folder, tmp_path / "b", runs, start_from=str(runs["vae"]))
    with pytest.raises(InvalidRequest, match="it has no checkpoint"):
        start(pack_folder, tmp_path / "c", runs, start_from=str(tmp_path))
    with pytest.raises(BrokenModel, match="does not fit the config"):
        other = {**UNET, "channels": [16, 32]}
        start(pack_folder, tmp_path / "d", runs, start_from=str(runs["denoiser"]), unet=other)


def test_runs_start_from_a_tower_file(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """The text stage goes on from both towers; the denoiser reads its text encoder from there."""
    from stable_diffusion.evaluation.tower import load_eye, save_eye

    tokenizer = (pack_folder / "tokenizer.json").read_text(encoding="utf-8")
    file = save_eye(tmp_path / "towers.safetensors", load_eye(runs["text"], tokenizer=tokenizer), dtype="float32")
    trained = {part: load_part(runs["text"], part)[0] for part in ("text", "tower")}
    still = {"optimiser.learning_rate": 0.0, "optimiser.muon_learning_rate": 0.0, "ema": 0.0, "steps": 1}
    train(
        "text",
        data=pack_folder,
        out=tmp_path / "on",
        overrides=settings("text", runs) | still | {"start_from": str(file)},
        device="cpu",
    )
    assert all(same(load_part(tmp_path / "on", part)[0], trained[part]) for part in trained)
    read = start(pack_folder, tmp_path / "denoiser", runs, text_run=str(file))
    assert same(load_part(read, "text")[0], trained["text"])
    with pytest.raises(InvalidRequest, match="holds no unet, only text, tower"):
        start(pack_folder, tmp_path / "none", runs, start_from=str(file), start_parts=["unet"])


def test_a_unet_with_patches_starts_from_one_without(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    out = start(
        pack_folder,
        tmp_path / "patches",
        runs,
        start_from=str(runs["denoiser"]),
        start_parts=["unet"],
        unet={**UNET, "patch_size": 2},
    )
    ours, theirs = unet(out), unet(runs["denoiser"])
    assert same({name: ours[name] for name in theirs if not name.startswith("conv_")}, theirs)
    assert ours["conv_in.weight"].shape[1] == 4 * theirs["conv_in.weight"].shape[1]


def test_where_all_of_a_patch_is_alike_it_says_what_one_latent_said() -> None:
    shape = {"in_channels": 3, "out_channels": 3, "channels": (8, 12), "transformer_depth": (0, 1), "heads": 2}
    plain = UNet(UNetConfig(**shape, context_dim=6, groups=4))
    torch.nn.init.normal_(plain.conv_out.weight)
    patched = UNet(UNetConfig(**shape, context_dim=6, groups=4, patch_size=2))
    patched.load_state_dict(dict(folded(patched, plain.state_dict())))
    x, t, tokens = torch.randn(1, 3, 6, 4), torch.tensor([400.0]), torch.randn(1, 5, 6)
    large = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        expected = plain(x, t, tokens).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        torch.testing.assert_close(patched(large / 2, t, tokens), expected, rtol=1e-4, atol=1e-5)

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_training import settings, write_tokenizer

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import load_part
from stable_diffusion.training.data import encode_texts, load_tokenizer
from stable_diffusion.training.export import export, join
from stable_diffusion.training.packing_cost import held_out_pictures, packing_cost
from stable_diffusion.training.run import train
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.load import load_parts


def test_exported_file_loads_with_the_averaged_weights(
    pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    out = export(
        runs["denoiser"],
        tmp_path / "m.safetensors",
        tokenizer=pack_folder,
        dtype="float32",
        defaults={"steps": 7},
        card={"name": "tiny"},
    )
    parts = load_parts(out)
    for module, weights in (
        (parts.unet, load_part(runs["denoiser"], "unet")[0]),
        (parts.vae, load_part(runs["vae"], "vae")[0]),
    ):
        for name, value in module.state_dict().items():
            assert torch.equal(value, weights[name]), name
    assert (parts.defaults.width, parts.defaults.steps, parts.card.name) == (16, 7, "tiny")
    assert parts.prediction == "flow" and parts.latents.channels == 3


def test_the_text_package_gives_the_ids_of_training(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """What the encoder saw in training is what the pipeline's tokenizer will show it."""
    from stable_diffusion.text.tokenizer import Tokenizer

    text = (pack_folder / "tokenizer.json").read_text(encoding="utf-8")
    ours = Tokenizer.from_json(text, context_length=12)
    trained = encode_texts(load_tokenizer(pack_folder), ["a disc", "红"], 12)
    for row, caption in zip(trained, ("a disc", "红"), strict=True):
        pieces = list(ours.encode(caption))
        inner = [piece for piece in pieces if piece not in (ours.bos, ours.eos)]
        assert [int(i) for i in row if int(i) not in (ours.bos, ours.eos)] == inner


def test_joint_decoder_is_exported(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    joint = tmp_path / "joint"
    before = load_part(runs["vae"], "vae")[0]
    train("joint", data=pack_folder, out=joint, overrides=settings("joint", runs, steps=2), device="cpu")
    parts = load_parts(export(joint, tmp_path / "j.safetensors", tokenizer=pack_folder, dtype="float32"))
    changed = {name for name, value in parts.vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("decoder") for name in changed)


def test_wrong_folders_and_tokenizers(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="unknown stage to export 'vae'"):
        export(runs["vae"], tmp_path / "x.safetensors", tokenizer=pack_folder)
    with pytest.raises(InvalidRequest, match="holds no checkpoint"):
        export(tmp_path, tmp_path / "x.safetensors", tokenizer=pack_folder)
    write_tokenizer(tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer

    longer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    longer.add_tokens(["zebra"])
    longer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidRequest, match="the text encoder was trained with"):
        export(runs["denoiser"], tmp_path / "x.safetensors", tokenizer=tmp_path)


def test_what_packing_costs(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Nothing where weights are kept whole; a little where they are rounded, more with fewer digits."""
    parts = join(runs["denoiser"], tokenizer=pack_folder, defaults={"steps": 2})
    pictures = held_out_pictures(pack_folder, 16)
    costs = {}
    for dtype in ("float32", "float16", "bfloat16"):
        save_native(tmp_path / f"{dtype}.safetensors", parts, dtype=dtype)
        costs[dtype] = packing_cost(parts, tmp_path / f"{dtype}.safetensors", pictures, ("a red disc",))
    assert pictures.shape == (4, 4, 16, 16)
    whole = costs["float32"]
    assert (whole.reconstruction_lost, whole.painted) == (0.0, math.inf) and whole.text == pytest.approx(1, abs=1e-6)
    assert whole.reconstruction is not None and 3 < whole.reconstruction < 60
    assert costs["bfloat16"].painted < costs["float16"].painted
    assert costs["bfloat16"].text < 1 and costs["bfloat16"].bytes < whole.bytes
    assert packing_cost(parts, tmp_path / "float32.safetensors", None, ("a red disc",)).reconstruction is None


def test_the_command_says_what_packing_costs(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from stable_diffusion.cli.commands.train import command

    names = ["--denoiser", runs["denoiser"], "--vae", runs["vae"], "--tokenizer", pack_folder / "tokenizer.json"]
    out = tmp_path / "m.safetensors"
    said = CliRunner().invoke(command, ["export", *map(str, names), "--data", str(pack_folder), "-o", str(out)])
    assert said.exit_code == 0, said.output
    assert said.stdout.strip() == str(out)
    assert "packing lost" in said.stderr and "MiB" in said.stderr

"""`convert`: other files' autoencoder and text encoder are part of what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_helpers import Run, assert_one_sentence
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from stable_diffusion.weights.load import load_parts

UNET, VAE = "model.diffusion_model.", "first_stage_model."
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as folder `sd1` and as model.safetensors; vae.safetensors and text.safetensors, half as large in all."""
    place = tmp_path_factory.mktemp("files")
    folder = tiny.write_folder(tiny.SD1, place)
    save_file(tiny.ldm_state(tiny.SD1, folder), place / "model.safetensors")
    for name, file in (("vae", folder / "vae" / WEIGHTS), ("text", folder / "text_encoder" / "model.safetensors")):
        halved = {key: tensor * 0.5 for key, tensor in load_file(file).items()}
        save_file(halved, place / f"{name}.safetensors")
    return place


def halves(before: torch.nn.Module, after: torch.nn.Module) -> bool:
    old = before.state_dict()
    return all(torch.equal(tensor, 0.5 * old[name]) for name, tensor in after.state_dict().items())


@pytest.mark.parametrize("source", ["sd1", "model.safetensors"])
@pytest.mark.parametrize("made", ["made", "made.safetensors"])
def test_other_networks_are_written_in_their_place(run: Run, files: Path, here: Path, source: str, made: str) -> None:
    others = ("--vae", files / "vae.safetensors", "--text-encoder", files / "text.safetensors")
    result = run("convert", files / source, here / made, *others, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["family"] == "sd1" and not result.stderr
    before, after = load_parts(files / "sd1"), load_parts(here / made)
    assert halves(before.full_vae, after.full_vae) and halves(before.clip, after.clip)
    assert all(torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True))
    alone = run("convert", files / source, here / f"2{made}", *others[:2])
    assert alone.exit_code == 0, alone.stderr
    after = load_parts(here / f"2{made}")
    assert halves(before.full_vae, after.full_vae)
    assert all(torch.equal(a, b) for a, b in zip(before.clip.parameters(), after.clip.parameters(), strict=True))


def test_a_denoiser_alone_becomes_a_whole_file(run: Run, files: Path, here: Path) -> None:
    whole = load_file(files / "model.safetensors")
    save_file(tiny.under(whole, UNET), here / "unet.safetensors")
    result = run(
        "convert", here / "unet.safetensors", here / "made.safetensors", "--vae", files / "sd1",
        "--text-encoder", files / "sd1" / "text_encoder",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    after = load_file(here / "made.safetensors")
    assert set(after) == {name for name in whole if not name.endswith("position_ids")}
    assert all(torch.equal(tensor, whole[name]) for name, tensor in after.items())


def test_another_precision_is_that_of_all(run: Run, files: Path, here: Path) -> None:
    result = run(
        "convert", files / "sd1", here / "a.safetensors", "--vae", files / "vae.safetensors", "--dtype", "fp16"
    )
    assert result.exit_code == 0, result.stderr
    after, halved = load_file(here / "a.safetensors"), load_file(files / "vae.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}
    assert torch.equal(after[f"{VAE}quant_conv.weight"], halved["quant_conv.weight"].half())


def test_what_does_not_fit_is_one_sentence(run: Run, files: Path, here: Path) -> None:
    wide = {"text_model.embeddings.token_embedding.weight": torch.zeros(100, 32)}
    save_file(wide, here / "wide.safetensors")
    from diffusers import AutoencoderTiny

    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained("taesd")
    for option, file, says in (
        ("--vae", here / "nowhere.safetensors", "nowhere.safetensors"),
        ("--vae", files / "text.safetensors", "no autoencoder"),
        ("--vae", here / "taesd", "tiny"),
        ("--text-encoder", files / "vae.safetensors", "no text encoder"),
        ("--text-encoder", here / "wide.safetensors", "width 32"),
    ):
        result = run("convert", files / "sd1", here / "made", option, file)
        assert_one_sentence(result.exit_code, result.stderr, says)
        assert not (here / "made").exists()


def test_what_is_written_follows_what_is_set(run: Run, files: Path, here: Path) -> None:
    for source in ("sd1", "model.safetensors"):
        result = run("convert", files / source, here / f"from-{Path(source).stem}", "--set", "prediction=v")
        assert result.exit_code == 0, result.stderr
        words = json.loads((here / f"from-{Path(source).stem}" / "scheduler" / "scheduler_config.json").read_text())
        assert words["prediction_type"] == "v_prediction"
        assert load_parts(here / f"from-{Path(source).stem}").prediction == "v"


@pytest.mark.parametrize("name", ["out.safetensors", "out"])
def test_our_own_kind_of_model_is_not_converted(run: Run, here: Path, model_file: Path, name: str) -> None:
    result = run("convert", model_file, name)
    assert_one_sentence(result.exit_code, result.stderr, "cannot be written as")
    assert not (here / name).exists()

"""Loading: the same tiny model from every layout is the same model, and what does not fit is one error with a list."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Parts

NETWORKS = ("unet", "vae", "clip")


def outputs(parts: Parts) -> list[torch.Tensor]:
    """What the networks say to fixed inputs, through what the parts say of themselves."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 49406, (2, 77), generator=generator)
    ids[:, 40:] = 49407
    tokens = parts.clip(ids, layer=parts.clip_layer).tokens
    x = torch.randn(2, 4, 8, 6, generator=generator)
    picture = parts.vae.decode(x)
    return [tokens, parts.unet(x, torch.tensor([3.0, 777.0]), tokens), picture, parts.vae.encode(picture).mean]


def same_model(one: Parts, two: Parts, *, tolerance: float = 0.0) -> bool:
    assert one.prediction == two.prediction and one.family == two.family
    assert torch.equal(one.schedule.sigma(torch.arange(1000.0)), two.schedule.sigma(torch.arange(1000.0)))
    with torch.no_grad():
        pairs = list(zip(outputs(one), outputs(two), strict=True))
    return all(float((a - b).norm() / a.norm()) <= tolerance for a, b in pairs)


def test_folder_and_single_file_are_the_same_model(kind: tiny.Kind, folder: Path, single: Path) -> None:
    from_folder, from_file = load_parts(folder), load_parts(single)
    assert same_model(from_folder, from_file, tolerance=1e-6)
    assert from_file.family == kind.name and from_file.clip_layer == (-2 if kind.name == "sd2" else -1)
    assert from_folder.tokenizer.folder == folder / "tokenizer"
    assert from_file.tokenizer.pad_token_id == (0 if kind.name == "sd2" else None)
    assert from_file.latents == from_folder.latents and from_folder.latents.scale == 0.18215
    assert from_folder.defaults.width == 64 and from_folder.guesses == from_file.guesses == ()


@pytest.mark.parametrize("layout", ["zip", "stream", "nested", "prefixed", "fp16", "bf16", "pickle in disguise"])
def test_every_container_gives_the_same_model(
    kind: tiny.Kind, folder: Path, single: Path, tmp_path: Path, layout: str
) -> None:
    state, path = load_file(single), tmp_path / "model.ckpt"
    if layout == "fp16" or layout == "bf16":
        dtype = torch.float16 if layout == "fp16" else torch.bfloat16
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        save_file(state, path)
    elif layout == "prefixed":
        save_file({f"state_dict.{name}": tensor for name, tensor in state.items()}, path)
    elif layout == "nested":
        torch.save({"state_dict": {"state_dict": state}, "global_step": 470000, "callbacks": {}}, path)
    else:
        path = tmp_path / "model.safetensors" if "disguise" in layout else path
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=layout != "stream")
    parts = load_parts(path, prediction=load_parts(single).prediction)
    tolerance = {"fp16": 0.01, "bf16": 0.1}.get(layout, 0.0)
    assert same_model(load_parts(single), parts, tolerance=tolerance)
    assert all(parameter.dtype == torch.float32 for parameter in parts.unet.parameters())


def test_dtype_is_cast_once_and_gradients_are_off(single: Path) -> None:
    parts = load_parts(single, dtype=torch.bfloat16)
    for part in NETWORKS:
        network = getattr(parts, part)
        assert {p.dtype for p in network.parameters()} == {torch.bfloat16} and not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_our_own_format_from_both(kind: tiny.Kind, folder: Path, single: Path, tmp_path: Path) -> None:
    save_native(tmp_path / "a.safetensors", load_parts(single), dtype="float32")
    assert same_model(load_parts(single), load_parts(tmp_path / "a.safetensors"))
    save_native(tmp_path / "b.safetensors", load_parts(single), dtype="int8")
    assert same_model(load_parts(single), load_parts(tmp_path / "b.safetensors"), tolerance=0.15)
    assert (tmp_path / "b.safetensors").stat().st_size < 0.3 * (tmp_path / "a.safetensors").stat().st_size
    mixed = {"unet": "int8", "vae": "float16", "clip": "float32"}
    save_native(tmp_path / "c.safetensors", load_parts(single), dtype=mixed)
    back = load_parts(tmp_path / "c.safetensors")
    assert torch.equal(back.clip.token_embedding.weight, load_parts(single).clip.token_embedding.weight)


def test_old_clip_names_and_leftovers(folder: Path, single: Path, kind: tiny.Kind, tmp_path: Path) -> None:
    state = {name.replace("transformer.text_model.", "transformer."): t for name, t in load_file(single).items()}
    state["first_stage_model.loss.logvar"] = torch.zeros(())
    if kind is tiny.SD2:  # ComfyUI wrote them so, and merges carry them on
        state["cond_stage_model.model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["first_stage_model.loss.discriminator.main.0.weight"] = torch.zeros(4)
    save_file(state, tmp_path / "old.safetensors")
    parts = load_parts(tmp_path / "old.safetensors", prediction=load_parts(single).prediction)
    assert same_model(load_parts(single), parts)


# --- diffusers folders ----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_missing_optional_folders_do_not_matter(copy: Path, folder: Path) -> None:
    for name in ("safety_checker", "feature_extractor", "image_encoder"):
        shutil.rmtree(copy / name, ignore_errors=True)
    edit(copy / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert same_model(load_parts(folder), load_parts(copy))
    assert same_model(load_parts(folder), load_parts(copy / "model_index.json"))


def test_variants(copy: Path, folder: Path) -> None:
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        file = copy / part / f"{stem}.safetensors"
        half = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()
        }
        save_file(half, copy / part / f"{stem}.fp16.safetensors")
    assert same_model(load_parts(folder), load_parts(copy))
    assert not same_model(load_parts(folder), load_parts(copy, variant="fp16"))
    for file in list(copy.rglob("*model.safetensors")):
        file.unlink()
    assert same_model(load_parts(folder), load_parts(copy), tolerance=0.01)
    with pytest.raises(BrokenModel, match=r"no weights of the variant 'ema'; there are .*fp16"):
        load_parts(copy, variant="ema")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_variant_that_is_there_alone(copy: Path, folder: Path, ending: str) -> None:
    """Found without being named, and named where the other parts do not have it."""
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    state = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    file.unlink()
    if ending == "bin":
        torch.save(state, file.with_suffix("").with_suffix(".bf16.bin"))
    else:
        save_file(state, file.with_suffix(".bf16.safetensors"))
    for variant in (None, "bf16"):
        parts = load_parts(copy, variant=variant)
        assert same_model(load_parts(folder), parts, tolerance=0.1) and not same_model(load_parts(folder), parts)
        noted = [guess for guess in parts.guesses if "is not there as the variant 'bf16'" in guess]
        assert len(noted) == (0 if variant is None else 2)


def test_the_cache_of_the_hub(copy: Path, folder: Path, tmp_path: Path) -> None:
    """Links into blobs/, under the name of a commit: the model is called like its repository."""
    place = tmp_path / "models--owner--sd-turbo"
    snapshot, blobs = place / "snapshots" / ("ab" * 20), place / "blobs"
    blobs.mkdir(parents=True)
    for index, file in enumerate(sorted(file for file in copy.rglob("*") if file.is_file())):
        link = snapshot / file.relative_to(copy)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file.rename(blobs / f"{index:064x}"), link.parent))
    parts = load_parts(snapshot)
    assert same_model(load_parts(folder), parts)
    assert parts.source is not None and parts.source.name == "sd-turbo"
    assert (parts.defaults.steps, parts.defaults.guidance) == (4, 1.0) and "'sd-turbo'" in parts.guesses[0]


def shard(copy: Path) -> Path:
    """The U-Net in three files with an index."""
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    state, weight_map = load_file(file), {}
    names = sorted(state)
    for index in range(3):
        name = f"diffusion_pytorch_model-{index + 1:05d}-of-00003.safetensors"
        save_file({key: state[key] for key in names[index::3]}, file.parent / name)
        weight_map.update(dict.fromkeys(names[index::3], name))
    file.unlink()
    index_file = file.parent / "diffusion_pytorch_model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index_file


def test_shards(copy: Path, folder: Path) -> None:
    shard(copy)
    assert same_model(load_parts(folder), load_parts(copy))


@pytest.mark.parametrize("file", ["../../outside.safetensors", "/etc/passwd", "..", "a\\..\\b", "sub/x.safetensors", 3])
def test_shards_cannot_lie_elsewhere(copy: Path, file: Any) -> None:
    index = shard(copy)
    weight_map = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**weight_map, "conv_in.weight": file})
    with pytest.raises(ModelFileError, match="a file beside it is expected"):
        load_parts(copy)


def test_pickled_weights_in_a_folder(copy: Path, folder: Path) -> None:
    for file in list(copy.rglob("*.safetensors")):
        stem = "pytorch_model" if file.parent.name == "text_encoder" else file.stem
        torch.save(load_file(file), file.with_name(f"{stem}.bin"))
        file.unlink()
    assert same_model(load_parts(folder), load_parts(copy))


def test_no_scheduler_and_no_tokenizer_are_reported_as_guesses(copy: Path) -> None:
    shutil.rmtree(copy / "scheduler")
    shutil.rmtree(copy / "tokenizer")
    parts = load_parts(copy)
    assert parts.prediction == "eps" and len(parts.guesses) == 2
    assert parts.tokenizer.folder is None and parts.tokenizer.json is None


def test_schedules_of_folders(copy: Path) -> None:
    config = copy / "scheduler" / "scheduler_config.json"
    edit(config, beta_schedule="linear", beta_start=0.0001, beta_end=0.02, prediction_type="sample")
    parts = load_parts(copy)
    assert parts.prediction == "x0" and parts.schedule.sigma_max == pytest.approx(157.4, rel=1e-3)
    edit(config, rescale_betas_zero_snr=True)
    assert load_parts(copy).schedule.sigma_max > 1000
    edit(config, trained_betas=[0.1, 0.2, 0.3], rescale_betas_zero_snr=False)
    assert load_parts(copy).schedule.sigma_max == pytest.approx(((1 - 0.504) / 0.504) ** 0.5)
    config.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}))
    assert load_parts(copy).prediction == "flow" and load_parts(copy).schedule.sigma_max == 1
    config.write_text(json.dumps({"beta_schedule": "sigmoid"}))
    with pytest.raises(BrokenModel, match="beta_schedule 'sigmoid'; known are linear"):
        load_parts(copy)


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("unet/config.json", {"encoder_hid_dim": 256}, "encoder_hid_dim 256"),
        ("unet/config.json", {"addition_embed_type": "image"}, "addition_embed_type 'image'"),
        ("unet/config.json", {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ("unet/config.json", {"block_out_channels": None}, "does not say block_out_channels"),
        ("unet/config.json", {"block_out_channels": [30, 60]}, "cannot use: channels is 30"),
        ("unet/config.json", {"cross_attention_dim": 56}, r"of the wrong shape: .* \[\d+, 64\] instead of \[\d+, 56\]"),
        ("unet/config.json", {"layers_per_block": 3}, "tensors are missing: .*resnets.2"),
        ("unet/config.json", {"layers_per_block": 10**9}, "at most 64 is plausible"),
        ("unet/config.json", {"cross_attention_dim": 10**12}, "at most 1048576 is plausible"),
        ("unet/config.json", {"block_out_channels": "wide"}, "cannot use"),
        ("unet/config.json", {"down_block_types": 3}, "cannot use"),
        ("vae/config.json", {"block_out_channels": [32] * 40}, "at most 16 are plausible"),
        ("scheduler/scheduler_config.json", {"beta_start": "low"}, "cannot use"),
        ("vae/config.json", {"layers_per_block": 2}, "tensors are missing"),
        ("vae/config.json", {"use_quant_conv": False}, "two different sides"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, r"16 tensors are unexpected: .* and 6 more"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "unknown activation 'relu'"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "lacks the folder text_encoder_2"),
    ],
)
def test_configs_that_do_not_fit(copy: Path, file: str, changes: dict[str, Any], says: str) -> None:
    edit(copy / file, **changes)
    with pytest.raises(ModelFileError, match=says) as caught:
        load_parts(copy)
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_models(copy: Path, single: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(BrokenModel, match="lacks the folder vae"):
        load_parts(copy)
    (copy / "model_index.json").write_text("[")
    with pytest.raises(BrokenModel, match="not valid JSON"):
        load_parts(copy)
    with pytest.raises(UnknownModel, match=r"without model_index\.json.*did you mean .*safetensors"):
        load_parts(single.parent)


# --- single files that do not fit -----------------------------------------------------------------------------------


def test_missing_unexpected_and_wrong_tensors_are_one_error(single: Path, tmp_path: Path) -> None:
    state = load_file(single)
    del state["model.diffusion_model.out.0.bias"]
    state["model.diffusion_model.input_blocks.1.0.extra"] = torch.zeros(1)
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    state[name] = state[name][:-1].clone()
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel) as caught:
        load_parts(tmp_path / "a.safetensors", prediction="eps")
    message = str(caught.value)
    assert "1 tensor is missing: out.0.bias" in message and "1 tensor is unexpected: input_blocks.1.0.extra" in message
    assert "of the wrong shape: middle_block.0.in_layers.2.weight" in message and "U-Net" in message


def test_long_lists_name_the_first_ten(single: Path, tmp_path: Path) -> None:
    state = {name: t for name, t in load_file(single).items() if "decoder.up.3" not in name}
    state |= {name: t for name, t in load_file(single).items() if name.endswith("decoder.up.3.block.0.conv1.weight")}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(
        BrokenModel, match=r"autoencoder does not fit: \d\d tensors are missing: (.*, ){9}.* and \d+ more"
    ):
        load_parts(tmp_path / "a.safetensors", prediction="eps")


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides(single: Path, folder: Path) -> None:
    for path in (single, folder):
        parts = load_parts(path, prediction="v_prediction", clip_layer=-2, latent_scale=0.5, zero_terminal_snr=True)
        assert parts.prediction == "v" and parts.clip_layer == -2 and parts.latents.scale == 0.5
        assert parts.schedule.sigma_max > 1000
    assert load_parts(single, heads=2, prediction="eps").unet.config.heads_at(0) == 2
    assert load_parts(single, head_dim=16, prediction="eps").unet.config.heads_at(0) in (2, 4)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"predicton": "v"}, "did you mean 'prediction'"),
        ({"prediction": "epsilom"}, "unknown prediction"),
        ({"family": "sd4"}, "unknown model family 'sd4'"),
        ({"family": "sd3"}, "looks like Stable Diffusion 3 medium, but the tensor x_embedder.proj.weight"),
        ({"shift": 2.0}, "shift was given, but the noise schedule is of kind 'scaled_linear'"),
        ({"clip_layer": -9}, "clip_layer is -9"),
        ({"latent_scale": 0}, "latent_scale is 0"),
        ({"latent_scale": float("nan")}, "latent_scale is nan"),
        ({"variant": "fp16"}, "only diffusers folders have variants"),
        ({"heads": 7}, "7"),
    ],
)
def test_overrides_that_do_not_fit(single: Path, overrides: dict[str, Any], says: str) -> None:
    with pytest.raises((InvalidRequest, BrokenModel), match=says):
        load_parts(single, **overrides)


def test_overrides_that_a_folder_says_itself(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="a diffusers folder says it itself"):
        load_parts(folder, heads=2)

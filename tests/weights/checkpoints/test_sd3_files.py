"""Files and folders of Stable Diffusion 3: what they are recognised as, what lies beside them, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
import tiny_sd3 as sd3
from stable_diffusion.diffusion.schedule import FlowSchedule
from stable_diffusion.errors import BrokenModel, InvalidRequest, UnknownModel
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.checkpoints.save_folder import components
from stable_diffusion.weights.checkpoints.save_ldm import ldm_state
from stable_diffusion.weights.checkpoints.single import read_single
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts

MMDIT, T5 = "model.diffusion_model.", "text_encoders.t5xxl.transformer."
NETWORKS = ("unet", "vae", "clip", "clip2", "t5")


def test_folder_and_single_file_are_the_same_model(sd3_folder: Path, sd3_single: Path) -> None:
    one, two = load_parts(sd3_folder), load_parts(sd3_single)
    for name in NETWORKS:
        state = getattr(one, name).state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in getattr(two, name).state_dict().items()), name
    for parts in (one, two):
        assert (parts.family, parts.prediction, parts.clip_layer, parts.text_norm) == ("sd3", "flow", -2, False)
        assert isinstance(parts.schedule, FlowSchedule) and parts.schedule.shift == 3.0
        assert (parts.latents.channels, parts.latents.scale, parts.latents.shift) == (16, 1.5305, 0.0609)
        assert parts.latents.preview is not None and not parts.guesses and not parts.vae.config.quant_conv
        assert (parts.defaults.steps, parts.defaults.guidance, parts.defaults.sampler) == (28, 7.0, "euler")
        assert parts.unet.config == sd3.MEDIUM.config
    assert (one.defaults.width, two.defaults.width) == (64, 1024)
    assert two.tokenizer2 is not None and (two.tokenizer.pad_token_id, two.tokenizer2.pad_token_id) == (None, 0)


def test_what_info_says(sd3_folder: Path, sd3_single: Path) -> None:
    for place, layout, size in ((sd3_folder, "diffusers", 64), (sd3_single, "ldm", 1024)):
        found = inspect(place, hashes=False)
        assert (found["family"], found["label"], found["layout"]) == ("sd3", "Stable Diffusion 3 medium", layout)
        assert (found["width"], found["steps"], found["sampler"], found["prediction"]) == (size, 28, "euler", "flow")
        assert tuple(found["parameters"]) == ("mmdit", *NETWORKS[1:]) and found["guesses"] == []
    assert "t5" not in inspect(sd3_single, hashes=False, t5=False)["parameters"]


class Shapes(TensorFile):
    """A file of which only the shapes are known."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
        infos = {name: TensorInfo(torch.float16, shape) for name, shape in shapes.items()}
        super().__init__(path, infos, lambda name: torch.empty(0), kind="safetensors")


@pytest.mark.parametrize("kind", sd3.KINDS, ids=lambda kind: kind.name)
def test_shapes_give_the_config_and_the_family(kind: sd3.Kind, tmp_path: Path) -> None:
    folder = sd3.write_folder(kind, tmp_path)
    state = sd3.single_state(kind, folder)
    found = read_single(Shapes({name: tuple(t.shape) for name, t in state.items()}, folder / "a.safetensors"), {})
    assert found.family == kind.name and found.networks["unet"].config == kind.config
    assert ("t5" in found.networks) == kind.t5
    both = load_parts(folder, t5=False)
    assert both.family == kind.name and both.unet.config == kind.config and both.t5 is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_other_precisions_load(sd3_single: Path, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in load_file(sd3_single).items()}
    save_file(state, tmp_path / "half.safetensors")
    parts = load_parts(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    weight = state[f"{MMDIT}joint_blocks.0.x_block.mlp.fc1.weight"].to(torch.bfloat16)
    assert torch.equal(parts.unet.blocks[0].image.mlp.up.weight, weight)  # type: ignore[union-attr, index]
    told = inspect(tmp_path / "half.safetensors", hashes=False)
    assert told["dtype"] == str(dtype).removeprefix("torch.")
    assert parts.t5 is None and "T5 is left out: no folder tokenizer_3" in parts.guesses[0] == told["guesses"][0]


def test_text_encoders_beside_the_file(sd3_single: Path, tmp_path: Path) -> None:
    """As published: transformer and autoencoder in one file, each text encoder in its own."""
    state = load_file(sd3_single)
    bare = tmp_path / "sd3_medium.safetensors"
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("text_")}, bare)
    for look in (inspect, load_parts):
        with pytest.raises(BrokenModel, match=r"lacks text encoders; clip_l.safetensors and clip_g.safetensors would"):
            look(bare)
    texts = tmp_path / "text_encoders"
    for name in ("clip_l", "clip_g", "t5xxl"):
        part = tiny.under(state, f"text_encoders.{name}.transformer.")
        texts.mkdir(exist_ok=True)
        save_file(part, texts / f"{name}{'_fp16' if name == 't5xxl' else ''}.safetensors")
    shutil.copytree(sd3_single.parent / "tokenizer_3", tmp_path / "tokenizer_3")
    whole, found = load_parts(sd3_single), load_parts(bare)
    for name in NETWORKS:
        expected = getattr(whole, name).state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in getattr(found, name).state_dict().items())
    assert len(found.guesses) == 3 and "clip_l.safetensors, since the file has none" in found.guesses[0]
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(bare, tmp_path / "elsewhere" / bare.name)
    shutil.move(tmp_path / "tokenizer_3", texts / "tokenizer_3")
    assert load_parts(moved, text_encoders=texts).t5 is not None
    (texts / "t5xxl_fp16.safetensors").unlink()
    assert load_parts(moved, text_encoders=texts).t5 is None
    with pytest.raises(InvalidRequest, match="the model runs without T5: it has none, and none is beside it"):
        load_parts(moved, text_encoders=texts, t5=True)


def test_names_and_overrides(sd3_single: Path, tmp_path: Path) -> None:
    path = shutil.copy(sd3_single, tmp_path / "sd3_large_turbo.safetensors")
    parts = load_parts(path, shift=2.0)
    assert (parts.defaults.steps, parts.defaults.guidance, parts.defaults.sampler) == (4, 1.0, "euler")
    assert isinstance(parts.schedule, FlowSchedule) and parts.schedule.shift == 2.0
    assert load_parts(sd3_single, heads=4).unet.config.heads == 4
    assert load_parts(sd3_single, head_dim=32).unet.config.heads == 4
    with pytest.raises(BrokenModel, match=r"heads is \(1, 2\); Stable Diffusion 3 medium has one number of heads"):
        load_parts(sd3_single, heads=(1, 2))
    with pytest.raises(InvalidRequest, match="zero_terminal_snr was given, but the noise schedule is of kind 'flow'"):
        load_parts(sd3_single, zero_terminal_snr=True)
    with pytest.raises(InvalidRequest, match="family 'sd3' cannot be written in our own format yet"):
        save_native(tmp_path / "a.safetensors", load_parts(sd3_single))
    for layer in (-1, -3):
        with pytest.raises(InvalidRequest, match="not read at -2"):
            ldm_state(load_parts(sd3_single, clip_layer=layer))
        with pytest.raises(InvalidRequest, match="always read at -2"):
            components(load_parts(sd3_single, clip_layer=layer))
    with pytest.raises(InvalidRequest, match=r"cannot say that the noise schedule is .*2\.0"):
        ldm_state(load_parts(sd3_single, shift=2.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({f"{MMDIT}x_embedder.proj.weight": torch.zeros(128, 4, 2, 2)}, "its transformer takes 4 channels instead of"),
        ({f"{MMDIT}y_embedder.mlp.0.weight": torch.zeros(128, 9)}, "a vector of 9 numbers; the text encoders give 64"),
        ({f"{MMDIT}context_embedder.weight": torch.zeros(128, 99)}, "tokens of width 99; the text encoders make CLIP"),
        ({f"{MMDIT}pos_embed": torch.zeros(1, 143, 128)}, r"has the shape \[1, 143, 128\]; expected n\^2 rows"),
        ({f"{MMDIT}joint_blocks.1.x_block.more.weight": torch.zeros(2)}, "its transformer does not fit: 1 tensor is"),
        ({f"{T5}encoder.block.1.layer.1.DenseReluDense.wi.weight": torch.zeros(2)}, "its text encoder T5 does not fit"),
    ],
)
def test_what_is_refused(sd3_single: Path, change: dict[str, torch.Tensor], says: str, tmp_path: Path) -> None:
    save_file({**load_file(sd3_single), **change}, tmp_path / "a.safetensors")
    shutil.copytree(sd3_single.parent / "tokenizer_3", tmp_path / "tokenizer_3")
    with pytest.raises((BrokenModel, UnknownModel), match=says):
        load_parts(tmp_path / "a.safetensors")


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("transformer", {"qk_norm": "layer_norm"}, "qk_norm 'layer_norm'; this version runs 'rms_norm' or none"),
        ("transformer", {"caption_projection_dim": 96}, "caption_projection_dim 96; expected 128"),
        ("transformer", {"dual_attention_layers": [9]}, "dual_attention names block 9"),
        ("transformer", {"num_layers": 10**9}, "num_layers"),
        ("transformer", {"num_layers": "two"}, "num_layers is 'two'"),
        ("transformer", {"joint_attention_dim": 200}, "does not fit together: its transformer expects tokens"),
        ("text_encoder_3", {"feed_forward_proj": "relu"}, "feed_forward_proj 'relu'"),
        ("scheduler", {"use_dynamic_shifting": True}, "use_dynamic_shifting True"),
    ],
)
def test_folders_with_settings_that_we_lack(
    sd3_folder: Path, tmp_path: Path, part: str, values: dict[str, Any], says: str
) -> None:
    copy = Path(shutil.copytree(sd3_folder, tmp_path / "copy"))
    changed(copy / part / f"{'scheduler_' if part == 'scheduler' else ''}config.json", **values)
    with pytest.raises(BrokenModel, match=says):
        inspect(copy)


def test_incomplete_folders(sd3_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sd3_folder, tmp_path / "copy"))
    shutil.rmtree(copy / "tokenizer_3")
    with pytest.raises(BrokenModel, match="has text_encoder_3 but no tokenizer_3 with tokenizer"):
        load_parts(copy)
    assert load_parts(copy, t5=False).t5 is None
    index = json.loads((copy / "model_index.json").read_text())
    changed(copy / "model_index.json", text_encoder_3=[None, None])
    assert load_parts(copy).t5 is None
    shutil.rmtree(copy / "scheduler")
    assert "the shift 3 of noise levels" in inspect(copy)["guesses"][0]
    changed(copy / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"], text_encoder_2=[None, None])
    with pytest.raises(UnknownModel, match="which this version does not run; a Stable Diffusion 1, 2, XL or 3 is"):
        inspect(copy)
    assert index["transformer"][1] == "SD3Transformer2DModel"


def test_a_transformer_alone_with_files_of_the_others(sd3_single: Path, sd3_folder: Path, tmp_path: Path) -> None:
    """As converted for other programs: the transformer without a prefix, each text encoder named by the caller."""
    state = load_file(sd3_single)

    def part(start: str, file: str) -> Path:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        save_file(tiny.under(state, start), tmp_path / file)
        return tmp_path / file

    bare, vae = part(MMDIT, "transformer.safetensors"), part("first_stage_model.", "vae.safetensors")
    texts = [part(f"text_encoders.{name}.transformer.", f"texts/{name}") for name in ("t5xxl", "clip_g", "clip_l")]
    shutil.copytree(sd3_single.parent / "tokenizer_3", tmp_path / "texts" / "tokenizer_3")
    whole = load_parts(sd3_single)
    for found in (load_parts(bare, vae=vae, text_encoders=texts), load_parts(sd3_folder, text_encoders=texts)):
        for name in NETWORKS:
            expected = getattr(whole, name).state_dict()
            assert all(torch.equal(tensor, expected[key]) for key, tensor in getattr(found, name).state_dict().items())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(texts[0]).items()}
    save_file(zeros, tmp_path / "zeros")
    changed = load_parts(sd3_folder, text_encoders=tmp_path / "zeros").t5
    assert changed is not None and not any(bool(tensor.any()) for tensor in changed.parameters())

"""`inspect`: what a file is said to be, what is a guess, and why each family does not match a foreign file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from stable_diffusion.errors import BrokenModel, UnknownModel
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.blueprint import count_under
from stable_diffusion.weights.checkpoints.families import FAMILIES
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.checkpoints.single import read_single
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.unet import unet_ldm
from stable_diffusion.weights.networks.vae import vae_ldm
from stable_diffusion.weights.parts import Card


def rewritten(single: Path, path: Path, metadata: dict[str, str] | None = None, **extra: torch.Tensor) -> Path:
    save_file({**load_file(single), **extra}, path, metadata=metadata)
    return path


def test_a_single_file(kind: tiny.Kind, single: Path) -> None:
    found = inspect(single)
    parts = load_parts(single)
    assert (found["layout"], found["container"], found["family"]) == ("ldm", "safetensors", kind.name)
    assert found["prediction"] == parts.prediction == {"sd1": "eps", "sd2": "v"}[kind.name]
    assert found["width"] == found["height"] == {"sd1": 512, "sd2": 768}[kind.name]
    assert found["parameters"]["unet"] == sum(parameter.numel() for parameter in parts.unet.parameters())
    assert found["parameters"]["vae"] == sum(parameter.numel() for parameter in parts.vae.parameters())
    assert found["averaged"] == 4 and found["dtype"] == "float32" and found["guesses"] == []
    digest = hashlib.sha256(single.read_bytes()).hexdigest()
    legacy = hashlib.sha256(single.read_bytes()[0x100000:0x110000]).hexdigest()
    assert (found["sha256"], found["short_hash"], found["legacy_hash"]) == (digest, digest[:10], legacy[:8])
    assert inspect(single, hashes=False)["sha256"] is None
    assert parts.source is not None and parts.source.short_hash == found["short_hash"]
    json.dumps(found)


def test_a_folder(kind: tiny.Kind, folder: Path) -> None:
    found, parts = inspect(folder), load_parts(folder)
    assert (found["layout"], found["family"], found["prediction"]) == ("diffusers", kind.name, parts.prediction)
    assert found["width"] == parts.defaults.width == 64 and found["sha256"] is None
    assert found["parameters"]["clip"] == sum(parameter.numel() for parameter in parts.clip.parameters())
    assert parts.source is not None and parts.source.short_hash is None
    assert inspect(folder / "model_index.json")["family"] == kind.name


def test_our_own_format(single: Path, tmp_path: Path) -> None:
    parts = replace(load_parts(single), card=Card(name="first light", version="0.1", licence="CC-BY-4.0"))
    save_native(tmp_path / "a.safetensors", parts)
    found = inspect(tmp_path / "a.safetensors")
    assert (found["layout"], found["label"], found["licence"]) == ("native", "first light 0.1", "CC-BY-4.0")
    assert found["dtype"] == "unet int8, vae int8, clip int8" and found["prediction"] == parts.prediction
    assert found["parameters"]["unet"] == sum(parameter.numel() for parameter in parts.unet.parameters())
    assert "config" not in found["metadata"] and found["metadata"]["format"] == "stable_diffusion.v1"


def test_nonsense_in_our_own_config_is_one_sentence(single: Path, tmp_path: Path) -> None:
    save_native(tmp_path / "a.safetensors", load_parts(single))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    for changes in ({"card": ["x"]}, {"defaults": 3}, {"defaults": {"width": "wide"}}, {"defaults": {"wide": 3}}):
        config = json.dumps({**json.loads(metadata["config"]), **changes})
        save_file({}, tmp_path / "b.safetensors", metadata={**metadata, "config": config})
        with pytest.raises(BrokenModel, match="cannot use"):
            inspect(tmp_path / "b.safetensors")


# --- full size ------------------------------------------------------------------------------------------------------


class FullSize(TensorFile):
    """A file of the released shapes and names, without bytes."""

    def __init__(self, kind: str, layers: int = 24) -> None:
        sd2 = kind == "sd2"
        unet = UNetConfig(context_dim=1024, head_dim=64, linear_projection=True) if sd2 else UNetConfig()
        clip = CLIPTextConfig(
            width=1024, layers=layers, heads=16, mlp_width=4096, activation="gelu", projection_dim=1024
        )
        clip = clip if sd2 else CLIPTextConfig()
        text = clip_openclip(clip) if sd2 else clip_transformers(clip)
        infos = {}
        for prefix, network, table in (
            ("model.diffusion_model.", (UNet, unet), unet_ldm(unet)),
            ("first_stage_model.", (VAE, VAEConfig()), vae_ldm(VAEConfig())),
            ("cond_stage_model.model." if sd2 else "cond_stage_model.transformer.", (CLIPText, clip), text),
        ):
            with torch.device("meta"):
                state = network[0](network[1]).state_dict()
            for name, tensor in table.invert(state).items():
                infos[prefix + name] = TensorInfo(torch.float16, tuple(tensor.shape))
        self.expected = (unet, clip)
        super().__init__(Path(f"{kind}.safetensors"), infos, lambda name: torch.empty(0), kind="safetensors")


@pytest.mark.parametrize(("name", "parameters"), [("sd1", 859_520_964), ("sd2", 865_910_724)])
def test_released_shapes_give_the_released_configs(name: str, parameters: int) -> None:
    file = FullSize(name)
    found = read_single(file, {"modelspec.prediction_type": "v"} if name == "sd2" else {})
    unet, clip = file.expected
    configs = {part: plan.config for part, plan in found.networks.items()}
    assert replace(configs["unet"], upcast_attention=False, mid_depth=None, heads=unet.heads) == unet
    assert configs["unet"].heads == (None if name == "sd2" else 8) and configs["unet"].mid_depth == 1
    assert configs["clip"] == replace(clip, eos_token_id=49407)
    assert configs["vae"] == replace(VAEConfig(), decoder_blocks=3)
    assert found.family == name and configs["unet"].upcast_attention == (name == "sd2")
    # Tensor and parameter counts of the public checkpoints.
    assert count_under(file, "model.diffusion_model.") == parameters
    counts = [sum(key.startswith(prefix) for key in file) for prefix in ("model.", "first_stage_model.", "cond_stage")]
    assert counts[:2] == [686, 248]


def test_a_converted_sd2_without_the_unused_layer() -> None:
    """Files converted from diffusers have 23 layers; then the last is the one to use."""
    for layers, expected in ((24, FAMILIES["sd2"].clip_layer), (23, -1)):
        assert read_single(FullSize("sd2", layers), {"modelspec.prediction_type": "v"}).clip_layer == expected


# --- prediction -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd2_state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return tiny.ldm_state(tiny.SD2, tiny.write_folder(tiny.SD2, tmp_path_factory.mktemp("sd2")))


@pytest.fixture
def sd2_without_hints(sd2_state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    (tmp_path / "sd2").mkdir()
    save_file(sd2_state, tmp_path / "sd2" / "m.safetensors")
    return tmp_path / "sd2" / "m.safetensors"


@pytest.mark.parametrize(
    ("metadata", "prediction"),
    [
        ({"modelspec.prediction_type": "epsilon"}, "eps"),
        ({"modelspec.prediction_type": "v"}, "v"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "eps"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v"),
        ({"modelspec.prediction_type": "epsilon", "modelspec.architecture": "stable-diffusion-v2-768-v"}, "eps"),
    ],
)
def test_metadata_tells_sd2_from_its_base(
    sd2_without_hints: Path, tmp_path: Path, metadata: dict[str, str], prediction: str
) -> None:
    path = rewritten(sd2_without_hints, tmp_path / "a.safetensors", metadata)
    found = inspect(path, hashes=False)
    assert found["prediction"] == prediction == load_parts(path).prediction and found["guesses"] == []
    assert found["family"] == {"v": "sd2", "eps": "sd2-base"}[prediction] == load_parts(path).family


def test_a_yaml_beside_the_file_tells(sd2_without_hints: Path) -> None:
    config = sd2_without_hints.with_suffix(".yaml")
    config.write_text('model:\n  params:\n    parameterization: "v"\n    unet_config: {}\n')
    assert inspect(sd2_without_hints)["prediction"] == "v" and inspect(sd2_without_hints)["guesses"] == []
    config.write_text("model:\n  params:\n    linear_start: 0.00085\n    unet_config: {}\n")
    assert inspect(sd2_without_hints)["prediction"] == "eps"
    config.write_text("something: else\n")
    assert "is a guess" in inspect(sd2_without_hints)["guesses"][0]


@pytest.mark.parametrize(("step", "prediction"), [(875000, "eps"), (110000, "v")])
def test_training_steps_are_a_reported_inference(
    sd2_without_hints: Path, tmp_path: Path, step: int, prediction: str
) -> None:
    torch.save({"state_dict": load_file(sd2_without_hints), "global_step": step}, tmp_path / "a.ckpt")
    found = inspect(tmp_path / "a.ckpt")
    assert found["prediction"] == prediction and str(step) in found["guesses"][0]


def test_otherwise_it_is_a_guess_that_the_caller_can_overrule(sd2_without_hints: Path) -> None:
    found = inspect(sd2_without_hints, hashes=False)
    assert found["prediction"] == "v" and "is a guess" in found["guesses"][0]
    assert list(load_parts(sd2_without_hints).guesses) == found["guesses"]
    told = load_parts(sd2_without_hints, prediction="eps")
    assert told.prediction == "eps" and told.guesses == () and told.family == "sd2-base"
    assert load_parts(sd2_without_hints, family="sd2-base").prediction == "eps"


def test_marker_tensors_of_newer_files(single: Path, tmp_path: Path) -> None:
    path = rewritten(single, tmp_path / "a.safetensors", v_pred=torch.ones(0), ztsnr=torch.ones(0))
    assert inspect(path)["prediction"] == "v" and inspect(path)["zero_terminal_snr"]
    assert not inspect(single, hashes=False)["zero_terminal_snr"]
    assert inspect(single, hashes=False, zero_terminal_snr=True)["zero_terminal_snr"]
    assert load_parts(path).schedule.sigma_max > 1000


def test_a_marker_outweighs_text_left_over_from_a_merge(single: Path, tmp_path: Path) -> None:
    text = {"modelspec.prediction_type": "epsilon"}
    path = rewritten(single, tmp_path / "a.safetensors", text, v_pred=torch.ones(0))
    found = inspect(path, hashes=False)
    assert found["prediction"] == load_parts(path).prediction == "v"
    assert "the tensor v_pred, though the file's text says epsilon" in found["guesses"][0]
    assert load_parts(path, prediction="eps").prediction == "eps"


# --- files of other kinds -------------------------------------------------------------------------------------------

U = "model.diffusion_model."
OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "kohya lora": ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 8)}, "a LoRA"),
    "peft lora": ({"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (4, 8)}, "a LoRA"),
    "loha": ({"lora_unet_mid_block.hada_w1_a": (4, 8)}, "a LoRA"),
    "control ldm": ({"control_model.zero_convs.0.0.weight": (4, 4, 1, 1)}, "a ControlNet"),
    "control diffusers": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "a ControlNet"),
    "ip adapter": ({"image_proj.proj.weight": (4, 4), "ip_adapter.1.to_k_ip.weight": (4, 4)}, "an IP-Adapter"),
    "embedding": ({"emb_params": (3, 768)}, "a textual inversion embedding"),
    "diffusers embedding": ({"<cat-toy>": (768,)}, "a textual inversion embedding"),
    "xl": ({U + "input_blocks.0.0.weight": (320, 4, 3, 3), "conditioner.embedders.1.model.ln_final.bias": (1280,)},
           "a part of a Stable Diffusion XL model"),
    "refiner": ({"conditioner.embedders.0.model.ln_final.bias": (1280,)}, "a part of a Stable Diffusion XL refiner"),
    "sd3": ({U + "joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,)},
            "a part of a Stable Diffusion 3 model"),
    "vae": ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}, "a VAE alone"),
    "unet alone": ({"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)}, "a diffusers U-Net alone"),
}  # fmt: skip


@pytest.mark.parametrize(("shapes", "says"), OTHERS.values(), ids=OTHERS)
def test_other_kinds_are_called_by_their_name(tmp_path: Path, shapes: dict[str, tuple[int, ...]], says: str) -> None:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "a.safetensors")
    for look in (inspect, load_parts):
        with pytest.raises(UnknownModel, match=f"a.safetensors is {says}") as caught:
            look(tmp_path / "a.safetensors")
        assert set(caught.value.reasons) == set(FAMILIES)


@pytest.mark.parametrize("channels", [4, 5, 8, 9])
def test_a_unet_alone_says_what_it_needs(tmp_path: Path, channels: int) -> None:
    """Channels say nothing of a kind that a file without text encoder would be."""
    save_file({U + "input_blocks.0.0.weight": torch.zeros(320, channels, 3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel, match=r"has a U-Net but no text encoder; --text-encoder .* --vae gives it"):
        inspect(tmp_path / "a.safetensors")


def test_an_unknown_file_says_why_for_every_family(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(UnknownModel, match=r"since it has no U-Net under model\.diffusion_model\.") as caught:
        inspect(tmp_path / "a.safetensors")
    assert set(caught.value.reasons) == set(FAMILIES) and "\n" not in str(caught.value)


def test_reasons_differ_by_family(single: Path, tmp_path: Path, kind: tiny.Kind) -> None:
    state = load_file(single)
    name = "cond_stage_model.transformer." if kind.name == "sd2" else "cond_stage_model.model."
    first = state[U + "input_blocks.0.0.weight"]
    state[U + "input_blocks.0.0.weight"] = first.repeat(1, 2, 1, 1)[:, :6].clone()
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UnknownModel, match="6 channels instead of 4") as caught:
        inspect(tmp_path / "a.safetensors")
    assert "instead of 9" in caught.value.reasons["sd1-inpaint"]
    state[U + "input_blocks.0.0.weight"] = first
    embedding = next(name for name in state if name.endswith("token_embedding.weight"))
    state[embedding] = torch.zeros(49408, 72)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UnknownModel, match="tokens of width 64, and its text encoder makes 72") as caught:
        inspect(tmp_path / "a.safetensors")
    assert any(f"no text encoder under {name}" in reason for reason in caught.value.reasons.values())


def test_inpainting_models_are_told_by_their_channels(single: Path, tmp_path: Path, kind: tiny.Kind) -> None:
    first = load_file(single)[U + "input_blocks.0.0.weight"]
    wide = {U + "input_blocks.0.0.weight": first.repeat(1, 3, 1, 1)[:, :9].clone()}
    path = rewritten(single, tmp_path / "a.safetensors", **wide)
    assert inspect(path)["family"] == f"{kind.name}-inpaint" == load_parts(path).family
    assert inspect(path)["prediction"] == "eps"


@pytest.mark.parametrize(
    ("part", "says"), [("cond_stage_model.", "no text encoder"), ("first_stage_model.", "autoenc")]
)
def test_a_pruned_file_is_recognised_but_broken(single: Path, tmp_path: Path, part: str, says: str) -> None:
    state = {name: tensor for name, tensor in load_file(single).items() if not name.startswith(part)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel, match=says):
        inspect(tmp_path / "a.safetensors")


def numbered(shapes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace(".1.", ".999999999."): shape for name, shape in shapes.items()}


def test_absurd_layer_numbers_cost_nothing(single: Path, tmp_path: Path) -> None:
    save_file(numbered(load_file(single)), tmp_path / "a.safetensors")
    with pytest.raises((BrokenModel, UnknownModel)):
        inspect(tmp_path / "a.safetensors")

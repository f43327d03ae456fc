"""Adapters on a whole Stable Diffusion 3: transformer, two CLIPs and T5, against PEFT, and what pictures they make."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import factors
from safetensors.torch import save_file
from torch import Tensor

import tiny_sd3
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import StableDiffusion, load

peft = pytest.importorskip("peft")

PROMPT = "a beautiful sunset over the ocean"
T5_LAYERS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
PREFIXES = {
    "transformer": "lora_transformer_",
    "text_encoder": "lora_te1_",
    "text_encoder_2": "lora_te2_",
    "text_encoder_3": "lora_te3_",
}


@pytest.fixture(scope="module")
def model(sd3_folder: Path) -> StableDiffusion:
    return load(sd3_folder, device="cpu")


def spelled(path: Path, layers: Mapping[str, tuple[Tensor, Tensor]], style: str) -> Path:
    """{"text_encoder_3.encoder...": (up, down)} in diffusers' style, or in kohya's, with alpha 2 at rank 4."""
    state: dict[str, Tensor] = {}
    for name, (up, down) in layers.items():
        part, _, layer = name.partition(".")
        if style == "diffusers":
            state |= {f"{name}.lora_B.weight": up * 0.5, f"{name}.lora_A.weight": down}
        else:
            stem = PREFIXES[part] + layer.replace(".", "_")
            state |= {
                f"{stem}.lora_up.weight": up,
                f"{stem}.lora_down.weight": down,
                f"{stem}.alpha": torch.tensor(2.0),
            }
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_t5_answers_as_under_peft(style: str, model: StableDiffusion, sd3_folder: Path, tmp_path: Path) -> None:
    t5 = model.parts.t5
    assert t5 is not None
    theirs = tiny_sd3.read_folder(sd3_folder).text_encoder_3
    ids = torch.randint(3, 40, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = theirs(ids).last_hidden_state
        torch.testing.assert_close(t5(ids), plain, rtol=1e-5, atol=1e-5)
        wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=2, target_modules=list(T5_LAYERS)))
        generator, layers = torch.Generator().manual_seed(7), {}
        for name, module in wrapped.base_model.model.named_modules():
            if hasattr(module, "lora_B"):
                up, down = module.lora_B["default"].weight, module.lora_A["default"].weight
                up.normal_(0, 0.3, generator=generator)
                down.normal_(0, 0.3, generator=generator)
                layers[f"text_encoder_3.{name}"] = (up.clone(), down.clone())
        reference = wrapped(input_ids=ids).last_hidden_state
        assert len(layers) == 2 * len(T5_LAYERS) and float((reference - plain).abs().max()) > 0.05
        path = spelled(tmp_path / f"{style}.safetensors", layers, style)
        with model.attach(path, 0.0, 1.0) as attachment:
            assert attachment.kinds == {"LoRA": len(layers)} and not attachment.unmatched
            assert float((t5(ids) - reference).norm() / reference.norm()) < 1e-5
        torch.testing.assert_close(t5(ids), plain, rtol=1e-5, atol=1e-5)


def all_layers(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors for some layers of each of the four networks."""
    pipeline = tiny_sd3.read_folder(folder)
    ends = (
        "attn.to_q",
        "attn.add_v_proj",
        "ff.net.0.proj",
        "norm_out.linear",
        "q_proj",
        "mlp.fc1",
        "Attention.q",
        "wo",
    )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in PREFIXES:
        for name, module in getattr(pipeline, part).named_modules():
            if name.endswith(ends) and hasattr(module, "weight"):
                found[f"{part}.{name}"] = factors(tuple(module.weight.shape), len(found), rank=4, size=0.15)
        assert any(name.startswith(f"{part}.") for name in found), part
    return found


def paint(model: StableDiffusion, **settings: Any) -> bytes:
    return generate_image(PROMPT, model=model, seed=3, steps=2, width=64, height=48, **settings).tobytes()


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_pictures_with_without_and_fused(style: str, model: StableDiffusion, sd3_folder: Path, tmp_path: Path) -> None:
    layers = all_layers(sd3_folder)
    path = spelled(tmp_path / f"{style}.safetensors", layers, style)
    plain = paint(model)
    with model.attach(path, 0.8) as attachment:
        assert attachment.kinds == {"LoRA": len(layers)} and not attachment.unmatched
        unfused = paint(model)
    assert unfused != plain and paint(model) == plain, "detached is bit-identical to never attached"
    assert paint(model, loras=[(path, 0.8)]) == unfused and paint(model) == plain
    for part in ("text_encoder_3", "transformer"):  # each network matters to the picture
        fewer = {name: each for name, each in layers.items() if not name.startswith(f"{part}.")}
        assert paint(model, loras=[(spelled(tmp_path / "fewer.safetensors", fewer, style), 0.8)]) != unfused
    fused = StableDiffusion.from_parts(copy.deepcopy(model.parts))
    fused.attach(path, 0.8).fuse()
    assert fused.attachments == () and paint(fused) == unfused


def test_both_styles_make_the_same_weights(model: StableDiffusion, sd3_folder: Path, tmp_path: Path) -> None:
    layers, found = all_layers(sd3_folder), []
    for style in ("diffusers", "kohya"):
        with model.attach(spelled(tmp_path / f"{style}.safetensors", layers, style)):
            networks = [network.module for network in model.networks]
            found.append([tensor.clone() for network in networks for tensor in network.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)

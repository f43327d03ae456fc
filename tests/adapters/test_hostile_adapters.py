"""Adapter files whose parts fit together in no way: one sentence each, and the model stays as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from adapter_files import QUERY, shapes
from safetensors.torch import save_file
from torch import Tensor

from stable_diffusion.adapters.attach import attach
from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.targets import networks
from stable_diffusion.errors import BrokenModel, ModelFileError
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import StableDiffusion

STEM = f"unet.{QUERY}"


def parts(width: int) -> dict[str, dict[str, Tensor]]:
    """Kind -> tensors of one group; `width` is that of the layer."""
    up, down, point = torch.ones(width, 2), torch.ones(2, width), torch.tensor(1.0)
    low = {"lora_up.weight": up, "lora_down.weight": down}
    return {
        "numbers for factors": {"lora_up.weight": point, "lora_down.weight": point},
        "numbers with alpha": {"lora_up.weight": point, "lora_down.weight": point, "alpha": point},
        "numbers with a bias": {"lora_B.weight": point, "lora_A.weight": point, "lora_B.bias": torch.ones(width)},
        "GLoRA of numbers": {f"{name}.weight": point for name in ("a1", "a2", "b1", "b2")},
        "LoHa of numbers": {f"hada_{name}": point for name in ("w1_a", "w1_b", "w2_a", "w2_b")},
        "LoKr of numbers": {"lokr_w1": point, "lokr_w2": point},
        "OFT of a number": {"oft_blocks": point},
        "OFT without blocks": {"oft_blocks": torch.ones(0, 4, 4)},
        "OFT of columns of a number": {"oft_R.weight": point},
        "BOFT of endless stages": {"oft_blocks": torch.ones(10**8, 0, 2, 2)},
        "BOFT of too many stages": {"oft_blocks": torch.ones(10**4, width // 2, 2, 2)},
        "DoRA of one length": {**low, "dora_scale": torch.ones(3, 1)},
        "core of a number": {**low, "lora_mid.weight": point},
        "alpha that is not finite": {**low, "alpha": torch.tensor(float("inf"))},
        "alpha of 64 bits": {**low, "alpha": torch.tensor(1e308, dtype=torch.float64)},
        "alpha that no file has": {**low, "alpha": torch.tensor(3e38)},
        "several alphas": {**low, "alpha": torch.ones(2)},
        "IA3 of another layer": {"on_input": torch.tensor(1.0), "weight": torch.ones(3)},
        "replacement of another shape": {"set_weight": torch.ones(3)},
    }


@pytest.mark.parametrize("kind", parts(8))
def test_parts_that_do_not_fit_together(kind: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.parts.unet.state_dict().items()}
    group = parts(shapes(tiny_model)[QUERY][0])[kind]
    path = tmp_path / "a.safetensors"
    save_file({f"{STEM}.{name}": tensor.clone() for name, tensor in group.items()}, path)
    with pytest.raises(BrokenModel) as caught:
        tiny_model.attach(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.parts.unet.state_dict().items())
    assert tiny_model.attachments == () and adapter_facts(path, hashes=False) is not None


@pytest.mark.parametrize(
    "text",
    [
        '{"unet.lora_alpha": 1' + "0" * 400 + "}",
        '{"unet.lora_alpha": Infinity}',
        '{"unet.lora_alpha": 1e308, "unet.use_rslora": true}',
        '{"unet.lora_alpha": [], "unet.alpha_pattern": {"attn2.to_q": "x"}}',
        '{"unet.lora_alpha": 1' + "0" * 5000 + "}",
        "[" * 900 + "]" * 900,
        "[" * 100_000,
        '{"unet.": {"lora_alpha": 3}}',
    ],
    ids=lambda text: text[:40],
)
def test_settings_that_are_none_are_left_out(text: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    width = shapes(tiny_model)[QUERY][0]
    state = {f"{STEM}.lora_B.weight": torch.ones(width, 2), f"{STEM}.lora_A.weight": torch.ones(2, width)}
    weight = tiny_model.parts.unet.down[0].transformers[0].blocks[0].cross_attention.query.weight  # type: ignore[union-attr, index]
    before = weight.detach().clone()
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(state, path, metadata={"lora_adapter_metadata": text})
    with tiny_model.attach(path):
        torch.testing.assert_close(weight, before + 2)
    path = tmp_path / "adapter_model.safetensors"
    save_file({f"base_model.model.{QUERY}.{name.rpartition(f'{QUERY}.')[2]}": t for name, t in state.items()}, path)
    (tmp_path / "adapter_config.json").write_text(text.replace("unet.", ""))
    with tiny_model.attach(path):
        torch.testing.assert_close(weight, before + 2)


def test_names_of_any_length_stay_one_short_line(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    width, long = shapes(tiny_model)[QUERY][0], "a\nb\x1b[2J" * 10_000
    odd = {
        f"{long}.lora_up.weight": torch.ones(4, 2),
        f"{long}.lora_down.weight": torch.ones(2, 4),
        f"{long}c": torch.ones(1),
    }
    path = tmp_path / "a.safetensors"
    save_file(odd, path)
    with pytest.raises(ModelFileError) as caught:
        tiny_model.attach(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500 + len(str(path))
    fits = {f"{STEM}.lora_up.weight": torch.ones(width, 2), f"{STEM}.lora_down.weight": torch.ones(2, width)}
    save_file({**odd, **fits}, path)
    with tiny_model.attach(path) as attachment:
        assert len(attachment.unmatched) == 2
        assert all(name.isprintable() and len(name) <= 200 for name in attachment.unmatched)


def test_many_layers_that_fit_nothing_are_counted(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    raw = json.dumps({f"lora_unet_{number}.diff": entry for number in range(30_000)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(BrokenModel, match="it has no layer 'lora_unet_0'"):
        tiny_model.attach(path)


def huge(rows: int, columns: int) -> dict[str, dict[str, Tensor]]:
    """Kind -> finite tensors of one group whose product is not."""
    big, small = torch.full((rows, 2), 1e20), torch.full((2, columns), 1e20)
    low = {"lora_up.weight": big, "lora_down.weight": small}
    return {
        "LoRA": low,
        "DoRA": {**low, "dora_scale": torch.ones(rows, 1)},
        "LoHa": {"hada_w1_a": big, "hada_w1_b": small, "hada_w2_a": big, "hada_w2_b": small},
        "LoKr": {"lokr_w1": torch.full((2, 2), 1e30), "lokr_w2": torch.full((rows // 2, columns // 2), 1e30)},
        "full difference": {"diff": torch.full((rows, columns), 3e38)},
    }


@pytest.mark.parametrize("kind", huge(8, 8))
def test_finite_factors_whose_product_is_not(kind: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    group = {name: tensor.clone() for name, tensor in huge(*shapes(tiny_model)[QUERY])[kind].items()}
    path = tmp_path / "huge.safetensors"
    text = "lora_te_text_model_encoder_layers_1_self_attn_v_proj"
    width = tiny_model.parts.clip.config.width
    fine = {f"{text}.lora_up.weight": torch.ones(width, 1), f"{text}.lora_down.weight": torch.ones(1, width)}
    save_file({**fine, **{f"{STEM}.{name}": tensor for name, tensor in group.items()}}, path)
    networks = (tiny_model.parts.unet, tiny_model.parts.clip)
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in networks]
    strength = 100.0 if kind == "full difference" else 1.0
    with pytest.raises(BrokenModel, match=r"huge\.safetensors would change the weight \S+ to numbers beyond the range"):
        tiny_model.attach(path, strength)
    request = {"steps": 1, "width": 16, "height": 16, "seed": 0, "loras": [(path, strength)]}
    with pytest.raises(BrokenModel, match="beyond the range of float32"):
        generate_image("a cat", model=tiny_model, **request)
    for each, known in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, known[name]) for name, tensor in each.state_dict().items())
    assert tiny_model.attachments == ()


def test_a_strength_that_a_narrow_weight_cannot_hold(tmp_path: Path) -> None:
    """In float16 a difference of 1000 fits and 70 times as much does not; then the strength stays what it was."""
    config = UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=32)
    unet, clip = UNet(config).half(), CLIPText(CLIPTextConfig(width=64, layers=2, heads=1)).half()
    stem = next(name for name in unet.state_dict() if name.endswith("cross_attention.query.weight"))
    rows, columns = unet.state_dict()[stem].shape
    text = "layers.0.attention.value"
    save_file(
        {
            f"unet.{stem.removesuffix('.weight')}.lora_up.weight": torch.full((rows, 1), 1000.0),
            f"unet.{stem.removesuffix('.weight')}.lora_down.weight": torch.ones(1, columns),
            f"text.{text}.lora_up.weight": torch.ones(64, 1),
            f"text.{text}.lora_down.weight": torch.ones(1, 64),
        },
        tmp_path / "large.safetensors",
    )
    found = attach(networks(unet, clip), tmp_path / "large.safetensors", 0.5)
    before = [copy.deepcopy(each.state_dict()) for each in (unet, clip)]
    with pytest.raises(BrokenModel, match=r"large\.safetensors would change .* beyond the range of float16"):
        found.set_strength(70.0)
    assert found.strength == 0.5
    for each, known in zip((unet, clip), before, strict=True):
        assert all(torch.equal(tensor, known[name]) for name, tensor in each.state_dict().items())
    found.set_strength(60.0)
    assert float(unet.state_dict()[stem].max()) > 5e4
    found.detach()
    assert float(unet.state_dict()[stem].max()) < 10

"""ControlNets and T2I-Adapters against diffusers with equal random weights, from each layout that their files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_checkpoints as tiny
import tiny_controls as controls
import tiny_xl
from stable_diffusion.errors import BrokenModel, InvalidRequest, UnknownModel
from stable_diffusion.models.controlnet import ControlNet
from stable_diffusion.models.t2i_adapter import T2IAdapter
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.types import Residuals
from stable_diffusion.weights.control import control_facts, load_control_network
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.networks.unet import unet_ldm

BASES = {"sd1": tiny.SD1.ours, "sd2": tiny.SD2.ours, "sdxl": tiny_xl.BASE.config}


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape and float(expected.norm()) > 1e-3
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest) -> UNet:
    torch.manual_seed(8)
    return UNet(BASES[request.param]).eval().requires_grad_(False)


def inputs(config: UNetConfig, rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(6)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    found = {"x": noise(rows, 4, 8, 6), "tokens": noise(rows, 7, config.context_dim)}
    if config.vector_dim is not None:
        pooled = config.vector_dim - 6 * 256
        found |= {"pooled": noise(rows, pooled), "sizes": torch.full((rows, 6), 48.0)}
    return found | {"picture": torch.rand(1, 3, 64, 48, generator=generator)}


def theirs(network: Any, given: dict[str, Tensor], **settings: Any) -> tuple[list[Tensor], Tensor]:
    told = {"text_embeds": given["pooled"], "time_ids": given["sizes"]} if "pooled" in given else None
    picture = given["picture"].expand(len(given["x"]), -1, -1, -1)
    shown = {"controlnet_cond": [picture], **settings} if settings else {"controlnet_cond": picture}
    return network(given["x"], torch.tensor(431), given["tokens"], **shown, added_cond_kwargs=told, return_dict=False)


def ours(network: ControlNet, reference: Any, given: dict[str, Tensor], task: int | None = None) -> Residuals:
    vector = None
    if "pooled" in given:
        numbers = reference.add_time_proj(given["sizes"].flatten()).reshape(len(given["x"]), -1)
        vector = torch.cat([given["pooled"], numbers], dim=-1)
    hint = network.encode_hint(given["picture"])
    return network(given["x"], torch.tensor([431.0]), given["tokens"], hint, vector=vector, task=task)


def agree(found: Residuals, expected: tuple[list[Tensor], Tensor]) -> None:
    assert found.mid is not None
    for one, other in zip([*found.down, found.mid], [*expected[0], expected[1]], strict=True):
        assert relative(one, other) < 1e-5


@torch.no_grad()
def test_a_controlnet_equals_diffusers_in_every_layout(base: UNet, tmp_path: Path) -> None:
    config = base.config
    reference = controls.controlnet(config)
    reference.save_pretrained(tmp_path / "folder")
    state = reference.state_dict()
    single = controls.write(state, tmp_path / "diffusers.safetensors")
    prefixed = controls.write(controls.ldm_state(config, state), tmp_path / "ldm.safetensors")
    bare = controls.write(controls.ldm_state(config, state, ""), tmp_path / "bare.safetensors")
    given = inputs(config)
    expected = theirs(reference, given)
    for path in (tmp_path / "folder", single, prefixed, bare):
        network = load_control_network(path, base)
        assert isinstance(network, ControlNet)
        agree(ours(network, reference, given), expected)


@torch.no_grad()
@pytest.mark.parametrize("tasks", [6, 8])
def test_a_union_controlnet_equals_diffusers(tasks: int, tmp_path: Path) -> None:
    """Rows of the same picture and latent, as guidance makes them: theirs mixes the rows of a batch, ours does not."""
    config = BASES["sdxl"]
    reference = controls.union(config, tasks=tasks)
    network = load_control_network(controls.write(reference.state_dict(), tmp_path / "u.safetensors"), UNet(config))
    assert isinstance(network, ControlNet) and network.config.tasks == tasks
    given = {name: tensor[:1] for name, tensor in inputs(config).items()}
    other = {name: tensor.repeat(2, *[1] * (tensor.dim() - 1)) for name, tensor in given.items() if name != "picture"}
    other |= {"picture": given["picture"], "tokens": inputs(config)["tokens"]}
    for rows in (given, other):
        for task in (0, 3, tasks - 1):
            switches = torch.nn.functional.one_hot(torch.tensor([task] * len(rows["x"])), tasks).float()
            expected = theirs(reference, rows, control_type=switches, control_type_idx=[task])
            agree(ours(network, reference, rows, task), expected)
    with pytest.raises(InvalidRequest, match=f"task of a ControlNet is None; expected 0 to {tasks - 1}"):
        ours(network, reference, given)


@torch.no_grad()
def test_a_control_lora_is_the_unet_plus_low_rank(base: UNet, tmp_path: Path) -> None:
    """The same as the whole ControlNet whose weights are these sums."""
    config = base.config
    whole = controls.ldm_state(config, controls.controlnet(config).state_dict(), "")
    original = unet_ldm(config).invert(dict(base.named_parameters()))
    generator = torch.Generator().manual_seed(9)
    low_rank = {"lora_controlnet": torch.zeros(1)}
    expected = {}
    for name, tensor in whole.items():
        if name not in original or name.endswith(".bias") or original[name].dim() < 2:
            low_rank[name] = expected[name] = tensor
            continue
        kernel = original[name].shape[2:]
        up = torch.randn(original[name].shape[0], 3, *[1] * len(kernel), generator=generator) * 0.1
        down = torch.randn(3, *original[name].shape[1:], generator=generator) * 0.1
        stem = name.removesuffix(".weight")
        low_rank |= {f"{stem}.up": up, f"{stem}.down": down}
        expected[name] = original[name] + (up.flatten(1) @ down.flatten(1)).reshape(original[name].shape)
    path = controls.write(low_rank, tmp_path / "control-lora.safetensors")
    found = load_control_network(path, base)
    reference = load_control_network(controls.write(expected, tmp_path / "whole.safetensors"), base)
    assert isinstance(found, ControlNet)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), parameter, rtol=0, atol=1e-6)
    assert control_facts(path, hashes=False)["kind"] == "control-LoRA"  # type: ignore[index]


@torch.no_grad()
@pytest.mark.parametrize("layout", ["diffusers", "released"])
@pytest.mark.parametrize(("kind", "picture"), [("full_adapter", 3), ("full_adapter", 1), ("light_adapter", 3)])
def test_a_t2i_adapter_equals_diffusers(kind: str, picture: int, layout: str, tmp_path: Path) -> None:
    """For three stages, with an odd number of latents on one side."""
    channels = [32, 64] if kind == "light_adapter" else [32, 64, 64]
    reference = controls.t2i_adapter(kind, channels, picture=picture)
    state = reference.state_dict()
    state = controls.released_t2i(state) if layout == "released" else state
    base = UNet(UNetConfig(channels=(32, 64, 64), transformer_depth=(1, 1, 0), context_dim=64))
    network = load_control_network(controls.write(state, tmp_path / "t2i.safetensors"), base)
    assert isinstance(network, T2IAdapter)
    shown = torch.rand(1, picture, 56, 72, generator=torch.Generator().manual_seed(3))
    for one, other in zip(network(shown), reference(shown), strict=True):
        assert relative(one, other) < 1e-5


@torch.no_grad()
def test_features_of_a_t2i_adapter_are_added_where_diffusers_adds_them(tmp_path: Path) -> None:
    """A U-Net of XL's kind: no attention in the first stage, one map for the middle."""
    from diffusers import UNet2DConditionModel

    reference = controls.filled(
        UNet2DConditionModel(
            block_out_channels=(32, 64, 64), layers_per_block=2, cross_attention_dim=64, attention_head_dim=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        ), 4,
    )  # fmt: skip
    config = UNetConfig(channels=(32, 64, 64), transformer_depth=(0, 1, 1), heads=8, context_dim=64)
    unet = UNet(config)
    from stable_diffusion.weights.networks.unet import unet_diffusers

    unet.load_state_dict(unet_diffusers(config).convert(reference.state_dict()))
    adapter = controls.t2i_adapter("full_adapter_xl", [32, 64, 64, 64])
    network = load_control_network(controls.write(adapter.state_dict(), tmp_path / "t2i.safetensors"), unet)
    assert isinstance(network, T2IAdapter) and network.config.kind == "full XL"
    shown = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    x, t, tokens = torch.randn(1, 4, 8, 12), torch.tensor([300.0]), torch.randn(1, 5, 64)
    features = network(shown)
    for one, other in zip(features, adapter(shown), strict=True):
        assert relative(one, other) < 1e-5
    added = [feature.clone() for feature in features]  # they are popped and added to in place
    expected = reference(x, t, tokens, down_intrablock_additional_residuals=added).sample
    found = unet(x, t, tokens, residuals=Residuals(stages=features[:-1], mid=features[-1]))
    assert relative(found, expected) < 1e-5
    assert relative(unet(x, t, tokens), expected) > 1e-2  # they matter


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    one, xl = UNet(BASES["sd1"]), UNet(BASES["sdxl"])
    path = controls.write(controls.controlnet(BASES["sd1"]).state_dict(), tmp_path / "canny.safetensors")
    with pytest.raises(BrokenModel, match=r"canny.safetensors is a ControlNet for a model whose tokens have width 64"):
        load_control_network(path, xl)
    state = controls.controlnet(BASES["sd1"]).state_dict()
    del state["controlnet_mid_block.bias"]
    with pytest.raises(BrokenModel, match=r"1 tensor is missing: controlnet_mid_block\.bias"):
        load_control_network(controls.write(state, tmp_path / "cut.safetensors"), one)
    lora = {"lora_unet_x.lora_down.weight": torch.zeros(2, 3), "lora_unet_x.lora_up.weight": torch.zeros(3, 2)}
    with pytest.raises(UnknownModel, match="is a LoRA; expected a ControlNet, a T2I-Adapter or an IP-Adapter"):
        load_control_network(controls.write(lora, tmp_path / "style.safetensors"), one)
    for names, what in {
        ("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight"): "for a transformer",
        ("lllite_unet_a.down.0.weight", "lllite_unet_a.up.0.weight"): "LLLite",
    }.items():
        with pytest.raises(UnknownModel, match=f"is a ControlNet.*{what}"):
            state = {name: torch.zeros(2, 2) for name in names}
            load_control_network(controls.write(state, tmp_path / "other.safetensors"), one)
    adapter = controls.t2i_adapter("full_adapter", [32, 96])
    with pytest.raises(BrokenModel, match=r"features of \[32, 96\] channels; this model's U-Net has \[32, 64\]"):
        load_control_network(controls.write(adapter.state_dict(), tmp_path / "t2i.safetensors"), one)
    with pytest.raises(UnknownModel, match="is a T2I-Adapter, which this version does not run as a model"):
        load_parts(tmp_path / "t2i.safetensors")
    with pytest.raises(InvalidRequest, match="none is wanted"):
        network = load_control_network(path, one)
        assert isinstance(network, ControlNet)
        network(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 2, 64), torch.zeros(1, 32, 8, 8), task=1)

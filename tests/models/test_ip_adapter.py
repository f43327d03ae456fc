"""IP-Adapters against diffusers with equal random weights: image tokens, and the U-Net's answer under them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny_checkpoints as tiny
import tiny_controls as controls
from stable_diffusion.errors import BrokenModel, UnknownModel
from stable_diffusion.models.ip_adapter import ImagePromptedUNet, IPAdapter, cross_attentions
from stable_diffusion.models.unet import UNet
from stable_diffusion.weights.control import control_facts, load_control_network
from stable_diffusion.weights.networks.unet import unet_diffusers

CONFIG = tiny.SD1.ours


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape and float(expected.norm()) > 1e-3
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
@pytest.mark.parametrize("plus", [False, True], ids=["plain", "plus"])
def test_tokens_and_answers_equal_diffusers(plus: bool, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    reference = controls.filled(
        UNet2DConditionModel(
            layers_per_block=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=64,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **tiny.SD1.unet,
        ), 4,
    )  # fmt: skip
    unet = UNet(CONFIG)
    unet.load_state_dict(unet_diffusers(CONFIG).convert(reference.state_dict()))
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    state = controls.ip_adapter_state(reference, 64, 40, plus=plus)
    adapter = load_control_network(controls.write(state, tmp_path / "ip.safetensors"), unet)
    assert isinstance(adapter, IPAdapter) and adapter.config.plus is plus
    halves: dict[str, controls.State] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in state.items():
        half, _, rest = name.partition(".")
        halves[half][rest] = tensor
    generator = torch.Generator().manual_seed(5)
    x, tokens = torch.randn(2, 4, 8, 6, generator=generator), torch.randn(2, 7, 64, generator=generator)
    features = torch.randn(*((2, 9, 40) if plus else (2, 40)), generator=generator)
    plain, t = unet(x, torch.tensor([600.0]), tokens), torch.tensor(600)
    assert relative(plain, reference(x, t, tokens).sample) < 1e-5
    reference._load_ip_adapter_weights([halves])
    for processor in reference.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.6]
    (projection,) = reference.encoder_hid_proj.image_projection_layers
    read = adapter(features)
    assert relative(read, projection(features).view(read.shape)) < 1e-5
    told = {"image_embeds": [features[:, None]]}
    expected = reference(x, t, tokens, added_cond_kwargs=told).sample
    found = ImagePromptedUNet(unet)([(adapter, read, 0.6)], x, torch.tensor([600.0]), tokens)
    assert relative(found, expected) < 1e-5 and relative(plain, expected) > 1e-2
    assert torch.equal(unet(x, torch.tensor([600.0]), tokens), plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


@torch.no_grad()
def test_two_adapters_add_up_and_leave_the_unet_alone() -> None:
    from stable_diffusion.models.ip_adapter import IPAdapterConfig

    torch.manual_seed(3)
    unet = controls.filled(UNet(CONFIG), 2)
    widths = [attention.query.out_features for attention in cross_attentions(unet)]
    one, other = (IPAdapter(IPAdapterConfig(context_dim=64, feature_width=9, tokens=2), widths) for _ in range(2))
    given = (torch.randn(1, 4, 4, 6), torch.tensor([5.0]), torch.randn(1, 3, 64))
    first, second = torch.randn(1, 2, 64), torch.randn(1, 2, 64)
    plain, prompted = unet(*given), ImagePromptedUNet(unet)
    both = prompted([(one, first, 0.5), (other, second, 0.7)], *given)
    assert relative(prompted([(other, second, 0.7), (one, first, 0.5)], *given), both) < 1e-5
    assert relative(prompted([(one, first, 0.5), (other, second, 0.0)], *given), both) > 1e-4
    assert torch.equal(prompted([], *given), plain) and torch.equal(unet(*given), plain)
    assert list(prompted.unet.state_dict()) == list(unet.state_dict())
    assert all(ours is theirs for ours, theirs in zip(prompted.unet.parameters(), unet.parameters(), strict=True))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    unet = UNet(CONFIG)
    state = {"image_proj.proj.weight": torch.zeros(4 * 32, 10), "ip_adapter.1.to_k_ip.weight": torch.zeros(32, 32)}
    path = controls.write(state, tmp_path / "ip.safetensors")
    with pytest.raises(BrokenModel, match=r"is an IP-Adapter for a model whose tokens have width 32; this model is a"):
        load_control_network(path, unet)
    facts = control_facts(path, hashes=False)
    assert facts is not None and facts["kind"] == "IP-Adapter"
    face = controls.write({"image_proj.proj.0.weight": torch.zeros(3, 3)}, tmp_path / "face.safetensors")
    with pytest.raises(UnknownModel, match=r"whole faces or FaceID.*expected a plain or plus IP-Adapter"):
        load_control_network(face, unet)
    state = {"image_proj.proj.weight": torch.zeros(4 * 64, 10), "ip_adapter.1.to_k_ip.weight": torch.zeros(32, 64)}
    with pytest.raises(BrokenModel, match=r"the IP-Adapter .*cut\.safetensors does not fit: .* tensors are missing"):
        load_control_network(controls.write(state, tmp_path / "cut.safetensors"), unet)

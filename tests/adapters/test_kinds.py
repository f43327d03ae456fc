"""Every kind's difference of a weight against the library that invented its file layout, in float32 to 1e-5."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stable_diffusion.adapters.formulas import bias_delta, boft, delta, label, rank
from stable_diffusion.errors import BrokenModel

lycoris_boft = pytest.importorskip("lycoris.functional.boft")
from lycoris.functional import diag_oft as lycoris_oft  # noqa: E402
from lycoris.functional import locon as lycoris_locon  # noqa: E402
from lycoris.functional import loha as lycoris_loha  # noqa: E402
from lycoris.functional import lokr as lycoris_lokr  # noqa: E402
from lycoris.functional.general import weight_decompose  # noqa: E402
from lycoris.modules.glora import GLoRAModule  # noqa: E402
from lycoris.modules.ia3 import IA3Module  # noqa: E402

O, I, R, ALPHA = 12, 8, 3, 2.0  # noqa: E741
SCALE = ALPHA / R
SHAPES = [(O, I), (O, I, 1, 1), (O, I, 3, 3)]


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randn(shape, generator=generator)


def close(ours: Tensor | None, theirs: Tensor) -> None:
    assert ours is not None and bool(theirs.abs().max() > 1e-3), "the comparison would be of zeros"
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_lora(shape: tuple[int, ...], draw: Callable[..., Tensor]) -> None:
    kernel = shape[2:]
    up, down = draw(O, R, *[1] * len(kernel)), draw(R, I, *kernel)
    ours = delta({"up": up, "down": down}, draw(*shape), alpha=ALPHA)
    close(ours, lycoris_locon.diff_weight(down, up, None, gamma=SCALE))
    # What the two layers of the paper do to an input is what the difference does to it.
    if not kernel:
        x = draw(4, I)
        close(x @ ours.T, SCALE * (x @ down.T) @ up.T)


def test_lora_with_a_core(draw: Callable[..., Tensor]) -> None:
    up, mid, down = draw(O, R, 1, 1), draw(R, R, 3, 3), draw(R, I, 1, 1)
    ours = delta({"up": up, "mid": mid, "down": down}, draw(O, I, 3, 3), alpha=ALPHA)
    close(ours, lycoris_locon.diff_weight(down, up, mid, gamma=SCALE))
    x = draw(2, I, 6, 6)
    chain = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(x, down), mid, padding=1), up)
    assert ours is not None
    torch.testing.assert_close(nn.functional.conv2d(x, ours, padding=1), SCALE * chain, rtol=1e-4, atol=1e-4)


def test_a_linear_lora_fits_a_1x1_convolution_and_back(draw: Callable[..., Tensor]) -> None:
    up, down = draw(O, R), draw(R, I)
    flat = delta({"up": up, "down": down}, draw(O, I))
    assert flat is not None
    close(delta({"up": up, "down": down}, draw(O, I, 1, 1)), flat)
    close(delta({"up": up[..., None, None], "down": down[..., None, None]}, draw(O, I)), flat)


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_alpha_missing_or_zero_is_the_rank(alpha: float | None, draw: Callable[..., Tensor]) -> None:
    up, down = draw(O, R), draw(R, I)
    close(delta({"up": up, "down": down}, draw(O, I), alpha=alpha), up @ down)


@pytest.mark.parametrize("shape", [(O, I), (O, I, 3, 3)])
def test_loha(shape: tuple[int, ...], draw: Callable[..., Tensor]) -> None:
    columns = I * 9 if len(shape) == 4 else I
    w1a, w1b, w2a, w2b = draw(O, R), draw(R, columns), draw(O, R), draw(R, columns)
    group = {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b}
    ours = delta(group, draw(*shape), alpha=ALPHA)
    close(ours, lycoris_loha.diff_weight(w1b, w1a, w2b, w2a, None, None, gamma=SCALE))
    assert rank(group) == R


def test_loha_with_cores(draw: Callable[..., Tensor]) -> None:
    w1a, w1b, w2a, w2b, t1, t2 = draw(R, O), draw(R, I), draw(R, O), draw(R, I), draw(R, R, 3, 3), draw(R, R, 3, 3)
    group = {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b, "hada_t1": t1, "hada_t2": t2}
    ours = delta(group, draw(O, I, 3, 3), alpha=ALPHA)
    close(ours, lycoris_loha.diff_weight(w1b, w1a, w2b, w2a, t1, t2, gamma=SCALE))


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("left", ["whole", "product"])
@pytest.mark.parametrize("right", ["whole", "product", "core"])
def test_lokr(kernel: tuple[int, ...], left: str, right: str, draw: Callable[..., Tensor]) -> None:
    if right == "core" and not kernel:
        pytest.skip("a core has a kernel")
    group: dict[str, Tensor] = {}
    if left == "whole":
        group["lokr_w1"] = draw(3, 2)
    else:
        group |= {"lokr_w1_a": draw(3, R), "lokr_w1_b": draw(R, 2)}
    if right == "whole":
        group["lokr_w2"] = draw(4, 4, *kernel)
    elif right == "product":
        group |= {"lokr_w2_a": draw(4, R), "lokr_w2_b": draw(R, 4, *kernel) if kernel else draw(R, 4)}
    else:
        group |= {"lokr_t2": draw(R, R, *kernel), "lokr_w2_a": draw(R, 4), "lokr_w2_b": draw(R, 4)}
    names = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    if not kernel and right == "product" and left == "product":
        # the functional form form takes matrices only as [r, o, 1] here
        w1, w2 = group["lokr_w1_a"] @ group["lokr_w1_b"], group["lokr_w2_a"] @ group["lokr_w2_b"]
        theirs = lycoris_lokr.make_kron(w1, w2, SCALE)
    else:
        gamma = 1.0 if left == right == "whole" else ALPHA
        if left == "whole" and right == "core":  # the functional form divides by the wrong axis
            gamma = SCALE * 4
        theirs = lycoris_lokr.diff_weight(*(group.get(name) for name in names), gamma=gamma)
    ours = delta(group, draw(O, I, *kernel), alpha=ALPHA)
    close(ours, theirs)


@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_ia3(on_input: bool, conv: bool, draw: Callable[..., Tensor]) -> None:
    layer: nn.Module = nn.Conv2d(I, O, 3) if conv else nn.Linear(I, O)
    reference = IA3Module("x", layer, train_on_input=on_input)
    reference.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    weight = layer.weight.detach()
    ours = delta({"ia3": reference.weight.detach()}, weight, on_input=on_input)
    # The module's own branch for outputs broadcasts along the columns of a convolution.
    if conv and not on_input:
        close(ours, weight * reference.weight.detach().reshape(-1, 1, 1, 1))
    else:
        close(ours, reference.get_diff_weight()[0].detach())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [None, 0.01])
@pytest.mark.parametrize("with_rescale", [False, True])
def test_oft(shape: tuple[int, ...], alpha: float | None, with_rescale: bool, draw: Callable[..., Tensor]) -> None:
    weight, blocks = draw(*shape), draw(3, 4, 4) * 0.3
    group = {"oft_blocks": blocks}
    if with_rescale:
        group["rescale"] = 1 + 0.1 * draw(O, *[1] * (len(shape) - 1))
    limit = None if alpha is None else alpha * O
    theirs = lycoris_oft.diff_weight(weight, blocks, group.get("rescale"), constraint=limit)
    close(delta(group, weight, alpha=alpha), theirs)
    old_name = {("oft_diag" if what == "oft_blocks" else what): tensor for what, tensor in group.items()}
    close(delta(old_name, weight, alpha=alpha), theirs)


def test_oft_keeps_angles_and_lengths(draw: Callable[..., Tensor]) -> None:
    weight = draw(O, I)
    found = delta({"oft_blocks": draw(3, 4, 4)}, weight)
    assert found is not None
    block, turned = weight[:4], (weight + found)[:4]
    torch.testing.assert_close(turned.T @ turned, block.T @ block, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_boft(stages: int, draw: Callable[..., Tensor]) -> None:
    weight, blocks = draw(16, I, 3, 3), draw(stages, 4, 4, 4) * 0.3
    theirs = lycoris_boft.diff_weight(weight, blocks, None, constraint=0.02 * 16)
    close(delta({"oft_blocks": blocks}, weight, alpha=0.02), theirs)
    assert label({"oft_blocks": blocks}) == "BOFT"
    if stages == 1:  # one stage mixes within blocks only
        assert not torch.allclose(boft(weight, blocks), boft(weight, blocks.roll(1, 1)))


@pytest.mark.parametrize("conv", [False, True])
def test_glora(conv: bool, draw: Callable[..., Tensor]) -> None:
    layer: nn.Module = nn.Conv2d(I, O, 3) if conv else nn.Linear(I, O)
    reference = GLoRAModule("x", layer, lora_dim=R, alpha=ALPHA)
    parts = {name: getattr(reference, name).weight for name in ("a1", "a2", "b1", "b2")}
    generator = torch.Generator().manual_seed(2)
    for parameter in parts.values():
        parameter.data.normal_(generator=generator)
    group = {name: parameter.detach() for name, parameter in parts.items()}
    close(delta(group, layer.weight.detach(), alpha=ALPHA), reference.get_diff_weight()[0].detach())
    if not conv:  # the order before LyCORIS 2
        swapped = {"a1": group["a2"], "a2": group["a1"], "b1": group["b2"], "b2": group["b1"]}
        close(delta(swapped, layer.weight.detach(), alpha=ALPHA), reference.get_diff_weight()[0].detach())
        assert rank(swapped) == rank(group) == R


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("shape", [(O, I), (O, I, 3, 3)])
def test_dora_on_lora_as_lycoris_does_it(rows: bool, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> None:
    kernel = shape[2:]
    weight, up, down = draw(*shape), draw(O, R, *[1] * len(kernel)), draw(R, I, *kernel)
    magnitude = (draw(O, 1, *[1] * len(kernel)) if rows else draw(1, I, *[1] * len(kernel))).abs()
    changed = weight + lycoris_locon.diff_weight(down, up, None, gamma=SCALE)
    theirs = weight_decompose(changed, magnitude, 1, rows) - weight
    group = {"up": up, "down": down, "magnitude": magnitude}
    close(delta(group, weight, alpha=ALPHA), theirs)
    assert label(group) == "DoRA"


@pytest.mark.parametrize("use_dora", [False, True])
def test_lora_and_dora_as_peft_does_them(use_dora: bool, draw: Callable[..., Tensor]) -> None:
    """Linear and convolution, with PEFT's names; its merged weight minus the original is the difference."""
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(I, O), nn.Conv2d(I, O, 3))
    original = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["0", "1"], use_dora=use_dora)
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = draw(*parameter.shape)
        if "magnitude" in name:
            parameter.data = parameter.data * (1 + 0.2 * draw(*parameter.shape))
    saved = peft.get_peft_model_state_dict(model)
    merged = model.merge_and_unload().state_dict()
    for layer in ("0", "1"):
        stem = f"base_model.model.{layer}."
        group = {"down": saved[f"{stem}lora_A.weight"], "up": saved[f"{stem}lora_B.weight"]}
        if use_dora:
            group["magnitude_rows"] = saved[f"{stem}lora_magnitude_vector"]
        weight = original[f"{layer}.weight"]
        ours = delta(group, weight, alpha=ALPHA)
        assert ours is not None
        torch.testing.assert_close(weight + ours, merged[f"{layer}.weight"], rtol=1e-5, atol=1e-5)
        close(ours, merged[f"{layer}.weight"] - weight)


def test_full_differences_norms_and_replacements(draw: Callable[..., Tensor]) -> None:
    weight, bias, other = draw(O, I, 3, 3), draw(O), draw(O, I, 3, 3)
    close(delta({"diff": other}, weight), other)
    close(delta({"set_weight": other}, weight), other - weight)
    close(delta({"w_norm": bias}, draw(O)), bias)
    for what in ("diff_b", "b_norm"):
        close(bias_delta({what: bias}, draw(O)), bias)
    close(bias_delta({"set_bias": bias}, bias * 3), bias * -2)
    close(bias_delta({"up": draw(O, R), "down": draw(R, I), "up_bias": bias}, draw(O), alpha=ALPHA), bias * SCALE)
    assert delta({"diff_b": bias}, weight) is None and bias_delta({"diff": other}, bias) is None


def test_shapes_are_checked_without_computing(draw: Callable[..., Tensor]) -> None:
    """Two thin matrices could make a difference of a terabyte; on `meta` nothing is made."""
    huge = {"up": torch.empty(10**6, 1, device="meta"), "down": torch.empty(1, 10**6, device="meta")}
    with pytest.raises(BrokenModel, match=r"shape \[1000000, 1000000\]"):
        delta(huge, torch.empty(O, I, device="meta"))
    with pytest.raises(BrokenModel, match=r"do not fit a weight \[12, 8\]"):
        delta({"up": draw(O, 2), "down": draw(3, I)}, draw(O, I))
    with pytest.raises(BrokenModel, match="bias of 5 numbers, the layer's has 12"):
        bias_delta({"diff_b": draw(5)}, draw(O))
    for group in (
        {"oft_blocks": torch.empty(3, 4, 4, device="meta")},
        {"oft_blocks": torch.empty(1, 3, 4, 4, device="meta")},
        {"lokr_w1": torch.empty(3, 2, device="meta"), "lokr_w2": torch.empty(4, 4, device="meta")},
    ):
        found = delta(group, torch.empty(O, I, device="meta"), alpha=0.1)
        assert found is not None and found.shape == (O, I)

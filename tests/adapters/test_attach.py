"""Attaching, detaching, several at once, fusing; what fits nothing; files that are damaged or lie."""

from __future__ import annotations

import gc
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_files import ALL, ALPHA, CONV, FC, QUERY, RANK, TEXT, factors, kohya, lora_state, shapes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stable_diffusion.adapters.patch import stack_of
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.models.unet import UNet
from stable_diffusion.pipeline.models import StableDiffusion

WriteLora = Callable[..., Path]


def state(model: StableDiffusion) -> dict[str, Tensor]:
    """A copy of all weights that an adapter may change."""
    parts = (("unet", model.parts.unet), ("text", model.parts.clip))
    return {f"{part}.{name}": p.detach().clone() for part, module in parts for name, p in module.named_parameters()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def output(model: StableDiffusion) -> Tensor:
    """The U-Net's answer to fixed noise, led by a prompt."""
    generator = torch.Generator().manual_seed(3)
    tokens = model.text_encoder("a cat").tokens
    with torch.no_grad():
        return model.parts.unet(torch.randn(1, 4, 6, 4, generator=generator), torch.tensor([500.0]), tokens)


def test_detached_is_bit_identical_to_never_attached(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    before, answer = state(tiny_model), output(tiny_model)
    attachment = tiny_model.attach(lora_file(tiny_model), 0.7)
    assert attachment.kinds == {"LoRA": len(ALL)} and not attachment.unmatched
    assert not same(state(tiny_model), before) and not torch.equal(output(tiny_model), answer)
    assert tiny_model.attachments == (attachment,)
    attachment.detach()
    attachment.detach()
    assert same(state(tiny_model), before) and torch.equal(output(tiny_model), answer)
    assert tiny_model.attachments == ()
    with tiny_model.attach(lora_file(tiny_model)):
        assert not same(state(tiny_model), before)
    assert same(state(tiny_model), before)


def test_the_parameters_stay_the_same_objects(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    """Optimizers, compiled graphs and tied weights hold parameters, not names."""
    parameters = list(tiny_model.parts.unet.parameters())
    places = [parameter.data_ptr() for parameter in parameters]
    with tiny_model.attach(lora_file(tiny_model)):
        assert all(one is other for one, other in zip(parameters, tiny_model.parts.unet.parameters(), strict=True))
    assert [parameter.data_ptr() for parameter in parameters] == places


def test_the_answer_is_that_of_the_two_branches(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    """Unfused, LoRA is a side branch of a layer: up(down(x)) alpha / rank on top of its own output (Hu et al. 2021)."""
    unet = tiny_model.parts.unet
    answer = output(tiny_model)
    layer = unet.down[0].transformers[0].blocks[0].cross_attention.query  # type: ignore[union-attr, index]
    conv = unet.down[0].resblocks[0].conv1  # type: ignore[union-attr, index]
    sizes, strength = shapes(tiny_model), 0.6
    hooks = []
    for seed, (path, module) in enumerate(((QUERY, layer), (CONV, conv))):
        up, down = factors(sizes[path], seed)

        def branch(
            module: nn.Module, inputs: tuple[Tensor], out: Tensor, up: Tensor = up, down: Tensor = down
        ) -> Tensor:
            x = inputs[0]
            if down.dim() == 4:
                added = nn.functional.conv2d(nn.functional.conv2d(x, down, padding=1), up)
            else:
                added = x @ down.T @ up.T
            return out + strength * ALPHA / RANK * added

        hooks.append(module.register_forward_hook(branch))
    unfused = output(tiny_model)
    for hook in hooks:
        hook.remove()
    with tiny_model.attach(lora_file(tiny_model, paths=(QUERY, CONV)), strength):
        attached = output(tiny_model)
    assert not torch.allclose(answer, unfused, atol=1e-3)
    torch.testing.assert_close(attached, unfused, rtol=1e-4, atol=1e-5)


def test_one_strength_for_each_network(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    before, path = state(tiny_model), lora_file(tiny_model)
    for strengths, changed in (((1.0, 0.0), "unet"), ((0.0, 1.0), "text")):
        with tiny_model.attach(path, *strengths):
            touched = {name.split(".")[0] for name, value in state(tiny_model).items() if not value.equal(before[name])}
        assert touched == {changed}
    with tiny_model.attach(path, 0.5) as half, tiny_model.attach(path, -0.5) as less:
        assert half.text_strength == 0.5 and less.text_strength == -0.5
        near = state(tiny_model)
        assert all(torch.allclose(near[name], before[name], atol=1e-5) for name in before)
    with tiny_model.attach(path, 0.3) as attachment:
        attachment.set_strength(1.0, 0.2)
        now = state(tiny_model)
        with_new = (attachment.strength, attachment.text_strength)
    with tiny_model.attach(path, 1.0, 0.2):
        assert same(now, state(tiny_model)) and with_new == (1.0, 0.2)
    for wrong in (float("nan"), 1000.0, "much", True):
        with pytest.raises(InvalidRequest, match="expected a number from -100 to 100"):
            tiny_model.attach(path, wrong)  # type: ignore[arg-type]


def test_several_at_once_in_any_order(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    before = state(tiny_model)
    first, second = lora_file(tiny_model, "first"), lora_file(tiny_model, "second", paths=(CONV, QUERY, FC))
    with tiny_model.attach(second, 0.4):
        only_second = state(tiny_model)
    one = tiny_model.attach(first, 0.8)
    two = tiny_model.attach(second, 0.4)
    both = state(tiny_model)
    assert [each.name for each in tiny_model.attachments] == ["first", "second"]
    for name in before:
        alone = only_second[name] - before[name]
        one_alone = both[name] - before[name] - alone
        if name.startswith("unet.down.0.resblocks.0.conv1.w"):
            assert bool(one_alone.abs().max() > 0.01)
    one.detach()
    assert same(state(tiny_model), only_second), "taking off the first leaves what the second alone makes"
    two.detach()
    assert same(state(tiny_model), before)


def test_fused_and_unfused_are_the_same(tiny_unet: UNet, tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    before, path = state(tiny_model), lora_file(tiny_model)
    attachment = tiny_model.attach(path, 0.9)
    unfused, answer = state(tiny_model), output(tiny_model)
    other = tiny_model.attach(path, 0.1)
    attachment.fuse()
    other.detach()
    attachment.detach()  # fused for good
    try:
        assert same(state(tiny_model), unfused) and torch.equal(output(tiny_model), answer)
        assert tiny_model.attachments == ()
    finally:  # the model of these tests is shared
        for prefix, module in (("unet", tiny_model.parts.unet), ("text", tiny_model.parts.clip)):
            module.load_state_dict({n: before[f"{prefix}.{n}"] for n, _ in module.named_parameters()}, strict=False)
    assert same(state(tiny_model), before)


def test_two_hundred_cycles_leave_memory_flat(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path, before = lora_file(tiny_model), state(tiny_model)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    for _ in range(5):
        tiny_model.attach(path).detach()
    count, memory = tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        tiny_model.attach(path).detach()
    assert tensors() <= count + 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # KiB
    assert same(state(tiny_model), before)


def test_half_precision_weights_come_back_too(lora_file: WriteLora, tiny_model: StableDiffusion) -> None:
    """w + d - d would not: that is why the originals are kept."""
    module = nn.Linear(8, 6).to(torch.bfloat16)
    original = module.weight.detach().clone()
    stack = stack_of(module)
    from stable_diffusion.adapters.patch import Change, Layer

    layer = Layer((Change(("weight",), lambda originals: [torch.randn_like(originals[0]) * 10]),), 1.0)
    stack.attach(layer)
    assert module.weight.dtype == torch.bfloat16 and not module.weight.equal(original)
    stack.detach(layer)
    assert module.weight.equal(original)


def test_a_model_that_moves_while_an_adapter_is_on_it() -> None:
    from stable_diffusion.adapters.patch import Change, Layer

    module = nn.Linear(4, 3)
    original = module.weight.detach().clone()
    layer = Layer((Change(("weight",), lambda originals: [originals[0] * 0 + 1]),), 1.0)
    stack_of(module).attach(layer)
    module.to(torch.float64)
    stack_of(module).detach(layer)
    assert module.weight.dtype == torch.float64 and torch.equal(module.weight, original.double())


# --- what fits nothing ------------------------------------------------------------------------------------------------


def test_unmatched_keys_are_listed_and_the_rest_applied(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path = lora_file(tiny_model)
    tensors = load_file(path)
    extra = {
        "lora_unet_no_such_layer.lora_up.weight": torch.ones(4, 1),
        "lora_unet_no_such_layer.lora_down.weight": torch.ones(1, 4),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 1),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 4),
        "lora_unet_conv_in.lora_up.weight": torch.ones(4, 1),
        "lora_unet_conv_out.lora_down.weight": torch.ones(1, 16, 3, 3),
        "lora_unet_conv_out.lora_up.weight": torch.ones(99, 1, 1, 1),
        "something.else": torch.ones(2),
    }
    save_file({**tensors, **extra}, path)
    with tiny_model.attach(path) as attachment:
        assert attachment.kinds == {"LoRA": len(ALL)}
        listed = "\n".join(attachment.unmatched)
    for stem in (
        "no_such_layer",
        "lora_te2_",
        "lora_unet_conv_in.lora_up",
        "lora_unet_conv_out (it gives",
        "something",
    ):
        assert stem in listed
    assert len(attachment.unmatched) == 5


def test_an_adapter_for_another_model_is_one_sentence(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    before = state(tiny_model)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wrong = {f"{stem}.lora_up.weight": torch.ones(320, 4), f"{stem}.lora_down.weight": torch.ones(4, 2048)}
    save_file(wrong, tmp_path / "xl.safetensors")
    with pytest.raises(BrokenModel, match=r"fits nothing in this model: lora_unet_.*\[320, 2048\]"):
        tiny_model.attach(tmp_path / "xl.safetensors")
    assert same(state(tiny_model), before) and tiny_model.attachments == ()


def test_a_folder_of_peft_with_its_config(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    """alpha / rank, with and without the square root of rank-stabilised LoRA, and patterns by layer."""
    up, down = factors(shapes(tiny_model)[QUERY], 0)
    stem = f"base_model.model.{QUERY}"
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    name = "unet.down.0.transformers.0.blocks.0.cross_attention.query.weight"
    before = state(tiny_model)[name]
    for config, scale in (
        ({"lora_alpha": 6}, 3.0),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 2**0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"attn2.to_q": 1}}, 0.5),
        ({}, 1.0),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, **config}))
        with tiny_model.attach(folder) as attachment:
            assert attachment.name == "mine"
            torch.testing.assert_close(state(tiny_model)[name], before + scale * up @ down, rtol=1e-5, atol=1e-5)


def test_alphas_in_the_header_that_diffusers_writes(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    up, down = factors(shapes(tiny_model)[QUERY], 0)
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 8, "text_encoder.lora_alpha": 1})}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}, path, metadata=metadata)
    name = "unet.down.0.transformers.0.blocks.0.cross_attention.query.weight"
    before = state(tiny_model)[name]
    with tiny_model.attach(path):
        torch.testing.assert_close(state(tiny_model)[name], before + 4 * up @ down, rtol=1e-5, atol=1e-5)


# --- damaged and malicious files --------------------------------------------------------------------------------------


def test_damaged_files_give_one_sentence(tiny_model: StableDiffusion, lora_file: WriteLora, tmp_path: Path) -> None:
    good = lora_file(tiny_model).read_bytes()
    not_finite = lora_state(tiny_model, (QUERY,), kohya)
    not_finite[kohya(QUERY)[0]][0, 0] = float("nan")
    save_file(not_finite, tmp_path / "nan.safetensors")
    save_file(
        {kohya(QUERY)[0]: torch.ones(4, 2).int(), kohya(QUERY)[1]: torch.ones(2, 4)}, tmp_path / "ints.safetensors"
    )
    (tmp_path / "cut.safetensors").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "long.safetensors").write_bytes((2**60).to_bytes(8, "little") + good[8:])
    (tmp_path / "text.safetensors").write_text("not a model at all, but a long enough text")
    with zipfile.ZipFile(tmp_path / "code.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"cos\nsystem\n(S'echo broken'\ntR.")
    (tmp_path / "stream.bin").write_bytes(b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00echoq\x01\x85q\x02Rq\x03.")
    before = state(tiny_model)
    files = [path for path in sorted(tmp_path.iterdir()) if path.name != "style.safetensors"]
    assert len(files) == 8
    for path in files:
        with pytest.raises(ModelFileError) as caught:
            tiny_model.attach(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value), path
    assert same(state(tiny_model), before)


def test_thin_factors_of_a_gigantic_difference_cost_nothing(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    up, down, _ = kohya(QUERY)
    save_file({up: torch.zeros(10**6, 1), down: torch.zeros(1, 10**6)}, tmp_path / "bomb.safetensors")
    with pytest.raises(BrokenModel, match=r"\[1000000, 1000000\]"):
        tiny_model.attach(tmp_path / "bomb.safetensors")


def test_other_kinds_of_files_are_named(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, 24)}, tmp_path / "word.safetensors")
    with pytest.raises(UnknownModel, match="a textual inversion embedding, not an adapter"):
        tiny_model.attach(tmp_path / "word.safetensors")
    with pytest.raises(ModelFileError, match=r"did you mean .*word.safetensors"):
        tiny_model.attach(tmp_path / "words.safetensors")
    with pytest.raises(ModelFileError, match="is a folder"):
        tiny_model.attach(tmp_path)


def test_a_pickled_lora_is_read_without_running_it(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    torch.save(lora_state(tiny_model, (TEXT, QUERY), kohya), tmp_path / "old.pt")
    with tiny_model.attach(tmp_path / "old.pt") as attachment:
        assert attachment.kinds == {"LoRA": 2}

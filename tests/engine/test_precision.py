"""Families in bfloat16 and in 8 bits against float32, the default precision, what is remembered of a processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from stable_diffusion.engine import int8_layers, processor
from stable_diffusion.engine.choose import choose, engine_named
from stable_diffusion.engine.int8 import Int8Engine, without_int8
from stable_diffusion.engine.precision import LARGE, resolve_dtype
from stable_diffusion.engine.torch import TORCH
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.evaluation.int8 import calibrate
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.nn.chunked_attention import chunked_attention
from stable_diffusion.nn.sharing import sharing
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import parse_parameters
from stable_diffusion.request.request import Request
from stable_diffusion.user_cache import CACHE_FOLDER

CPU = torch.device("cpu")
HALF = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="torch has no bfloat16 kernels for this processor"
)
EIGHT = pytest.mark.skipif(without_int8() is not None, reason="torch has no 8-bit kernels for this processor")
FAMILIES = {
    "sd1": UNetConfig(channels=(64, 64, 128, 128), context_dim=32, heads=(2, 2, 2, 2)),
    "sd2": UNetConfig(channels=(64, 64, 128, 128), context_dim=48, heads=(1, 1, 2, 2), upcast_attention=True),
    "sdxl": UNetConfig(
        channels=(64, 64, 128), context_dim=48, heads=(1, 1, 2), transformer_depth=(0, 1, 2), vector_dim=24
    ),
}
SD3 = MMDiTConfig(depth=2, width=128, heads=2, positions=24, context_dim=48, vector_dim=24, qk_norm=True)
TOLERANCES = {"bfloat16": 0.015, "int8": 0.03}
"""Error of the network's output, relative to the output: 0.005 and 0.010 were seen."""


@pytest.fixture(autouse=True)
def every_layer_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tiny layers are quantised too, and nothing is read from or written to this user's folder."""
    monkeypatch.setattr(int8_layers, "LEAST", 64)
    monkeypatch.setattr(int8_layers, "CHANNELS", 32)
    monkeypatch.setattr(int8_layers, "ROWS", 4)
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
        parameter.data.normal_(generator=generator).mul_(scale)
    return module.eval().requires_grad_(False)


def inputs(config: UNetConfig | MMDiTConfig) -> tuple[list[Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    named = {} if config.vector_dim is None else {"vector": draw(2, config.vector_dim)}
    return [draw(2, config.in_channels, 16, 24), torch.tensor([20.0, 700.0]), draw(2, 7, config.context_dim)], named


def network(family: str) -> nn.Module:
    if family == "sd3":
        return randomised(MMDiT(SD3))
    return randomised(UNet(FAMILIES[family]))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


def engine_of(precision: str) -> object:
    return TORCH if precision == "bfloat16" else engine_named("torch", "int8")


@HALF
@EIGHT
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("family", [*FAMILIES, "sd3"])
@torch.no_grad()
def test_every_family_is_close_to_float32_and_alone_in_a_batch(family: str, precision: str) -> None:
    module = network(family)
    arguments, named = inputs(module.config)
    expected = module(*arguments, **named)
    run = engine_of(precision).network(module.bfloat16(), "denoiser")
    x, timestep, tokens = arguments
    half = [x.bfloat16(), timestep, tokens.bfloat16()]
    vectors = {name: value.bfloat16() for name, value in named.items()}
    found = run(*half, **vectors)
    assert 0 < relative(found, expected) < TOLERANCES[precision]
    for row in range(2):
        alone = run(*[each[row : row + 1] for each in half], **{k: v[row : row + 1] for k, v in vectors.items()})
        assert relative(alone, found[row : row + 1].float()) < 0.004, "more than the rounding of the last bit"
    assert torch.equal(run(*half, **vectors), found)
    for extreme in (1e5, 0.0):
        assert torch.isfinite(run(half[0] * extreme, half[1], half[2] * min(extreme, 1e3), **vectors)).all()


@EIGHT
@torch.no_grad()
def test_layers_in_8_bits_do_not_see_their_neighbours() -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(64, 96), nn.Conv2d(64, 48, 3, stride=2, padding=1)
    tokens, maps = torch.randn(2, 40, 64), torch.randn(2, 64, 8, 8)
    tokens[1], maps[1] = tokens[1] * 1000, maps[1] * 1000
    for layer, x in ((linear, tokens), (conv, maps)):
        made = int8_layers.quantised(layer)
        both, expected = made(x), layer(x)
        assert torch.equal(made(x[:1]), both[:1]) and torch.equal(made(x[1:]), both[1:])
        assert relative(both[:1], expected[:1]) < 0.02 and relative(both[1:], expected[1:]) < 0.02


@HALF
@torch.no_grad()
def test_a_decoder_in_bfloat16_is_close() -> None:
    module = randomised(VAE(VAEConfig(channels=(32, 32, 64), groups=8)))
    latent = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(2))
    expected = module.decode(latent)
    found = TORCH.network(module.bfloat16(), "image_decoder")(latent.bfloat16())
    assert 0 < relative(found, expected) < 0.03


@EIGHT
@torch.no_grad()
def test_other_weights_are_quantised_for_the_changed_layers_alone() -> None:
    module, engine = network("sd1").float(), engine_named("torch", "int8")
    name = "down.1.resblocks.0.conv2.weight"
    weight = dict(module.named_parameters())[name]
    plain, other = engine.network(module, "denoiser"), sharing(module, {name: weight * 10})
    changed = engine.network(other, "denoiser")
    parts = zip(plain.named_modules(), changed.named_modules(), strict=True)
    kinds = (int8_layers.Int8Linear, int8_layers.Int8Conv)
    assert [part for (part, a), (_, b) in parts if isinstance(a, kinds) and a is not b] == [name[:-7]]
    arguments, named = inputs(module.config)
    expected = other(*arguments, **named)
    right, wrong = (relative(run(*arguments, **named), expected) for run in (changed, plain))
    assert right < 0.03 < wrong
    weight.data = weight.data * 10
    engine.weights_changed(module)
    again = relative(engine.network(module, "denoiser")(*arguments, **named), expected)
    assert again < 0.03


@EIGHT
def test_a_run_in_8_bits_with_a_lora(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    engine = engine_named("torch", "int8")
    assert isinstance(engine, Int8Engine)
    lora = tmp_path / "style.safetensors"
    save_file(lora_state(tiny_model, ALL, kohya), lora)
    request = Request("a red cat", seed=1, steps=2, loras=[lora])
    latents = {}
    for name, run in (("torch", TORCH), ("int8", engine)):
        *_, last = generate(tiny_model, request, engine=run, output="latent")
        latents[name] = last.tensor
    assert 0 < relative(latents["int8"], latents["torch"]) < 0.1
    *_, first = generate(tiny_model, Request("a red cat", seed=2, steps=2), engine=engine)
    *_, pair = generate(tiny_model, Request("a red cat", seed=1, steps=2, count=2), engine=engine)
    assert first.images[0].tobytes() == pair.images[0].tobytes() and pair.notes == ()
    assert parse_parameters(pair.images[0].info["parameters"]).values["Precision"] == "int8"
    *_, plain = generate(tiny_model, Request("a red cat", seed=1, steps=2))
    assert "Precision" not in plain.images[0].info["parameters"] and "Engine" not in plain.images[0].info["parameters"]


@EIGHT
def test_calibration_keeps_what_loses_most(tiny_model: StableDiffusion, tmp_path: Path) -> None:

    found = calibrate(tiny_model, ["a red cat"], steps=2, share=0.2)
    losses = list(found.lost.values())
    assert losses == sorted(losses, reverse=True) and 0 < losses[0] < 0.2
    assert found.kept == tuple(found.lost)[: len(found.kept)] and len(found.kept) >= 1
    assert 20 < found.latents < 90 and found.pictures > 20
    fresh = Int8Engine()
    assert fresh.kept(tiny_model.parts.unet) == set(found.kept), "another process finds it in the folder"
    kinds = (int8_layers.Int8Linear, int8_layers.Int8Conv)
    made = dict(fresh.network(tiny_model.parts.unet, "denoiser").named_modules())
    assert not any(isinstance(made[name], kinds) for name in found.kept)
    engine_named("torch", "int8").keep(tiny_model.parts.unet, ())


@torch.no_grad()
def test_attention_in_chunks_is_attention_and_never_overflows() -> None:
    query, key, value = torch.randn(3, 2, 2, 1100, 40, generator=torch.Generator().manual_seed(3)).bfloat16()
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert relative(chunked_attention(query, key, value), expected) < 0.02
    for scale in (1e4, 1e-30, 0.0):
        assert torch.isfinite(chunked_attention(query * scale, key * scale, value)).all()


def test_the_default_is_measured_and_only_for_large_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (True, False):
        monkeypatch.setattr(processor, "fast_bfloat16", lambda fast=fast: fast)
        assert resolve_dtype("auto", CPU, LARGE) is (torch.bfloat16 if fast else torch.float32)
        assert resolve_dtype("int8", CPU, LARGE) is resolve_dtype("auto", CPU, LARGE)
        assert resolve_dtype("auto", CPU, LARGE - 1) is torch.float32
        assert resolve_dtype("float32", CPU, LARGE) is torch.float32
    with pytest.raises(InvalidRequest, match="runs on the CPU"):
        resolve_dtype("int8", torch.device("cuda"))


def test_what_was_measured_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = processor.Measured(float32=4e-3, bfloat16=1e-3, fused_attention=2.0, chunked_attention=1.0)
    calls: list[int] = []
    monkeypatch.setattr(processor, "measure", lambda: calls.append(1) or known)
    for _ in range(2):
        monkeypatch.setattr(processor, "_KNOWN", None)
        assert processor.measured() == known and known.fast_bfloat16 and known.chunked
    (path,) = (tmp_path / "cache").iterdir()
    assert calls == [1] and json.loads(path.read_text())["bfloat16"] == 1e-3
    for damaged in ("", "{}", '{"float32": "x"}', "[1]"):
        path.write_text(damaged)
        monkeypatch.setattr(processor, "_KNOWN", None)
        assert processor.measured() == known
    assert len(calls) == 5


def test_engines_by_name() -> None:
    assert choose("torch").engine is TORCH and choose(weights=1000).engine is TORCH and choose("auto").why
    with pytest.raises(InvalidRequest, match="did you mean 'torch'"):
        choose("trch")

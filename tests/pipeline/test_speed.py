"""The speeds of a request: exact changes nothing, the others leave out work and go with all else a request can ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from painting import half_mask, pictures, psnr, speckled, straight
from stable_diffusion.engine.shortcuts import Shortcuts
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.live import LivePainter
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.unet import UNet
from stable_diffusion.nn.attention import Attention
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Request
from stable_diffusion.runner import LocalRunner
from stable_diffusion.types import DeepFeatures, Residuals

SMALL: dict[str, Any] = {"width": 64, "height": 48, "seed": 5, "steps": 8, "guidance": 4.0}


def calls(model: StableDiffusion, request: Request) -> list[int]:
    """How often each attention of the network ran."""
    count: dict[str, int] = {}
    hooks = [
        part.register_forward_hook(lambda *_, name=name: count.__setitem__(name, count.get(name, 0) + 1))
        for name, part in model.parts.unet.named_modules()
        if isinstance(part, Attention)
    ]
    try:
        pictures(model, request)
    finally:
        for hook in hooks:
            hook.remove()
    return list(count.values())


def inputs(model: StableDiffusion, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
    torch.manual_seed(seed)
    config = model.parts.unet.config
    vector = {} if config.vector_dim is None else {"vector": torch.randn(2, config.vector_dim)}
    tokens = torch.randn(2, 5, config.context_dim)
    return torch.randn(2, config.in_channels, 9, 6), torch.tensor([300.0, 300.0]), tokens, vector


@pytest.mark.parametrize("shallow", [0, 1, 2, 5])
def test_a_unet_that_keeps_or_takes_deep_features_of_the_same_input_is_itself(
    tiny_model: StableDiffusion, shallow: int
) -> None:
    network = tiny_model.parts.unet
    assert isinstance(network, UNet)
    x, timestep, tokens, named = inputs(tiny_model)
    deep = DeepFeatures(shallow)
    with torch.no_grad():
        plain = network(x, timestep, tokens, **named)
        assert torch.equal(network(x, timestep, tokens, deep=deep, **named), plain)
        deep.reuse = True
        assert torch.equal(network(x, timestep, tokens, deep=deep, **named), plain)
        other = network(x + 0.3, timestep, tokens, deep=deep, **named)
        whole = network(x + 0.3, timestep, tokens, **named)
    assert not torch.equal(other, plain) and not torch.equal(other, whole)


def test_residuals_of_side_networks_reach_what_still_runs(tiny_model: StableDiffusion) -> None:
    network = tiny_model.parts.unet
    x, timestep, tokens, named = inputs(tiny_model)
    with torch.no_grad():
        time = torch.nn.functional.silu(network.embed_time(x, timestep, named.get("vector")))
        mid, skips = network.encode(network.enter(x), time, tokens)
        added = Residuals(down=tuple(torch.randn_like(each) for each in skips), mid=torch.randn_like(mid))
        deep = DeepFeatures(1)
        whole = network(x, timestep, tokens, residuals=added, deep=deep, **named)
        deep.reuse = True
        assert torch.equal(network(x, timestep, tokens, residuals=added, deep=deep, **named), whole)
        assert not torch.equal(network(x, timestep, tokens, deep=deep, **named), whole)


def test_a_transformer_leaves_out_its_middle_blocks() -> None:
    torch.manual_seed(0)
    config = MMDiTConfig(width=32, depth=4, heads=2, context_dim=12, vector_dim=8, positions=8, in_channels=4)
    network = MMDiT(config).requires_grad_(False).eval()
    for parameter in network.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.1)
    x, named = torch.randn(1, 4, 8, 8), {"vector": torch.randn(1, 8)}
    timestep, tokens, ran, deep = torch.tensor([500.0]), torch.randn(1, 3, 12), [0], DeepFeatures()
    for block in network.blocks:
        block.register_forward_hook(lambda *_: ran.__setitem__(0, ran[0] + 1))
    plain = network(x, timestep, tokens, **named)
    torch.testing.assert_close(network(x, timestep, tokens, deep=deep, **named), plain)
    deep.reuse = True
    torch.testing.assert_close(network(x, timestep, tokens, deep=deep, **named), plain, rtol=1e-4, atol=1e-5)
    assert ran == [4 + 4 + 2]


def test_exact_is_the_default_and_leaves_nothing_out(tiny_model: StableDiffusion) -> None:
    request = Request("a cat", **SMALL)
    assert request.speed == "exact"
    (picture,) = pictures(tiny_model, request)
    (again,) = pictures(tiny_model, Request("a cat", speed="exact", **SMALL))
    assert picture.tobytes() == again.tobytes() and "Speed" not in picture.info["parameters"]


@pytest.mark.parametrize("speed", ["fast", "fastest"])
def test_a_speed_does_less_and_is_written_and_read(tiny_model: StableDiffusion, speed: Any, tmp_path: Path) -> None:
    exact, request = Request("a cat", **SMALL), Request("a cat", speed=speed, **SMALL)
    (picture,) = pictures(tiny_model, request)
    picture.save(tmp_path / "cat.png")
    found = read_metadata(tmp_path / "cat.png").request
    assert found.speed == speed and found.token_merging is None
    (again,) = pictures(tiny_model, found.with_changes(model=None))
    assert again.tobytes() == picture.tobytes() != pictures(tiny_model, exact)[0].tobytes()
    whole, less = calls(tiny_model, exact), calls(tiny_model, request)
    assert min(less) < min(whole) and max(less) <= max(whole)


def test_token_merging_reads_a1111s_key(tiny_model: StableDiffusion) -> None:
    (picture,) = pictures(tiny_model, Request("a cat", token_merging=0.5, **SMALL))
    assert "Token merging ratio: 0.5" in picture.info["parameters"]
    assert picture.tobytes() != pictures(tiny_model, Request("a cat", **SMALL))[0].tobytes()
    assert Request("a cat", token_merging=0).token_merging == 0
    with pytest.raises(InvalidRequest, match=r"0\.75"):
        Request("a cat", token_merging=0.9)
    with pytest.raises(InvalidRequest, match="fast"):
        Request("a cat", speed="fasst")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {"image": speckled((64, 48)), "strength": 0.9},
        {"image": speckled((64, 48)), "mask": half_mask((64, 48)), "strength": 1.0},
        {"hires": {"scale": 1.5, "steps": 6}},
        {"sampler": "heun"},
        {"sampler": "dpmpp_sde"},
        {"sampler": "lms"},
        {"prompt": "a [cat|dog]"},
        {"prompt": "a cat AND a dog"},
        {"canvas": {"window": 48}},
        {"guidance_interval": (0.2, 0.8)},
        {"guidance": 1.0},
    ],
    ids=lambda more: "-".join(more),
)
def test_a_speed_goes_with_all_else(tiny_model: StableDiffusion, more: dict[str, Any]) -> None:
    settings = {"prompt": "a cat", **SMALL, **more}
    prompt = settings.pop("prompt")
    exact, fast, again = (straight(tiny_model, Request(prompt, speed=s, **settings)) for s in ("exact", "fast", "fast"))
    assert torch.equal(fast, again) and bool(torch.isfinite(fast).all())
    assert not torch.equal(fast, exact) and psnr(fast, exact) > 10


def test_picture_k_is_the_picture_alone(tiny_model: StableDiffusion) -> None:
    both = pictures(tiny_model, Request("a cat", speed="fastest", count=2, token_merging=0.4, **SMALL))
    alone = Request("a cat", speed="fastest", token_merging=0.4, **{**SMALL, "seed": 6})
    assert both[1].tobytes() == pictures(tiny_model, alone)[0].tobytes()


def test_controls_run_where_the_network_is_whole(
    tiny_model: StableDiffusion, control_file: Callable[..., Path]
) -> None:
    control = {"path": control_file(tiny_model), "image": speckled((64, 48))}
    request = Request("a cat", speed="fast", controls=[control], **SMALL)
    plain = Request("a cat", speed="fast", **SMALL)
    assert not torch.equal(straight(tiny_model, request), straight(tiny_model, plain))
    assert torch.equal(straight(tiny_model, request), straight(tiny_model, request))


def test_few_steps_have_none_to_spare(tiny_model: StableDiffusion) -> None:
    requests = [Request("a cat", speed=speed, **{**SMALL, "steps": 3}) for speed in ("exact", "fast")]
    exact, fast = (list(generate(tiny_model, request))[-1] for request in requests)
    assert isinstance(exact, Images) and isinstance(fast, Images)
    assert exact.images[0].tobytes() == fast.images[0].tobytes()
    assert any("speed is ignored" in note for note in fast.notes) and not exact.notes


def test_small_pictures_merge_only_when_asked(tiny_model: StableDiffusion) -> None:
    network = tiny_model.parts.unet
    assert Shortcuts(merging=0.5).merged(network, (8, 6)) is network
    assert Shortcuts(merging=0.5, least=0).merged(network, (8, 6)) is not network


def test_live_frames_are_the_pictures_of_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = LocalRunner(engine="torch")
    settings: dict[str, Any] = {"model": "embedded-fast", "width": 64, "height": 64, "seed": 3, "strength": 0.5}
    requests = [Request("a red apple", image=speckled((64, 64), seed=seed), **settings) for seed in (1, 2)]
    painter = LivePainter(runner, requests[0])
    for request in requests:
        *_, done = runner.run(request)
        assert isinstance(done, Images) and painter.fits(request)
        live, alone = (torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8).float() / 255
                       for i in (painter.paint(request), done.images[0]))  # fmt: skip
        assert psnr(live, alone) > 30
    more = Request("a red apple", image=requests[0].image, **{**settings, "strength": 1.0})
    assert (painter.calls, LivePainter(runner, more).calls) == (2, 4)
    assert LivePainter(runner, more).model.dtype == torch.float32, "errors of bfloat16 grow from call to call"
    assert not painter.fits(Request("a green apple", image=requests[0].image, **settings))
    with pytest.raises(InvalidRequest, match="frame"):
        LivePainter(runner, Request("a cat"))
    with pytest.raises(InvalidRequest, match="mask"):
        LivePainter(runner, Request("a cat", image=Image.new("RGB", (64, 64)), mask=Image.new("L", (64, 64))))

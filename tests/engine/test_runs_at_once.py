"""Two runs at once on one model: in threads, or stepped by turns in one, each gives what it gives alone."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import ALL, CONV, QUERY, kohya, lora_state
from PIL import Image
from safetensors.torch import save_file

from stable_diffusion.events import Images
from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig
from stable_diffusion.models.ip_adapter import IPAdapter, IPAdapterConfig, cross_attentions
from stable_diffusion.pipeline.attention import record_attention
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.control import Control
from stable_diffusion.request.request import Request
from stable_diffusion.weights.networks.clip_vision import clip_vision_transformers
from stable_diffusion.weights.networks.ip_adapter import ip_adapter_table

COMMON = {"steps": 4, "width": 64, "height": 48}


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns every ten microseconds instead of every five milliseconds, so that they meet everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def write_ip_adapter(model: StableDiffusion, folder: Path) -> Path:
    """A random IP-Adapter for a model, and beside it its image tower."""
    unet = model.parts.unet
    tower = CLIPVisionConfig(
        image_size=28, patch_size=14, width=24, layers=2, heads=2, mlp_width=32, projection_dim=20, activation="gelu"
    )
    torch.manual_seed(11)
    eye = CLIPVision(tower)
    place = folder / "image_encoder"
    place.mkdir()
    save_file(clip_vision_transformers(tower).invert(eye.state_dict()), place / "model.safetensors")
    told = {"hidden_size": 24, "num_attention_heads": 2, "hidden_act": "gelu"}
    (place / "config.json").write_text(json.dumps(told))
    widths = [attention.query.out_features for attention in cross_attentions(unet)]
    torch.manual_seed(12)
    adapter = IPAdapter(IPAdapterConfig(context_dim=unet.config.context_dim, feature_width=20, tokens=3), widths)
    state = ip_adapter_table(adapter.config, len(widths)).invert(adapter.state_dict())
    path = folder / "ip.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.fixture
def requests(tiny_model: StableDiffusion, tmp_path: Path) -> dict[str, Request]:
    """One request of every kind that asks something else of the networks."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(lora_state(tiny_model, ALL, kohya), first)
    save_file(lora_state(tiny_model, (CONV, QUERY), kohya), second)
    words = tmp_path / "words"
    words.mkdir()
    torch.manual_seed(13)
    save_file({"emb_params": torch.randn(2, tiny_model.parts.clip.config.width)}, words / "fuzzy.safetensors")
    shown = Image.effect_noise((40, 30), 90).convert("RGB")
    control = Control(write_ip_adapter(tiny_model, tmp_path), shown, weight=0.8)

    def request(prompt: str = "a red cat", **settings: Any) -> Request:
        return Request(prompt, **COMMON, seed=3, **settings)

    return {
        "plain": request(),
        "lora": request(loras=[(first, 0.9)]),
        "other lora": request(loras=[(second, 0.7), (first, -0.3)]),
        "tiling": request(canvas={"tiling": "both"}),
        "lora and tiling": request(loras=[(second, 1.0)], canvas={"tiling": "x"}),
        "ip-adapter": request(controls=[control]),
        "lora and ip-adapter": request(loras=[(first, 0.5)], controls=[control]),
        "new word": request("a (fuzzy:1.3) cat", embeddings_dir=words),
        "emphasis": request("a (fuzzy:1.3) cat", prompting={"emphasis": "No norm"}),
    }


def pixels(model: StableDiffusion, request: Request) -> bytes:
    *_, last = generate(model, request)
    assert isinstance(last, Images)
    return last.images[0].tobytes()


def together(jobs: list[Callable[[], bytes]]) -> list[bytes]:
    """Every job in a thread of its own, all begun at the same time; their errors are raised here."""
    found: list[Any] = [None] * len(jobs)
    begin = threading.Barrier(len(jobs))

    def work(index: int) -> None:
        try:
            begin.wait(60)
            found[index] = jobs[index]()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread waits for ever"
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


GROUPS = [
    ("plain", "lora", "other lora"),
    ("plain", "tiling", "lora and tiling"),
    ("plain", "ip-adapter", "lora and ip-adapter"),
    ("plain", "new word", "emphasis"),
]


@pytest.mark.parametrize("names", GROUPS, ids=[" + ".join(names[1:]) for names in GROUPS])
def test_threads_on_one_model(
    names: tuple[str, ...], tiny_model: StableDiffusion, requests: dict[str, Request], eager_switching: None
) -> None:
    alone = {name: pixels(tiny_model, requests[name]) for name in names}
    assert len(set(alone.values())) == len(names), "requests that give the same show nothing"
    for _ in range(3):
        found = together([lambda name=name: pixels(tiny_model, requests[name]) for name in names])
        wrong = [name for name, picture in zip(names, found, strict=True) if picture != alone[name]]
        assert not wrong
    assert {name: pixels(tiny_model, requests[name]) for name in names} == alone


def test_streams_by_turns_in_one_thread(tiny_model: StableDiffusion, requests: dict[str, Request]) -> None:
    """Streams that are stepped by turns, begun one after another, and one of them left half-way."""
    alone = {name: pixels(tiny_model, request) for name, request in requests.items()}
    left = generate(tiny_model, requests["other lora"])
    next(left)
    streams = {name: generate(tiny_model, request) for name, request in requests.items()}
    for events in itertools.zip_longest(*streams.values()):
        for name, event in zip(streams, events, strict=True):
            if isinstance(event, Images):
                assert event.images[0].tobytes() == alone[name], name
    left.close()
    assert pixels(tiny_model, requests["plain"]) == alone["plain"]


def test_maps_are_of_the_thread_that_records(
    tiny_model: StableDiffusion, requests: dict[str, Request], eager_switching: None
) -> None:
    unet = tiny_model.parts.unet

    def recorded(name: str) -> bytes:
        with record_attention(unet) as maps:
            picture = pixels(tiny_model, requests[name])
        heat = maps.heat([2])
        return picture + bytes([maps.count]) + heat.numpy().tobytes()

    alone = [recorded("plain"), recorded("lora"), pixels(tiny_model, requests["tiling"])]
    jobs = [lambda: recorded("plain"), lambda: recorded("lora"), lambda: pixels(tiny_model, requests["tiling"])]
    for _ in range(3):
        assert together(jobs) == alone
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_a_model_is_the_same_object_for_all(tiny_model: StableDiffusion, requests: dict[str, Request]) -> None:
    """No weight of the model moves while a run with other weights is under way."""
    state = {name: (p, p.data_ptr()) for name, p in tiny_model.parts.unet.named_parameters()}
    for name in ("lora", "lora and ip-adapter"):
        stream = generate(tiny_model, requests[name])
        next(stream)
        now = {name: (p, p.data_ptr()) for name, p in tiny_model.parts.unet.named_parameters()}
        assert now == state
        stream.close()


def test_a_lora_is_summed_once_per_run(
    tiny_model: StableDiffusion, requests: dict[str, Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stable_diffusion.adapters import attach

    sums: list[Any] = []
    real = attach._required

    def counted(*arguments: Any) -> Any:
        sums.append(arguments[2].ours)
        return real(*arguments)

    monkeypatch.setattr(attach, "_required", counted)
    list(generate(tiny_model, requests["lora"].with_changes(count=3)))
    assert sums and len(sums) == len(set(sums))

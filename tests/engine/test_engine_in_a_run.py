"""Another engine in a run: what it runs, what it refuses, and what is recorded meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file
from torch import nn

from control_files import write_controlnet
from stable_diffusion.engine.base import Engine, Features
from stable_diffusion.pipeline.attention import record_attention
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.control import Control
from stable_diffusion.request.request import Request


class Counting(Engine):
    """Runs every network as torch does, counts the calls by part, and refuses all features."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def network(self, module: nn.Module, part: str) -> Callable[..., Any]:
        run = module.decode if part == "image_decoder" else module

        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls[part] = self.calls.get(part, 0) + 1
            return run(*arguments, **named)

        return counted

    def refuses(self, features: Features) -> str | None:
        return f"counting has no {' and no '.join(features.names)}" if features.names else None

    def weights_changed(self, module: nn.Module) -> None:
        self.calls.clear()


def run(model: StableDiffusion, **settings: Any) -> tuple[dict[str, int], bytes, tuple[str, ...]]:
    """Calls by part, the picture, and the notes of a run on the counting engine; torch must give the same picture."""
    engine, request = Counting(), Request("a red cat", seed=1, steps=2, **settings)
    *_, last = generate(model, request, engine=engine)
    *_, plain = generate(model, request)
    assert last.images[0].tobytes() == plain.images[0].tobytes()
    assert plain.notes == tuple(note for note in last.notes if "torch" not in note)
    return engine.calls, last.images[0].tobytes(), last.notes


def test_a_plain_run_is_the_engine_s(tiny_model: StableDiffusion) -> None:
    calls, _, notes = run(tiny_model)
    assert calls == {"denoiser": 2, "image_decoder": 1} and notes == ()


def test_what_it_refuses_runs_on_torch_with_a_note(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    save_file(lora_state(tiny_model, ALL, kohya), lora)
    calls, _, notes = run(tiny_model, loras=[lora])
    assert calls == {"image_decoder": 1} and notes == ("this run uses torch: counting has no weight_patches",)
    calls, _, notes = run(tiny_model, width=64, height=48, canvas={"tiling": "x"})
    assert calls == {} and notes == ("this run uses torch: counting has no seamless",)
    edges = write_controlnet(tmp_path / "edges.safetensors", tiny_model.parts.unet.config)
    from PIL import Image

    control = Control(edges, Image.new("RGB", (48, 32), "red"))
    calls, _, notes = run(tiny_model, controls=[control])
    assert calls == {"image_decoder": 1} and notes == ("this run uses torch: counting has no residuals",)


def test_recorded_calls_are_torch_s(tiny_model: StableDiffusion) -> None:
    engine, request = Counting(), Request("a red cat", seed=1, steps=3)
    events = generate(tiny_model, request, engine=engine)
    next(events)
    with record_attention(tiny_model.parts.unet) as maps:
        next(events)
    list(events)
    assert maps.count == 4 and engine.calls == {"denoiser": 2, "image_decoder": 1}


@pytest.mark.parametrize("change", ["attach", "detach", "set_strength", "fuse"])
def test_an_engine_hears_of_adapters(tiny_native_model: StableDiffusion, tmp_path: Path, change: str) -> None:
    from copy import deepcopy

    model = StableDiffusion.from_parts(deepcopy(tiny_native_model.parts), name="own")
    path = tmp_path / "style.safetensors"
    paths = ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q",)
    save_file(lora_state(model, paths, kohya), path)
    engine = Counting()
    if change != "attach":
        attached = model.attach(path)
    engine.calls["stale"] = 1
    if change == "attach":
        model.attach(path)
    elif change == "set_strength":
        attached.set_strength(0.5)
    else:
        getattr(attached, change)()
    assert engine.calls == {}

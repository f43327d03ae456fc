"""The local runner: one request after another and several at once, here and in another process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Event, Images, Progress
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import ModelCache, StableDiffusion
from stable_diffusion.request.request import Request
from stable_diffusion.runner import LocalRunner, Runner
from stable_diffusion.weights.checkpoints.native import save_native


@pytest.fixture
def model_file(tiny_native_model: StableDiffusion, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_native(path, tiny_native_model.parts, dtype="float32")
    return path


def order(path: Path, **settings: Any) -> Request:
    return Request("a red cat", model=str(path), **{"steps": 2, "seed": 5, "count": 2, **settings})


def shown(events: Iterator[Event]) -> list[Any]:
    """What events say, in a form that can be compared."""
    return [
        (event.index, event.total, event.sigma, event.picture, event.preview and event.preview.tobytes())
        if isinstance(event, Progress)
        else [(image.tobytes(), image.info["parameters"]) for image in event.images]
        for event in events
    ]


def test_a_request_is_run_on_its_model(model_file: Path, tiny_native_model: StableDiffusion) -> None:
    runner: Runner = LocalRunner(ModelCache(), device="cpu")
    request = order(model_file)
    found, expected = list(runner.run(request)), list(generate(tiny_native_model, request))
    assert [type(event) for event in found] == [Progress, Progress, Images] * 2
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, Images) and isinstance(theirs, Images):
            assert [i.tobytes() for i in ours.images] == [i.tobytes() for i in theirs.images]
    with pytest.raises(InvalidRequest, match="there is no model 'nowhere'"):
        runner.run(Request("a cat", model="nowhere"))


def test_a_model_stays_in_memory_between_requests(model_file: Path) -> None:
    models = ModelCache()
    runner = LocalRunner(models, device="cpu")
    first = models.get(str(model_file), "cpu", "auto")
    list(runner.run(order(model_file, count=1)))
    assert models.get(str(model_file), "cpu", "auto") is first


def test_events_can_be_pickled(model_file: Path) -> None:
    events = list(LocalRunner(ModelCache(), device="cpu", preview_every=1).run(order(model_file)))
    again = pickle.loads(pickle.dumps(events))
    assert shown(iter(again)) == shown(iter(events))
    assert isinstance(events[0], Progress) and isinstance(events[0].preview, Image.Image)
    assert again[-1].requests == events[-1].requests and again[-1].notes == events[-1].notes
    request = order(model_file)
    assert pickle.loads(pickle.dumps(request)) == request


def serve(request: Request, queue: Any) -> None:
    """What a process for running requests does."""
    for event in LocalRunner(device="cpu", preview_every=2).run(request):
        queue.put(event)
    queue.put(None)


def test_another_process_gives_the_same(model_file: Path) -> None:
    request = order(model_file)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=serve, args=(request, queue))
    process.start()
    found = list(iter(lambda: queue.get(timeout=240), None))
    process.join(30)
    assert process.exitcode == 0
    here = LocalRunner(ModelCache(), device="cpu", preview_every=2).run(request)
    assert shown(iter(found)) == shown(here)

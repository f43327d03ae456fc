"""A server whose check of content flags every picture: nobody gets one that is not blurred, and all hear of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from served import FAST, Served, served

from stable_diffusion import Request, generate_image
from stable_diffusion.models.clip_vision import CLIPVisionConfig, ContentChecker
from stable_diffusion.weights.networks.content_checker import content_checker_table

BODY = {"prompt": "a red apple", "seed": 3, "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("content")
    config = CLIPVisionConfig(
        width=48, layers=1, heads=3, mlp_width=8, image_size=28, patch_size=14, projection_dim=8, activation="gelu"
    )
    checker = ContentChecker(config, 2, 1)
    checker.concept_thresholds.data.fill_(-2)  # nearer than this is everything
    path = folder / "checker.safetensors"
    save_file(content_checker_table(config).invert(dict(checker.state_dict())), path)
    (folder / "config.json").write_text('{"vision_config": {"hidden_size": 48, "num_attention_heads": 3}}')
    with served(folder, content_checker=path, keep_originals=True) as found:
        yield found


def distance(file: bytes) -> float:
    """How much a picture differs from its neighbours."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    return float(np.abs(np.diff(pixels, axis=0)).mean())


def test_a_flagged_picture_is_blurred_everywhere(server: Served, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    generate_image("a red apple", model=FAST, seed=3, steps=2, width=64, height=64).save(plain)
    job = server.post("/v1/jobs", BODY).json()["id"]
    server.service.queue.wait(job, 60)
    shown = server.get(f"/v1/jobs/{job}").json()
    assert shown["state"] == "done" and shown["flagged"] and shown["pictures"][0]["flagged"]
    assert shown["notes"] == ["picture 1 was flagged by the check of content and is blurred"]
    file = server.get(shown["pictures"][0]["url"]).content
    assert distance(file) < distance(plain.read_bytes()) / 2
    with Image.open(io.BytesIO(file)) as image:
        assert "Content flag: blurred, Version" in image.info["parameters"]
        assert np.asarray(image.convert("RGB")).std() > 1  # not a silent black one
    answer = server.post("/sdapi/v1/txt2img", BODY).json()
    assert '"flagged": [true]' in answer["info"] and base64.b64decode(answer["images"][0]) == file
    answer = server.post("/v1/images/generations", {"prompt": "a red apple", "size": "64x64"}).json()
    assert answer["data"][0]["flagged"] is True and "blurred" in answer["notes"][0]


def test_originals_are_kept_where_no_address_leads(server: Served) -> None:
    kept = list((server.service.settings.data / "flagged").glob("*.png"))
    assert kept and all("Content flag" not in Image.open(path).info["parameters"] for path in kept)
    found = server.get("/v1/gallery").json()["pictures"]
    assert all(picture["flagged"] for picture in found)


def test_previews_are_blurred(server: Served) -> None:
    request = Request("a red apple", model=FAST, seed=3, steps=2, width=64, height=64)
    checked = [event.preview for event in server.service.runners[0].run(request, wants_preview=lambda: True)
               if getattr(event, "preview", None) is not None]  # fmt: skip
    plain = [event.preview for event in server.service.runner.run(request, wants_preview=lambda: True)
             if getattr(event, "preview", None) is not None]  # fmt: skip
    assert checked and all(a.tobytes() != b.tobytes() for a, b in zip(checked, plain, strict=True))


def test_what_is_no_checker_is_said_at_the_start(tmp_path: Path) -> None:
    from stable_diffusion.errors import UnknownModel
    from stable_diffusion.server.app import create_app
    from stable_diffusion.server.settings import ServerSettings

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UnknownModel, match="no checker of content"):
        create_app(ServerSettings(data=tmp_path / "data", content_checker=tmp_path / "a.safetensors"))

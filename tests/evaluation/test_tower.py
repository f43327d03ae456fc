"""The eye from its files: a training run, a file of its own, and a file that leans on the embedded model's text."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_fakes import picture_of, record, write_pack

from stable_diffusion.data import tower_file
from stable_diffusion.data.bundle import Bundle
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError
from stable_diffusion.evaluation import tower as tower_module
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.evaluation.tower import Eye, load_eye, save_eye, text_hash
from stable_diffusion.models.clip import CLIPText
from stable_diffusion.models.image_tower import ImageTower, ImageTowerConfig
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.text.tokenizer import Tokenizer
from stable_diffusion.training.warm_start import warm_start
from stable_diffusion.weights.containers.safetensors import write_safetensors

WORDS = ["a red cat", "猫", "two dogs"]


@pytest.fixture
def eye(tiny_native_parts: Any, tiny_native_tokenizer: Tokenizer) -> Eye:
    """An untrained tower beside the text encoder of the tiny model."""
    torch.manual_seed(4)
    config = ImageTowerConfig(channels=(8, 12), groups=4, projection_dim=12)
    return Eye(
        tower=ImageTower(config).eval().requires_grad_(False),
        text=tiny_native_parts.clip,
        tokenizer=tiny_native_tokenizer,
        tokenizer_json=str(tiny_native_parts.tokenizer.json),
        size=8,
        name="tiny",
    )


@pytest.fixture
def embedded(tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> StableDiffusion:
    """The tiny model as the embedded one."""
    monkeypatch.setattr(tower_file, "load_parts", lambda path: copy.deepcopy(tiny_native_model.parts))
    return tiny_native_model


def same(first: Eye, second: Eye, tolerance: float = 0.0) -> None:
    pictures = torch.stack([picture_of("a"), picture_of("b")])
    for a, b in (
        *zip(first.look(pictures), second.look(pictures), strict=True),
        (first.read(WORDS), second.read(WORDS)),
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def run_folder(folder: Path, eye: Eye, stage: str = "text") -> Path:
    """What a text-stage run leaves behind."""
    state = {f"ema.tower.{name}": tensor for name, tensor in eye.tower.state_dict().items()}
    state |= {f"ema.text.{name}": tensor for name, tensor in eye.text.state_dict().items()}
    state |= {f"model.text.{name}": tensor + 1 for name, tensor in eye.text.state_dict().items()}
    facts = {"tower": eye.tower.config.to_dict(), "text": eye.text.config.to_dict()}
    about = {"stage": stage, "facts": facts, "config": {"size": 8}}
    folder.mkdir()
    metadata = {"format": "stable_diffusion.training.v1", "state": json.dumps(about)}
    write_safetensors(folder / "checkpoint.safetensors", state, metadata)
    return folder


def test_a_training_run_with_its_pack_s_tokenizer(tmp_path: Path, eye: Eye) -> None:
    folder = run_folder(tmp_path / "text", eye)
    loaded = load_eye(folder, tokenizer=eye.tokenizer_json)
    same(loaded, eye)
    assert loaded.size == 8 and loaded.name == "text"
    with pytest.raises(InvalidRequest, match="holds no tokenizer"):
        load_eye(folder)
    with pytest.raises(InvalidRequest, match="of the stage 'vae'"):
        load_eye(run_folder(tmp_path / "vae", eye, "vae"), tokenizer=eye.tokenizer_json)


def test_a_file_of_its_own_needs_nothing_beside_it(tmp_path: Path, eye: Eye) -> None:
    same(load_eye(save_eye(tmp_path / "a.safetensors", eye, dtype="float32")), eye)
    same(load_eye(save_eye(tmp_path / "b.safetensors", eye, dtype="int8")), eye, 0.05)


def test_a_file_that_leans_on_the_embedded_model(tmp_path: Path, eye: Eye, embedded: StableDiffusion) -> None:
    path = save_eye(tmp_path / "a.safetensors", eye, dtype="float32", text="embedded")
    loaded = load_eye(path)
    same(loaded, eye)
    assert loaded.text is not embedded.parts.clip  # what is attached to the model never reaches the judge
    own = save_eye(tmp_path / "b.safetensors", eye, dtype="float32")
    assert path.stat().st_size < 0.6 * own.stat().st_size
    same(load_eye(save_eye(tmp_path / "c.safetensors", loaded, dtype="float32")), eye)


def changed(eye: Eye, amount: float) -> CLIPText:
    """Another text encoder: every weight of the tiny one moved."""
    clip = CLIPText(eye.text.config)
    generator = torch.Generator().manual_seed(1)
    moved = {k: v + amount * torch.randn(v.shape, generator=generator) for k, v in eye.text.state_dict().items()}
    clip.load_state_dict(moved)
    return clip.eval().requires_grad_(False)


def test_another_text_encoder_is_refused(tmp_path: Path, eye: Eye, embedded: StableDiffusion) -> None:
    stranger = dataclasses.replace(eye, text=changed(eye, 1.0))
    with pytest.raises(InvalidRequest, match="another text encoder than the embedded model's"):
        save_eye(tmp_path / "a.safetensors", stranger, text="embedded")
    assert not list(tmp_path.iterdir())
    save_eye(tmp_path / "b.safetensors", dataclasses.replace(eye, text=changed(eye, 1e-4)), text="embedded")
    with pytest.raises(InvalidRequest, match="'own'"):
        save_eye(tmp_path / "c.safetensors", eye, text="owned")


def test_a_tower_of_an_earlier_embedded_model_is_refused(
    tmp_path: Path, eye: Eye, embedded: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_eye(tmp_path / "a.safetensors", eye, text="embedded")
    parts = dataclasses.replace(embedded.parts, clip=changed(eye, 1e-4))
    monkeypatch.setattr(tower_file, "load_parts", lambda path: parts)
    with pytest.raises(BrokenModel, match="another embedded model"):
        load_eye(path)
    with pytest.raises(BrokenModel, match="another embedded model"):
        warm_start({"tower": eye.tower, "text": eye.text}, path)


def test_the_hash_is_of_numbers_and_tokenizer(eye: Eye) -> None:
    first = text_hash(eye.text, "a")
    assert first == text_hash(eye.text, "a") != text_hash(eye.text, "b")
    assert first != text_hash(changed(eye, 1e-4), "a")


def test_other_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no image tower"):
        load_eye(tmp_path / "nowhere")
    write_safetensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"format": "pt"})
    with pytest.raises(ModelFileError, match="has the format 'pt'"):
        load_eye(tmp_path / "x.safetensors")
    metadata = {"format": "stable_diffusion.tower.v1", "config": "{}"}
    write_safetensors(tmp_path / "y.safetensors", {"a": torch.ones(1)}, metadata)
    with pytest.raises(BrokenModel, match="config is missing or damaged"):
        load_eye(tmp_path / "y.safetensors")


def test_the_script_that_makes_the_judges(tmp_path: Path, eye: Eye, embedded: StableDiffusion) -> None:
    """A tower file, and held-out pictures of a tiny pack at half its size with the sources that they need."""
    items = [(record(k, "heldout", f"new {k}"), picture_of(f"new {k}")) for k in range(12)]
    items += [(record(k, "heldout", "new 3", id=f"twin/{k}"), picture_of(f"twin {k}")) for k in range(12)]
    items.append((record(0, "train", "old"), picture_of("old")))
    pack = write_pack(tmp_path / "pack", items)
    manifest = json.loads((tmp_path / "pack" / "pack.json").read_text())
    sources = [{"name": "made", "licence": "MIT"}, {"name": "unused", "licence": "?"}]
    (tmp_path / "pack" / "pack.json").write_text(json.dumps({**manifest, "sources": sources}))
    (tmp_path / "pack" / "tokenizer.json").write_text(eye.tokenizer_json, encoding="utf-8")
    file = Path(__file__).resolve().parents[2] / "scripts" / "embedded_judges.py"
    spec = importlib.util.spec_from_file_location("embedded_judges", file)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    run = run_folder(tmp_path / "text", eye)
    script.main(
        ["--data", str(tmp_path / "pack"), "--tower", str(run), "--count", "12", "--size", "4", "--out", str(tmp_path)]
    )
    same(load_eye(tmp_path / "tower.safetensors"), eye, 0.05)
    few = PicturePack(tmp_path / "heldout.zip")
    assert len(few.records) == 12 and few.size == 4 and len(few.distinct("heldout")) >= 8
    assert isinstance(few.pack, Bundle) and few.pack.sources == sources[:1]
    assert {record.split for record in few.records} == {"heldout"}
    small, _ = script.bundle(pack, 12, 4, 2500)
    assert len(small) <= 2500


def test_an_embedding_is_the_mean_of_five_views(eye: Eye) -> None:
    picture = torch.rand(3, 4, 8, 8)
    views = [tower_module._view(eye._prepared(picture), *view) for view in tower_module.VIEWS]
    with torch.no_grad():
        seen = [torch.nn.functional.normalize(eye.tower(view).embedding, dim=-1) for view in views]
        plain = eye.tower(views[0]).features.mean(dim=(2, 3))
    expected = torch.nn.functional.normalize(torch.stack(seen).mean(dim=0), dim=-1)
    torch.testing.assert_close(eye.look(picture).embedding, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(expected, seen[0], atol=1e-4)
    torch.testing.assert_close(eye.look(picture).features, plain)


def test_a_view_moves_the_picture_and_brings_in_nothing() -> None:
    image = torch.full((1, 4, 8, 8), -1.0)
    image[:, :, 2, 3] = 1.0
    moved = tower_module._view(image, 1.0, 0.25)  # by one pixel of eight: the view goes right and down
    expected = torch.full_like(image, -1.0)
    expected[:, :, 1, 2] = 1.0
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(tower_module._view(torch.ones(1, 4, 8, 8), 1.0, 0.25)[:, :, 7], -torch.ones(1, 4, 8))

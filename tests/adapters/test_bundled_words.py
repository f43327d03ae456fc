"""Words that come with a LoRA, and files of words of pivotal tuning: they work as words of their own files do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import ALL, kohya, lora_state
from PIL import Image
from safetensors.torch import save_file

from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.textual_inversion import read_embedding
from stable_diffusion.errors import BrokenModel
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import StableDiffusion

WIDTH = 24
VECTORS = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(5))
FORMS = {
    "A1111": {"bundle_emb.zqx.string_to_param.*": VECTORS},
    "kohya": {"bundle_emb.zqx.emb_params": VECTORS},
    "OneTrainer": {"bundle_emb.zqx.clip_l": VECTORS},
    "two encoders": {"bundle_emb.zqx.clip_l": VECTORS, "bundle_emb.zqx.clip_g": torch.randn(2, 40)},
}


def paint(model: StableDiffusion, prompt: str, **settings: Any) -> Image.Image:
    image = generate_image(prompt, model=model, seed=1, steps=2, **settings)
    assert isinstance(image, Image.Image)
    return image


@pytest.fixture
def words(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    folder.mkdir()
    save_file({"emb_params": VECTORS}, folder / "zqx.safetensors")
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_every_form_works_as_a_word(
    form: str, ending: str, tiny_model: StableDiffusion, words: Path, tmp_path: Path
) -> None:
    plain = lora_state(tiny_model, ALL, kohya)
    save_file(plain, tmp_path / "style.safetensors")
    want = paint(tiny_model, "a zqx", loras=[tmp_path / "style.safetensors"], embeddings_dir=words)
    assert want.tobytes() != paint(tiny_model, "a zqx", loras=[tmp_path / "style.safetensors"]).tobytes()
    path = tmp_path / "loras" / f"both.{ending}"
    path.parent.mkdir()
    (save_file if ending == "safetensors" else torch.save)({**plain, **FORMS[form]}, path)
    assert paint(tiny_model, "a zqx", loras=[path]).tobytes() == want.tobytes()
    assert paint(tiny_model, "a zqx <lora:both>", lora_dir=path.parent).tobytes() == want.tobytes()
    assert paint(tiny_model, "a cat", negative_prompt="zqx", loras=[path]).tobytes() != want.tobytes()
    with tiny_model.attach(path) as attachment:
        assert attachment.unmatched == ()
        assert paint(tiny_model, "a zqx").tobytes() == want.tobytes()
    after = paint(tiny_model, "a zqx")
    assert after.tobytes() == paint(tiny_model, "a zqx").tobytes() != want.tobytes()
    facts = adapter_facts(path, hashes=False)
    assert facts is not None and facts["bundled_words"] == ["zqx"] and facts["unknown_tensors"] == 0


def test_several_words_with_odd_names(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    state = lora_state(tiny_model, ALL, kohya)
    for word in ("<my-cat>", "v1.5 style", "two words"):
        state[f"bundle_emb.{word}.string_to_param.*"] = torch.randn(1, WIDTH)
    save_file(state, tmp_path / "many.safetensors")
    plain = paint(tiny_model, "a cat", loras=[tmp_path / "many.safetensors"])
    for word in ("<my-cat>", "v1.5 style", "two words"):
        assert paint(tiny_model, f"a {word}", loras=[tmp_path / "many.safetensors"]).tobytes() != plain.tobytes()
    assert {name for each in read_adapter(tmp_path / "many.safetensors").words for name in each.names} == {
        "<my-cat>", "v1.5 style", "two words"}  # fmt: skip


def test_words_alone_and_words_that_do_not_fit(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    save_file({"bundle_emb.zqx.emb_params": VECTORS, "bundle_emb.wide.emb_params": torch.randn(1, 999),
               "bundle_emb.zqx.t5": torch.randn(1, 64), "bundle_emb.zqx.clip_l_out": VECTORS + 0}, path)  # fmt: skip
    assert paint(tiny_model, "a zqx", loras=[path]).tobytes() != paint(tiny_model, "a zqx").tobytes()
    with pytest.raises(BrokenModel, match=r"embedding of width 999; this model's text encoder has width 24"):
        paint(tiny_model, "a wide cat", loras=[path])
    assert sorted(read_adapter(path).unknown) == ["bundle_emb.zqx.clip_l_out", "bundle_emb.zqx.t5"]


def test_a_bundled_word_that_is_broken_is_said(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    state = {**lora_state(tiny_model, ALL, kohya), "bundle_emb.zqx.emb_params": VECTORS * float("nan")}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel, match="not finite"):
        tiny_model.attach(tmp_path / "a.safetensors")


# --- pivotal tuning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("text_encoders_0", "text_encoders_1"), ("clip_l", "clip_g")])
def test_a_pti_holds_vectors_for_two_encoders(names: tuple[str, str], tmp_path: Path) -> None:
    second = torch.randn(2, 40)
    save_file({names[0]: VECTORS, names[1]: second}, tmp_path / "embeddings.pti")
    embedding = read_embedding(tmp_path / "embeddings.pti")
    assert torch.equal(embedding.fitting([WIDTH, 40]), torch.cat([VECTORS, second], dim=1))
    assert torch.equal(embedding.fitting([WIDTH]), VECTORS) and "embeddings" in embedding.names
    facts = adapter_facts(tmp_path / "embeddings.pti", hashes=False)
    assert facts is not None and facts["kind"] == "textual inversion embedding" and facts["vectors"] == 2


def test_the_words_of_a_pti_are_those_of_its_prompts(tiny_model: StableDiffusion, words: Path) -> None:
    """TOK of the file beside it, the tokens that it stands for, and the file's own name."""
    want = paint(tiny_model, "a zqx cat", embeddings_dir=words)
    save_file({"text_encoders_0": VECTORS, "text_encoders_1": torch.randn(2, 40)}, words / "embeddings.pti")
    (words / "special_params.json").write_text(json.dumps({"TOK": "<s0><s1>"}))
    for word in ("embeddings", "TOK", "<s0><s1>"):
        assert paint(tiny_model, f"a {word} cat", embeddings_dir=words).tobytes() == want.tobytes()
    embedding = tiny_model.add_embedding(words / "embeddings.pti", "mine")
    assert embedding.names == ("mine",)
    assert paint(tiny_model, "a mine cat").tobytes() == want.tobytes()
    tiny_model.text_encoder.embeddings = {}


@pytest.mark.parametrize("text", ["", "[1", '{"TOK": 3}', '["TOK"]', "[" * 5000])
def test_what_lies_beside_a_pti_is_a_hint(text: str, tmp_path: Path) -> None:
    save_file({"text_encoders_0": VECTORS}, tmp_path / "a.pti")
    (tmp_path / "special_params.json").write_text(text)
    assert read_embedding(tmp_path / "a.pti").names == ("a", "<s0><s1>")

"""Embeddings of every layout, by name in a prompt, several vectors per word."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.adapters.textual_inversion import read_embedding
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.weights.containers.hashes import sha256

WIDTH = 24
VECTORS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(8))


def a1111(path: Path, name: str = "fluffy") -> Path:
    data = {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": name, "step": 500}
    torch.save(data, path)
    return path


def as_parameter(path: Path) -> Path:
    torch.save({"string_to_param": {"*": torch.nn.Parameter(VECTORS)}, "name": "fluffy"}, path)
    return path


def as_module(path: Path) -> Path:
    """As the authors of textual inversion saved theirs."""
    held = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": held}, path)
    return path


def diffusers_bin(path: Path) -> Path:
    torch.save({"<fluffy>": VECTORS[0]}, path)
    return path


def emb_params(path: Path) -> Path:
    save_file({"emb_params": VECTORS}, path)
    return path


def two_encoders(path: Path) -> Path:
    save_file({"clip_l": VECTORS, "clip_g": torch.randn(3, 40)}, path)
    return path


LAYOUTS = [
    (a1111, "a.pt", ("a", "fluffy"), 3),
    (as_parameter, "b.pt", ("b", "fluffy"), 3),
    (as_module, "m.pt", ("m",), 3),
    (diffusers_bin, "c.bin", ("c", "<fluffy>"), 1),
    (emb_params, "d.safetensors", ("d",), 3),
    (two_encoders, "e.safetensors", ("e",), 3),
]


@pytest.mark.parametrize(("write", "file", "names", "count"), LAYOUTS, ids=[layout[0].__name__ for layout in LAYOUTS])
def test_every_layout(write: Any, file: str, names: tuple[str, ...], count: int, tmp_path: Path) -> None:
    embedding = read_embedding(write(tmp_path / file))
    assert embedding.names == names
    assert torch.equal(embedding.fitting([WIDTH]), VECTORS[:count])
    assert read_embedding(tmp_path / file, "mine").names == ("mine",)


def test_the_vectors_stand_where_tokens_would(tiny_model: StableDiffusion) -> None:
    """A word whose vectors are those of known tokens is encoded like these tokens, bit for bit."""
    encoder, clip = tiny_model.text_encoder, tiny_model.parts.clip
    ids = encoder.tokenizer.encode("red cat")
    vectors = clip.token_embedding.weight[ids].detach().clone()
    plain = encoder("a photo of (red cat:1.3), on a mat")
    knowing = encoder.with_embeddings({"my-style": vectors, "other": vectors[:1] * 9})
    for written in ("my-style", "My-Style", "embedding:my-style"):
        new = knowing(f"a photo of ({written}:1.3), on a mat")
        assert torch.equal(new.tokens, plain.tokens)
    assert not torch.equal(knowing("a photo of my-styles").tokens, knowing("a photo of my-style s").tokens)
    words = {word.text: len(word.positions) for word in knowing.words("a my-style mat")}
    assert words == {"a": 1, "my-style": 2, "mat": 1}
    assert knowing.encode("my-style " * 60, max_windows=1).dropped.startswith("my-style my-style")
    assert encoder.embeddings == {}
    with pytest.raises(InvalidRequest, match=r"expected a name and \[n, 24\]"):
        encoder.embeddings = {"wide": torch.ones(1, 25)}


def test_an_added_embedding_and_one_of_the_folder_paint_the_same(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    folder.mkdir()
    path = a1111(folder / "fuzzy.pt")
    emb_params(folder / "unused.safetensors")

    def paint(prompt: str, **settings: Any) -> Any:
        return generate_image(prompt, model=tiny_model, seed=1, steps=2, **settings)

    plain = paint("a fuzzy cat")
    styled = paint("a fuzzy cat", embeddings_dir=folder)
    assert styled.tobytes() != plain.tobytes()
    assert read_metadata(styled).values["TI hashes"] == f"fuzzy: {sha256(path)[:12]}"
    assert "TI hashes" not in read_metadata(paint("a cat", embeddings_dir=folder)).values
    assert paint("a cat", negative_prompt="fuzzy", embeddings_dir=folder).tobytes() != paint("a cat").tobytes()
    assert paint("a fuzzy cat").tobytes() == plain.tobytes(), "an embedding of one request stays in it"
    tiny_model.add_embedding(path)
    try:
        added = paint("a fuzzy cat")
        assert added.tobytes() == styled.tobytes() == paint("a fluffy cat").tobytes()
        assert read_metadata(added).values["TI hashes"] == f"fuzzy: {sha256(path)[:12]}"
    finally:
        tiny_model.text_encoder.embeddings = {}
        tiny_model._embeddings.clear()


def test_an_embedding_for_another_model_is_one_sentence(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "wide.safetensors")
    with pytest.raises(BrokenModel, match="of width 768; this model's text encoder has width 24"):
        tiny_model.add_embedding(tmp_path / "wide.safetensors")
    with pytest.raises(BrokenModel, match="width 768"):
        generate_image("a wide cat", model=tiny_model, embeddings_dir=tmp_path)


def test_a_model_with_two_text_encoders_takes_both_parts(tmp_path: Path) -> None:
    embedding = read_embedding(two_encoders(tmp_path / "two.safetensors"))
    both = embedding.fitting([WIDTH, 40])
    assert both.shape == (3, WIDTH + 40) and torch.equal(both[:, :WIDTH], VECTORS)
    assert torch.equal(embedding.fitting([40]), both[:, WIDTH:]), "a refiner has the second encoder alone"
    with pytest.raises(BrokenModel, match="of width 24; this model's text encoders have width 24 and 40"):
        read_embedding(emb_params(tmp_path / "one.safetensors")).fitting([WIDTH, 40])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch broken",)


def test_unusable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = a1111(tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    torch.save({"string_to_param": {"*": VECTORS}, "name": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"string_to_param": Evil()}))
    save_file({"emb_params": torch.full((2, WIDTH), float("inf"))}, tmp_path / "inf.safetensors")
    save_file({"emb_params": torch.ones(1000, WIDTH)}, tmp_path / "many.safetensors")
    save_file({"emb_params": torch.ones(2, WIDTH, 1)}, tmp_path / "deep.safetensors")
    save_file({"<word>": torch.ones(WIDTH).int()}, tmp_path / "ints.safetensors")
    for path in sorted(tmp_path.iterdir()):
        if path.name == "good.pt":
            continue
        with pytest.raises(ModelFileError) as caught:
            read_embedding(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "broken").exists()
    save_file(
        {"a.lora_up.weight": torch.ones(4, 2), "a.lora_down.weight": torch.ones(2, 4)}, tmp_path / "l.safetensors"
    )
    save_file({"<a>": torch.ones(768), "<b>": torch.ones(768)}, tmp_path / "two.safetensors")
    with pytest.raises(UnknownModel, match="has 2 words, <a>, <b>; a file of one is expected"):
        read_embedding(tmp_path / "two.safetensors")
    with pytest.raises(UnknownModel, match="is a LoRA; expected a textual inversion embedding"):
        read_embedding(tmp_path / "l.safetensors")

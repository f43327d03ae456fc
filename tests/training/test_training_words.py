from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import settings

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import load_part
from stable_diffusion.training.data import TrainingPack
from stable_diffusion.training.distributed import join_world
from stable_diffusion.training.run import Context, build_stage, load_config, train
from stable_diffusion.training.stages import lexicon as lexicon_module
from stable_diffusion.training.stages.lexicon import Lexicon, build_lexicon, nearest_names
from stable_diffusion.training.stages.negatives import wrong


def test_a_lexicon_pairs_words_with_their_names_and_every_name_with_itself(pack_folder: Path) -> None:
    found = build_lexicon(pack_folder, None, torch.device("cpu"))
    pairs = {word: found.names[number] for word, number in zip(found.words, found.owner, strict=True)}
    assert pairs == {
        "crimson": "red disc",
        "scarlet": "red disc",
        "azure": "blue disc",
        "emerald": "green disc",
        "red disc": "red disc",
        "blue disc": "blue disc",
        "green disc": "green disc",
    }


def test_words_without_a_name_go_to_the_nearest_in_the_teachers_eyes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = {"a inferno": [1.0, 0.1], "a tax": [-1.0, 0.0], "a fire": [1.0, 0.0], "a sea": [0.0, 1.0]}

    def read(texts: list[str], cache: Path, device: torch.device) -> np.ndarray[Any, Any]:
        rows = np.array([table[text] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(lexicon_module, "sentence_vectors", read)
    assert nearest_names(["inferno", "tax"], ["fire", "sea"], tmp_path, torch.device("cpu")) == [0, -1]


def test_words_are_drawn_by_seed_and_step_alone() -> None:
    lexicon = Lexicon(["mallard", "椅子", "duck", "chair"], [0, 1, 0, 1], ["duck", "chair"])
    words, names, owner = lexicon.choose(50, seed=1, step=3)
    again = lexicon.choose(50, seed=1, step=3)
    assert (words, names) == again[:2] and owner.tolist() == again[2].tolist()
    assert words != lexicon.choose(50, seed=1, step=4)[0]
    assert {"mallard", "a mallard", "a picture of a mallard", "椅子"} <= set(words)
    assert all(("duck" in name) == (number == 0) for name, number in zip(names, owner, strict=True))


@pytest.mark.parametrize("text", ["", "mallard\tduck\tbird\n", "\tduck\n"])
def test_a_broken_lexicon_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lexicon.tsv").write_text(text)
    with pytest.raises(InvalidRequest, match="expected a word, a tab"):
        build_lexicon(tmp_path, None, torch.device("cpu"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        build_lexicon(tmp_path / "none", None, torch.device("cpu"))


@pytest.mark.parametrize(
    ("caption", "possible"),
    [
        ("two cats", {"three cats"}),
        ("a bird above a house", {"a bird below a house"}),
        ("一只猫在房子左边", {"一只猫在房子右边"}),
        ("at night", {"at day", "at sunrise", "at sunset", "at noon"}),
        ("a banana", {None}),
        ("a sunday", {None}),
    ],
)
def test_a_wrong_caption_differs_in_one_word(caption: str, possible: set[str | None]) -> None:
    random = np.random.default_rng(0)
    assert {wrong(caption, random) for _ in range(40)} <= possible


def test_the_article_follows_the_wrong_colour() -> None:
    random = np.random.default_rng(0)
    found = {wrong("a banana and a red house", random) for _ in range(200)}
    assert "a banana and an orange house" in found and len(found) == 11
    assert not any("an blue" in str(text) or "a orange" in str(text) for text in found)


def text_stage(pack: Path, out: Path, **more: Any) -> Any:
    config = load_config("text", None, settings("text", {}, **more))
    return build_stage("text", config, Context(TrainingPack(pack), join_world("cpu"), out))


def test_jitter_moves_pictures_and_leaves_transparency_outside(pack_folder: Path, tmp_path: Path) -> None:
    stage: Any = build_stage(
        "text",
        load_config("text", None, settings("text", {}, jitter=0.3)),
        Context(TrainingPack(pack_folder), join_world("cpu"), tmp_path),
    )
    picture = torch.ones(3, 4, 16, 16)
    moved = stage._jittered(picture, step=1)
    assert moved.shape == picture.shape and torch.equal(moved, stage._jittered(picture, step=1))
    assert not torch.equal(moved, stage._jittered(picture, step=2))
    assert moved.min() == -1 and moved.max() <= 1 + 1e-5
    assert moved.mean(dim=(1, 2, 3)).unique().numel() == 3  # every picture its own way


def test_negatives_follow_their_captions(pack_folder: Path, tmp_path: Path) -> None:
    stage: Any = build_stage(
        "text",
        load_config("text", None, settings("text", {}, negatives=1.0)),
        Context(TrainingPack(pack_folder), join_world("cpu"), tmp_path),
    )
    number = stage.captions.texts.index("a red disc")
    ids = stage.captions.ids[[number, number, number]].long()
    longer, owner = stage._with_negatives(ids, np.array([number, -1, number]), step=0)
    assert owner == [0, 2] and len(longer) == 5
    assert torch.equal(longer[:3], ids) and not any(torch.equal(row, ids[0]) for row in longer[3:])


def test_a_frozen_text_encoder_stays_as_it_is(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    before = load_part(runs["text"], "text")[0]
    more = {"start_from": str(runs["text"]), "text_learning_rate": 0.0, "lexicon_weight": 0.0, "steps": 2}
    train("text", data=pack_folder, out=tmp_path, overrides=settings("text", runs, **more), device="cpu")
    after, tower = load_part(tmp_path, "text")[0], load_part(tmp_path, "tower")[0]
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    old = load_part(runs["text"], "tower")[0]
    assert any(not torch.equal(value, old[name]) for name, value in tower.items())

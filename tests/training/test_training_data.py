from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.config import DataConfig
from stable_diffusion.training.data import (
    Captions,
    Order,
    TrainingPack,
    encode_texts,
    load_tokenizer,
    special_ids,
    to_network,
    to_pictures,
)


def test_selection_by_kind_style_split_and_limit(pack_folder: Path) -> None:
    pack = TrainingPack(pack_folder)
    assert len(pack.records) == 20
    train, held = pack.select(DataConfig()), pack.select(DataConfig(), "heldout")
    assert len(train) == 16 and len(held) == 4 and not set(train) & set(held)
    glyphs = pack.select(DataConfig(kinds=("glyph",)))
    assert {pack.records[i].kind for i in glyphs} == {"glyph"}
    plain = pack.select(DataConfig(exclude_styles=("bold",)))
    assert {pack.records[i].style for i in plain} == {"flat"}
    assert len(pack.select(DataConfig(limit=3))) == 3
    with pytest.raises(InvalidRequest, match="no 'train' record"):
        pack.select(DataConfig(kinds=("scene",)))


def test_selection_by_concept_and_shard(pack_folder: Path) -> None:
    pack = TrainingPack(pack_folder)
    chosen = pack.select(DataConfig(concepts=("red disc", "*ue disc")))
    assert {pack.records[i].concept for i in chosen} == {"red disc", "blue disc"}
    everything = pack.select(DataConfig())
    assert [i for i in everything if pack.records[i].concept in ("red disc", "blue disc")] == chosen.tolist()
    small = pack.select(DataConfig(concepts=("red disc",), shards=("b",)))
    assert {(pack.records[i].concept, pack.records[i].shard) for i in small} == {("red disc", 1)}
    with pytest.raises(InvalidRequest, match=r"'rod disc'.*'red disc'"):
        pack.select(DataConfig(concepts=("red disc", "rod disc")))
    with pytest.raises(InvalidRequest, match="shard of the data pack 'c'"):
        pack.select(DataConfig(shards=("c",)))


def test_weights_multiply_and_unknown_names_are_errors(pack_folder: Path) -> None:
    pack = TrainingPack(pack_folder)
    rows = pack.select(DataConfig())
    config = DataConfig(weights={"glyph": 0.5, "flat": 3.0})
    for row, weight in zip(rows, pack.weights(rows, config), strict=True):
        record = pack.records[row]
        assert weight == (0.5 if record.kind == "glyph" else 1.0) * (3.0 if record.style == "flat" else 1.0)
    with pytest.raises(InvalidRequest, match="glif"):
        pack.weights(rows, DataConfig(weights={"glif": 1.0}))


def test_weights_of_concepts_and_shards_by_pattern(pack_folder: Path) -> None:
    pack = TrainingPack(pack_folder)
    rows = pack.select(DataConfig())
    weights = pack.weights(rows, DataConfig(weights={"b*": 0.5, "a": 2.0, "*een disc": 0.1}))
    for row, weight in zip(rows, weights, strict=True):
        record = pack.records[row]
        expected = 2.0 if record.shard == 0 else 0.5  # shard "b" and concept "blue disc" begin with b, as does "bold"
        expected *= (0.5 if record.concept == "blue disc" else 1.0) * (0.5 if record.style == "bold" else 1.0)
        assert weight == pytest.approx(expected * (0.1 if record.concept == "green disc" else 1.0))


def test_pictures_come_from_the_right_shard(pack_folder: Path) -> None:
    pack = TrainingPack(pack_folder)
    images = np.load(pack_folder / "b" / "images.npy")
    np.testing.assert_array_equal(pack.pictures([8 + 5]), images[5:6])


@pytest.mark.parametrize("damage", ["manifest", "missing", "shape", "lines"])
def test_damaged_packs_are_one_sentence(pack_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(pack_folder, folder)
    if damage == "manifest":
        (folder / "pack.json").write_text("{}")
    elif damage == "missing":
        (folder / "a" / "images.npy").unlink()
    elif damage == "shape":
        np.save(folder / "a" / "images.npy", np.zeros((8, 9, 9, 4), np.uint8))
    else:
        (folder / "a" / "records.jsonl").write_text(json.dumps({"id": "x"}) + "\n")
    with pytest.raises(InvalidRequest):
        TrainingPack(folder)
    with pytest.raises(InvalidRequest, match="not a data pack"):
        TrainingPack(tmp_path / "nowhere")


def test_resizing_averages_premultiplied_colour() -> None:
    """A red opaque pixel beside an invisible green one: the mean is half-opaque red, with no green."""
    picture = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    picture[0, :, 0] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    picture[0, :, 1] = torch.tensor([0, 255, 0, 0], dtype=torch.uint8)
    small = to_network(picture, 1)
    torch.testing.assert_close(small.flatten(), torch.tensor([0.0, -1.0, -1.0, 0.0]))
    np.testing.assert_array_equal(to_pictures(small)[0, 0, 0], [255, 0, 0, 128])
    np.testing.assert_array_equal(to_pictures(small, background=1.0)[0, 0, 0], [255, 128, 128])


def test_network_round_trip(pack_folder: Path) -> None:
    pictures = TrainingPack(pack_folder).pictures([0, 9])
    back = to_pictures(to_network(torch.from_numpy(pictures), 16))
    visible = pictures[..., 3] > 0
    np.testing.assert_array_equal(back[visible], pictures[visible])
    np.testing.assert_array_equal(back[..., 3], pictures[..., 3])


def test_order_is_a_function_of_seed_and_position() -> None:
    weights = np.ones(10)
    one, other = Order(weights, 3), Order(weights, 3)
    other.batch(40, 4)
    for step in (0, 7, 2):
        np.testing.assert_array_equal(one.batch(step, 4), other.batch(step, 4))
    assert not np.array_equal(one.batch(0, 10), Order(weights, 4).batch(0, 10))
    assert sorted(one.batch(0, 10)) == list(range(10))  # an epoch is a permutation
    assert not np.array_equal(one.batch(0, 10), one.batch(1, 10))


def test_order_follows_weights_within_one_draw() -> None:
    order = Order(np.array([0.5, 2.0, 0.0, 1.5]), 0)
    assert order.length == 4
    counts = np.bincount(np.concatenate([order.epoch(n) for n in range(50)]), minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts / 50, [0.5, 2.0, 0.0, 1.5], atol=0.2)
    for bad in ([], [0.0, 0.0], [1.0, np.nan], [1.0, -1.0]):
        with pytest.raises(InvalidRequest):
            Order(np.array(bad), 0)


def test_ranks_share_the_global_batch() -> None:
    order = Order(np.ones(50), 1)
    parts = [order.batch(3, 6, rank, 3) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), order.batch(3, 6))


def test_captions_choice(pack_folder: Path) -> None:
    pack, tokenizer = TrainingPack(pack_folder), load_tokenizer(pack_folder)
    rows = pack.select(DataConfig())
    captions = Captions(pack, rows, tokenizer, 10)
    every = np.arange(len(rows)).repeat(200)
    chosen = dict(seed=1, step=2, first=0, chinese=0.25, dropout=0.1)
    ids, numbers = captions.choose(every, **chosen)  # type: ignore[arg-type]
    again, _ = captions.choose(every[5:9], **{**chosen, "first": 5})  # type: ignore[arg-type]
    assert torch.equal(again, ids[5:9])  # position in the global batch decides
    assert abs((numbers < 0).mean() - 0.1) < 0.03
    assert all(torch.equal(row, captions.empty) for row in ids[torch.from_numpy(numbers < 0)])
    spans = captions.spans[every]
    is_chinese = (numbers >= spans[:, 2]) & (numbers >= 0)
    assert abs(is_chinese[numbers >= 0].mean() - 0.25) < 0.04
    assert ((numbers < 0) | ((numbers >= spans[:, 0]) & (numbers < spans[:, 3]))).all()
    never, _ = captions.choose(every, **{**chosen, "dropout": 0.0})  # type: ignore[arg-type]
    assert not (never == captions.empty).all(dim=1).any()


def test_encoding_pads_and_cuts(pack_folder: Path) -> None:
    tokenizer = load_tokenizer(pack_folder)
    start, end = special_ids(tokenizer)
    ids = encode_texts(tokenizer, ["ab", "abcdefghij", ""], 6)
    assert ids.shape == (3, 6)
    assert list(ids[2]) == [start] + [end] * 5
    assert ids[0, 0] == start and list(ids[0, 3:]) == [end] * 3
    assert ids[1, -1] == end and end not in ids[1, :-1]

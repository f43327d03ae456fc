"""Taking the packages along: what is cut away is never drawn, and what arrives is what left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from recipes.embedded.data import fetch as fetching
from recipes.embedded.data.cut import Wanted, cut_nouns, cut_senses, cut_set, used_icons
from recipes.embedded.data.fetch import STAMP, choice_digest, stamp_text, unpack
from recipes.embedded.data.lexicon import read_wordnet
from recipes.embedded.data.nouns import Noun, noun_icons
from recipes.embedded.data.objects import drawings
from recipes.embedded.data.sources import SETS, Package
from recipes.embedded.data.travel import NAME, archive, extract
from recipes.embedded.pieces import read_pieces, write_pieces

from stable_diffusion.errors import InvalidRequest

CAT = Noun(concept="cat", english=("cat",), chinese=("猫",))
SENSES = "cat%1:05:00:: 00000001 1 18\ncat%2:35:00:: 00000009 1 0\nkitty%1:05:01:: 00000002 2 0\n"
NOUNS = """  1 a licence
00000001 05 n 01 cat 0 001 ~ 00000002 n 0000 | a feline; "the cat sat"
00000002 05 n 01 kitty 0 001 @ 00000001 n 0000 | young cat
"""


def icons(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"body": f"<path id='{name}'/>"} for name in names}


def test_only_used_icons_stay_and_the_choice_among_them_is_the_same() -> None:
    entry = next(entry for entry in SETS if entry.name == "tabler")
    data = {"icons": icons("dog", "cat", "cat-2", "cat-3", "cat-filled"), "width": 24, "info": {"license": {}}}
    wanted = Wanted(roots={}, codes=frozenset(), known={}, nouns={"cat": CAT})
    cut = json.loads(cut_set(data, used_icons(entry, data, wanted)))
    assert list(cut["icons"]) == ["cat", "cat-2", "cat-filled"] and cut["width"] == 24
    nouns = {"cat": CAT}
    assert noun_icons(entry, cut["icons"], nouns) == noun_icons(entry, data["icons"], nouns)


def test_emoji_are_found_through_aliases_of_aliases(tmp_path: Path) -> None:
    entry = next(entry for entry in SETS if entry.name == "twemoji")
    data = {
        "icons": icons("one", "two"),
        "aliases": {"uno": {"parent": "eins"}, "eins": {"parent": "one"}, "duo": {"parent": "two"}},
        "chars": {"1f408": "uno", "1f409": "duo"},
        "info": {"license": {"spdx": entry.licence}},
    }
    wanted = Wanted(roots={}, codes=frozenset({"1f408"}), known={}, nouns={})
    content = cut_set(data, used_icons(entry, data, wanted))
    assert list(json.loads(content)["icons"]) == ["one"] and "duo" not in json.loads(content)["aliases"]
    path = tmp_path / entry.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert "id='one'" in (drawings(entry, {entry.package: tmp_path})["1f408"][0] or "")


def test_wordnet_without_glosses_and_verbs_reads_the_same(tmp_path: Path) -> None:
    read = []
    for folder, nouns, senses in (("whole", NOUNS, SENSES), ("cut", cut_nouns(NOUNS), cut_senses(SENSES))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.noun").write_text(nouns)
        (tmp_path / folder / "index.sense").write_text(senses)
        net = read_wordnet(tmp_path / folder)
        read.append((net.senses, net.frequency, {key: vars(value) for key, value in net.synsets.items()}))
    assert read[0] == read[1] and read[0][2]["00000001"]["below"] == ("00000002",)
    assert "feline" not in cut_nouns(NOUNS) and "a licence" in cut_nouns(NOUNS) and "%2:" not in cut_senses(SENSES)


def small(**more: object) -> Package:
    return replace(Package(name="@a/b", version="1.0.0", sha256="0" * 64, members=("kept/",)), **more)


def test_unpacked_pieces_are_a_folder_that_a_build_takes(tmp_path: Path) -> None:
    files = [("kept/x.txt", b"hi"), ("kept/y.txt", bytes(range(256)) * 40)]
    content = archive([(small(), files)])
    assert content == archive([(small(), files)])
    pieces = write_pieces(content, tmp_path / "travel", NAME, size=len(content) // 2)
    assert len(pieces) == 3 and pieces[-1].name == f"{NAME}.pieces.json"
    (made,) = extract(read_pieces(pieces), tmp_path / "packages")
    assert unpack(small(), tmp_path / "packages") == made  # no client is asked: there is no such package
    assert {path.name: path.read_bytes() for path in (made / "kept").iterdir()} == {
        name.removeprefix("kept/"): value for name, value in files
    }
    assert extract(read_pieces(pieces), tmp_path / "packages") == []
    with pytest.raises(ValueError, match="already with other content"):
        extract(archive([(small(sha256="1" * 64), files)]), tmp_path / "packages")


def test_a_folder_cut_for_other_tables_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / small().folder
    folder.mkdir()
    (folder / STAMP).write_text(stamp_text(small(), ["kept/"], "another"))
    with pytest.raises(ValueError, match="pack the packages again"):
        unpack(small(), tmp_path)
    (folder / STAMP).write_text(stamp_text(small(), ["kept/"], choice_digest()))
    assert unpack(small(), tmp_path) == folder
    with pytest.raises(ValueError, match="pack the packages again"):
        unpack(small(members=("kept/", "more/")), tmp_path)
    assert set(fetching.CHOOSING) <= {path.name for path in Path(fetching.__file__).parent.glob("*.py")}


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    pieces = write_pieces(b"0123456789", tmp_path, "file", size=4)
    assert read_pieces(pieces[::-1]) == b"0123456789" == read_pieces(pieces[:-1])
    with pytest.raises(InvalidRequest, match=r"piece file\.piece02 of file is missing"):
        read_pieces([pieces[0], pieces[2]])
    pieces[1].write_bytes(b"45x7")
    with pytest.raises(InvalidRequest, match=r"file\.piece02 is damaged"):
        read_pieces(pieces)

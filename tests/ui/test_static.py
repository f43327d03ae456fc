"""What can be said of the page's files without a browser: texts, policy, hashes, sizes, settings of the form."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from stable_diffusion.request.group import own_settings
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import GROUPS
from stable_diffusion.ui import static_folder

STATIC = static_folder()
SCRIPTS = [path for path in sorted(STATIC.rglob("*.js")) if "vendor" not in path.parts]
TEXTS = {name: json.loads((STATIC / "i18n" / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "zh")}
PATHS = {"styles_file", "wildcards_dir", "lora_dir", "embeddings_dir"}
"""Settings that are paths of the server, which no client may give."""


def _settings() -> set[str]:
    names = {each.name for each in own_settings(Request) if each.name not in PATHS and each.name not in GROUPS}
    for group, kind in GROUPS.items():
        names |= {f"{group}.{each.name}" for each in own_settings(kind) if each.name not in PATHS}
    return names


def test_languages_have_equal_keys() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for name, texts in TEXTS.items():
        assert not [key for key, text in texts.items() if not text.strip()], name
        for key, text in texts.items():
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", TEXTS["en"][key])), (name, key)


def test_chinese_is_translated() -> None:
    """Names that are the same in both languages apart, each text has Chinese characters."""
    same = {key for key, text in TEXTS["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)}
    allowed = r"example\.\d|(field|group|value)\..*|loras|view\.viewer|working"
    assert not {key for key in same if not re.fullmatch(allowed, key)}


def test_every_text_that_is_used_exists() -> None:
    used = {key for path in SCRIPTS for key in re.findall(r'\bt\(\s*"([^"$]+)"', path.read_text(encoding="utf-8"))}
    assert len(used) > 150
    assert not used - TEXTS["en"].keys()


def test_every_setting_has_a_name_and_a_field() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    assert not {name for name in _settings() if f"field.{name}" not in TEXTS["en"]}
    shown = {name for name in _settings() if f'"{name}"' in source}
    assert _settings() - shown == {"depth"}  # only models of depth read it, and those take it as a start picture


def test_nothing_is_put_into_the_page_as_markup() -> None:
    for path in (*SCRIPTS, STATIC / "index.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:", text
        ), path
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", page)


def test_vendored_files_are_those_that_were_built() -> None:
    lists = [*(STATIC / "vendor").glob("*SHA256SUMS")]
    lines = [line for path in lists for line in path.read_text().splitlines() if line]
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    found = {path.name for path in (STATIC / "vendor").iterdir() if path not in lists}
    assert found == sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_files_are_short_and_start_with_what_they_are() -> None:
    for path in SCRIPTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 350 and lines[0].startswith(("//", "/**")), path


def test_icons_that_are_used_exist() -> None:
    symbols = set(re.findall(r'<symbol id="([\w-]+)"', (STATIC / "vendor" / "icons.svg").read_text()))
    used = {name for path in SCRIPTS for name in re.findall(r'\b(?:icon|name)[=:] ?"([a-z0-9-]+)"', path.read_text())}
    views = {"size", "negative", "sampling", "start", "loras", "controls", "hires", "canvas", "variation", "words"}
    assert not {
        name for name in used - symbols - views - {"noise", "refiner", "mask", "keys", "read", "compare", "details"}
    }


LIMIT = 60_000
"""Bytes that a first visit may load, compressed."""


def _imports(path: Path, seen: set[Path]) -> set[Path]:
    """A script and all that it imports at once; what is imported when needed is left out."""
    if path not in seen:
        seen.add(path)
        for name in re.findall(r'^import [^;]*?from "([^"]+)";', path.read_text(encoding="utf-8"), re.MULTILINE):
            _imports((path.parent / name).resolve(), seen)
    return seen


def test_first_visit_is_small() -> None:
    files = _imports(STATIC / "app.js", set())
    files |= {STATIC / name for name in ("index.html", "boot.js", "style.css", "parts.css", "i18n/zh.json")}
    files |= {STATIC / "vendor" / "icons.svg", STATIC / "icons" / "icon.svg", STATIC / "manifest.webmanifest"}
    assert STATIC / "components" / "composer.js" in files and STATIC / "views" / "gallery.js" not in files
    assert sum(len(gzip.compress(path.read_bytes(), 4)) for path in files) < LIMIT


@pytest.mark.parametrize("name", ["manifest.webmanifest", "sw.js", "icons/icon-192.png", "icons/icon-512.png"])
def test_files_of_the_installed_page(name: str) -> None:
    assert (STATIC / name).stat().st_size > 100

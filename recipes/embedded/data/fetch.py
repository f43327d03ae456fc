"""Fetching the pinned packages with the ordinary clients (`npm pack`, `apt-get download`), unpacking what we use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .sources import PACKAGES, Package, PictureSet, check_licence, package_of
from .words import WORDS

CHOOSING = ("art.py", "clipart.py", "concepts.py", "cut.py", "glyphs.py", "nouns.py", "objects.py", "sources.py")
STAMP = "unpacked.json"


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def choice_digest() -> str:
    """Hash of the word tables and the code that decide which pictures of the packages are used."""
    total = hashlib.sha256()
    for path in (*(Path(__file__).parent / name for name in CHOOSING), *sorted(WORDS.glob("*.tsv"))):
        total.update(path.read_bytes())
    return total.hexdigest()


def stamp_text(package: Package, members: Iterable[str], cut: str | None = None) -> str:
    """What `unpacked.json` says: the package's digest, which members are there; `cut` where only their used part is."""
    said = {"sha256": package.sha256, "members": list(members)}
    return json.dumps(said if cut is None else {**said, "cut": cut})


def check_cut(target: Path, before: dict[str, Any], missing: Iterable[str]) -> None:
    """Refuse a folder of `travel` that holds less than this version of the recipe draws."""
    if "cut" in before and (before["cut"] != choice_digest() or list(missing)):
        raise ValueError(f"{target} was packed for other word tables or code than these; pack the packages again")


def download(package: Package, folder: Path) -> Path:
    """The package's tarball in `folder`, downloaded when missing; its digest must be the pinned one."""
    path = folder / package.tarball
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package.name}@{package.version}"]
        if package.registry == "debian":
            command = ["apt-get", "download", f"{package.name}={package.version}"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    found = sha256(path)
    if found != package.sha256:
        raise ValueError(f"{path.name} has sha256 {found}, expected {package.sha256}; delete it and fetch it again")
    return path


def wanted(member: str, members: Iterable[str]) -> bool:
    """Whether a path inside the package is among `members` (exact files, or folders with a trailing slash)."""
    return any(member == entry or (entry.endswith("/") and member.startswith(entry)) for entry in members)


@contextlib.contextmanager
def opened(package: Package, path: Path) -> Iterator[tarfile.TarFile]:
    """The package's files as a tar archive; one of Debian is taken apart by `dpkg-deb`."""
    if package.registry == "npm":
        with tarfile.open(path, "r:gz") as archive:
            yield archive
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # a pipe was asked for
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield archive


def unpack(package: Package, folder: Path) -> Path:
    """Unpack the wanted members under `folder/<package>-<version>`; instant when already there.

    Members unpacked before stay, so builds that want different ones can share the folder. A folder that `travel` wrote
    holds of its members what a build uses, and is refused (ValueError) by another version of the recipe.
    """
    target = folder / package.folder
    stamp = target / STAMP
    before = json.loads(stamp.read_text()) if stamp.exists() else {}
    there = before.get("members", []) if before.get("sha256") == package.sha256 else []
    missing = [member for member in package.members if member not in there]
    check_cut(target, before, missing)
    if stamp.exists() and not missing:
        return target
    with opened(package, download(package, folder)) as archive:
        for info in archive:
            name = info.name.partition("/")[2]
            if not info.isfile() or ".." in name.split("/") or not wanted(name, missing):
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(info)
            assert source is not None  # a regular file has content
            path.write_bytes(source.read())
    stamp.write_text(stamp_text(package, [*there, *missing]))
    return target


def fetch(folder: Path, packages: Iterable[Package] = PACKAGES) -> dict[str, Path]:
    """All packages unpacked under `folder`: package name -> root of its files."""
    return {package.name: unpack(package, folder) for package in packages}


def read_iconify(entry: PictureSet, roots: dict[str, Path]) -> dict[str, Any]:
    """The icon set's JSON, after checking that the package states the licence our table states."""
    data: dict[str, Any] = json.loads((roots[package_of(entry).name] / entry.path).read_text("utf-8"))
    stated = data["info"]["license"]["spdx"]
    check_licence(entry.name, stated)
    if stated != entry.licence:
        raise ValueError(f"picture set {entry.name!r} states licence {stated!r}, our table says {entry.licence!r}")
    return data

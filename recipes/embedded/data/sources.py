"""Where the pictures come from: pinned packages, picture sets inside them, and the closed list of licences we accept.

Adding a source is adding a row to `SETS` (and to `PACKAGES` when it lives in a new package). A set whose licence is not
on the list is refused with `LicenceRefused`, both here and against what the package itself says about the set.
"""

from __future__ import annotations

from dataclasses import dataclass

ALLOWED_LICENCES = frozenset({"MIT", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "ISC", "Unlicense"})
"""Permissive only: share-alike, non-commercial, brand logos and vendor-proprietary art stay out."""


class LicenceRefused(ValueError):
    """A picture set's licence is not on the closed list."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One npm package at one version. `sha256` is of the .tgz file that `npm pack` writes."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]  # files or folders (trailing slash) that are unpacked

    @property
    def tarball(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def folder(self) -> str:
        return self.tarball.removesuffix(".tgz")


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A set of pictures in one package, drawn in one style.

    `layout`: "iconify-emoji" (SVG bodies, found by code point), "iconify-glyph" (single-colour SVG bodies, found by
    name) or "files-by-code-point" (raster files).
    """

    name: str
    package: str
    layout: str
    path: str
    style: str
    licence: str
    attribution: str
    url: str


PACKAGES = (
    Package(
        name="@iconify/json",
        version="2.2.535",
        sha256="1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
        members=tuple(
            f"json/{name}.json" for name in ("noto", "fluent-emoji-flat", "twemoji", "ph", "mdi", "game-icons")
        ),
    ),
    Package(
        name="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        members=("assets/",),
    ),
    Package(
        name="emojibase-data",
        version="17.0.0",
        sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        members=("en/data.json", "zh/data.json", "meta/groups.json"),
    ),
)

SETS = (
    PictureSet(
        name="fluent-emoji-3d",
        package="@lobehub/fluent-emoji-3d",
        layout="files-by-code-point",
        path="assets",
        style="3d",
        licence="MIT",
        attribution="Fluent Emoji, Microsoft Corporation",
        url="https://github.com/microsoft/fluentui-emoji",
    ),
    PictureSet(
        name="fluent-emoji-flat",
        package="@iconify/json",
        layout="iconify-emoji",
        path="json/fluent-emoji-flat.json",
        style="flat",
        licence="MIT",
        attribution="Fluent Emoji Flat, Microsoft Corporation",
        url="https://github.com/microsoft/fluentui-emoji",
    ),
    PictureSet(
        name="noto",
        package="@iconify/json",
        layout="iconify-emoji",
        path="json/noto.json",
        style="emoji",
        licence="Apache-2.0",
        attribution="Noto Emoji, Google Inc",
        url="https://github.com/googlefonts/noto-emoji",
    ),
    PictureSet(
        name="twemoji",
        package="@iconify/json",
        layout="iconify-emoji",
        path="json/twemoji.json",
        style="cartoon",
        licence="CC-BY-4.0",
        attribution="Twemoji, Twitter and contributors (jdecked/twemoji)",
        url="https://github.com/jdecked/twemoji",
    ),
    PictureSet(
        name="ph",
        package="@iconify/json",
        layout="iconify-glyph",
        path="json/ph.json",
        style="icon",
        licence="MIT",
        attribution="Phosphor Icons",
        url="https://github.com/phosphor-icons/core",
    ),
    PictureSet(
        name="mdi",
        package="@iconify/json",
        layout="iconify-glyph",
        path="json/mdi.json",
        style="icon",
        licence="Apache-2.0",
        attribution="Material Design Icons, Pictogrammers",
        url="https://github.com/Templarian/MaterialDesign",
    ),
    PictureSet(
        name="game-icons",
        package="@iconify/json",
        layout="iconify-glyph",
        path="json/game-icons.json",
        style="icon",
        licence="CC-BY-3.0",
        attribution="Game-icons.net: Lorc, Delapouite and contributors",
        url="https://game-icons.net",
    ),
)


def check_licence(name: str, licence: str) -> str:
    """Return `licence` when it is on the closed list; raise `LicenceRefused` when not."""
    if licence not in ALLOWED_LICENCES:
        allowed = ", ".join(sorted(ALLOWED_LICENCES))
        raise LicenceRefused(f"picture set {name!r} has licence {licence!r}; allowed are {allowed}")
    return licence


def check_sets(sets: tuple[PictureSet, ...] = SETS) -> tuple[PictureSet, ...]:
    """All sets, each with an accepted licence and a known package."""
    packages = {package.name for package in PACKAGES}
    for entry in sets:
        check_licence(entry.name, entry.licence)
        if entry.package not in packages:
            raise ValueError(f"picture set {entry.name!r} lies in package {entry.package!r}, which is not in the table")
    return sets


def package_of(entry: PictureSet) -> Package:
    """The package that `entry` lies in."""
    return next(package for package in PACKAGES if package.name == entry.package)

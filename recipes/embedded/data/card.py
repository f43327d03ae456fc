"""The data card: every picture set and package with its makers, licence and address, as a Markdown page.

`python -m recipes.embedded.data.card` writes recipes/embedded/DATA.md anew from the tables the build itself reads.
"""

from __future__ import annotations

from pathlib import Path

from .pack import write_text
from .sources import PACKAGES, SETS, Package, PictureSet

PAGE = Path(__file__).resolve().parent.parent / "DATA.md"
INTRODUCTION = """# What the embedded model's data is made from

Written by `python -m recipes.embedded.data.card` from the tables that the build reads; do not edit by hand. Whoever
passes on weights trained on these pictures names their makers: the rows below are that list, and `pack.json` of a built
pack holds the same with the number of pictures that each set gave. Only licences without share-alike and
non-commercial terms are accepted; the build refuses a set whose package states another one.

Changes made to the pictures: rendered at the training size, cropped to what is visible and centred, single-colour icons
coloured and some put on a coloured ground, some objects recoloured, some drawn two or three times in one picture,
objects placed into composed scenes.
"""


def set_row(entry: PictureSet) -> str:
    """One picture set as a table row."""
    styles = dict.fromkeys(style for style in (entry.style, *(s for _, s in entry.endings)) if style not in ("", "-"))
    return f"| [{entry.name}]({entry.url}) | {entry.attribution} | {entry.licence} | {', '.join(styles)} |"


def package_row(package: Package) -> str:
    """One package as a table row."""
    client = {"npm": "npm pack", "debian": "apt-get download"}[package.registry]
    return f"| `{package.name}` | {package.version} | `{client}` | `{package.sha256[:16]}...` |"


def card() -> str:
    """The whole page."""
    lines = ["## Pictures", "", "| set | makers | licence | styles |", "|---|---|---|---|", *map(set_row, SETS), ""]
    lines += ["Composed scenes are drawn by this recipe (CC0-1.0); things placed in them come from the emoji sets.", ""]
    lines += ["## Packages", "", "| package | version | fetched with | SHA-256 |", "|---|---|---|---|"]
    lines += [*map(package_row, PACKAGES), ""]
    lines += [
        "Names and keywords: `emojibase-data` (MIT), from the Unicode CLDR (Unicode-3.0), and the tables in words/."
    ]
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, card())

"""The 360° viewer as a page of its own: as files for a server, or as one HTML file that works from the disk.

The one file holds the viewer's modules, three.js and the picture, under a policy (CSP) that lets nothing else in: no
address is asked for, and no script runs but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidRequest
from ..request.pictures import open_picture
from . import static_folder

STATIC = static_folder()
ENTRY = "panorama/page.js"
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's format -> media type, of pictures that every browser shows; others are sent as PNG."""
STEREO = ("top-bottom", "left-right")
"""How one picture holds the views of two eyes, the left eye's first."""
STYLE = "html,body,main{margin:0;height:100%;background:#000}main{height:100dvh}"
_IMPORT = re.compile(r'^import \{ ([^}]+) \} from "([^"]+)";\n', re.MULTILINE)
_EXPORTS = re.compile(r"export\{([^}]*)\};?\s*$")


@dataclass(frozen=True)
class Picture:
    """A picture file's bytes as a browser is given them."""

    data: bytes
    media_type: str

    @property
    def address(self) -> str:
        """The picture as a `data:` address."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Panorama:
    """What the viewer is to show.

    name     the title of the page
    depth    a depth picture of the same view, white near, or None
    stereo   one of `STEREO`, or None for a picture of one view
    """

    name: str
    picture: Picture
    depth: Picture | None = None
    stereo: str | None = None

    def __post_init__(self) -> None:
        if self.stereo is not None and self.depth is not None:
            raise InvalidRequest("stereo and depth were both given; a stereo pair needs no depth: leave one out")

    def attributes(self, picture: str, depth: str) -> str:
        """What the page's script reads, with these addresses of the picture and of its depth."""
        found = {"picture": picture, "depth": depth if self.depth else "", "stereo": self.stereo or ""}
        return " ".join(f'data-{key}="{html.escape(value)}"' for key, value in found.items() if value)


def read_picture(path: Path, what: str = "picture") -> Picture:
    """A file's picture: its own bytes where browsers know the format, else a PNG. InvalidRequest for no picture."""
    image = open_picture(path, what)
    if image.width < 2 or image.height < 2:
        raise InvalidRequest(f"{what} is {image.width}x{image.height}; expected at least 2 pixels on a side")
    data = path.read_bytes()
    kind = _kind(data)
    if kind in TYPES:
        return Picture(data, TYPES[kind])
    file = io.BytesIO()
    (image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")).save(file, "PNG")
    return Picture(file.getvalue(), TYPES["PNG"])


def _kind(data: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.format or ""


def is_sphere(width: int, height: int, stereo: str | None = None) -> bool:
    """Whether a picture of this size is a sphere: each eye's view twice as wide as high (2 pixels off at most)."""
    width, height = (width // 2 if stereo == "left-right" else width, height // 2 if stereo == "top-bottom" else height)
    return abs(width - 2 * height) <= 2


def served_page(panorama: Panorama) -> str:
    """The page as a server gives it: pictures at `/picture` and `/depth`, files of `STATIC` below `/`."""
    main = f"<main id=viewer {panorama.attributes('/picture', '/depth')}></main>"
    head = '<link rel="stylesheet" href="/view.css"><link rel="icon" href="data:,">'
    return _page(panorama.name, head, f'{main}<script type="module" src="/{ENTRY}"></script>')


def exported_page(panorama: Panorama) -> str:
    """The page with everything in it, for a file of its own."""
    depth = panorama.depth.address if panorama.depth else ""
    main = f"<main id=viewer {panorama.attributes(panorama.picture.address, depth)}></main>"
    script = inlined(ENTRY)
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src '{_digest(STYLE)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style>'
    return _page(panorama.name, head, f'{main}<script type="module">{script}</script>')


def _page(title: str, head: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}'
        f"<title>{html.escape(title)}</title></head><body>{body}</body></html>\n"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def inlined(entry: str) -> str:
    """A module of `STATIC` and all that it imports as the text of one module script, in the order of their imports.

    Modules below `vendor/` keep a scope of their own; ours share one, so that their names must differ.
    """
    parts: list[str] = []
    _inline(STATIC / entry, set(), parts)
    text = "".join(parts)
    return re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE)


def _inline(path: Path, seen: set[Path], parts: list[str]) -> None:
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    if path.parent.name == "vendor":
        parts.append(_scoped(text))
        return
    for _, place in _IMPORT.findall(text):
        _inline(path.parent / place, seen, parts)
    text = _IMPORT.sub("", text)
    parts.append(re.sub(r"^export (?=(async )?function|const|class)", "", text, flags=re.MULTILINE))


def _scoped(text: str) -> str:
    """A bundled module whose exports become constants."""
    found = _EXPORTS.search(text)
    assert found is not None, "a vendored module ends with its list of exports"
    pairs = [pair.split(" as ") for pair in found[1].split(",")]
    names = ",".join(pair[-1] for pair in pairs)
    values = ",".join(f"{pair[-1]}:{pair[0]}" for pair in pairs)
    return f"const {{{names}}}=(()=>{{{text[: found.start()]}\nreturn {{{values}}}}})();\n"

"""`python -m recipes.embedded.data.travel pack | unpack`: the packages for a machine without network, npm and apt.

    python -m recipes.embedded.data.travel pack --packages data/packages --out data/travel --piece-size 17
    python -m recipes.embedded.data.travel unpack data/travel/packages.tar.xz.piece* --out data/packages

`pack` writes what a build uses of the packages (see cut.py) as one .tar.xz in pieces of at most so many MiB, with a
list of their digests, which travels with them. `unpack` makes a packages folder from them that a build takes as it is:
each package has the stamp of an unpacked one.
"""

from __future__ import annotations

import argparse
import io
import lzma
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from recipes.embedded.pieces import MEBIBYTE, read_pieces, write_pieces

from .cut import all_cut
from .fetch import STAMP, choice_digest, fetch, stamp_text
from .sources import PACKAGES, Package

NAME = "packages.tar.xz"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26, "lc": 4, "pb": 0}]
"""The dictionary spans nearly all of it; text packs a little better by more bits of context and none of alignment."""
Cut = Iterable[tuple[Package, Iterable[tuple[str, bytes]]]]


def archive(packages: Cut) -> bytes:
    """A .tar.xz of the packages' files, the same bytes for the same files; a package's stamp comes after its files."""
    out, cut = io.BytesIO(), choice_digest()
    with lzma.open(out, "wb", filters=FILTERS) as compressed, tarfile.open(fileobj=compressed, mode="w|") as tar:
        for package, files in packages:
            stamp = stamp_text(package, package.members, cut).encode()
            for name, content in (*files, (STAMP, stamp)):
                info = tarfile.TarInfo(f"{package.folder}/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def extract(content: bytes, out: Path) -> list[Path]:
    """The packages' folders under `out`, each moved into place when it is whole; one that is there already is kept."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory(prefix=".travel-", dir=out) as temporary:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as tar:
            tar.extractall(temporary, filter="data")
        for folder in sorted(Path(temporary).iterdir()):
            target = out / folder.name
            if target.exists():
                if (target / STAMP).read_text() != (folder / STAMP).read_text():
                    raise ValueError(f"{target} is there already with other content; give --out an empty folder")
                continue
            shutil.move(folder, target)
            made.append(target)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, pack or unpack; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.data.travel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the used part of the packages in pieces")
    packing.add_argument("--packages", type=Path, required=True, help="folder of downloaded packages")
    packing.add_argument("--piece-size", type=float, default=17.0, help="MiB of one piece at most (default 17)")
    unpacking = commands.add_parser("unpack", help="make a packages folder from the pieces")
    unpacking.add_argument("pieces", type=Path, nargs="+", help="the pieces, with their list beside them")
    for command in (packing, unpacking):
        command.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    try:
        if given.command == "pack":
            content = archive(all_cut(fetch(given.packages)))
            made = write_pieces(content, given.out, NAME, size=int(given.piece_size * MEBIBYTE))
        else:
            made = extract(read_pieces(given.pieces), given.out)
            fetch(given.out, PACKAGES)  # checks every stamp against this version of the recipe
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for path in made:
        print(path if path.is_dir() else f"{path}: {path.stat().st_size / MEBIBYTE:.2f} MiB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make what judges models by default: the image tower and a few held-out pictures, inside the package.

    python scripts/embedded_judges.py --data PACK --tower RUNS/text

writes tower.safetensors (8-bit weights; the text encoder is the embedded model's) and heldout.zip into
src/stable_diffusion/embedded. `--text own` puts the text encoder into the file as well.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stable_diffusion.data.bundle import write_bundle
from stable_diffusion.data.pack import Record
from stable_diffusion.embedded import PICTURES, TOWER
from stable_diffusion.evaluation.pack import PicturePack, resized, spread
from stable_diffusion.evaluation.tower import load_eye, save_eye
from stable_diffusion.weights.containers.atomic import atomic_file


def chosen(pack: PicturePack, count: int) -> list[Record]:
    """Two thirds with captions that no other has, for retrieval; the rest from all, so that every style is there."""
    first = pack.distinct("heldout", count * 2 // 3)
    taken = {record.name for record in first}
    others = [record for record in pack.choose("heldout") if record.name not in taken]
    kept = taken | {record.name for record in spread(others, count - len(first))}
    return [record for record in pack.choose("heldout") if record.name in kept]


def small(pack: PicturePack, records: Sequence[Record], size: int) -> NDArray[np.uint8]:
    """[N,size,size,4]."""
    pictures = resized(pack.pictures(records), size)
    made: NDArray[np.uint8] = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return made


def sources_of(pack: PicturePack, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The entries of pack.json for the sources that these pictures come from: their licences travel with them."""
    manifest = json.loads((pack.pack.folder / "pack.json").read_text(encoding="utf-8"))
    used = {record.source for record in records}
    return [source for source in manifest.get("sources", []) if source.get("name") in used]


def bundle(pack: PicturePack, count: int, size: int, limit: int) -> tuple[bytes, int]:
    """The file's bytes, at most `limit`, and how many pictures there are in it."""
    while True:
        records, out = chosen(pack, count), io.BytesIO()
        write_bundle(out, small(pack, records, size), records, sources_of(pack, records))
        content = out.getvalue()
        if len(content) <= limit or count <= 2:
            return content, len(records)
        count = min(count - 1, int(len(records) * limit / len(content) * 0.98))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data pack")
    parser.add_argument("--tower", type=Path, help="text-stage run, or a tower file; left as it is without one")
    parser.add_argument("--text", choices=["embedded", "own"], default="embedded", help="whose text encoder")
    parser.add_argument("--count", type=int, default=200, help="pictures, fewer where they need more than --bytes")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures")
    parser.add_argument("--bytes", type=int, default=2 * 2**20, help="of the file of pictures, at most")
    parser.add_argument("--out", type=Path, default=TOWER.parent, help="folder for both files")
    options = parser.parse_args(arguments)
    pack = PicturePack(options.data)
    if options.tower is not None:
        path = save_eye(
            options.out / TOWER.name, load_eye(options.tower, tokenizer=pack.tokenizer), dtype="int8", text=options.text
        )
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")
    content, count = bundle(pack, options.count, options.size, options.bytes)
    with atomic_file(options.out / PICTURES.name) as file:
        file.write(content)
    print(f"{options.out / PICTURES.name}: {count} pictures, {len(content) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()

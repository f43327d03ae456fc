"""Paint many pictures, and name those that are copies of training pictures.

    python scripts/memorisation.py --data PACK --out RUNS/copies                  100 prompts, 10 seeds each
    python scripts/memorisation.py --data PACK --out RUNS/copies --captions 500   the training pictures' own captions
    python scripts/memorisation.py --data PACK --out RUNS/copies --count 20       to try it

Distances are those of the image tower's embeddings (1 - cosine). A picture is named where it is closer to a training
picture than the training pictures' own nearest distances' 1st percentile. Pictures and vectors stay in --out, so a run
that was stopped goes on; memorisation.json holds everything, closest.png the closest pairs, painted one at the left.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from copies import Closest, Copies, find_copies, look_at, training_records
from PIL import Image
from torch import Tensor

import stable_diffusion
from stable_diffusion.data.pack import Record
from stable_diffusion.embedded import TOWER
from stable_diffusion.evaluation.pack import PicturePack, spread
from stable_diffusion.evaluation.tower import CHUNK, Eye, load_eye
from stable_diffusion.pipeline.image import to_straight
from stable_diffusion.training.report import sheet, write_atomic

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = ROOT / "recipes/embedded/prompts_100.txt"
TOLD = 10.0
"""Seconds between two lines of progress."""


def orders(prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, int]]:
    """`count` pairs (prompt, seed): every prompt with the first seed, then every one with the next."""
    return [(prompts[k % len(prompts)], seed + k // len(prompts)) for k in range(count)]


def read_prompts(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def settled(path: Path, facts: dict[str, Any]) -> None:
    """Keep what the folder's files were made from; SystemExit where they were made from something else."""
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != facts:
        raise SystemExit(f"{path.parent} holds another run ({path.name} differs): expected an empty folder for --out")
    write_atomic(path, json.dumps(facts, ensure_ascii=False).encode())


def paint(model: stable_diffusion.StableDiffusion, asked: Sequence[tuple[str, int]], folder: Path) -> list[Path]:
    """A PNG for every order; those that are there already are not painted again."""
    paths = [folder / f"{number:04d}.png" for number in range(len(asked))]
    start = last = time.monotonic()
    for number, ((prompt, seed), path) in enumerate(zip(asked, paths, strict=True)):
        if path.is_file():
            continue
        picture = stable_diffusion.generate_image(prompt, model=model, seed=seed)
        temporary = path.with_suffix(".part")
        picture.save(temporary, "png")
        temporary.replace(path)
        if time.monotonic() - last > TOLD:
            last = time.monotonic()
            sys.stderr.write(f"{last - start:6.0f} s  painted {number + 1}/{len(asked)}\n")
    return paths


def look(eye: Eye, paths: Sequence[Path]) -> Tensor:
    """[N,P] of pictures in files, which all have one size."""
    parts = []
    for start in range(0, len(paths), CHUNK):
        pictures = []
        for path in paths[start : start + CHUNK]:
            with Image.open(path) as picture:
                pictures.append(to_straight(picture))
        parts.append(eye.look(torch.cat(pictures)).embedding)
    return torch.cat(parts)


def training_vectors(eye: Eye, pack: PicturePack, records: Sequence[Record], alpha: bool, folder: Path) -> Tensor:
    """[M,P], remembered in the folder under what they were made from."""
    names = "\n".join([str(eye.hash), str(alpha), str(pack.size), *(record.name for record in records)])
    path = folder / f"training-{hashlib.sha256(names.encode()).hexdigest()[:12]}.npy"
    if not path.is_file():
        start, told = time.monotonic(), [0.0]

        def report(what: str, done: int, total: int) -> None:
            if time.monotonic() - told[0] > TOLD:
                told[0] = time.monotonic()
                sys.stderr.write(f"{told[0] - start:6.0f} s  {what} {done}/{total}\n")

        vectors = look_at(eye, pack, records, alpha=alpha, report=report)
        with (temporary := path.with_suffix(".part")).open("wb") as file:
            np.save(file, vectors.numpy())
        temporary.replace(path)
    return torch.from_numpy(np.load(path))


def pairs(closest: Sequence[tuple[Path, Closest]], pack: PicturePack, side: int = 128) -> Image.Image:
    """Every painted picture beside the training picture that it is closest to."""
    by_name = {record.name: record for record in pack.choose("train")}
    rows, labels = [], []
    for path, found in closest:
        with Image.open(path) as painted:
            real = Image.fromarray(pack.pack.rows([by_name[found.training]])[0])
            for picture in (painted, real):
                rows.append(np.asarray(picture.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)))
        mark = "copy" if found.copied else "near"
        labels += [f"{found.seed} {found.prompt}", f"{mark} {found.distance:.3f} {found.training.rpartition('/')[2]}"]
    return sheet(np.stack(rows), columns=8, labels=labels)


def table(found: Copies) -> str:
    """What is printed: the scale, and every picture that is named."""
    scale = ", ".join(f"{share} {value:.4f}" for share, value in found.percentiles.items())
    lines = [
        f"{found.training} training pictures; percentiles of their own nearest distances: {scale}",
        f"{len(found.closest)} painted pictures, the median is {found.median:.4f} from a training picture, "
        f"the least {min(each.distance for each in found.closest):.4f}",
        f"closer than {found.threshold:.4f}: {len(found.named)}",
    ]
    return "\n".join(lines + [f"  {c.distance:.4f}  seed {c.seed}  {c.prompt}  ->  {c.training}" for c in found.named])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data pack that the model was trained on")
    parser.add_argument("--model", help="model file or folder; without it the built-in model")
    parser.add_argument("--tower", type=Path, default=TOWER, help="image tower; without it the built-in one")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="a prompt a line")
    parser.add_argument("--captions", type=int, help="instead: the captions of so many training pictures")
    parser.add_argument("--styles", nargs="*", default=[], help="compare with training pictures of these styles only")
    parser.add_argument("--count", type=int, default=1000, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shown", type=int, default=24, help="pairs on the sheet, and all that are named")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    pack = PicturePack(given.data)
    records, model = training_records(pack, given.styles), stable_diffusion.load(given.model)
    eye = load_eye(given.tower, tokenizer=pack.tokenizer)
    known = [record for record in records if record.caption]
    prompts = (
        read_prompts(given.prompts)
        if given.captions is None
        else [str(record.caption) for record in spread(known, given.captions)]
    )
    asked = orders(prompts, given.count, given.seed)
    (given.out / "pictures").mkdir(parents=True, exist_ok=True)
    settled(given.out / "orders.json", {"model": model.hash, "orders": [list(each) for each in asked]})
    paths = paint(model, asked, given.out / "pictures")
    with Image.open(paths[0]) as first:
        alpha = first.mode == "RGBA"
    found = find_copies(look(eye, paths), asked, training_vectors(eye, pack, records, alpha, given.out), records)
    about = {"model": model.hash, "tower": eye.hash, "pack": pack.name, "styles": given.styles}
    result = {**about, **dataclasses.asdict(found), "named": [dataclasses.asdict(each) for each in found.named]}
    write_atomic(given.out / "memorisation.json", json.dumps(result, ensure_ascii=False, indent=1).encode())
    ranked = sorted(zip(paths, found.closest, strict=True), key=lambda pair: pair[1].distance)
    pairs(ranked[: max(given.shown, len(found.named))], pack).save(given.out / "closest.png")
    print(table(found))
    print(f"{given.out / 'memorisation.json'}, {given.out / 'closest.png'}")


if __name__ == "__main__":
    main()

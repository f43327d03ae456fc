"""Proof that a redesign changes nothing: what requests make, to the bit, and how much work they are.

    python scripts/frozen.py --write             records
    python scripts/frozen.py --check             compares; exits with 1 where something differs or a count rose
    python scripts/frozen.py --check --only samplers tasks
    python scripts/frozen.py --list
    python scripts/frozen.py --check --keep DIR  also writes the new record to DIR, to look at it

Hashes hold for one processor and one version of torch; on others, words, names and counts alone are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import frozen_adapters
import frozen_cli
import frozen_commands
import frozen_files
import frozen_hooks as hooks
import frozen_pieces
import frozen_samplers
import frozen_tasks
import frozen_words
import torch
from frozen_paint import HEX, Case, Entries, Entry, painted
from frozen_shop import Shop

RECORD = Path(__file__).with_suffix(".json")
HASHES = ("latent", "floats", "pixels", "sigmas", "parameters", "state", "file")
"""Values of an entry that hold on one kind of processor alone."""
CASES: dict[str, Callable[[Shop], Iterator[Case]]] = {
    "samplers": frozen_samplers.samplers,
    "schedules": frozen_samplers.schedules,
    "text-to-image": frozen_tasks.text_to_image,
    "image-to-image": frozen_tasks.image_to_image,
    "inpainting": frozen_tasks.inpainting,
    "outpainting": frozen_tasks.outpainting,
    "other-inputs": frozen_tasks.other_inputs,
    "canvas": frozen_tasks.canvas,
    "hires": frozen_tasks.hires,
    "noise": frozen_tasks.noise,
    "backgrounds": frozen_tasks.backgrounds,
    "sizes": frozen_tasks.sizes,
    "prompts": frozen_words.prompts,
    "embeddings": frozen_words.embeddings,
    "embedded": frozen_words.embedded,
    "loras": frozen_adapters.loras,
    "controls": frozen_adapters.controls,
}
"""Group -> its requests."""
OTHERS: dict[str, Callable[[Shop], Entries]] = {
    "pieces": frozen_pieces.pieces,
    "samples": frozen_files.samples,
    "info": frozen_files.told,
    "load": frozen_files.loads,
    "convert": frozen_files.conversions,
    "tables": frozen_files.tables,
    "options": frozen_commands.options,
    "commands": frozen_cli.commands,
    "axes": frozen_cli.axes,
    "metadata": frozen_cli.metadata,
    "training": frozen_commands.training,
}
"""Group -> entries that are no requests."""
GROUPS = (*CASES, *OTHERS)
LATENTS = ("text-to-image", "image-to-image", "inpainting", "outpainting", "other-inputs", "hires", "sizes")
"""Groups whose requests are made once more as latents alone; for others the pictures before rounding are enough."""


def about() -> dict[str, str]:
    """What the hashes depend on besides the code."""
    return {
        "torch": torch.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def recorded(groups: tuple[str, ...], shop: Shop) -> dict[str, Entry]:
    """The entries of these groups, as the code makes them now."""
    found: dict[str, Entry] = {}
    for group in groups:
        start, before = time.process_time(), len(found)
        entries = _entries(group, shop)
        for name, entry in entries:
            key = f"{group}/{name}"
            assert key not in found, f"{key} is there twice"
            found[key] = entry
        print(
            f"{group}: {len(found) - before} entries, {time.process_time() - start:.1f} s of processor",
            file=sys.stderr,
            flush=True,
        )
    return found


def _entries(group: str, shop: Shop) -> Entries:
    if group in CASES:
        return painted(shop, CASES[group](shop), latents=group in LATENTS)
    return OTHERS[group](shop)


def differences(old: Mapping[str, Entry], new: Mapping[str, Entry], *, hashes: bool = True) -> list[str]:
    """What is wrong with `new`: a line for each entry that differs. Counts may fall, and nothing else may change."""
    lines = [f"{key}: is missing" for key in old if key not in new]
    for key, entry in new.items():
        if key not in old:
            lines.append(f"{key}: is not in the record; run --write")
            continue
        wrong = [word for name in sorted({*old[key], *entry}) if (word := _wrong(name, old[key], entry, hashes))]
        if wrong:
            lines.append(f"{key}: {'; '.join(wrong)}")
    return lines


def _wrong(name: str, old: Entry, new: Entry, hashes: bool) -> str | None:
    before, now = old.get(name), new.get(name)
    if name in hooks.COUNTS:
        before, now = before or 0, now or 0
        return f"{name} rose from {before} to {now}" if now > before else None
    if before == now or (name in HASHES and not hashes):
        return None
    is_hash = all(isinstance(value, str) and HEX.fullmatch(value) for value in (before, now))
    return f"{name} differs" if is_hash else f"{name} was {before} and is {now}"


def fallen(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> dict[str, tuple[int, int]]:
    """Count -> its sum before and now, over the entries in which it fell."""
    sums: dict[str, tuple[int, int]] = {}
    for key in old.keys() & new.keys():
        for name in hooks.COUNTS:
            before, now = old[key].get(name, 0), new[key].get(name, 0)
            if now < before:
                total = sums.get(name, (0, 0))
                sums[name] = (total[0] + before, total[1] + now)
    return sums


def written(record: Mapping[str, Any]) -> str:
    """The record as JSON, an entry a line."""
    entries = record["entries"]
    lines = [f"  {json.dumps(key)}: {json.dumps(entries[key], sort_keys=True)}" for key in sorted(entries)]
    heads = [f' "{name}": {json.dumps(value, sort_keys=True)}' for name, value in record.items() if name != "entries"]
    return "{\n" + ",\n".join([*heads, ' "entries": {\n' + ",\n".join(lines) + "\n }"]) + "\n}\n"


def write(new: dict[str, Entry], exercised: set[str], groups: tuple[str, ...]) -> None:
    """Put these entries into the record; entries of other groups stay."""
    if groups != GROUPS and RECORD.exists():
        old = json.loads(RECORD.read_text(encoding="utf-8"))
        new = {key: entry for key, entry in old["entries"].items() if key.partition("/")[0] not in groups} | new
        exercised = exercised | set(old["exercised"])
    record = {"about": about(), "exercised": sorted(exercised), "entries": new}
    RECORD.write_text(written(record), encoding="utf-8")


def compare(new: Mapping[str, Entry], groups: tuple[str, ...]) -> int:
    """Print what differs from the record; the exit status."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    old = {key: entry for key, entry in record["entries"].items() if key.partition("/")[0] in groups}
    same = record["about"] == about()
    if not same:
        print(f"recorded with {record['about']}, and this is {about()}: hashes of numbers are not compared")
    lines = differences(old, new, hashes=same)
    for line in lines:
        print(line)
    for name, (before, now) in sorted(fallen(old, new).items()):
        print(f"fewer calls, {name}: {before} before, {now} now")
    print(f"{len(new)} entries, {len(lines)} wrong")
    return 1 if lines else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    what.add_argument("--list", action="store_true")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(GROUPS))
        return 0
    torch.set_num_threads(1)
    groups = tuple(given.only)
    with tempfile.TemporaryDirectory() as place:
        shop, new = Shop(Path(place).resolve()), {}
        for group in groups:
            new |= recorded((group,), shop)
            if given.write:
                write(new, shop.exercised, groups)
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        (given.keep / RECORD.name).write_text(written({"about": about(), "entries": new}), encoding="utf-8")
    if given.check:
        return compare(new, groups)
    unused = sorted(hooks.fields() - shop.exercised) if groups == GROUPS else []
    print(f"{len(new)} entries; settings that no case gives: {', '.join(unused) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills `stable-diffusion bulk` at random moments, and compares what it leaves with a run that nobody disturbed.

    python scripts/kill_bulk.py FOLDER --prompts 300 --kills 10 [--workers 2]

Printed as JSON: pictures, whether each is there once, and how many have other bytes than those of one process.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS = ("-m", "embedded-fast", "--steps", "2", "--size", "64x64", "--threads", "1")
THINGS = ("ball", "cube", "house", "tree", "star", "boat")


def write_prompts(path: Path, count: int) -> None:
    """A request a line; every fifth without a seed of its own."""
    lines = []
    for index in range(count):
        line: dict[str, Any] = {"prompt": f"a {THINGS[index % len(THINGS)]} number {index}"}
        lines.append(json.dumps(line if index % 5 == 0 else {**line, "seed": index}))
    path.write_text("\n".join(lines))


def start(source: Path, out: Path, workers: int, *more: str) -> subprocess.Popen[str]:
    """The command, which says on stderr how far it is."""
    command = [sys.executable, "-m", "stable_diffusion", "bulk", str(source), "-o", str(out), *SETTINGS]
    return subprocess.Popen([*command, "--workers", str(workers), *more], stderr=subprocess.PIPE, text=True)


def count(out: Path) -> int:
    return sum(1 for _ in (out / "pictures").rglob("*.png"))


def run_killed(source: Path, out: Path, workers: int, total: int, kills: int, seed: int = 1) -> list[int]:
    """Kills the command `kills` times: at random after its start, or after so many more pictures. Then lets it finish.

    Returns how many pictures there were at each kill.
    """
    draw, found = random.Random(seed), []
    for number in range(kills):
        process, before = start(source, out, workers, "--json"), count(out)
        wanted = before + draw.randint(0, max(1, 2 * (total - before) // (kills - number + 1)))
        patience = time.monotonic() + draw.random() * 2
        while process.poll() is None and (count(out) < wanted or time.monotonic() < patience):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found.append(count(out))
    process = start(source, out, workers, "--json")
    _, said = process.communicate()
    assert process.returncode == 0, said
    return found


def manifest(out: Path) -> dict[tuple[int, int], str]:
    """(line, number) -> the hash of the picture's file, checked against the file."""
    import hashlib

    found: dict[tuple[int, int], str] = {}
    for text in (out / "manifest.jsonl").read_text().splitlines():
        row = json.loads(text)
        key = row["line"], row["number"]
        assert key not in found, f"line {key} occurs twice"
        assert hashlib.sha256((out / row["file"]).read_bytes()).hexdigest() == row["sha256"], key
        found[key] = row["sha256"]
    return found


def whole(folder: Path, prompts: int, kills: int, workers: int) -> dict[str, Any]:
    """The test from beginning to end."""
    source, began = folder / "prompts.jsonl", time.monotonic()
    write_prompts(source, prompts)
    at = run_killed(source, folder / "killed", workers, prompts, kills)
    process = start(source, folder / "alone", 1)
    _, said = process.communicate()
    assert process.returncode == 0, said
    killed, alone = manifest(folder / "killed"), manifest(folder / "alone")
    return {
        "prompts": prompts,
        "workers": workers,
        "pictures at each kill": at,
        "pictures": len(killed),
        "files": count(folder / "killed"),
        "other bytes": sum(killed.get(key) != digest for key, digest in alone.items()),
        "left over": [path.name for path in (folder / "killed").rglob("*.part")],
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    print(json.dumps(whole(given.folder, given.prompts, given.kills, given.workers), indent=2))


if __name__ == "__main__":
    main()

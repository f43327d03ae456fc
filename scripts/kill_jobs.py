"""Kills a queue at random moments and counts what became of its jobs.

    python scripts/kill_jobs.py FOLDER --jobs 400 --kills 20 [--database postgresql://...]

A queue of small pictures is filled; a program that works on it is started and killed (SIGKILL) again and again, then it
may finish. Printed as JSON: how many jobs are done, repeated and lost, how many pictures open, carry their settings and
have the bytes that the command line writes, and whether anything was left over. One more job, the bomb, kills its own
program each time it is tried, and must be lost after its third attempt.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image

from stable_diffusion import Request, read_metadata
from stable_diffusion.cli.main import cli
from stable_diffusion.events import Event
from stable_diffusion.jobs import JobService, Limits
from stable_diffusion.runner import LocalRunner

SETTINGS = {"model": "embedded-fast", "steps": 2, "width": 64, "height": 64}
ROOMY = Limits(queue=10_000, owner=10_000)
COLOURS = ("red", "green", "blue", "white", "black")


def bomb(body: Mapping[str, Any], inputs: object) -> Iterator[Event]:
    """A job that takes its program with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    yield from ()


def requests(count: int) -> list[Request]:
    """Jobs of one or two pictures, every picture with a seed of its own."""
    colours = [COLOURS[index % len(COLOURS)] for index in range(count)]
    return [
        Request(f"a {colour} ball number {index}", seed=1000 + 10 * index, count=1 + (index % 7 == 0), **SETTINGS)
        for index, colour in enumerate(colours)
    ]


def serve(folder: Path, database: str | None) -> None:
    """Works until nothing waits; prints a line for each state that a job comes to."""
    service = JobService(folder, database=database, runners=[LocalRunner()], limits=ROOMY, handlers={"bomb": bomb})
    with service, service.subscribe() as events:
        while service.state().queued or service.state().running:
            event = events.get(1)
            if event is not None and event.kind in ("running", "done"):
                print(event.kind, event.job, flush=True)


def fill(folder: Path, database: str | None, asked: list[Request], bombs: int) -> None:
    with JobService(folder, database=database, runners=(), limits=ROOMY, handlers={"bomb": bomb}) as service:
        for index, request in enumerate(asked):
            service.submit(request, owner=f"owner {index % 3}", priority=index % 2)
        for _ in range(bombs):
            service.submit({}, kind="bomb", owner="owner 0", priority=1)


def kill_at_random(folder: Path, database: str | None, jobs: int, kills: int, seed: int) -> int:
    """Starts the program and kills it, `kills` times; then lets it finish. Returns how often it ended by itself."""
    draw, done, own = random.Random(seed), 0, 0
    most = max(3, 3 * jobs // (2 * max(kills, 1)))
    command = [sys.executable, __file__, str(folder), "--serve", *(["--database", database] if database else [])]
    while True:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        wanted = draw.randint(1, most) if done < kills else None
        for number, _ in enumerate(child.stdout):
            if wanted is not None and number >= wanted:
                time.sleep(draw.random() * 0.15)
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.close()
        code = child.wait()
        if wanted is not None and code == -signal.SIGKILL and number >= wanted:
            done += 1
        elif code == 0:
            return own
        else:
            own += 1


def commanded(asked: list[Request], folder: Path) -> dict[int, bytes]:
    """Seed -> the bytes of the file that the command line writes, for all pictures of the requests."""
    lines = [f'--prompt "{each.prompt}" --seed {each.seed} --count {each.count}' for each in asked]
    (folder / "prompts.txt").write_text("\n".join(lines))
    options = ["-m", "embedded-fast", "--steps", "2", "--width", "64", "--height", "64", "--no-preview"]
    files = ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "pictures")]
    result = CliRunner().invoke(cli, ["generate", *files, *options])
    assert result.exit_code == 0, result.output
    return {int(path.name.split("-")[0]): path.read_bytes() for path in (folder / "pictures").glob("*.png")}


def report(folder: Path, database: str | None, expected: dict[int, bytes]) -> dict[str, Any]:
    """What became of the jobs and of the pictures."""
    with JobService(folder, database=database, runners=(), limits=ROOMY, handlers={"bomb": bomb}) as service:
        jobs = service.jobs(limit=100_000)
        pictures = [picture for job in jobs for picture in service.pictures_of(job.id)]
        files = {service.folder.path / picture.file: picture for picture in pictures}
        wrong = []
        for path, picture in files.items():
            data = path.read_bytes()
            with Image.open(path) as image:
                image.load()
            told = read_metadata(path).request
            same = (told.prompt, told.seed, told.steps) == (picture.prompt, picture.seed, SETTINGS["steps"])
            if data != expected.get(picture.seed or 0) or not same:
                wrong.append(picture.id)
        on_disk = [path for path in service.folder.path.rglob("*.png") if path.parent.name != "thumbs"]
        done = [job for job in jobs if job.state == "done"]
        return {
            "states": dict(Counter(job.state for job in jobs)),
            "attempts of done jobs": dict(sorted(Counter(job.attempts for job in done).items())),
            "attempts of lost jobs": [job.attempts for job in jobs if job.state == "lost"],
            "errors": sorted({job.error for job in jobs if job.error}),
            "pictures": len(pictures),
            "expected pictures of done jobs": sum(job.count for job in done if job.kind == "generate"),
            "wrong pictures": wrong,
            "files without a row": len(set(on_disk) - set(files)),
            "left over": [path.name for path in service.folder.path.rglob("*.part")],
        }


def whole(
    folder: Path, database: str | None, jobs: int, kills: int, *, bombs: int = 1, seed: int = 1
) -> dict[str, Any]:
    """The test from beginning to end."""
    asked, began = requests(jobs), time.monotonic()
    fill(folder / "data", database, asked, bombs)
    own = kill_at_random(folder / "data", database, jobs, kills, seed)
    (folder / "cli").mkdir()
    found = report(folder / "data", database, commanded(asked, folder / "cli"))
    return {"jobs": jobs, "kills": kills, "ended by a job": own, **found, "seconds": round(time.monotonic() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.folder, given.database)
        return
    given.folder.mkdir(parents=True)
    print(json.dumps(whole(given.folder, given.database, given.jobs, given.kills, seed=given.seed), indent=2))


if __name__ == "__main__":
    main()

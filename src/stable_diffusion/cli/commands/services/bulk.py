"""`stable-diffusion bulk`: a file of requests to a folder of pictures, by several processes; resumes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ....request.axes import Axis
from ....request.prompt_file import PromptLine
from ....request.request import COMMON
from ...command import Command, SectionOption, apply
from ...format import echo_json
from ...given import Given
from ...options import chosen, device_options
from ...setting_options import setting_options, size_option
from .on_cluster import bulk_team

if TYPE_CHECKING:
    from ....bulk.run import BulkRun, BulkStatus

EXAMPLES = """
stable-diffusion bulk prompts.jsonl -o pictures
stable-diffusion bulk prompts.csv -o pictures --workers 2 --steps 20
stable-diffusion bulk prompts.txt -o pictures --axis seed=1-8 --axis cfg=3,5,7
stable-diffusion bulk --prompt "a castle" --axis steps=5,10,20 --axis sampler=euler,dpmpp_2m -o grid
stable-diffusion bulk prompts.parquet -o pictures --shard 3/64 --tar 1000
stable-diffusion bulk prompts.jsonl -o pictures --ray auto --workers 16
"""
BULK: Any = {"cls": SectionOption, "section": "Bulk"}


@click.command("bulk", cls=Command, examples=EXAMPLES)
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the pictures.", **BULK)
@click.option("--prompt", "prompts", multiple=True, help="A prompt, instead of a file; may be repeated.", **BULK)
@click.option("--axis", "axes", multiple=True, metavar="NAME=A,B,...", help="Each request with each of these.", **BULK)
@click.option("--workers", type=click.IntRange(1, 256), show_default="one a GPU", help="Processes.", **BULK)
@click.option("--threads", type=click.IntRange(1, 256), show_default="torch's own", help="Of a worker.", **BULK)
@click.option("--shard", default="1/1", metavar="I/N", help="Only part I of N, for N machines.", **BULK)
@click.option("--tar", type=click.IntRange(0), default=0, help="Requests in a tar file (webdataset).", **BULK)
@click.option("--ray", metavar="ADDRESS", help='Make the pictures on a Ray cluster; "local" starts one.', **BULK)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with [cluster].", **BULK)
@click.option("--share", default="alone", metavar="MODE", help="Share network calls: alone, fixed:N, free.", **BULK)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.", **BULK)
@setting_options(COMMON)
@size_option
@apply(device_options)
def command(
    source: Path | None,
    out: Path,
    prompts: tuple[str, ...],
    axes: tuple[str, ...],
    workers: int | None,
    threads: int | None,
    shard: str,
    tar: int,
    ray: str | None,
    config: Path | None,
    share: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Generate a picture for each request of SOURCE: .jsonl, .json, .csv, .tsv, .parquet or .txt.

    Given again after it was stopped or killed, the same command goes on where it was. OUT/manifest.jsonl has a line for
    each picture: its request, hash and timing. Requests that are equal are made once.
    """
    from ....bulk.plan import Shard
    from ....bulk.run import BulkPlan, BulkRun, check_folder, plan_key
    from ....engine.sharing.mode import ShareMode

    if (source is None) == (not prompts):
        raise click.UsageError("Give a file of requests, or --prompt", click.get_current_context())
    check_folder(out)
    ShareMode.parse(share)
    base = Given.of(settings).settings
    part, parsed = Shard.parse(shard), [Axis.parse(text) for text in axes]
    given = source if source is not None and source.is_file() else None
    plan = BulkPlan(
        lines=lambda: _lines(source, prompts),
        base=base,
        axes=parsed,
        shard=part,
        key=plan_key(given, prompts, axes, shard, base),
    )
    if ray is None:
        _show(BulkRun(out, plan, workers=_workers(workers, threads, share), tar=tar), as_json)
        return
    with bulk_team(config, {"address": ray, "max_replicas": workers, "threads": threads, **chosen()}) as (team, count):
        _show(BulkRun(out, plan, workers=({},) * count, tar=tar, team=team), as_json)


def _lines(source: Path | None, prompts: tuple[str, ...]) -> Iterable[PromptLine]:
    from ....bulk.read import read_lines

    if source is not None:
        return read_lines(source)
    return (PromptLine(number, {"prompt": prompt}) for number, prompt in enumerate(prompts, start=1))


def _workers(workers: int | None, threads: int | None, share: str) -> list[dict[str, Any]]:
    """A device and a number of threads for each worker: one a GPU, where there are any and nothing else is said.

    The number of threads is that of every other command unless it is given, for pictures depend on it in their last
    bits.
    """
    said = chosen()
    device, dtype = said.get("device", "auto"), said.get("dtype", "auto")
    devices = _devices() if device == "auto" else device.split(",")
    count = len(devices) if workers is None else workers
    said_elsewhere = "OMP_NUM_THREADS" in os.environ or not devices[0].startswith(("auto", "cpu"))
    if count > 1 and threads is None and not said_elsewhere:
        click.echo(
            "note: the workers share the cores; with --threads 1 they are faster, and the bytes others", err=True
        )
    order = {"dtype": dtype, "threads": threads or 0, "share": share}
    return [{"device": devices[index % len(devices)], **order} for index in range(count)]


def _devices() -> list[str]:
    """Every GPU of this machine, or else what "auto" means; torch, slow to import, is asked where it may know."""
    if os.name == "posix" and not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return ["auto"]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]


def _show(run: BulkRun, as_json: bool) -> None:
    """A bar with the time that is left on stderr; at the end the manifest's path, or JSON, on stdout."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ...terminal import stderr_console

    console = stderr_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last: BulkStatus | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar, closing(run.run()) as states:
        task = bar.add_task("pictures", total=None)
        for last in _said(states, console.is_terminal):
            what = f"pictures, {last.failed} failed" if last.failed else "pictures"
            bar.update(task, completed=last.done, total=last.total, description=what)
    assert last is not None
    manifest = run.folder.path / "manifest.jsonl"
    if as_json:
        found = {"pictures": last.done, "failed": last.failed, "twins": last.twins, "seconds": round(last.seconds, 3)}
        echo_json({"manifest": manifest, **found})
    else:
        click.echo(str(manifest))
    if last.failed:
        raise SystemExit(1)


def _said(states: Iterator[BulkStatus], terminal: bool) -> Iterator[BulkStatus]:
    """The states; without a terminal a line on stderr for each tenth part that is done."""
    tenth = -1
    for state in states:
        if not terminal and (now := 10 * state.done // max(state.total, 1)) > tenth:
            left = "" if state.seconds_left is None else f", {state.seconds_left:.0f} s left"
            click.echo(f"{state.done} of {state.total} pictures{left}", err=True)
            tenth = now
        yield state

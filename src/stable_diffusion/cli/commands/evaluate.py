"""`stable-diffusion evaluate`: one report on a model, as JSON and as a page with pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InvalidRequest
from .. import files
from ..command import Command, Whole
from ..format import echo_json, echo_table, json_option
from ..options import load_model, loading_options

if TYPE_CHECKING:
    from ...evaluation.painter import Report as Progress

SECTIONS = ("quality", "alignment", "diversity", "stability", "efficiency")
"""Those of `evaluation.run`, repeated here because that module takes long to import; a test compares them."""

EXAMPLES = """
stable-diffusion evaluate
stable-diffusion evaluate model.safetensors --data pack --tower runs/text --out report
stable-diffusion evaluate --section stability --section efficiency --json
"""


@click.command("evaluate", cls=Command, examples=EXAMPLES)
@click.argument("model", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    show_default="the built-in pictures",
    help="Data pack with held-out pictures: a folder, or a file of few pictures.",
)
@click.option(
    "--tower",
    type=click.Path(path_type=Path),
    show_default="the built-in tower",
    help="Image tower that judges: a file, or a text-stage run.",
)
@click.option(
    "--features", type=click.Path(path_type=Path), help="CLIP image encoder, folder or file: two more distances."
)
@click.option("--full", is_flag=True, help="Ten times the pictures of the quick form.")
@click.option(
    "--section", "sections", type=click.Choice(SECTIONS), multiple=True, show_default="all", help="May be repeated."
)
@click.option("-s", "--seed", type=Whole(0, 2**31), default=0, show_default=True, help="Of the first picture.")
@click.option("--save-tower", type=click.Path(path_type=Path), help="Write the tower to one file for later use.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    show_default="outputs/evaluation-MODEL",
    help="Folder of the report.",
)
@json_option
@loading_options
def command(
    model: str | None,
    data: Path | None,
    tower: Path | None,
    features: Path | None,
    full: bool,
    sections: tuple[str, ...],
    seed: int,
    save_tower: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure MODEL (the built-in one by default): quality, alignment, diversity, stability, efficiency.

    Writes report.json and report.html. What cannot be measured is left out, and the report says so: whether training
    pictures are repeated, for example, needs the data pack. docs/evaluation.md explains every number.
    """
    from dataclasses import replace

    from ...evaluation.page import save_page
    from ...evaluation.run import PLANS, evaluate
    from ...evaluation.tables import sections as listed

    if out is not None and out.exists() and not out.is_dir():
        raise InvalidRequest(f"{str(out)!r} is a file: expected the name of a folder for --out")
    pack, eye, clip = _judges(data, tower, features, save_tower)
    loaded = load_model(model)
    folder = files.free_name(files.OUTPUTS / f"evaluation-{files.slug(loaded.name)}") if out is None else out
    plan = replace(PLANS["full" if full else "quick"], seed=seed)
    with _display() as report:
        found = evaluate(loaded, pack=pack, eye=eye, clip=clip, plan=plan, sections=sections or SECTIONS, report=report)
    found.save(folder / "report.json")
    save_page(found, folder / "report.html")
    if as_json:
        echo_json({**found.to_dict(), "page": str(folder / "report.html")})
        return
    for title, rows in listed(found):
        click.echo(f"\n{title.upper()}")
        echo_table(rows)
    if found.left_out:
        click.echo("\nLEFT OUT")
        echo_table([(item.what, item.why) for item in found.left_out])
    click.echo(f"\n{folder / 'report.html'}")


def _judges(
    data: Path | None, tower: Path | None, features: Path | None, save_tower: Path | None
) -> tuple[Any, Any, Any]:
    """The data pack, the eye and the CLIP image encoder: those that were given, else the built-in ones, if any."""
    from ...embedded import pictures_path, tower_path
    from ...evaluation.clip_eye import load_clip_eye
    from ...evaluation.pack import PicturePack
    from ...evaluation.tower import load_eye, save_eye

    if save_tower is not None and tower is None:
        raise InvalidRequest("--save-tower was given without --tower: expected the tower that is to be saved")
    data = pictures_path() if data is None else data
    tower = tower_path() if tower is None else tower
    pack = None if data is None else PicturePack(data)
    eye = None if tower is None else load_eye(tower, tokenizer=None if pack is None else pack.tokenizer)
    if save_tower is not None and eye is not None:
        if save_tower.exists():
            raise InvalidRequest(f"{str(save_tower)!r} exists: choose another name for --save-tower")
        save_eye(save_tower, eye)
        click.echo(f"note: the tower is in {save_tower}", err=True)
    return pack, eye, None if features is None else load_clip_eye(features)


class _display:
    """Progress on stderr: a bar on a terminal, elsewhere one line for every piece of work and every minute."""

    def __enter__(self) -> Progress:
        from ..terminal import Display, stderr_console

        self.display = Display(stderr_console(), preview=False)
        self.display.__enter__()
        self.start, self.last, self.what = time.monotonic(), 0.0, ""
        return self.report

    def __exit__(self, *error: Any) -> None:
        self.display.__exit__(*error)

    def report(self, what: str, done: int, total: int) -> None:
        self.display.advance(done, total, what)
        seconds = time.monotonic() - self.start
        if not self.display.console.is_terminal and (what != self.what or seconds - self.last > 60):
            click.echo(f"{seconds:6.0f} s  {what} {done}/{total}", err=True)
            self.last, self.what = seconds, what

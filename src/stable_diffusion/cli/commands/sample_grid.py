"""`stable-diffusion sample-grid`: one labelled sheet over two, three or more settings."""

from __future__ import annotations

from typing import Any

import click

from ...request.axes import Axis, Grid, plain
from ...request.settings import Canvas, Hires, Noise, Prompting, Refiner
from .. import files
from ..command import Command, SectionOption, Values
from ..format import echo_json
from ..given import Given
from ..options import load_model, model_options
from ..output import Output, output_options
from ..run import run_cells
from ..setting_options import setting_options, size_option

LISTS = {"seeds": "seed", "samplers": "sampler", "schedules": "schedule", "steps": "steps", "guidance": "guidance"}
"""Option -> axis, in the order of preference for columns."""

EXAMPLES = """
stable-diffusion sample-grid "a castle" --seeds 1-4 --guidance 1,3,6
stable-diffusion sample-grid "a cat" --samplers euler,dpmpp_2m,ddim --steps 5,10,20 --out samplers.png
stable-diffusion sample-grid "a red apple" --x "prompt=apple,house,fish" --y "prompt=red,blue" --seeds 7
stable-diffusion sample-grid "a fish" --x "hires-strength=0.3-0.9 [4]" --y steps=5,20 --z sampler=euler,dpmpp_2m
"""
AXIS: Any = {"cls": SectionOption, "section": "Any setting", "metavar": "NAME=A,B,..."}


@click.command("sample-grid", cls=Command, examples=EXAMPLES)
@click.argument("prompt")
@click.option("--seeds", type=Values(int), show_default="1-4", help="Also ranges: 1-4,9.")
@click.option("--samplers", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--schedules", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--steps", type=Values(int), help="Numbers of steps.")
@click.option("--guidance", "--cfg", type=Values(float), help="Guidance scales.")
@output_options("outputs/grid-PROMPT.png")
@click.option("--x", **AXIS, help="Columns: steps, cfg, prompt (search and replace), hires, eta, ...")
@click.option("--y", **AXIS, help="Rows.")
@click.option("--z", **AXIS, help="Blocks of rows.")
@setting_options("negative_prompt", "image", section="Common options")
@size_option
@setting_options("image_guidance")
@setting_options(Prompting.SECTION)
@setting_options(Canvas.SECTION, without=("width", "height", "background"))
@setting_options(Hires.SECTION)
@setting_options(Refiner.SECTION)
@setting_options(Noise.SECTION, without=("schedule",))
@model_options
def command(prompt: str, output: Output, x: str | None, y: str | None, z: str | None, **settings: Any) -> None:
    """Generate PROMPT with every combination of the given values, on one labelled sheet.

    The lists give axes too: the first one with more than one value makes the columns where --x does not, the others the
    rows.
    """
    from ...pipeline.grid import draw

    grid = arrange({name: settings.pop(name) for name in LISTS}, x, y, z)
    base = Given.of(settings).request(prompt)
    requests = grid.cells(base)
    output.check()
    loaded = load_model(base.model)
    sheet = draw(*grid.labels, list(run_cells(loaded, requests)))
    path = output.save(sheet, f"grid-{files.slug(prompt)}")
    if output.as_json:
        sides = {"columns": grid.columns, "rows": grid.rows, "blocks": grid.blocks}
        found = {name: [plain(values) for values in side] for name, side in sides.items()}
        echo_json({"path": path, **found, "width": sheet.width, "height": sheet.height})
    else:
        click.echo(str(path))


def arrange(lists: dict[str, tuple[Any, ...] | None], x: str | None, y: str | None, z: str | None) -> Grid:
    """The grid of the command line."""
    columns, rows, blocks = (None if text is None else Axis.parse(text) for text in (x, y, z))
    named = {axis.name for axis in (columns, rows, blocks) if axis is not None}
    if lists.get("seeds") is None and "seed" not in named:
        lists = {**lists, "seeds": (1, 2, 3, 4) if columns is None else (1,)}
    axes = [Axis(axis, values) for name, axis in LISTS.items() if (values := lists.get(name)) is not None]
    if columns is None:
        columns = next((axis for axis in axes if len(axis.values) > 1), next(iter(axes), None))
    return Grid(columns, (*([] if rows is None else [rows]), *(axis for axis in axes if axis != columns)), blocks)

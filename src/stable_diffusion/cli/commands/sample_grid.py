"""`stable-diffusion sample-grid`: one labelled sheet over two, three or more settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import files
from ..command import Command, Size, Values
from ..format import echo_json
from ..options import apply, given, json_option, load_model, model_options, out_options
from ..task_options import canvas_options, hires_options, noise_options, prompt_options, section, xl_options
from .generate import check_destination

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...pipeline.models import StableDiffusion
    from ...request.axes import Grid
    from ...request.request import Request

LISTS = {"seeds": "seed", "samplers": "sampler", "schedules": "schedule", "steps": "steps", "guidance": "guidance"}
"""Option -> axis, in the order of preference for columns."""

EXAMPLES = """
stable-diffusion sample-grid "a castle" --seeds 1-4 --guidance 1,3,6
stable-diffusion sample-grid "a cat" --samplers euler,dpmpp_2m,ddim --steps 5,10,20 --out samplers.png
stable-diffusion sample-grid "a red apple" --x "prompt=apple,house,fish" --y "prompt=red,blue" --seeds 7
stable-diffusion sample-grid "a fish" --x "hires-strength=0.3-0.9 [4]" --y steps=5,20 --z sampler=euler,dpmpp_2m
"""


_axis = section("Any setting")
axis_options = apply(
    [
        _axis("--x", metavar="NAME=A,B,...", help="Columns: steps, cfg, prompt (search and replace), hires, eta, ..."),
        _axis("--y", metavar="NAME=A,B,...", help="Rows."),
        _axis("--z", metavar="NAME=A,B,...", help="Blocks of rows."),
    ]
)


@click.command("sample-grid", cls=Command, examples=EXAMPLES)
@click.argument("prompt")
@click.option("--seeds", type=Values(int), show_default="1-4", help="Also ranges: 1-4,9.")
@click.option("--samplers", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--schedules", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--steps", type=Values(int), help="Numbers of steps.")
@click.option("--guidance", "--cfg", type=Values(float), help="Guidance scales.")
@axis_options
@click.option("--negative", "--negative-prompt", "negative_prompt", metavar="TEXT", help="What to avoid.")
@click.option("--size", type=Size(), show_default="the model's own", help="Of one picture.")
@click.option("--image", type=click.Path(path_type=Path), help="Picture to start from.")
@prompt_options
@canvas_options
@hires_options
@xl_options
@noise_options
@model_options
@out_options("outputs/grid-PROMPT.png")
@json_option
def command(
    prompt: str,
    model: str | None,
    device: str,
    dtype: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    x: str | None,
    y: str | None,
    z: str | None,
    **settings: Any,
) -> None:
    """Paint PROMPT with every combination of the given values, on one labelled sheet.

    The lists give axes too: the first one with more than one value makes the columns where --x does not, the others the
    rows.
    """
    from ...pipeline.grid import draw
    from ...pipeline.output import save_image
    from ...request.axes import plain
    from ...request.request import Request

    lists = {name: settings.pop(name) for name in LISTS}
    grid = arrange(lists, x, y, z)
    requests = grid.cells(Request(prompt, **given(settings), **given({"model": model})))
    check_destination(out, 1, overwrite)
    loaded = load_model(model, device, dtype)
    sheet = draw(*grid.labels, list(paint_all(loaded, requests)))
    path = files.destination(out, f"grid-{files.slug(prompt)}", overwrite=overwrite)
    save_image(sheet, path, overwrite=overwrite)
    if as_json:
        sides = {"columns": grid.columns, "rows": grid.rows, "blocks": grid.blocks}
        found = {name: [plain(values) for values in side] for name, side in sides.items()}
        echo_json({"path": path, **found, "width": sheet.width, "height": sheet.height})
    else:
        click.echo(str(path))


def arrange(lists: dict[str, tuple[Any, ...] | None], x: str | None, y: str | None, z: str | None) -> Grid:
    """The grid of the command line."""
    from ...request.axes import Axis, Grid

    columns, rows, blocks = (None if text is None else Axis.parse(text) for text in (x, y, z))
    named = {axis.name for axis in (columns, rows, blocks) if axis is not None}
    if lists.get("seeds") is None and "seed" not in named:
        lists = {**lists, "seeds": (1, 2, 3, 4) if columns is None else (1,)}
    axes = [Axis(axis, values) for name, axis in LISTS.items() if (values := lists.get(name)) is not None]
    if columns is None:
        columns = next((axis for axis in axes if len(axis.values) > 1), next(iter(axes), None))
    return Grid(columns, (*([] if rows is None else [rows]), *(axis for axis in axes if axis != columns)), blocks)


def paint_all(model: StableDiffusion, requests: Sequence[Request]) -> Iterator[Image]:
    """One picture per request, with one progress bar over all of them."""
    from ...pipeline.generate import generate
    from ...request.request import Images
    from ..terminal import Display, stderr_console

    with Display(stderr_console(), preview=False) as display:
        for done, request in enumerate(requests):
            display.advance(done, len(requests))
            for event in generate(model, request):
                if isinstance(event, Images):
                    yield from event.images

"""`stable-diffusion sample-grid`: one labelled sheet over seeds, samplers, schedules, steps and guidance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stable_diffusion.cli import files
from stable_diffusion.cli.command import Command, Size, Values
from stable_diffusion.cli.format import echo_json
from stable_diffusion.cli.generate import check_destination
from stable_diffusion.cli.options import given, json_option, load_model, model_options, out_options
from stable_diffusion.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL.Image import Image

    from stable_diffusion.pipeline.model import StableDiffusion
    from stable_diffusion.pipeline.request import Request

AXES = {"seeds": "seed", "samplers": "sampler", "schedules": "schedule", "steps": "steps", "guidance": "guidance"}
"""Option -> field of the request, in the order of preference for columns."""

MAX_CELLS = 400
MARGIN, LABEL = 8, 22
INK, PAPER = (40, 40, 40), (255, 255, 255)
EXAMPLES = """
stable-diffusion sample-grid "a castle" --seeds 1-4 --guidance 1,3,6
stable-diffusion sample-grid "a cat" --samplers euler,dpmpp_2m,ddim --steps 5,10,20 --out samplers.png
"""


@click.command("sample-grid", cls=Command, examples=EXAMPLES)
@click.argument("prompt")
@click.option("--seeds", type=Values(int), default="1-4", show_default=True, help="Also ranges: 1-4,9.")
@click.option("--samplers", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--schedules", type=Values(str), help="Names, see `stable-diffusion list`.")
@click.option("--steps", type=Values(int), help="Numbers of steps.")
@click.option("--guidance", "--cfg", type=Values(float), help="Guidance scales.")
@click.option("--negative", "--negative-prompt", "negative_prompt", metavar="TEXT", help="What to avoid.")
@click.option("--size", type=Size(), show_default="the model's own", help="Of one picture.")
@model_options
@out_options("outputs/grid-PROMPT.png")
@json_option
def command(
    prompt: str,
    negative_prompt: str | None,
    size: tuple[int, int] | None,
    model: str | None,
    device: str,
    dtype: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    **axes: tuple[Any, ...] | None,
) -> None:
    """Paint PROMPT with every combination of the given values, on one labelled sheet.

    The first list with more than one value makes the columns, the others the rows.
    """
    from stable_diffusion.pipeline.files import save_image

    fixed = given({"prompt": prompt, "negative_prompt": negative_prompt, "size": size, "model": model})
    columns, rows = arrange({name: values for name, values in axes.items() if values is not None})
    requests = [[build(fixed, row, column) for column in columns] for row in rows]
    check_destination(out, 1, overwrite)
    loaded = load_model(model, device, dtype)
    pictures = list(paint_all(loaded, [request for line in requests for request in line]))
    sheet = draw([label(c) for c in columns], [label(r) for r in rows], pictures)
    path = files.destination(out, f"grid-{files.slug(prompt)}", overwrite=overwrite)
    save_image(sheet, path, overwrite=overwrite)
    if as_json:
        echo_json({"path": path, "columns": columns, "rows": rows, "width": sheet.width, "height": sheet.height})
    else:
        click.echo(str(path))


def arrange(axes: dict[str, tuple[Any, ...]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Settings of each column and of each row. One axis with several values makes the columns."""
    fields = {AXES[name]: axes[name] for name in AXES if name in axes}
    across = next((name for name, values in fields.items() if len(values) > 1), next(iter(fields), None))
    columns = [{across: value} for value in fields[across]] if across is not None else [{}]
    down = {name: values for name, values in fields.items() if name != across}
    rows = [dict(zip(down, values, strict=True)) for values in itertools.product(*down.values())]
    if len(columns) * len(rows) > MAX_CELLS:
        raise InvalidRequest(f"the grid has {len(columns) * len(rows)} pictures: expected at most {MAX_CELLS}")
    return columns, rows


def build(fixed: dict[str, Any], row: dict[str, Any], column: dict[str, Any]) -> Request:
    from stable_diffusion.pipeline.request import Request

    return Request(**fixed, **row, **column)


def label(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def paint_all(model: StableDiffusion, requests: Sequence[Request]) -> Iterator[Image]:
    """One picture per request, with one progress bar over all of them."""
    from stable_diffusion.cli.terminal import Display, stderr_console
    from stable_diffusion.pipeline.generate import generate
    from stable_diffusion.pipeline.request import Images

    with Display(stderr_console(), preview=False) as display:
        for done, request in enumerate(requests):
            display.advance(done, len(requests))
            for event in generate(model, request):
                if isinstance(event, Images):
                    yield from event.images


def draw(columns: Sequence[str], rows: Sequence[str], pictures: Sequence[Image]) -> Image:
    """The sheet: pictures in reading order, column labels above, row labels above each row where there are any."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    row_label = LABEL if any(rows) else 0
    step = height + MARGIN + row_label
    sheet = Image.new("RGB", (MARGIN + len(columns) * (width + MARGIN), LABEL + MARGIN + len(rows) * step), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, text in enumerate(columns):
        pen.text((MARGIN + column * (width + MARGIN), 5), text, INK, font)
    for row, text in enumerate(rows):
        pen.text((MARGIN, LABEL + row * step + 3), text, INK, font)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, len(columns))
        place = (MARGIN + column * (width + MARGIN), LABEL + row * step + row_label + MARGIN // 2)
        solid = picture.convert("RGBA")
        sheet.paste(solid, place, solid)
    return sheet

"""`stable-diffusion upscale`: pictures enlarged, by the network in a file or by resampling."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ...request.fields import Upscaler
from ...request.pictures import open_picture
from ...request.sequences import MAX_SIDE
from ...request.settings import RESAMPLERS
from ..command import Command, Number, Size, Whole
from ..format import echo_json
from ..output import Output, output_options
from ..terminal import Display, stderr_console

EXAMPLES = """
stable-diffusion upscale apple.png
stable-diffusion upscale apple.png --upscaler 4x-UltraSharp.pth --scale 2 --out large.png
STABLE_DIFFUSION_UPSCALERS=~/upscalers stable-diffusion upscale *.png --upscaler 4x-UltraSharp --out large
stable-diffusion upscale apple.png --upscaler RealESRGAN_x4plus.pth --size 1920x1080 --crop
"""
MOST_SCALE = 16


@click.command("upscale", cls=Command, examples=EXAMPLES)
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...", type=click.Path(path_type=Path))
@click.option("--upscaler", default="Lanczos", show_default=True, metavar="NAME",
              help=f"{', '.join(RESAMPLERS)}, the file of an upscaler, or its name in a folder of "
              "STABLE_DIFFUSION_UPSCALERS.")  # fmt: skip
@click.option("--scale", type=Number(0.1, MOST_SCALE), show_default="2", help="Factor of both sides.")
@click.option("--size", type=Size(), help="Width and height to cover, in place of --scale.")
@click.option("--crop", is_flag=True, help="Cut what --size leaves over in the longer direction.")
@click.option("--tile", type=Whole(32, MAX_SIDE), help="Side of the tiles in which a network works; 192.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps.")
@output_options("outputs/NAME-WIDTHxHEIGHT.png")
def command(
    pictures: tuple[Path, ...],
    upscaler: str,
    scale: float | None,
    size: tuple[int, int] | None,
    crop: bool,
    tile: int | None,
    device: str,
    output: Output,
) -> None:
    """Enlarge each PICTURE. Transparency and the settings written in it are kept.

    A network enlarges by its own factor, as often as it takes; the result is then resampled to the size that was
    asked for.
    """
    start = time.monotonic()
    if scale is not None and size is not None:
        raise click.UsageError("Give --scale or --size, not both", click.get_current_context())
    output.check(len(pictures))
    named = Upscaler(RESAMPLERS).check("upscaler", upscaler)
    from ...engine.precision import resolve_device
    from ...upscaling.network import load_upscaler
    from ...upscaling.picture import Target, check_size, upscaled
    from ...upscaling.tiles import TILE

    target = Target(scale=2.0 if scale is None else scale, size=size, crop=crop)
    by = named if named in RESAMPLERS else load_upscaler(named, str(resolve_device(device)))
    records = []
    for path in pictures:
        image = open_picture(path, "picture")
        check_size(target.of(image.size), MAX_SIDE, MAX_SIDE**2)
        with Display(stderr_console(), preview=False) as display:
            steps = upscaled(image, by, target, tile=TILE if tile is None else tile)
            made = None
            while made is None:
                try:
                    display.advance(round(100 * next(steps)), 100, "upscaling")
                except StopIteration as end:
                    made = end.value
        stem = f"{path.stem}-{made.width}x{made.height}"
        saved = output.save(made, stem, apart=path.stem if len(pictures) > 1 else None)
        records.append({"path": saved, "width": made.width, "height": made.height})
        if not output.as_json and not output.to_stdout:
            click.echo(str(saved))
    if output.as_json:
        echo_json({"images": records, "seconds": round(time.monotonic() - start, 3)})

"""`stable-diffusion generate`: a sentence to pictures. The default command."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InvalidRequest
from .. import files
from ..command import Command, Number
from ..control_options import control_options, given_controls
from ..format import echo_json
from ..options import (
    MAX_COUNT,
    given,
    json_option,
    load_model,
    model_options,
    out_options,
    preview_vae_option,
    sampling_options,
    seed_option,
)
from ..task_options import (
    canvas_options,
    hires_options,
    mask_options,
    noise_options,
    outpaint_option,
    prompt_options,
    xl_options,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...request.request import Event, Images, Request
    from ..terminal import Display

EXAMPLES = """
stable-diffusion "a beautiful sunset over the ocean"
stable-diffusion "a red apple" --negative leaf --steps 30 --cfg 4 --seed 7 --out apple.png
stable-diffusion "a blue apple" --image apple.png --strength 0.6
stable-diffusion "a worm" --image apple.png --mask hole.png
stable-diffusion generate --like apple.png --seed 8
stable-diffusion "a [cat:dog:0.5] AND a {red|blue} hat" --count 4
stable-diffusion "a red apple" --background "#ffeecc"
stable-diffusion "a castle" --hires 2 --hires-strength 0.5
stable-diffusion "a castle" -m xl_base.safetensors --refiner xl_refiner.safetensors --refiner-switch 0.8
stable-diffusion "a meadow" --panorama --out sphere.jpg
stable-diffusion generate --prompts prompts.txt --out pictures
stable-diffusion "a lighthouse" --lora style.safetensors:0.8
stable-diffusion "a lighthouse <lora:style:0.8>" --lora-dir loras
stable-diffusion "a house" --control canny.safetensors --control-image house.png --control-preprocessor canny
echo "a cat" | stable-diffusion -
"""


@click.command("generate", cls=Command, examples=EXAMPLES)
@click.argument("prompt", required=False)
@sampling_options
@seed_option
@click.option(
    "-n", "--count", type=click.IntRange(1, MAX_COUNT), show_default="1", help="How many; picture k has seed + k."
)
@click.option("--image", type=click.Path(path_type=Path), help="Picture to start from.")
@click.option("--mask", type=click.Path(path_type=Path), help="White where --image is painted anew.")
@click.option("--strength", type=Number(min=0, max=1), show_default="0.75", help="How much of --image is painted anew.")
@click.option(
    "--background",
    metavar="GROUND",
    show_default="as the prompt has it",
    help="Behind the thing: transparent, white, scene or a colour such as #ff8800.",
)
@prompt_options
@mask_options
@outpaint_option
@canvas_options
@hires_options
@xl_options
@noise_options
@control_options
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="A file of prompts, one a line, with options of its own."
)
@click.option("--like", type=click.Path(path_type=Path), help="Take the settings written in this picture.")
@model_options
@out_options("outputs/SEED-PROMPT.png")
@preview_vae_option
@click.option("--preview/--no-preview", default=True, show_default=True, help="Show the picture forming.")
@json_option
def command(
    prompt: str | None,
    like: Path | None,
    prompts: Path | None,
    model: str | None,
    device: str,
    dtype: str,
    out: Path | None,
    overwrite: bool,
    preview: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Paint PROMPT. Paths go to stdout, one a line; seeds and progress go to stderr.

    PROMPT - reads it from standard input. Nothing that exists is overwritten unless asked for.
    """
    start = time.monotonic()
    controls = given_controls(click.get_current_context())
    settings |= {"model": model, "controls": controls or None}
    requests = build_requests(prompt, like, prompts, given(settings))
    paint_all(
        requests,
        device=device,
        dtype=dtype,
        out=out,
        overwrite=overwrite,
        preview=preview,
        as_json=as_json,
        start=start,
    )


def paint_all(
    requests: Sequence[Request],
    *,
    device: str,
    dtype: str,
    out: Path | None,
    overwrite: bool,
    preview: bool,
    as_json: bool,
    start: float,
) -> None:
    """Paint the requests one after another, and say where the pictures are."""
    to_stdout = out is not None and str(out) == "-"
    count = sum(request.count for request in requests)
    check_destination(out, count, overwrite)
    records = []
    for request in requests:
        saved = paint(
            request, device=device, dtype=dtype, out=out, overwrite=overwrite, preview=preview, many=count > 1
        )
        for path, seed, image in saved:
            records.append({"path": path, "seed": seed, "width": image.width, "height": image.height})
            if not as_json and not to_stdout:
                click.echo(str(path))
    if as_json:
        echo_json({"images": records, "seconds": round(time.monotonic() - start, 3)})


def build_requests(
    prompt: str | None, like: Path | None, prompts: Path | None, settings: dict[str, Any]
) -> list[Request]:
    """The one request of the command line, or one for each line of a file of prompts."""
    if prompts is None:
        return [build_request(prompt, like, settings)]
    if prompt is not None or like is not None:
        raise click.UsageError("Give --prompts, or a prompt, or --like", click.get_current_context())
    from ...request.prompt_file import read_prompts

    base = dict(settings)
    return [line.request(base) for line in read_prompts(prompts)]


def build_request(prompt: str | None, like: Path | None, settings: dict[str, Any]) -> Request:
    """The request of the command line, or that of a picture with the command line's changes."""
    from ...request.request import Request

    if prompt == "-":
        prompt = sys.stdin.read()
    if like is not None:
        changes = settings if prompt is None else {**settings, "prompt": prompt}
        return Request.like(like, **changes)
    if prompt is None:
        raise click.UsageError("Missing the prompt, a sentence in quotes", click.get_current_context())
    return Request(prompt, **settings)


def check_destination(out: Path | None, count: int, overwrite: bool) -> None:
    """Complain about --out before the work, not after it."""
    if out is not None and str(out) == "-":
        if count > 1 or sys.stdout.isatty():
            raise InvalidRequest("--out - writes one PNG to a pipe: redirect standard output, and leave out --count")
        return
    if out is None or out.is_dir() or out.suffix == "":
        return
    files.check_ending(out)
    if count == 1:
        files.destination(out, "", overwrite=overwrite)
    files.prepare_folder(out)


def paint(
    request: Request, *, device: str, dtype: str, out: Path | None, overwrite: bool, preview: bool, many: bool
) -> Iterator[tuple[Path, int, Image]]:
    """Run the request and save each picture as soon as it is finished; yields (path, seed, picture)."""
    from ..terminal import Display, stderr_console

    with Display(stderr_console(), preview=preview) as display:
        from ...pipeline.generate import generate

        loaded = load_model(request.model, device, dtype)
        said: set[str] = set()
        for event in generate(loaded, request, preview_every=int(display.preview)):
            done = _shown(event, display)
            if done is None:
                continue
            for note in done.notes:
                if note not in said:
                    display.say(f"note: {note}")
            said.update(done.notes)
            for image, seed, single in zip(done.images, done.seeds, done.requests, strict=True):
                display.say(f"seed {seed}")
                yield save(image, single, seed, out, overwrite, many), seed, image


def _shown(event: Event, display: Display) -> Images | None:
    """Draw progress; hand finished pictures on."""
    from ...request.request import Progress

    if not isinstance(event, Progress):
        return event
    label = "painting" if event.pictures == 1 else f"painting {event.picture + 1} of {event.pictures}"
    display.advance(event.index, event.total, label, event.preview)
    return None


def save(image: Image, request: Request, seed: int, out: Path | None, overwrite: bool, many: bool) -> Path:
    """Write one picture with its settings in it; returns where. `-` writes PNG to standard output."""
    from ...pipeline.output import save_image

    if out is not None and str(out) == "-":
        sys.stdout.buffer.write(png_bytes(image))
        return Path("-")
    stem = f"{seed}-{files.slug(request.prompt)}"
    if out is not None and out.suffix != "" and not out.is_dir() and many:
        path = files.free_name(out.with_name(f"{out.stem}-{seed}{out.suffix}"))
    else:
        path = files.destination(out, stem, overwrite=overwrite)
    return save_image(image, path, overwrite=overwrite)


def png_bytes(image: Image) -> bytes:
    """The bytes of the PNG file that `save_image` writes."""
    from ...pipeline.output import save_image

    with tempfile.TemporaryDirectory() as folder:
        return save_image(image, Path(folder) / "picture.png").read_bytes()

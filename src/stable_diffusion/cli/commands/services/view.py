"""`stable-diffusion view`: a panorama in the browser, or as one HTML file."""

from __future__ import annotations

import signal
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ....errors import InvalidRequest, StableDiffusionError
from ...command import Command

if TYPE_CHECKING:
    from ....ui.viewer_page import Panorama

EXAMPLES = """
stable-diffusion view sphere.jpg
stable-diffusion view sphere.png --depth depth.png
stable-diffusion view sphere.png --export sphere.html
"""


@click.command("view", cls=Command, examples=EXAMPLES)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "--depth",
    type=click.Path(path_type=Path),
    help="A depth picture of the view, white near: VR shows a stereo pair.",
)
@click.option(
    "--stereo", type=click.Choice(["top-bottom", "left-right"]), help="PICTURE holds two views, the left eye's first."
)
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    metavar="PAGE.html",
    help="Write one HTML file that works from the disk, and open nothing.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file of --export.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="Port of the page, at 127.0.0.1.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser, or only print its address.")
def command(
    picture: Path,
    depth: Path | None,
    stereo: str | None,
    export: Path | None,
    overwrite: bool,
    port: int,
    browser: bool,
) -> None:
    """Look around in PICTURE, a panorama: drag, arrow keys, wheel, a phone's motion, full screen, VR (WebXR).

    The page is shown on this computer alone until Ctrl-C. --export writes a file for other devices, which holds picture
    and viewer.
    """
    from ....request.pictures import open_picture
    from ....ui.viewer_page import Panorama, exported_page, is_sphere, read_picture

    shown = Panorama(
        name=picture.name,
        picture=read_picture(picture),
        depth=None if depth is None else read_picture(depth, "depth"),
        stereo=stereo,
    )
    size = open_picture(picture).size
    if not is_sphere(*size, stereo):
        click.echo(
            f"note: {size[0]}x{size[1]} is no whole sphere, which is twice as wide as high; shown in part", err=True
        )
    if export is not None:
        _export(export, exported_page(shown), overwrite=overwrite)
        return
    _serve(shown, port, browser=browser)


def _export(path: Path, page: str, *, overwrite: bool) -> None:
    from ....atomic import whole_file

    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidRequest(
            f"--export is {str(path)!r}; expected a name that ends in .html, such as '{path.stem}.html'"
        )
    if path.exists() and not overwrite:
        raise InvalidRequest(f"{str(path)!r} exists: choose another name for --export, or add --overwrite")
    try:
        with whole_file(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise StableDiffusionError(f"{str(path)!r} could not be written: {error.strerror or error}") from error
    click.echo(str(path))


def _serve(shown: Panorama, port: int, *, browser: bool) -> None:
    from ....ui.local_page import PageServer

    try:
        server = PageServer(shown, port)
    except OSError as error:
        raise InvalidRequest(
            f"port {port} cannot be used ({error.strerror}); leave out --port for a free one"
        ) from error
    # A shell starts what runs in its background with SIGINT ignored; `kill -INT` is to end this all the same.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with server:
        click.echo(server.address)
        click.echo("Ctrl-C ends it", err=True)
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)

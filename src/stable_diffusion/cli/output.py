"""Where results of a command go: --out, --overwrite, --json, and whether a preview is shown."""

from __future__ import annotations

import functools
import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidRequest
from . import files
from .command import OPTIONS, F, SectionOption

if TYPE_CHECKING:
    from PIL.Image import Image

SECTION = "Input and output"


@dataclass(frozen=True)
class Output:
    """What the options say of a command's results."""

    out: Path | None = None
    overwrite: bool = False
    as_json: bool = False
    preview: bool = False
    verbose: bool = False

    @property
    def to_stdout(self) -> bool:
        """Whether `-` was given: one PNG to standard output."""
        return self.out is not None and str(self.out) == "-"

    @property
    def names_a_file(self) -> bool:
        return self.out is not None and self.out.suffix != "" and not self.out.is_dir()

    def check(self, count: int = 1) -> None:
        """Complain about --out before the work on `count` pictures, not after it."""
        if self.to_stdout:
            if count > 1 or sys.stdout is None or sys.stdout.isatty():  # None: closed by whoever started it
                raise InvalidRequest(
                    "--out - writes one PNG to a pipe: redirect standard output, and leave out --count"
                )
            return
        if self.out is None or not self.names_a_file:
            return
        files.check_ending(self.out)
        if count == 1:
            files.destination(self.out, "", overwrite=self.overwrite)
        files.prepare_folder(self.out)

    def save(self, image: Image, stem: str, *, apart: object = None) -> Path:
        """Write one picture with its settings in it; returns where. `-` writes PNG to standard output.

        stem    its name in a folder
        apart   what tells it from the others, where --out names a file for several; that is put into its name
        """
        from ..images import save_image

        if self.to_stdout:
            sys.stdout.buffer.write(png_bytes(image))
            return Path("-")
        return save_image(image, self._place(stem, apart), overwrite=self.overwrite)

    def save_png(self, data: bytes, stem: str, *, apart: object = None) -> Path:
        """The same for the bytes of a PNG file that `save_image` wrote; other formats are made of it."""
        path = None if self.to_stdout else self._place(stem, apart)
        if path is None:
            sys.stdout.buffer.write(data)
            return Path("-")
        written = False
        if path.suffix.lower() == ".png":
            from ..atomic import whole_file

            with suppress(OSError), whole_file(path) as file:
                file.write(data)
                written = True
            if written:
                return path
        from PIL import Image  # another format, or a disk that refuses, which is said as for every picture

        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return self.save(image, stem, apart=apart)

    def _place(self, stem: str, apart: object) -> Path:
        if apart is not None and self.names_a_file and self.out is not None:
            return files.free_name(self.out.with_name(f"{self.out.stem}-{apart}{self.out.suffix}"))
        return files.destination(self.out, stem, overwrite=self.overwrite)


def output_options(
    default: str, kinds: str = "File (.png, .webp, .jpg) or folder.", *, preview: bool = False, section: str = OPTIONS
) -> Callable[[F], F]:
    """--out, --overwrite, --json and, with `preview`, --preview and --verbose; the command gets them as one `Output`.

    default   where the result goes without --out      section   the heading of --out
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def with_output(*args: Any, out: Any, overwrite: Any, as_json: Any, **rest: Any) -> Any:
            shown = {name: rest.pop(name, False) for name in ("preview", "verbose")}
            return function(*args, output=Output(out, overwrite, as_json, **shown), **rest)

        own: dict[str, Any] = {"cls": SectionOption, "section": SECTION if preview else OPTIONS}
        command: Any = click.option("--json", "as_json", is_flag=True, help="Print JSON.", **own)(with_output)
        if preview:
            shown: dict[str, Any] = {"default": True, "show_default": True, "help": "Show the picture while it forms."}
            command = click.option("--preview/--no-preview", **shown, **own)(command)
            cost = "Say what it took: seconds and memory."
            command = click.option("--verbose", is_flag=True, help=cost, **own)(command)
        command = click.option("--overwrite", is_flag=True, help="Replace the file that --out names.", **own)(command)
        named: dict[str, Any] = {"cls": SectionOption, "section": section, "show_default": default, "help": kinds}
        result: F = click.option("-o", "--out", type=click.Path(path_type=Path), **named)(command)
        return result

    return decorate


def png_bytes(image: Image) -> bytes:
    """The bytes of the PNG file that `save_image` writes."""
    from ..images import save_image

    with tempfile.TemporaryDirectory() as folder:
        return save_image(image, Path(folder) / "picture.png").read_bytes()

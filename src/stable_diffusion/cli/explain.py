"""From any exception to one plain sentence and an exit code.

Exit codes: 1 something went wrong, 2 the command line was not understood, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import errno
from typing import IO, Any

import click

from ..errors import StableDiffusionError


class PlainError(click.ClickException):
    """A sentence on stderr, and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{click.style('error', fg='red')}: {self.format_message()}", file=file, err=file is None)


class NotUnderstood(PlainError):
    """The command line was not understood."""

    exit_code = 2


class Interrupted(PlainError):
    """Ctrl-C."""

    exit_code = 130


def explain(error: BaseException) -> PlainError | None:
    """The sentence for an error; None where click or Python should handle it (exits, click's own messages)."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Interrupted("interrupted")
    if isinstance(error, click.UsageError):
        return NotUnderstood(_usage(error))
    if isinstance(error, (click.ClickException, click.exceptions.Exit, SystemExit)):
        return None
    if isinstance(error, StableDiffusionError):
        return PlainError(str(error))
    if isinstance(error, OSError):
        return PlainError(_system(error))
    if _is_out_of_memory(error):
        return PlainError("not enough memory for this request: try a smaller size or a smaller model")
    if isinstance(error, Exception):
        text = " ".join(str(error).split())
        return PlainError(f"unexpected {type(error).__name__}: {text} (run again with --debug to see where)")
    return None


def _usage(error: click.UsageError) -> str:
    """Click's message as one sentence, with the way to the help page."""
    message = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "stable-diffusion"
    return f"{message[:1].lower()}{message[1:]}; see `{command} --help`"


def _system(error: OSError) -> str:
    """What the operating system refused, and for which file."""
    reason = error.strerror if error.strerror else str(error)
    if error.errno == errno.ENOSPC:
        reason = "the disk is full (no space left on device)"
    where = f"{str(error.filename)!r}: " if error.filename is not None else ""
    return f"{where}{reason[:1].lower()}{reason[1:]}" if reason else f"{where}{type(error).__name__}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, torch's OutOfMemoryError, or the RuntimeError of torch's CPU allocator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)

"""The command line as a client of a server that runs: `--server auto|off|URL`. Nothing here imports torch.

A server of the same user listens at a socket of that user's own; it answers with the files that this process would
write. Whatever it refuses, or fails to begin, is done here without a word.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import IO, Any

import click

from ...errors import StableDiffusionError
from ...request.json import to_json
from ...request.request import Request
from ...server.resident.place import MOST_LINE, is_own_socket, socket_path, surroundings
from ..command import SectionOption
from .picture import NotServed, ServedPicture, Watch

CHOSEN = "stable_diffusion.server"
AUTO, OFF = "auto", "off"
CONNECT, FIRST = 1.0, 5.0
"""Seconds to be let in, and to be told whether the order is taken."""
SENT = ("device", "dtype", "engine")


def _keep(ctx: click.Context, parameter: click.Parameter, value: str) -> None:
    known = value in (AUTO, OFF) or value.startswith(("http://", "https://"))
    if not known:
        raise click.BadParameter(f"{value!r} is not auto, off or an address such as http://localhost:7860")
    ctx.meta[CHOSEN] = value


server_option = click.option(
    "--server",
    cls=SectionOption,
    section="Model and device",
    default=AUTO,
    show_default=True,
    envvar="STABLE_DIFFUSION_SERVER",
    metavar="auto|off|URL",
    expose_value=False,
    callback=_keep,
    help="Let a server make the pictures that runs and can: the same bytes, without loading a model.",
)


def served_pictures(request: Request, chosen: Mapping[str, Any], watch: Watch) -> Iterator[ServedPicture]:
    """The pictures of a request, made by a server.

    chosen   what the command line says of the model and device

    NotServed before the first picture where there is no server that makes it, StableDiffusionError after it.
    """
    where = click.get_current_context().meta.get(CHOSEN, OFF)
    if where == OFF or any(value for name, value in chosen.items() if name not in SENT):
        raise NotServed
    if where != AUTO:
        from .address import pictures_of_url

        if any(chosen.get(name, AUTO) != AUTO for name in SENT):
            raise NotServed
        yield from _begun(pictures_of_url(where, request, watch), watch, where)
        return
    order = {
        "surroundings": surroundings(),
        "request": _absolute(to_json(request)),
        "previews": watch.preview is not None,
        **{name: chosen.get(name, AUTO) for name in SENT},
    }
    yield from _begun(_socket_pictures(order, watch), watch)


def _begun(pictures: Iterator[ServedPicture], watch: Watch, where: str = "") -> Iterator[ServedPicture]:
    """The pictures; a failure before the first is NotServed, with a note where the user named the server."""
    begun = False
    try:
        for picture in pictures:
            begun = True
            yield picture
    except (OSError, ValueError, KeyError, StableDiffusionError, NotServed) as error:
        if begun:
            reason = str(error) if isinstance(error, StableDiffusionError) else "the server went away"
            raise StableDiffusionError(f"the server did not finish: {reason}") from None
        if where:
            watch.note(f"note: {where} does not make this picture; it is made here")
        raise NotServed from None


def _absolute(body: dict[str, Any]) -> dict[str, Any]:
    """The request with its model's path in full, for the server runs in another folder; names stay."""
    for holder in (body, body.get("refiner") or {}):
        model = holder.get("model")
        if isinstance(model, str) and os.path.exists(model):
            holder["model"] = os.path.abspath(model)
    return body


def _socket_pictures(order: Mapping[str, Any], watch: Watch) -> Iterator[ServedPicture]:
    path = socket_path()
    if path is None or not is_own_socket(path):
        raise NotServed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT)
        connection.connect(str(path))
        connection.settimeout(FIRST)
        connection.sendall(json.dumps(order).encode() + b"\n")
        with connection.makefile("rb") as answers:
            if not _message(answers).get("accepted"):
                raise NotServed
            connection.settimeout(None)
            yield from _answered(answers, watch)


def _answered(answers: IO[bytes], watch: Watch) -> Iterator[ServedPicture]:
    """Pictures as they come, to the end of the order."""
    while True:
        message = _message(answers)
        if "progress" in message:
            watch.progress(*message["progress"])
        elif "preview" in message and watch.preview is not None:
            watch.preview(base64.b64decode(message["preview"]))
        elif "bytes" in message:
            count = message.pop("bytes")
            file = answers.read(count)
            if len(file) != count:
                raise OSError("the connection ended")
            yield ServedPicture(file, **message)
        elif message.get("done"):
            for note in message.get("notes", ()):
                watch.note(f"note: {note}")
            return
        elif "failed" in message:
            raise StableDiffusionError(str(message["failed"]))


def _message(answers: IO[bytes]) -> dict[str, Any]:
    line = answers.readline(MOST_LINE)
    if not line.endswith(b"\n"):
        raise OSError("the connection ended")
    found: dict[str, Any] = json.loads(line)
    return found

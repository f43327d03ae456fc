"""The server's end of the socket: orders of the command line, checked, queued, and answered as they are done."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import StableDiffusionError
from ...jobs import FINISHED, JobEvent
from ...pipeline.models import EMBEDDED
from ...request.json import from_json
from ...request.request import Request
from ...request.settings import UPSCALERS
from ..library import Listing
from ..limits import check_limits
from ..observe.log import note
from ..service import Service
from .place import MOST_LINE, is_private, socket_path, surroundings

OWNER = "local"
MOST_CLIENTS = 16
LOOK = 0.5
"""Seconds between two looks at whether the client is still there."""
SECONDS = 10.0
"""In which an order must be there."""


class Refused(Exception):
    """The order is not for this server; the client does it itself."""


class ResidentSocket:
    """Listens at this user's socket until `close`; `start` says whether it does, for another server may have it."""

    def __init__(self, service: Service, path: Path | None = None) -> None:
        self.service = service
        self.path = socket_path() if path is None else path
        self._socket: socket.socket | None = None
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)

    def start(self) -> bool:
        """Take the socket, made for this user alone before it has its name; False where that cannot be."""
        path = self.path
        if path is None or self.service.settings.paused:
            return False
        part = path.with_name(f".{path.name}.{os.getpid()}")
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_private(path.parent) or _answers(path):
                made.close()
                return False
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            made.bind(str(part))
            part.chmod(0o600)
            made.listen(MOST_CLIENTS)
            os.replace(part, path)
        except OSError as error:
            made.close()
            note("no socket for the command line", reason=error.strerror or "it cannot be made")
            return False
        self._socket, self._inode = made, path.stat().st_ino
        threading.Thread(target=self._accept, name="resident socket", daemon=True).start()
        return True

    def close(self) -> None:
        """Stop listening; the name goes, where it is still this one's."""
        if self._socket is None:
            return
        assert self.path is not None
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._socket = None

    def _accept(self) -> None:
        while (listening := self._socket) is not None:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            if not _is_same_user(client) or not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name="resident client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError, ValueError):
                client.settimeout(SECONDS)
                with client.makefile("rb") as lines:
                    order = json.loads(lines.readline(MOST_LINE))
                client.settimeout(None)
                try:
                    request = self._admitted(order)
                except (Refused, StableDiffusionError) as refused:
                    _send(client, {"refused": str(refused)})
                    return
                _send(client, {"accepted": True})
                self._work(client, request, previews=bool(order.get("previews")))
        finally:
            self._slots.release()

    # --- orders -------------------------------------------------------------------------------------------------------

    def _admitted(self, order: Any) -> Request:
        """The request of an order exactly as the command line has it, so that its bytes are the same."""
        if not isinstance(order, Mapping) or order.get("surroundings") != surroundings():
            raise Refused("the command line is of another version, or computes with other threads")
        settings = self.service.settings
        for name, usual in (("device", settings.device), ("dtype", settings.dtype), ("engine", "auto")):
            if order.get(name) != usual:
                raise Refused(f"{name} is {order.get(name)!r}, and this server has {usual!r}")
        state = self.service.queue.state()
        if state.paused or self.service.closing:
            raise Refused("the queue is paused")
        request = from_json(order.get("request"))
        self._check_files(request)
        entry = _entry(self.service.library.models, request.model or EMBEDDED)
        check_limits(request, settings.limits, *self.service.usual(entry))
        return request

    def _check_files(self, request: Request) -> None:
        """Refused where a file or folder is not one of this server's."""
        settings, library = self.service.settings, self.service.library
        for lora in request.loras:
            _entry(library.loras, str(lora.path))
        for control in request.controls:
            _entry(library.controls, str(control.path))
            if control.image_encoder is not None:
                raise Refused("an image encoder is named")
        if request.refiner is not None and request.refiner.model is not None:
            _entry(library.models, str(request.refiner.model))
        if request.hires is not None and request.hires.upscaler not in (None, *UPSCALERS):
            _entry(library.upscalers, str(request.hires.upscaler))
        prompting = request.prompting
        places = (
            (request.lora_dir, settings.loras),
            (request.embeddings_dir, settings.embeddings),
            (prompting.wildcards_dir, (settings.wildcards,)),
            (prompting.styles_file, (settings.styles_file,)),
        )
        for given, known in places:
            if given is not None and given not in known:
                raise Refused(f"{given} is not a folder of this server")

    # --- work ---------------------------------------------------------------------------------------------------------

    def _work(self, client: socket.socket, request: Request, *, previews: bool) -> None:
        """Queue the request and send what goes on; a client that goes away cancels it."""
        queue = self.service.queue
        try:
            job = queue.submit(request, owner=OWNER, save=False)
        except StableDiffusionError as error:
            _send(client, {"failed": str(error)})
            return
        try:
            with queue.subscribe(job.id, after=0, previews=previews) as events:
                for event in self._until_gone(client, events):
                    self._tell(client, event)
                    if event.kind in FINISHED:
                        return
        finally:
            if not queue.job(job.id).is_finished:
                self.service.queue_cancel(job.id)

    def _until_gone(self, client: socket.socket, events: Any) -> Iterator[JobEvent]:
        while not _is_gone(client):
            event = events.get(LOOK)
            if event is not None:
                yield event
            elif events.is_over:
                return

    def _tell(self, client: socket.socket, event: JobEvent) -> None:
        data = dict(event.data)
        if event.kind == "progress":
            _send(client, {"progress": [data[name] for name in ("picture", "pictures", "index", "total")]})
        elif event.kind == "preview" and event.preview is not None:
            _send(client, {"preview": base64.b64encode(event.preview).decode("ascii")})
        elif event.kind == "picture":
            picture = self.service.queue.gallery.picture(data["id"])
            file = self.service.queue.gallery.read(picture.id)
            facts = {"seed": picture.seed, "prompt": picture.prompt, "width": picture.width, "height": picture.height}
            _send(client, {**facts, "bytes": len(file)})
            client.sendall(file)
        elif event.kind == "done":
            _send(client, {"done": True, "notes": list(data.get("notes") or ())})
        elif event.kind in FINISHED:
            _send(client, {"failed": data.get("error") or f"the job was {event.kind}"})


def _entry(listing: Listing, given: str) -> Any:
    """The entry of a built-in name or a path; Refused where the list has none."""
    entries = listing.entries()
    if given in entries and entries[given].path is None:
        return entries[given]
    try:
        wanted = Path(given).resolve()
    except OSError:
        raise Refused(f"{given} cannot be looked up") from None
    found = next((entry for entry in entries.values() if entry.path == wanted), None)
    if found is None or not os.path.isabs(given):
        raise Refused(f"{given} is not in the lists of this server")
    return found


def _send(client: socket.socket, message: Mapping[str, Any]) -> None:
    client.sendall(json.dumps(message).encode() + b"\n")


def _is_gone(client: socket.socket) -> bool:
    """Whether the client has closed its end: it says nothing after its order."""
    readable, _, _ = select.select([client], [], [], 0)
    return bool(readable) and client.recv(1, socket.MSG_PEEK) == b""


def _is_same_user(client: socket.socket) -> bool:
    """Whether the process at the other end belongs to this user, as far as the system says."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, option, 12))
    return bool(user == os.getuid())


def _answers(path: Path) -> bool:
    """Whether a server listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True

"""The widget itself: traits that the browser and Python share, and pictures made in a thread."""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from PIL import Image

from ..errors import StableDiffusionError
from ..events import Images, Progress
from ..images import opaque, preview_bytes, thumbnail_bytes
from .form import form, request_of, seed_of, split

if TYPE_CHECKING:
    from ..pipeline.models import StableDiffusion
    from ..request.request import Request

HERE = Path(__file__).parent
MOST_HISTORY = 24
"""Pictures that the browser keeps small copies of; `pictures` holds all."""
THUMBNAIL = 160
PREVIEWS = 4
"""At most so many a second."""
SEEDS = 2**32
READY, LOADING, WORKING, STOPPING = "ready", "loading", "working", "stopping"


class PictureWidget(anywidget.AnyWidget):
    """Prompt, settings, live preview, history; `pictures` are the Pillow images made so far.

    prompt, settings ({path: value}), seed (text, "" for random), seed_locked   what the next picture is made from
    state ("ready", "loading", "working", "stopping"), fraction (0 to 1), fault, notes   what happens
    preview (JPEG), picture (PNG), history   what is shown
    """

    _esm = HERE / "panel.js"
    _css = HERE / "panel.css"

    prompt = traitlets.Unicode().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    seed = traitlets.Unicode().tag(sync=True)
    seed_locked = traitlets.Bool(False).tag(sync=True)
    form: Any = traitlets.List().tag(sync=True)
    model_name = traitlets.Unicode().tag(sync=True)
    state = traitlets.Unicode(READY).tag(sync=True)
    fraction = traitlets.Float(0.0).tag(sync=True)
    fault = traitlets.Unicode().tag(sync=True)
    notes: Any = traitlets.List().tag(sync=True)
    preview = traitlets.Bytes(b"").tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    history: Any = traitlets.List().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(form=form(), **traits)
        self.pictures: list[Image.Image] = []
        self._model: StableDiffusion | str | None = None
        self._engine: str | None = None
        self._rest: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._previewed = 0.0
        self.on_msg(self._asked)

    @classmethod
    def of(
        cls, prompt: str, model: StableDiffusion | str | None, engine: str | None, given: Mapping[str, Any]
    ) -> PictureWidget:
        """A widget that starts with these; InvalidRequest for an unusable setting."""
        seed = given.get("seed")
        settings, rest = split({name: value for name, value in given.items() if name != "seed"})
        request_of(prompt, settings, seed, rest)
        name = model if isinstance(model, str) else "embedded" if model is None else model.name
        made = cls(
            prompt=prompt,
            settings=settings,
            model_name=name,
            seed="" if seed is None else str(seed),
            seed_locked=seed is not None,
        )
        made._model, made._engine, made._rest = model, engine, rest
        return made

    # --- what buttons do ----------------------------------------------------------------------------------------------

    def generate(self) -> None:
        """Starts the pictures that the form asks for, in a thread; nothing while others are being made.

        A fault is said in `fault`.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        try:
            seed = seed_of(self.seed) if self.seed_locked else None
            request = request_of(
                self.prompt, self.settings, secrets.randbelow(SEEDS) if seed is None else seed, self._rest
            )
        except StableDiffusionError as error:
            self.fault = str(error)
            return
        self._stop.clear()
        with self.hold_sync():
            self.fault, self.notes, self.preview, self.fraction, self.state = "", [], b"", 0.0, LOADING
        self._thread = threading.Thread(target=self._work, args=(request,), name="stable-diffusion-widget", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stops at the next step; pictures that are finished stay."""
        if self.state in (LOADING, WORKING):
            self._stop.set()
            self.state = STOPPING

    def wait(self, timeout: float | None = None) -> bool:
        """Waits at most so many seconds until nothing is being made, and says whether that is so.

        Not needed in a notebook, whose cells go on at once; for scripts that want the pictures.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def _asked(self, _: object, content: object, __: object) -> None:
        """A message of the browser: its `type` is "generate", "cancel", or "use" or "forget" with a picture's `id`."""
        kind = content.get("type") if isinstance(content, dict) else None
        number = content.get("id") if isinstance(content, dict) else None
        if kind == "generate":
            self.generate()
        elif kind == "cancel":
            self.cancel()
        elif kind == "use":
            self._use(number)
        elif kind == "forget":
            self.history = [each for each in self.history if each["id"] != number]

    def _use(self, number: object) -> None:
        """A picture of the history is shown again, and its settings and seed come back."""
        found = next((each for each in self.history if each["id"] == number), None)
        if found is None:
            return
        with self.hold_sync():
            self.prompt, self.settings = found["prompt"], dict(found["settings"])
            self.seed, self.seed_locked = found["seed"], True
            self.picture = _png(self.pictures[found["id"]])

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _work(self, request: Request) -> None:
        from ..pipeline.generate import generate
        from ..pipeline.models import as_model

        asked = {**self.settings, "count": 1} if "count" in self.settings else dict(self.settings)
        try:
            model = as_model(self._model)
            self.state = STOPPING if self._stop.is_set() else WORKING
            stream = generate(model, request, engine=self._engine, preview_every=self._wants_preview)
            for event in stream:
                if isinstance(event, Progress):
                    self._step(event)
                else:
                    self._add(event, asked)
                if self._stop.is_set():
                    break
        except StableDiffusionError as error:
            self.fault = str(error)
        except Exception as error:  # the thread has no cell under which a traceback would show
            self.fault = f"the picture could not be made: {type(error).__name__}: {error}"
        finally:
            with self.hold_sync():
                self.preview, self.state = b"", READY

    def _wants_preview(self) -> bool:
        now = time.monotonic()
        if now - self._previewed < 1 / PREVIEWS:
            return False
        self._previewed = now
        return True

    def _step(self, event: Progress) -> None:
        with self.hold_sync():
            self.fraction = event.fraction
            if event.preview is not None:
                self.preview = preview_bytes(opaque(event.preview))

    def _add(self, event: Images, asked: Mapping[str, object]) -> None:
        """Finished pictures: shown, and put into the history with what made them."""
        new = []
        for image, request in zip(event.images, event.requests, strict=True):
            self.pictures.append(image)
            entry = {"id": len(self.pictures) - 1, "seed": str(request.seed), "prompt": request.prompt}
            new.append({**entry, "settings": dict(asked), "thumbnail": thumbnail_bytes(image, THUMBNAIL)})
        with self.hold_sync():
            self.preview, self.notes = b"", [*dict.fromkeys([*self.notes, *event.notes])]
            self.picture = _png(event.images[-1])
            self.history = [*self.history, *new][-MOST_HISTORY:]
            self.seed = str(new[-1]["seed"]) if not self.seed_locked else self.seed


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

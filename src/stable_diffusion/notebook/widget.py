"""`stable_diffusion.widget()`: the door, which needs the extra `notebook` only when it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..errors import InvalidRequest, StableDiffusionError
from ..request.request import Settings, with_settings

if TYPE_CHECKING:
    from ..pipeline.models import StableDiffusion
    from .panel import PictureWidget

MISSING = 'the widget needs anywidget: pip install "stable-diffusion[notebook]"'


@with_settings
def widget(
    prompt: str = "",
    *,
    model: StableDiffusion | str | Path | None = None,
    engine: str | None = None,
    **settings: Unpack[Settings],
) -> PictureWidget:
    """A prompt box with settings, live preview and history, for Jupyter, JupyterLab, VS Code, Colab and marimo.

    Show it as the last line of a cell. `model` is a loaded model, a path or a name; None is the embedded model.
    `engine` is the name of what runs the networks, if not the model's own. Settings are where the form starts; start
    pictures, masks, LoRAs and controls, which the form has no field for, hold for every picture. `pictures` of the
    widget are the Pillow images made so far, the newest last, with `info["parameters"]`; `generate()`, `cancel()` and
    `wait()` do what the buttons do. Raises StableDiffusionError where anywidget is not installed, InvalidRequest for
    an unusable setting.
    """
    try:
        from .panel import PictureWidget
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "traitlets", "ipywidgets"):
            raise
        raise StableDiffusionError(MISSING) from None
    if not isinstance(prompt, str):
        raise InvalidRequest(f"the prompt is a {type(prompt).__name__}; expected text")
    name = os.fspath(model) if isinstance(model, Path) else model
    return PictureWidget.of(prompt, name, engine, settings)

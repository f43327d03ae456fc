"""A picture that leads a request, through a network in a file: ControlNet, T2I-Adapter or IP-Adapter.

    Control("control_v11p_sd15_canny.safetensors", "house.png", preprocessor="canny", weight=0.8, end=0.6)

What the file is, it tells itself. Names and meanings are those of A1111's ControlNet extension.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageOps

from ..errors import InvalidRequest, unknown_choice
from ..pipeline.image import open_picture
from ..pipeline.tasks.preprocess import PREPROCESSORS, preprocessed
from .fields import number

Mode = Literal["balanced", "prompt", "control"]
Resize = Literal["stretch", "crop", "fill"]
MODES: dict[Mode, str] = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
"""Control mode -> A1111's name."""
RESIZES: dict[Resize, str] = {"stretch": "Just Resize", "crop": "Crop and Resize", "fill": "Resize and Fill"}
"""Resize mode -> A1111's name."""
MAX_WEIGHT = 10.0
MAX_CONTROLS = 32


@dataclass(frozen=True)
class Control:
    """One network and the picture that it reads. Raises InvalidRequest where a value is unusable whatever the model.

    path           the network's file or diffusers folder
    image          Pillow picture or path; None takes the picture that the request starts from
    weight         -10 to 10, how much of what the network says is added
    start, end     the part of the steps in which it acts, as fractions: 0 to 1 is all of them
    mode           "balanced"; "prompt" weakens the coarse features least and the fine ones most (0.825^(12 - i) for
                   the i-th of them), so that the prompt counts for more; "control" does the same, and adds nothing to
                   what the negative prompt says. For ControlNets and T2I-Adapters
    resize         how the picture comes to the size of the request: "stretch", "crop" (cover it, keep the middle), or
                   "fill" (fit into it; the rest repeats the border)
    preprocessor   "none", "canny", "invert" or "threshold", done at the picture's size in the request
    threshold_a, threshold_b    0 to 255, of "canny" (100 and 200) or "threshold" (127)
    task           the kind of picture, for a union ControlNet: "canny", "depth", "openpose", "tile" ..., or its number
    image_encoder  the CLIP image tower of an IP-Adapter; None is `image_encoder` in its file's folder
    """

    path: Path
    image: Image.Image | None = None
    _: KW_ONLY
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: Mode = "balanced"
    resize: Resize = "crop"
    preprocessor: str = "none"
    threshold_a: float | None = None
    threshold_b: float | None = None
    task: str | int | None = None
    image_encoder: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)):
            raise InvalidRequest(f"the file of a control is {self.path!r}; expected a path")
        self._set(path=Path(self.path).expanduser())
        if self.image is not None:
            self._set(image=open_picture(self.image, "control image"))
        for name, low, high in (("weight", -MAX_WEIGHT, MAX_WEIGHT), ("start", 0.0, 1.0), ("end", 0.0, 1.0)):
            value = number(f"control {name}", getattr(self, name), low, high)
            if value is None:
                raise InvalidRequest(f"control {name} is None; expected a number from {low:g} to {high:g}")
            self._set(**{name: value})
        if self.start >= self.end:
            raise InvalidRequest(
                f"a control starts at {self.start:g} and ends at {self.end:g}; expected the start to be before the end"
            )
        choices: tuple[tuple[str, Iterable[str]], ...] = (
            ("mode", MODES), ("resize", RESIZES), ("preprocessor", PREPROCESSORS)
        )  # fmt: skip
        for name, known in choices:
            if getattr(self, name) not in tuple(known):
                raise unknown_choice(f"control {name}", getattr(self, name), known)
        for name in ("threshold_a", "threshold_b"):
            self._set(**{name: number(f"control {name}", getattr(self, name), 0.0, 255.0)})
        if self.image_encoder is not None:
            self._set(image_encoder=Path(self.image_encoder).expanduser())

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """File name without its ending, or the folder's name."""
        return self.path.name if self.path.is_dir() else self.path.stem

    def picture(self, width: int, height: int) -> Image.Image:
        """The picture as the network reads it, RGB at this size."""
        assert self.image is not None
        sized = resized(preprocessed(self.image, "none"), width, height, self.resize)
        return preprocessed(sized, self.preprocessor, self.threshold_a, self.threshold_b)


def checked_controls(values: object, image: Image.Image | None) -> tuple[Control, ...]:
    """The controls of a request; one alone need not be in a list. Those without a picture take `image`."""
    if isinstance(values, Control):
        values = (values,)
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidRequest(f"controls is {values!r}; expected a list of Control(file, image)")
    found = []
    for value in values:
        control = Control(*value) if isinstance(value, tuple) and 1 <= len(value) <= 2 else value
        if not isinstance(control, Control):
            raise InvalidRequest(f"a control is given as {value!r}; expected Control(file, image)")
        if control.image is None and image is None:
            raise InvalidRequest(f"the control {control.name!r} has no image; give the picture that it is to follow")
        found.append(replace(control, image=image) if control.image is None else control)
    if len(found) > MAX_CONTROLS:
        raise InvalidRequest(f"{len(found)} controls were given; expected at most {MAX_CONTROLS}")
    return tuple(found)


def resized(image: Image.Image, width: int, height: int, how: Resize) -> Image.Image:
    """The picture at this size, by Lanczos: stretched, cropped at the middle, or filled up by its border."""
    if image.size == (width, height):
        return image
    if how == "stretch":
        return image.resize((width, height), Image.Resampling.LANCZOS)
    if how == "crop":
        return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)
    inner = ImageOps.contain(image, (width, height), method=Image.Resampling.LANCZOS)
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    right, bottom = width - left, height - top  # the first column and row after the picture are at most these
    filled = Image.new(image.mode, (width, height))
    filled.paste(inner, (left, top))
    end_x, end_y = left + inner.width, top + inner.height
    assert end_x <= right and end_y <= bottom
    for box, place in (
        ((left, top, left + 1, end_y), (0, top, left, end_y)),
        ((end_x - 1, top, end_x, end_y), (end_x, top, width, end_y)),
        ((0, top, width, top + 1), (0, 0, width, top)),
        ((0, end_y - 1, width, end_y), (0, end_y, width, height)),
    ):
        size = (place[2] - place[0], place[3] - place[1])
        if min(size) > 0:
            filled.paste(filled.crop(box).resize(size, Image.Resampling.NEAREST), place)
    return filled

"""A picture that guides a request, through a network in a file: ControlNet, T2I-Adapter or IP-Adapter.

    Control("control_v11p_sd15_canny.safetensors", "house.png", preprocessor="canny", weight=0.8, end=0.6)

The file says which kind it is. Names and meanings are those of A1111's ControlNet extension.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidRequest
from .fields import Choice, FilePath, Kind, Number, Picture
from .group import SettingGroup, described, documented, setting

if TYPE_CHECKING:
    from PIL import Image

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
PREPROCESSORS = ("none", "canny", "invert", "threshold")
MAX_CONTROLS = 32


class UnionTask(Kind):
    """The name or number of a kind of picture: which there are, the network of the file knows."""

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "integer"]}


# fmt: off
@documented
@dataclass(frozen=True)
class Control(SettingGroup):
    """One network and the picture that it reads. Raises InvalidRequest where a value is unusable whatever the model.

    Mode "prompt" weakens the coarse features least and the fine ones most (0.825^(12 - i) for the i-th of them), so
    that the prompt counts for more; "control" does the same, and adds nothing to what the negative prompt says. Modes
    are for ControlNets and T2I-Adapters. Resizing can "stretch" the picture, "crop" it (cover the size, keep the
    middle), or "fill" (fit into it; the rest repeats the border).
    """

    SECTION = "Controls"

    path: Path = field(metadata=described(
        FilePath(), flag="--control", label="the file of a control",
        help="A ControlNet, T2I-Adapter or IP-Adapter: a file or diffusers folder; may be repeated."))
    image: Image.Image | None = setting(
        Picture(), flag="--control-image", label="control image", usual="--image", help="The picture that it reads.")
    _: KW_ONLY
    weight: float = setting(
        Number(-10, 10), 1.0, flag="--control-weight", label="control weight", usual="1", help="How strongly it acts.")
    start: float = setting(
        Number(0, 1), 0.0, flag="--control-start", label="control start", usual="0",
        help="Share of the steps before it acts.")
    end: float = setting(
        Number(0, 1), 1.0, flag="--control-end", label="control end", usual="1",
        help="Share of the steps after which it stops.")
    mode: Mode = setting(
        Choice(tuple(MODES)), "balanced", flag="--control-mode", label="control mode", usual="balanced",
        help="Whether the prompt or the control matters more.")
    resize: Resize = setting(
        Choice(tuple(RESIZES)), "crop", flag="--control-resize", label="control resize", usual="crop",
        help="How its picture is brought to the size of the request.")
    preprocessor: str = setting(
        Choice(PREPROCESSORS), "none", flag="--control-preprocessor", label="control preprocessor", usual="none",
        help="What to make of its picture first.")
    threshold_a: float | None = setting(
        Number(0, 255), flag="--control-threshold-a", label="control threshold_a", usual="canny 100, threshold 127",
        help="Lower threshold of canny, or that of threshold.")
    threshold_b: float | None = setting(
        Number(0, 255), flag="--control-threshold-b", label="control threshold_b", usual="200",
        help="Upper threshold of canny.")
    task: str | int | None = setting(
        UnionTask(), flag="--control-task", help="Kind of picture, for a union ControlNet: canny, depth, openpose ...")
    image_encoder: Path | None = setting(
        FilePath(), flag="--image-encoder", usual="image_encoder in its folder",
        help="CLIP image encoder of an IP-Adapter.")
# fmt: on

    def _check_together(self) -> None:
        if self.start >= self.end:
            raise InvalidRequest(
                f"a control starts at {self.start:g} and ends at {self.end:g}; expected the start to be before the end"
            )

    @property
    def name(self) -> str:
        """File name without its ending, or the folder's name."""
        return self.path.name if self.path.is_dir() else self.path.stem


def checked_controls(values: object, image: Image.Image | None, *, drawn: bool = False) -> tuple[Control, ...]:
    """The controls of a request; one alone need not be in a list. Those without a picture take `image`, and stay
    without one where pictures can be `drawn` for them later (panoramas)."""
    found = []
    for control in listed_controls(values):
        if control.image is None and image is None and not drawn:
            raise InvalidRequest(f"the control {control.name!r} has no image; give the picture that it is to follow")
        found.append(control if control.image is not None or image is None else replace(control, image=image))
    if len(found) > MAX_CONTROLS:
        raise InvalidRequest(f"{len(found)} controls were given; expected at most {MAX_CONTROLS}")
    return tuple(found)


def listed_controls(values: object) -> tuple[Control, ...]:
    """The controls that were given, each as a `Control`, (file, image), or a mapping of a control's fields."""
    if isinstance(values, Control):
        values = (values,)
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidRequest(f"controls is {values!r}; expected a list of Control(file, image)")
    return tuple(map(_control, values))


def _control(value: object) -> Control:
    if isinstance(value, tuple) and 1 <= len(value) <= 2:
        return Control(*value)
    if isinstance(value, dict):
        return Control.of(value, "a control")
    if not isinstance(value, Control):
        raise InvalidRequest(f"a control is given as {value!r}; expected Control(file, image)")
    return value

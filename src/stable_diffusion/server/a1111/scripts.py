"""Scripts of A1111 that mean something here: ControlNet, soft inpainting and the plot; others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import brief, nearest
from ..errors import ApiError
from .plot.axes import axes_of

CONTROLNET, SOFT, PLOT = "controlnet", "soft inpainting", "x/y/z plot"
ALWAYS_ON = (CONTROLNET, SOFT)
SCRIPTS = {"txt2img": [CONTROLNET, PLOT], "img2img": [CONTROLNET, SOFT, PLOT]}
"""What GET /sdapi/v1/scripts gives."""
SOFT_SETTINGS = (
    *(("Schedule bias", 1.0, 0.0, 8.0), ("Preservation strength", 0.5, 0.0, 8.0)),
    *(("Transition contrast boost", 4.0, 1.0, 32.0), ("Mask influence", 0.0, 0.0, 1.0)),
    *(("Difference threshold", 0.5, 0.0, 8.0), ("Difference contrast", 2.0, 0.0, 8.0)),
)
"""Label, usual value, lowest and highest of the script's numbers, which have no effect here."""


@dataclass(frozen=True, kw_only=True)
class AlwaysOn:
    """What a request's always-on scripts ask for: units of ControlNet, and whether a mask's greys are strengths."""

    units: list[Any] = field(default_factory=list)
    soft: bool = False


def always_on(scripts: Mapping[str, Any], notes: list[str]) -> AlwaysOn:
    """The scripts of `alwayson_scripts`. One that there is not is 422, as in A1111, unless it is switched off."""
    units: list[Any] = []
    soft = False
    for name, given in scripts.items():
        args = _args(name, given)
        if name.casefold() == CONTROLNET:
            units += args
        elif name.casefold() == SOFT:
            soft = _is_on(args)
            if soft and _numbers(args) not in ([], [usual for _, usual, _, _ in SOFT_SETTINGS]):
                notes.append("the numbers of soft inpainting are ignored: grey in the mask is strength")
        elif args and not _is_on(args):
            continue
        else:
            close = nearest(name, ALWAYS_ON)
            hint = f"did you mean {close!r}? " if close else ""
            known = ", ".join(ALWAYS_ON)
            raise ApiError(
                422, f"there is no script {brief(name, 60)!r}: {hint}choose from {known}", param="alwayson_scripts"
            )
    return AlwaysOn(units=units, soft=soft)


def refuse_script(name: str | None) -> None:
    """422 where another script than the plot is asked for; a name of nothing is none."""
    if name and name.casefold() != "none":
        raise ApiError(
            422, f"there is no script {brief(name, 60)!r} here; the one that there is is {PLOT!r}", param="script_name"
        )


def _args(name: str, given: Any) -> list[Any]:
    args = given.get("args", []) if isinstance(given, Mapping) else given
    if isinstance(args, Mapping):
        return [args]
    if args is None:
        return []
    if not isinstance(args, list):
        raise ApiError(422, f"the arguments of the script {brief(name, 60)!r} are no list", param="alwayson_scripts")
    return args


def _is_on(args: list[Any]) -> bool:
    """The first argument switches a script on; in an object it is the one named so."""
    first = args[0] if args else False
    if isinstance(first, Mapping):
        names = ("enabled", "Soft inpainting", "Enabled", "enable")
        return any(first.get(name) is True for name in names) or not any(name in first for name in names)
    return first is not False and first is not None


def _numbers(args: list[Any]) -> list[Any]:
    return [value for value in args[1:] if isinstance(value, (int, float))]


def script_info() -> list[dict[str, Any]]:
    """What GET /sdapi/v1/script-info gives."""
    numbers = [
        {"label": label, "value": usual, "minimum": low, "maximum": high, "step": 0.05, "choices": None}
        for label, usual, low, high in SOFT_SETTINGS
    ]
    switch = {"label": "Soft inpainting", "value": False, "minimum": None, "maximum": None, "step": None}
    found: list[dict[str, Any]] = [
        {"name": CONTROLNET, "is_alwayson": True, "is_img2img": is_img2img, "args": []} for is_img2img in (False, True)
    ]
    soft_args = [{**switch, "choices": None}, *numbers]
    found.append({"name": SOFT, "is_alwayson": True, "is_img2img": True, "args": soft_args})
    for is_img2img in (False, True):
        found.append({"name": PLOT, "is_alwayson": False, "is_img2img": is_img2img, "args": _plot_args(is_img2img)})
    return found


def _plot_args(has_image: bool) -> list[dict[str, Any]]:
    """The plot's arguments; axes are named by their place among the choices."""
    bounds = {"minimum": None, "maximum": None, "step": None, "choices": None}
    found: list[dict[str, Any]] = []
    for name in "XYZ":
        choices = [axis.label for axis in axes_of(has_image=has_image)]
        found.append({**bounds, "label": f"{name} type", "value": choices[1 if name == "X" else 0], "choices": choices})
        found += [
            {**bounds, "label": f"{name} values", "value": ""},
            {**bounds, "label": f"{name} values", "value": []},
        ]
    switches = ["Draw legend", "Include Sub Images", "Include Sub Grids", "Keep -1 for seeds"]
    switches += [f"Vary seeds for {name}" for name in "XYZ"]
    found += [{**bounds, "label": label, "value": label == switches[0]} for label in switches]
    margin = {"label": "Grid margins (px)", "value": 0, "minimum": 0, "maximum": 500, "step": 2, "choices": None}
    return [*found, margin, {**bounds, "label": "Use text inputs instead of dropdowns", "value": False}]

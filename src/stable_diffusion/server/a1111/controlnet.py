"""Units of A1111's ControlNet extension as the controls of a request, and the extension's own lists."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from ...errors import InvalidRequest, brief, nearest
from ...pipeline.tasks.preprocess import THRESHOLDS, preprocessed
from ...request.control import MODES, RESIZES
from ..library import Library
from .options import CHECKSUM

MOST_UNITS = 8
MODULES = {
    "none": "none",
    "canny": "canny",
    "invert (from white bg & black line)": "invert",
    "threshold": "threshold",
}
"""The extension's names of preprocessors that need no network, and ours."""
OTHER_MODULES = {"": "none", "None": "none", "invert": "invert", "Invert": "invert", "binary": "threshold"}
ADAPTED = "ip-adapter"
"""How modules begin whose work an IP-Adapter's own image encoder does."""
FITS = {"Scale to Fit (Inner Fit)": "crop", "Envelope (Outer Fit)": "fill", "Inner Fit (Scale to Fit)": "crop"}
"""Former names of ways to resize."""
PLACES = ("weight", "guidance_start", "guidance_end")
OURS = {"weight": "weight", "guidance_start": "start", "guidance_end": "end"}
SLIDERS = {"canny": ("Low Threshold", "High Threshold"), "threshold": ("Binarization Threshold",)}


def controls(args: list[Any], library: Library, notes: list[str]) -> list[dict[str, Any]]:
    """The controls of the units that are enabled and name a model, as the server's own requests have them.

    A unit without a picture takes that of img2img. InvalidRequest where a unit asks for what there is not.
    """
    if len(args) > MOST_UNITS:
        raise InvalidRequest(f"ControlNet has {len(args)} units; expected at most {MOST_UNITS}")
    found = []
    for unit in args:
        if not isinstance(unit, Mapping):
            raise InvalidRequest("a unit of ControlNet is no object; expected one with model, module and image")
        given = {str(name): value for name, value in unit.items() if value is not None}
        if given.get("enabled", True) is not False and (made := _control(given, library, notes)) is not None:
            found.append(made)
    return found


def _control(unit: Mapping[str, Any], library: Library, notes: list[str]) -> dict[str, Any] | None:
    module, model = _module(unit.get("module", "none")), _words(unit, "model", "None")
    if model.casefold() in ("none", ""):
        if module == "none":
            return None
        raise InvalidRequest(f"a unit of ControlNet has the module {module!r} and no model; expected the name of one")
    made: dict[str, Any] = {"name": library.controls.find(CHECKSUM.sub("", model)).name, "preprocessor": module}
    picture = _picture(unit)
    if picture:
        made["image"] = picture
    for name in PLACES:
        if name in unit:
            made[OURS[name]] = unit[name]
    made["mode"] = _choice(unit.get("control_mode", 0), "control_mode", list(MODES), dict(MODES))
    resize = _choice(unit.get("resize_mode", 1), "resize_mode", list(RESIZES), dict(RESIZES), FITS)
    made["resize"] = resize
    for name, threshold in zip(("threshold_a", "threshold_b"), THRESHOLDS.get(module, ()), strict=False):
        if threshold is not None and _is_number(unit.get(name)) and unit[name] >= 0:
            made[name] = min(unit[name], 255)
    union = unit.get("union_control_type")
    if isinstance(union, str) and union.casefold() not in ("unknown", "all", ""):
        made["task"] = union.casefold()
    if str(unit.get("hr_option", "Both")).casefold() not in ("both", "hiresfixoption.both", "0"):
        notes.append("hr_option is ignored: a control acts in both passes")
    if unit.get("mask") or unit.get("mask_image") or unit.get("effective_region_mask"):
        notes.append("the mask of a ControlNet unit is ignored")
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _words(unit: Mapping[str, Any], name: str, usual: str) -> str:
    value = unit.get(name, usual)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} of a ControlNet unit is {brief(value, 40)!r}; expected text")
    return value


def _module(name: Any) -> str:
    if isinstance(name, str):
        known = {**MODULES, **OTHER_MODULES}
        if name in known:
            return known[name]
        if name.casefold() in known:
            return known[name.casefold()]
        if name.casefold().startswith(ADAPTED):
            return "none"
    close = nearest(str(name), MODULES)
    hint = f"did you mean {close!r}? " if close else ""
    raise InvalidRequest(
        f"there is no ControlNet module {brief(name, 60)!r}: {hint}choose from {', '.join(MODULES)}; "
        "maps that need a network are made elsewhere and sent with 'none'"
    )


def _picture(unit: Mapping[str, Any]) -> str | None:
    """The extension has taken its picture under several names, alone or in an object with a mask."""
    found = next((unit[name] for name in ("image", "input_image") if unit.get(name)), None)
    if isinstance(found, Mapping):
        found = found.get("image")
    if found is not None and not isinstance(found, str):
        raise InvalidRequest("the image of a ControlNet unit is no text; expected a picture in base64")
    return found


def _choice(value: Any, name: str, ours: list[Any], labels: dict[Any, str], more: Mapping[str, str] = {}) -> str:
    """Ours for a number, one of our names, or the extension's label in any case."""
    if _is_number(value) and 0 <= value < len(ours) and value == int(value):
        return str(ours[int(value)])
    folded = {label.casefold(): our for our, label in labels.items()} | {our: our for our in ours}
    folded |= {label.casefold(): our for label, our in more.items()}
    text = str(value).casefold()
    if text not in folded:
        raise InvalidRequest(f"{name} is {brief(value, 60)!r}; expected one of {', '.join(labels.values())}")
    return str(folded[text])


def modules_json() -> dict[str, Any]:
    """What GET /controlnet/module_list gives."""
    details = {name: {"model_free": False, "sliders": _sliders(ours)} for name, ours in MODULES.items()}
    return {"module_list": list(MODULES), "module_detail": details}


def _sliders(module: str) -> list[dict[str, Any]]:
    names = SLIDERS.get(module, ())
    return [
        {"name": name, "value": value, "min": 0, "max": 255, "step": 1}
        for name, value in zip(names, THRESHOLDS.get(module, ()), strict=False)
    ]


def control_types_json(library: Library) -> dict[str, Any]:
    """What GET /controlnet/control_types gives: all, and for some preprocessors the models that are named so."""
    names = ["None", *library.controls.entries()]
    every = {"module_list": list(MODULES), "model_list": names, "default_option": "none", "default_model": "None"}
    types: dict[str, Any] = {"All": every}
    for title, module in (("Canny", "canny"), ("Lineart", "invert (from white bg & black line)")):
        models = [name for name in names if title.casefold() in name.casefold()]
        types[title] = {
            "module_list": ["none", module],
            "model_list": ["None", *models],
            "default_option": module,
            "default_model": models[0] if models else "None",
        }
    return {"control_types": types}


def detected(picture: Image.Image, module: str, low: float, high: float) -> str:
    """What a preprocessor makes of a picture, as a PNG file in base64; thresholds below 0 are the usual ones."""
    bounds = [value if value >= 0 else None for value in (low, high)]
    file = io.BytesIO()
    preprocessed(picture, _module(module), *bounds).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")

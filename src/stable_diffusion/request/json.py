"""Requests as JSON and back, and a schema of every setting: for servers, pages and files.

data = to_json(request)                  plain dictionaries, lists, texts and numbers of what is not as usual
request = from_json(data)                the same request; pictures are text in base64
schema()                                 a JSON schema: kinds, ranges, choices, defaults and help
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .control import Control
from .fields import FilePath, Picture, Upscaler
from .group import Setting, own_settings
from .request import Request, all_settings
from .settings import ABSENT, GROUPS

if TYPE_CHECKING:
    from PIL import Image

DATA = "data:"
"""How a picture in base64 may begin, up to a comma: "data:image/png;base64,..."."""


def to_json(request: Request) -> dict[str, Any]:
    """What a request asks for, as far as it is not the default; `from_json` gives an equal request.

    Groups are dictionaries, paths text, and pictures PNG files in base64.
    """
    found: dict[str, Any] = {}
    for name in ABSENT:
        if getattr(request, name) is not None:
            found[name] = {}
    for each in all_settings():
        value = each.of(request)
        if value is not None and not _is_default(each, value):
            each.put(found, _plain(each, value))
    return found


def _is_default(each: Setting, value: Any) -> bool:
    return not isinstance(each.kind, Picture) and value == each.default


def _plain(each: Setting, value: Any) -> Any:
    if isinstance(each.kind, Picture):
        return picture_base64(value)
    if each.path == "controls":
        return [_plain_control(control) for control in value]
    return each.kind.plain(value)


def _plain_control(control: Control) -> dict[str, Any]:
    pairs = ((each, each.of(control)) for each in own_settings(Control))
    return {each.name: _plain(each, value) for each, value in pairs if value is not None}


def from_json(data: object, *, files: bool = True) -> Request:
    """A request of what `to_json` gave, or of any JSON that the schema describes.

    files   whether paths are taken: of pictures, adapters and folders. A server that does not trust its callers says
            False, and takes pictures in base64 alone; which names of models it takes, it checks itself

    InvalidRequest in a sentence where anything is unusable.
    """
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"a request is {type(data).__name__}; expected an object with a prompt")
    values: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in data.items()
    }
    if "prompt" not in values:
        raise InvalidRequest("there is no prompt; expected a few words that say what to show")
    for each in all_settings():
        holder = values.get(each.group) if each.group else values
        if isinstance(holder, dict) and holder.get(each.name) is not None:
            holder[each.name] = _value(each, holder[each.name], files)
    return Request(**values)


def _value(each: Setting, value: Any, files: bool) -> Any:
    if isinstance(each.kind, Picture):
        return open_text(value, each.label or each.name, files=files)
    names_file = isinstance(each.kind, Upscaler) and value not in each.kind.names
    if not files and (names_file or isinstance(each.kind, FilePath) or each.path in ("loras", "controls")):
        raise InvalidRequest(f"{each.name} names a file; paths are not taken here")
    if each.path == "loras" and isinstance(value, list):
        return [tuple(lora) if isinstance(lora, list) else lora for lora in value]
    if each.path == "controls" and isinstance(value, list):
        return [_read_control(control) for control in value]
    return value


def _read_control(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"a control is given as {value!r}; expected an object with a path and an image")
    image = value.get("image")
    return {**value, **({} if image is None else {"image": open_text(image, "control image")})}


def picture_base64(image: Image.Image) -> str:
    """A picture as a PNG file in base64; modes that PNG has not are written as RGB or RGBA."""
    from .pictures import plain_mode

    file = io.BytesIO()
    shown = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else plain_mode(image)
    shown.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def open_text(value: object, what: str, *, files: bool = True) -> Any:
    """The bytes of a picture in base64, with or without "data:image/png;base64," before them; else the path."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} is a {type(value).__name__}; expected a picture in base64")
    _, _, body = value.partition(",") if value.startswith(DATA) else ("", "", value)
    try:
        found = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if found[:4] in (b"\x89PNG", b"RIFF", b"GIF8") or found[:2] in (b"\xff\xd8", b"BM") or value.startswith(DATA):
        return found
    if files:
        return value
    raise InvalidRequest(f"{what} is no picture in base64; expected a PNG, JPEG or WebP file in it")


def schema() -> dict[str, Any]:
    """A JSON schema (2020-12) of a request: for each setting its kind, range, choices, default and help.

    `title` is a name for people, and `x-section` the heading under which help shows it.
    """
    properties: dict[str, Any] = {}
    for name, group in GROUPS.items():
        required = [each.name for each in own_settings(group) if each.required]
        properties[name] = {"type": "object", "properties": {}, "additionalProperties": False, "required": required}
    for each in all_settings():
        place = properties[each.group]["properties"] if each.group else properties
        place[each.name] = described_setting(each)
    properties["controls"]["items"] = {
        "type": "object",
        "properties": {each.name: described_setting(each) for each in own_settings(Control)},
        "additionalProperties": False,
        "required": ["path"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Request",
        "type": "object",
        "properties": {each: properties[each] for each in Request._names()},
        "required": ["prompt"],
        "additionalProperties": False,
    }


def described_setting(each: Setting) -> dict[str, Any]:
    """One setting for the schema."""
    found = {
        **each.kind.schema(),
        "title": (each.label or each.name).replace("_", " "),
        "description": f"{each.help} Usual: {each.usual}." if each.usual else each.help,
    }
    if each.section:
        found["x-section"] = each.section
    if each.default is not None:
        found["default"] = each.kind.plain(each.default)
    return found

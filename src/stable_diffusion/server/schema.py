"""Settings as clients write them: pydantic models made from the table of settings, and turned into a `Request`.

What differs from a `Request` of Python: nothing is a path. Models, LoRAs, controls and refiners are names of the lists,
pictures are text (base64, or what was uploaded), and the folders are the server's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, create_model, model_validator

from ..errors import InvalidRequest, what_is
from ..request.control import Control
from ..request.fields import FilePath, Model, Picture, Text, Upscaler, Whole
from ..request.group import FORMER, Setting, current_names, own_settings
from ..request.json import described_setting
from ..request.lora import MAX_STRENGTH
from ..request.request import Request, unknown_setting
from ..request.settings import GROUPS

MOST_SEED = 2**63 - 1
"""What other languages hold as a whole number."""
MOST_NAME = 300
DESCRIBED = ("title", "description", "default", "x-section")
FORMATS = ("png", "webp", "jpeg")
PICTURE_TEXT = 100_000_000


class Strict(BaseModel):
    """Unknown fields are faults, NaN and infinity are no numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """An unknown field is answered with the nearest one, or with ours where other programs call it so."""
        if isinstance(data, Mapping):
            data = current_names(data) if cls.model_fields.keys() >= {*FORMER.values()} else data
            for name in data:
                if name not in cls.model_fields:
                    raise unknown_setting("setting", str(name)[:80], cls.model_fields)
        return data


def checked(each: Setting) -> Any:
    """A field's type: checked as the setting is, described as its kind is."""
    if isinstance(each.kind, Picture):
        return _picture(each)
    if isinstance(each.kind, Model):
        return Annotated[str | None, Field(max_length=MOST_NAME), _described(each, {"type": "string"})]
    if isinstance(each.kind, Upscaler):
        return Annotated[str | None, Field(max_length=MOST_NAME), _described(each, each.kind.schema())]
    kind = each.kind
    if isinstance(kind, Whole) and kind.high > MOST_SEED:
        kind = Whole(kind.low, MOST_SEED, random=kind.random)

    def check(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(kind, Text) and not isinstance(value, str):
            raise InvalidRequest(f"{each.label or each.name} is {what_is(value)}; expected text")
        return kind.check(each.label or each.name, value)

    schema = {**described_setting(each), **kind.schema()}
    return Annotated[Any, PlainValidator(check), WithJsonSchema(_or_null(schema))]


def _described(each: Setting, schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(_or_null({**described_setting(each), **schema, "maxLength": MOST_NAME}))


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may be left out by null too."""
    described: dict[str, Any] = {key: schema.pop(key) for key in DESCRIBED if key in schema}
    return {"anyOf": [schema, {"type": "null"}], **described}


def _picture(each: Setting) -> Any:
    help = f"{each.help} Base64 of a PNG, JPEG or WebP file, a data URI, sha256:HASH or picture:ID."
    schema: dict[str, Any] = {"type": "string", "maxLength": PICTURE_TEXT, "title": each.name, "description": help}
    return Annotated[str | None, Field(max_length=PICTURE_TEXT), WithJsonSchema(_or_null(schema))]


def settings_model(name: str, cls: type[Any], replaced: Mapping[str, Any], left_out: tuple[str, ...]) -> type[Strict]:
    """The pydantic model of a group of settings, with `replaced` fields (type, default)."""
    fields: dict[str, Any] = {}
    for each in own_settings(cls):
        if each.name in left_out or isinstance(each.kind, FilePath) or each.name in replaced:
            continue
        fields[each.name] = (checked(each), ... if each.required else None)
    fields |= replaced
    made: type[Strict] = create_model(name, __base__=Strict, **fields)
    made.__doc__ = (cls.__doc__ or "").split("\n\n")[0]
    return made


Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]


class LoraChoice(Strict):
    """A LoRA of the list, and how much of it."""

    name: Name
    strength: Strength = 1.0
    text_strength: Strength | None = None


@functools.cache
def control_choice() -> type[Strict]:
    """A control of the list."""
    replaced = {"name": (Name, ...)}
    return settings_model("ControlChoice", Control, replaced, ("path",))


@functools.cache
def request_settings() -> type[Strict]:
    """All settings of a picture."""
    groups = {name: settings_model(kind.__name__, kind, {}, ()) for name, kind in GROUPS.items()}
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in groups.items()}
    fields["loras"] = (Annotated[list[LoraChoice], Field(max_length=64)] | None, None)
    fields["controls"] = (Annotated[list[control_choice()], Field(max_length=64)] | None, None)  # type: ignore[misc]
    return settings_model("PictureSettings", Request, fields, ())


@functools.cache
def job_settings() -> type[Strict]:
    """What POST /v1/jobs takes: all settings of a picture, and what concerns the queue."""
    base = request_settings()
    fields: dict[str, Any] = {name: (each.annotation, each) for name, each in base.model_fields.items()}
    fields["priority"] = (Annotated[int, Field(ge=-100, le=100, strict=True)], 0)
    made: type[Strict] = create_model("JobSettings", __base__=Strict, **fields)
    return made


def given(model: BaseModel) -> dict[str, Any]:
    """The settings that were given, as plain data; null is not given."""
    found: dict[str, Any] = {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        if value is None:
            continue
        if isinstance(value, BaseModel):
            found[name] = given(value)
        elif isinstance(value, list):
            found[name] = [given(each) if isinstance(each, BaseModel) else each for each in value]
        else:
            found[name] = value
    return found

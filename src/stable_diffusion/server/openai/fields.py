"""The fields of OpenAI's images API, checked: those of a wrong type or value are faults, those unknown are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ApiError, validation_sentence

MOST_PICTURES, MOST_START_PICTURES = 10, 16
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
OWN_NAMES = ("gpt-image", "chatgpt-image", "dall-e")
"""How names begin that mean the server's default model: clients have them built in."""
BASE64_NAMES = ("gpt-image", "chatgpt-image")
"""How names begin whose answers hold base64 alone."""
NOT_MADE = ("gif", "svg")
CODES = {"missing": "missing_required_parameter", "literal_error": "invalid_value"}
Format = Literal["png", "jpeg", "webp"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class ImageFields(BaseModel):
    """What all three routes take. `response_format` None is what the model's name says.

    The fields from `negative_prompt` on are not OpenAI's; other servers of this API take them too.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: Annotated[str, Field(max_length=32_000)] = ""
    model: Annotated[str, Field(max_length=300)] = ""
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    size: Annotated[str, Field(max_length=40)] = "auto"
    quality: Literal["auto", "low", "medium", "high", "standard", "hd", "xhigh", "max"] = "auto"
    style: Literal["vivid", "natural"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    background: Literal["transparent", "opaque", "auto"] = "auto"
    output_format: Annotated[str, Field(max_length=40)] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    moderation: Literal["low", "auto"] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    user: Annotated[str, Field(max_length=1000)] | None = None
    safety_identifier: Annotated[str, Field(max_length=1000)] | None = None
    complexity: Annotated[str, Field(max_length=40)] | None = None

    negative_prompt: Annotated[str, Field(max_length=32_000)] = ""
    seed: Annotated[int, Field(ge=-1, le=2**63 - 1)] | None = None
    num_inference_steps: int | None = None
    steps: int | None = None
    guidance_scale: Number | None = None
    guidance: Number | None = None
    cfg_scale: Number | None = None
    strength: Number | None = None
    clip_skip: int | None = None
    sampler: Annotated[str, Field(max_length=80)] | None = None
    scheduler: Annotated[str, Field(max_length=80)] | None = None
    schedule: Annotated[str, Field(max_length=80)] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the model's name means the server's default model."""
        return not self.model or self.model.lower().startswith(OWN_NAMES)

    @property
    def has_base64(self) -> bool:
        """Whether the answer holds `b64_json`."""
        return self.response_format != "url" or self.model.lower().startswith(BASE64_NAMES)

    @property
    def has_address(self) -> bool:
        """Whether it holds `url`: without a wish, where clients of this model's name may read that alone."""
        if self.response_format is None:
            return not self.model.lower().startswith(BASE64_NAMES)
        return self.response_format == "url"

    def pixels(self) -> tuple[int, int] | None:
        """Width and height; None for "auto"."""
        if self.size in ("", "auto"):
            return None
        found = SIZE.fullmatch(self.size)
        if found is None:
            sentence = f"size is {self.size!r}; expected WIDTHxHEIGHT such as 512x512, or auto"
            raise ApiError(400, sentence, code="invalid_value", param="size")
        return int(found[1]), int(found[2])


def checked_fields(given: Mapping[str, Any], *, text: bool, prompt: bool) -> ImageFields:
    """The fields of a body; ApiError 400 with the name of the first that cannot be used.

    text    whether all values are text, as a form has them
    prompt  whether there must be one

    null is not given.
    """
    if prompt and not isinstance(given.get("prompt"), str) and given.get("prompt") is None:
        raise ApiError(400, "prompt is missing", code="missing_required_parameter", param="prompt")
    known = {name: value for name, value in given.items() if value is not None and name in ImageFields.model_fields}
    if text:  # an empty field of a form is one that nobody filled in
        known = {name: value for name, value in known.items() if value != "" or name == "prompt"}
    _check_text(known)
    try:
        fields = ImageFields.model_validate(known, strict=not text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        code = CODES.get(faults[0]["type"], "invalid_type" if "_type" in faults[0]["type"] else "invalid_value")
        param = str(faults[0]["loc"][0]) if faults[0]["loc"] else None
        raise ApiError(400, validation_sentence(faults), code=code, param=param) from None
    _check_format(fields)
    fields.pixels()
    return fields


def _check_format(fields: ImageFields) -> None:
    if fields.output_format in NOT_MADE or fields.output_format not in ("png", "jpeg", "webp"):
        sentence = f"output_format is {fields.output_format!r}; expected png, jpeg or webp"
        raise ApiError(400, sentence, code="unsupported_value", param="output_format")
    if fields.background == "transparent" and fields.output_format == "jpeg":
        sentence = "jpeg has no transparency; expected png or webp as output_format with a transparent background"
        raise ApiError(400, sentence, code="invalid_value", param="background")


def _check_text(known: Mapping[str, Any]) -> None:
    """ApiError for half characters, which cannot be written anywhere."""
    for name, value in known.items():
        if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ApiError(400, f"{name} holds a half of a character", code="invalid_value", param=name)

"""Answers of OpenAI's images API: pictures, what they took, models, errors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...jobs import Picture
from ..content import is_flagged
from ..errors import ErrorShape
from ..limits import tokens
from ..service import Finished
from .asking import Asked
from .encoding import base64_of, has_clear_pixels, in_format
from .fields import ImageFields
from .links import Links

PATCH = 32
"""Pixels of a side of what counts as one token of a picture."""
QUALITIES = {"auto": "medium", "standard": "medium", "hd": "high"}
"""How an answer calls a quality: never "auto"."""
PREFIXES = ("/v1/images", "/v1/models", "/v1/responses", "/v1/chat", "/v1/completions", "/v1/embeddings", "/images")
CODES = {
    "unauthorized": "invalid_api_key",
    "queue_full": "rate_limit_exceeded",
    "too_many_requests": "rate_limit_exceeded",
}
TYPES = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error_of_openai(status: int, sentence: str, code: str, param: str | None) -> dict[str, Any]:
    """A failure in OpenAI's shape."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": sentence, "type": kind, "param": param, "code": CODES.get(code, code)}}


ERRORS = ErrorShape(PREFIXES, error_of_openai)


def images_answer(asked: Asked, finished: Finished, files: Sequence[bytes], links: Links, base: str) -> dict[str, Any]:
    """The pictures of a job; blocking, for other formats are made here.

    files  the pictures' files in order    base  the server's address as the client called it
    """
    fields = asked.fields
    data = [entry(fields, file, picture, links, base) for file, picture in zip(files, finished.pictures, strict=True)]
    answer: dict[str, Any] = {"created": created(finished), "data": data, **said_of(fields, files, finished.pictures)}
    answer["usage"] = usage_of(asked, finished.pictures)
    notes = [*asked.notes, *map(finished.service.public, finished.notes)]
    if notes:
        answer["notes"] = notes
    if fields.safety_identifier is not None:
        answer["safety_identifier"] = fields.safety_identifier
    return answer


def entry(fields: ImageFields, file: bytes, picture: Picture, links: Links, base: str) -> dict[str, Any]:
    """One picture: `b64_json`, `url` or both."""
    found: dict[str, Any] = {}
    if fields.has_base64:
        found["b64_json"] = base64_of(in_format(file, fields))
    if fields.has_address:
        found["url"] = base.rstrip("/") + links.path(picture.id, fields)
    if picture.prompt and picture.prompt != fields.prompt:  # wildcards and variants were filled in
        found["revised_prompt"] = picture.prompt
    if is_flagged(picture):
        found["flagged"] = True
    return found


def said_of(fields: ImageFields, files: Sequence[bytes], pictures: Sequence[Picture]) -> dict[str, Any]:
    """What holds for all pictures of an answer."""
    background = fields.background
    if background == "auto":
        background = "transparent" if files and has_clear_pixels(files[0]) else "opaque"
    return {
        "background": background,
        "output_format": fields.output_format,
        "quality": QUALITIES.get(fields.quality, fields.quality),
        "size": f"{pictures[0].width}x{pictures[0].height}" if pictures else fields.size,
    }


def created(finished: Finished) -> int:
    return int(finished.job.created or time.time())


def patches(size: tuple[int, int]) -> int:
    """Tokens of a picture: its parts of 32 x 32 pixels."""
    return -(-size[0] // PATCH) * -(-size[1] // PATCH)


def usage_of(asked: Asked, pictures: Sequence[Picture]) -> dict[str, Any]:
    """What a request took: tokens of CLIP in its prompts, and parts of 32 x 32 pixels of its pictures."""
    text = tokens(asked.fields.prompt) + tokens(asked.fields.negative_prompt)
    given = sum(map(patches, asked.sizes))
    made = sum(patches((picture.width, picture.height)) for picture in pictures)
    return {
        "input_tokens": text + given,
        "input_tokens_details": {"text_tokens": text, "image_tokens": given},
        "output_tokens": made,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
        "total_tokens": text + given + made,
    }


def model_json(name: str, created_at: int) -> Mapping[str, Any]:
    """A model of the list."""
    return {"id": name, "object": "model", "created": created_at, "owned_by": "stable-diffusion"}

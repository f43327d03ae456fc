"""The tools of assistants, without the protocol: what each takes, and what it does with the server's work."""

from __future__ import annotations

import io
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ...errors import InvalidRequest, nearest
from ...images import thumbnail_bytes
from ...jobs import Job, Picture
from ...request.metadata_read import written_text
from ...request.names import SAMPLERS, SCHEDULES
from ...request.request import Request
from ..errors import as_api_error, validation_sentence
from ..schema import given, request_settings
from ..service import Service
from ..v1.shapes import settings_of
from ..v1.upscale import UpscaleSettings

if TYPE_CHECKING:
    from PIL import Image

OWNER = "assistant"
MOST_PICTURE = 1_000_000
"""Bytes of a picture in an answer; larger ones are shown smaller, and named so that their file can be had."""
SHOWN_SIDE = 1024
COMMON = ("prompt", "negative_prompt", "model", "width", "height", "steps", "guidance", "sampler", "schedule", "seed",
          "count", "loras")  # fmt: skip
GENERATE = (*COMMON, "background", "hires", "canvas")
EDIT = (*COMMON, "image", "mask", "strength", "inpaint")
Tell = Callable[[float], Awaitable[None]]
"""Called with the share of the work that is done."""


@dataclass(frozen=True)
class Answer:
    """What a tool says: text for the assistant, pictures as (bytes, media type), and the same as data."""

    text: str
    pictures: tuple[tuple[bytes, str], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tool:
    """A tool: `schema` is of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]
    call: Callable[[Mapping[str, Any], Tell], Awaitable[Answer]]


class Toolbox:
    """All tools of a server.

    files   whether a picture may be the path of a file: for the one user whose own program this is, over stdio
    """

    def __init__(self, service: Service, *, files: bool = False) -> None:
        self.service, self.files = service, files
        how = "picture:ID of an earlier answer, or base64 of a PNG, JPEG or WebP file"
        how += ", or the path of one." if files else "."
        image: dict[str, Any] = {"type": "string", "description": f"The picture: {how}"}
        found = (
            Tool("generate", "Make pictures of a description. All but the prompt may be left out.",
                 _schema(GENERATE, ("prompt",), {}), self._generate),
            Tool("edit", "Change a picture: all of it by `strength` (0 to 1), or only where `mask` is white.",
                 _schema(EDIT, ("prompt", "image"), {"image": image, "mask": {**image, "description": f"White where "
                 f"the picture is made again: {how}"}}), self._edit),
            Tool("upscale", "Enlarge a picture, by a factor or until it covers a size.",
                 _upscale_schema(image), self._upscale),
            Tool("describe", "The settings that are written in a picture: prompt, seed, sampler and the rest.",
                 {"type": "object", "properties": {"image": image}, "required": ["image"],
                  "additionalProperties": False}, self._describe),
            Tool("list_models", "Names that the other tools take: models, LoRAs, samplers, schedules, upscalers.",
                 {"type": "object", "properties": {}, "additionalProperties": False}, self._list_models),
        )  # fmt: skip
        self.tools = {tool.name: tool for tool in found}

    async def call(self, name: str, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        """What a tool answers; ToolFailure in a sentence for anything that cannot be done."""
        tool = self.tools.get(name)
        if tool is None:
            close = nearest(name, self.tools)
            hint = f"did you mean {close!r}? " if close else ""
            raise ToolFailure(f"there is no tool {name[:40]!r}; {hint}there are {', '.join(self.tools)}")
        try:
            self._check_names(tool, arguments)
            return await tool.call(arguments, tell)
        except ValidationError as error:
            raise ToolFailure(self.service.public(validation_sentence(error.errors()))) from None
        except Exception as error:
            known = as_api_error(error)
            if known.status == 500 and not isinstance(error, (InvalidRequest,)) and known.sentence != str(error):
                raise
            raise ToolFailure(self.service.public(known.sentence)) from None

    def _check_names(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        known = tool.schema["properties"]
        for name in arguments:
            if name not in known:
                close = nearest(str(name), known)
                hint = f"did you mean {close!r}? " if close else ""
                raise InvalidRequest(f"{tool.name} takes no {str(name)[:40]!r}; {hint}expected {', '.join(known)}")
        for name in tool.schema.get("required", ()):
            if arguments.get(name) is None:
                raise InvalidRequest(f"{tool.name} needs {name}; give it")

    # --- the tools ----------------------------------------------------------------------------------------------------

    async def _generate(self, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        return await self._made(_settings(request_settings(), arguments), tell)

    async def _edit(self, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        values = dict(arguments)
        pictures = {name: await self._open(values.pop(name), name) for name in ("image", "mask") if values.get(name)}
        return await self._made({**_settings(request_settings(), values), **pictures}, tell)

    async def _upscale(self, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        checked = UpscaleSettings.model_validate({**arguments, "image": ""})
        checked.check()
        image = await self._open(arguments["image"], "image")
        body = checked.model_dump(exclude={"image", "priority"}, exclude_none=True)
        job = await self.service.upscale(image, body, OWNER)
        return await self._answer(job, tell)

    async def _describe(self, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        image = await self._open(arguments["image"], "image")
        text = await self.service.call(written_text, image) or ""
        size = f"{image.width}x{image.height}"
        if not text:
            return Answer(f"The picture has {size} pixels, and no settings are written in it.", data={"size": size})
        return Answer(f"{text}\n({size} pixels)", data={"size": size, "parameters": text, **self._read(image)})

    async def _list_models(self, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        library = self.service.library
        lists: dict[str, list[str]] = {
            "models": [entry.name for entry in library.models.entries().values()],
            "loras": list(library.loras.entries()),
            "upscalers": [each for each in self.service.picture_upscalers()],
            "samplers": [each.id for each in SAMPLERS.values()],
            "schedules": [each.id for each in SCHEDULES.values()],
        }
        lines = [f"{what}: {', '.join(names) or 'none'}" for what, names in lists.items()]
        usual = library.default_model().name
        return Answer("\n".join([f"default model: {usual}", *lines]), data={"default_model": usual, **lists})

    # --- within -------------------------------------------------------------------------------------------------------

    async def _open(self, value: object, what: str) -> Image.Image:
        if self.files and isinstance(value, str) and len(value) < 4096 and not value.startswith("data:"):
            path = Path(value.removeprefix("file://")).expanduser()
            if await self.service.call(_is_file, path):
                if path.stat().st_size > self.service.settings.limits.body:
                    raise InvalidRequest(f"{what} has {path.stat().st_size} bytes; expected a smaller file")
                return await self.service.open_picture(await self.service.call(path.read_bytes), what)
        return await self.service.open_picture(value, what)

    def _read(self, image: Image.Image) -> dict[str, Any]:
        """The settings as data, as far as they are understood."""
        from ...request.json import to_json

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                body = to_json(Request.like(image))
        except InvalidRequest:
            return {}
        return {"settings": settings_of(self.service.library, body)}

    async def _made(self, values: Mapping[str, Any], tell: Tell) -> Answer:
        request = await self.service.request(values)
        return await self._answer(await self.service.submit(request, OWNER), tell)

    async def _answer(self, job: Job, tell: Tell) -> Answer:
        """The pictures of a job, waited for; a call that is given up cancels it."""
        ended = False
        try:
            async for event in self.service.follow(job.id):
                if event.kind == "progress":
                    await tell(float(event.data.get("fraction") or 0.0))
            found = await self.service.finished(job.id)
            ended = True
        finally:
            if not ended:
                self.service.queue_cancel(job.id)
        await tell(1.0)
        shown, lines, rows = [], [], []
        for number, picture in enumerate(found.pictures):
            shown.append(await self.service.call(_shown, await found.read(number)))
            rows.append(self._row(picture))
            seed = "" if picture.seed is None else f", seed {picture.seed}"
            lines.append(f"picture:{picture.id} ({picture.width}x{picture.height}{seed}) {rows[-1]['file']}")
        lines += [f"note: {self.service.public(note)}" for note in found.notes]
        return Answer("\n".join(lines), tuple(shown), {"job": job.id, "pictures": rows})

    def _row(self, picture: Picture) -> dict[str, Any]:
        """Where a picture is: its file for the user of this machine, its address for others."""
        place = f"/v1/gallery/{picture.id}/file"
        if self.files:
            place = str(self.service.queue.folder.path / picture.file)
        seed = None if picture.seed is None else str(picture.seed)
        return {"id": f"picture:{picture.id}", "file": place, "width": picture.width, "height": picture.height,
                "seed": seed}  # fmt: skip


class ToolFailure(Exception):
    """One plain sentence for the assistant."""


def _settings(model: type[BaseModel], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return given(model.model_validate(dict(arguments)))


def _schema(names: tuple[str, ...], required: tuple[str, ...], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of some of a request's settings."""
    whole = request_settings().model_json_schema()
    properties = {name: changed.get(name, whole["properties"][name]) for name in names}
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required)}
    return {**found, "additionalProperties": False, "$defs": whole.get("$defs", {})}


def _upscale_schema(image: Mapping[str, Any]) -> dict[str, Any]:
    whole = UpscaleSettings.model_json_schema()
    properties = {name: value for name, value in whole["properties"].items() if name != "priority"}
    return {"type": "object", "properties": {**properties, "image": dict(image)}, "required": ["image"],
            "additionalProperties": False}  # fmt: skip


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(data: bytes) -> tuple[bytes, str]:
    """A picture file as an answer holds it."""
    from PIL import Image

    if len(data) <= MOST_PICTURE:
        return data, "image/png"
    with Image.open(io.BytesIO(data)) as image:
        return thumbnail_bytes(image, SHOWN_SIDE), "image/webp"

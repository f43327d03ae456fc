"""OpenAI's fields as settings of a request: size, quality, background, start pictures and mask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...errors import InvalidRequest
from ...request.json import picture_base64
from ...request.pictures import grey_mask, has_alpha
from ...request.settings import SCENE, TRANSPARENT
from ..a1111.txt2img import LORA, SD_CPP
from ..errors import ApiError
from ..library import Entry, Library
from ..model_facts import ModelFacts
from ..service import Service
from .fields import ImageFields

STEPS = {"low": 0.6, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}
"""Quality -> how many times the model's own steps; the others are the model's own."""
FIDELITY = {"high": 0.5, "low": None}
"""`input_fidelity` -> how much of the picture may change."""
VARIATION = 0.6
"""How much of a picture may change in its variations."""
LARGEST = 2.0
"""A picture of up to so many times the model's usual area is edited in its own size."""
TRANSPARENT_MASK = "dall-e-2"
"""The model whose clients mark the part to edit by transparency of the picture itself."""
SETTINGS = {
    "width": "size",
    "height": "size",
    "count": "n",
    "guidance": "guidance_scale",
    "steps": "num_inference_steps",
    "negative_prompt": "negative_prompt",
    "schedule": "scheduler",
}
"""Our names of settings, and what a client of this API calls them."""


@dataclass(frozen=True)
class Asked:
    """Settings of a request, the fields that they were made of, notes on what these do not do here, and the sizes of
    the pictures to start from."""

    settings: Mapping[str, Any]
    fields: ImageFields
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


def model_of(fields: ImageFields, service: Service) -> Entry:
    """The model; ApiError 404 for a name that is neither listed nor one of OpenAI's pictures."""
    library = service.library
    try:
        return library.default_model() if fields.is_ours else library.models.find(fields.model)
    except InvalidRequest as error:
        if fields.is_ours:
            raise
        raise ApiError(404, str(error), code="model_not_found", param="model") from None


def asked_settings(fields: ImageFields, service: Service, images: tuple[bytes, ...], mask: bytes | None) -> Asked:
    """What some fields and pictures ask for; blocking. ApiError or InvalidRequest where it cannot be run."""
    entry = model_of(fields, service)
    facts = service.facts.of(entry)
    notes: list[str] = []
    if SD_CPP.search(fields.prompt):
        notes.append("<sd_cpp_extra_args> in the prompt is ignored: it is of stable-diffusion.cpp")
        fields = fields.model_copy(update={"prompt": SD_CPP.sub(" ", fields.prompt).strip()})
    check_tags(fields.prompt, service.library)
    settings = _plain_settings(fields, facts, service.settings.limits.steps)
    settings |= {"model": entry.name, **_background(fields, facts)}
    opened = [service.picture(each, "image") for each in images[:1]]
    size = fields.pixels()
    if size is not None:
        check_sides(size, facts.factor, service.settings.limits.side)
    elif opened:
        size = usual_area(opened[0].size, facts)
    if size is not None:
        settings |= {"width": size[0], "height": size[1]}
    if opened:
        settings |= _start(fields, opened[0], None if mask is None else service.picture(mask, "mask"), notes)
    if len(images) > 1:
        notes.append(f"{len(images)} pictures were sent, and the first is the one that is edited")
    return Asked(settings, fields, tuple(notes), tuple(each.size for each in opened))


def usual_area(size: tuple[int, int], facts: ModelFacts) -> tuple[int, int] | None:
    """The size of a picture that is edited where none is asked for: None is its own; one that is far larger than what
    the model was made for comes to that area, in its proportions."""
    usual, area = facts.defaults.width * facts.defaults.height, size[0] * size[1]
    if area <= LARGEST * usual:
        return None
    scale = (usual / area) ** 0.5
    width, height = (max(1, round(side * scale / facts.factor)) * facts.factor for side in size)
    return width, height


def _plain_settings(fields: ImageFields, facts: ModelFacts, most_steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": fields.prompt, "count": fields.n}
    if fields.negative_prompt:
        found["negative_prompt"] = fields.negative_prompt
    if fields.seed is not None and fields.seed >= 0:
        found["seed"] = fields.seed
    steps = fields.num_inference_steps if fields.num_inference_steps is not None else fields.steps
    factor = STEPS.get(fields.quality)
    if steps is not None:
        found["steps"] = steps
    elif factor is not None and facts.defaults.guidance != 1:  # few-step models know their own number alone
        found["steps"] = max(1, min(most_steps, round(facts.defaults.steps * factor)))
    pairs = {
        "guidance": (fields.guidance_scale, fields.guidance, fields.cfg_scale),
        "sampler": (fields.sampler,),
        "schedule": (fields.scheduler, fields.schedule),
        "clip_skip": (fields.clip_skip,),
    }
    for name, values in pairs.items():
        given = next((value for value in values if value is not None), None)
        if given is not None:
            found[name] = given
    return found


def _background(fields: ImageFields, facts: ModelFacts) -> dict[str, Any]:
    if fields.background == "transparent":
        if not facts.alpha:
            sentence = "background is 'transparent', but this model makes opaque pictures only; expected opaque or auto"
            raise ApiError(400, sentence, code="unsupported_value", param="background")
        return {"background": TRANSPARENT}
    return {"background": SCENE} if fields.background == "opaque" and facts.alpha else {}


def check_tags(prompt: str, library: Library) -> None:
    """InvalidRequest with the nearest name where a prompt names a LoRA that is not in the list: before it waits."""
    for name in LORA.findall(prompt):
        library.loras.find(name)


def check_sides(size: tuple[int, int], factor: int, most: int) -> None:
    """InvalidRequest where a side is no multiple of the model's factor, or longer than the server's limit."""
    if max(size) > most:
        raise InvalidRequest(f"size is {size[0]}x{size[1]}; this server makes sides of at most {most} pixels")
    near = [max(1, round(side / factor)) * factor for side in size]
    if list(size) != near:
        raise InvalidRequest(
            f"size is {size[0]}x{size[1]}; expected multiples of {factor}, the nearest is {near[0]}x{near[1]}"
        )


def _start(fields: ImageFields, image: Image.Image, mask: Image.Image | None, notes: list[str]) -> dict[str, Any]:
    """Start picture, mask and strength."""
    found: dict[str, Any] = {"image": picture_base64(image)}
    if mask is None and fields.model.lower() == TRANSPARENT_MASK and is_open_somewhere(image):
        mask = image
    if mask is not None:
        if mask.size != image.size:
            sentence = (
                f"the mask has {mask.width}x{mask.height} pixels and the picture {image.width}x{image.height}; "
                "expected equal sizes"
            )
            raise ApiError(400, sentence, code="invalid_value", param="mask")
        if not is_open_somewhere(mask):
            notes.append("the mask is transparent nowhere; its white part is edited")
        found["mask"] = picture_base64(edited_part(mask))
    strength = fields.strength if fields.strength is not None else FIDELITY.get(fields.input_fidelity or "")
    if strength is not None:
        found["strength"] = strength
    return found


def is_open_somewhere(image: Image.Image) -> bool:
    """Whether a picture is transparent somewhere."""
    return has_alpha(image) and image.convert("RGBA").getchannel("A").getextrema()[0] != 255


def edited_part(mask: Image.Image) -> Image.Image:
    """OpenAI's mask (transparent is edited) as ours (white is); one without transparency is ours already."""
    if not is_open_somewhere(mask):
        return grey_mask(mask)
    return mask.convert("RGBA").getchannel("A").point(lambda alpha: 255 - alpha)


def in_words_of_openai(error: InvalidRequest) -> ApiError:
    """A fault of a setting, with the client's name of it in its sentence and in `param`."""
    sentence = str(error)
    unknown = re.match(r"unknown (\w+)", sentence)  # "unknown sampler 'eule': did you mean ..."
    if unknown is not None and SETTINGS.get(unknown[1], unknown[1]) in ImageFields.model_fields:
        return ApiError(400, sentence, code="invalid_value", param=SETTINGS.get(unknown[1], unknown[1]))
    name, sign, rest = sentence.partition(" is ")
    param = SETTINGS.get(name, name)
    if not sign or param not in ImageFields.model_fields:
        first = sentence.split(" ", 1)[0]
        return ApiError(400, sentence, code="invalid_value", param=first if first in ImageFields.model_fields else None)
    return ApiError(400, sentence if param == "size" else f"{param} is {rest}", code="invalid_value", param=param)

"""What a client of A1111 asks for, as a request of the server's own API: the settings that txt2img and img2img share.

The result is JSON as POST /v1/jobs takes it: models, adapters and controls by name, pictures as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InvalidRequest, brief, nearest
from ...request.json import to_json
from ...request.metadata import parse_parameters
from ..library import Library
from .bodies import Generation, LoraField, Txt2Img
from .controlnet import controls
from .options import Options, checkpoint
from .sampling import counts_otherwise, noise, sampling
from .scripts import always_on, refuse_script
from .upscaler_names import LANCZOS, NONE, upscaler_named

HIRES_STRENGTH = 0.75
"""A1111's `denoising_strength` where it is left out."""
SD_CPP = re.compile(r"\s*<sd_cpp_extra_args>.*?(?:</sd_cpp_extra_args>|\Z)\s*", re.DOTALL)
LORA = re.compile(r"<(?:lora|lyco):([^<>:\n]+)(?::[^<>\n]*)?>")
TAGS = re.compile(r"\s*<(?:lora|lyco|hypernet):[^<>\n]+>")
SAME = ("", "none", "use same checkpoint", "use same sampler", "use same scheduler", "automatic")
"""What stands for "as in the first pass"."""
SHAPE = 0.01
"""By how much, of 1, the sides of a second pass may grow differently."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A request of the server's own API, and plain sentences on what is ignored or done otherwise than asked."""

    settings: Mapping[str, Any]
    options: Options
    notes: tuple[str, ...] = ()


@dataclass
class Translator:
    """A body on its way to a request."""

    body: Generation
    options: Options
    library: Library
    has_image: bool = False
    notes: list[str] = field(default_factory=list)

    def translated(self) -> Translated:
        """The settings without pictures and hires fix; InvalidRequest or ApiError where they cannot be used."""
        body = self.body
        refuse_script(body.script_name)
        if body.firstpass_image:
            raise InvalidRequest("firstpass_image is not supported; send the picture to img2img as init_images")
        scripts = always_on(body.alwayson_scripts, self.notes)
        found: dict[str, Any] = {**self._prompts(), **self._plain(), **self._seeds(), **sampling(body)}
        if units := controls(scripts.units, self.library, self.notes):
            found["controls"] = units
        if groups := noise(body, self.options):
            found["noise"] = groups
        if counts_otherwise(body, (found["prompt"], found["negative_prompt"]), has_image=self.has_image):
            found.setdefault("noise", {})["compat"] = "a1111"
        found |= self._refiner()
        if scripts.soft and self.has_image:
            found["inpaint"] = {"soft": True}
        self._ignored()
        base = self._infotext()
        return Translated(settings=merged(base, found), options=self.options, notes=tuple(self.notes))

    def _prompts(self) -> dict[str, Any]:
        texts = [self._text(self.body.prompt), self._text(self.body.negative_prompt)]
        if self.body.disable_extra_networks:
            texts = [TAGS.sub("", text).strip() for text in texts]
        else:
            texts[0] += "".join(self._tag(each) for each in self.body.lora)
            for name in LORA.findall("\n".join(texts)):
                self.library.loras.find(name)
        found: dict[str, Any] = dict(zip(("prompt", "negative_prompt"), texts, strict=True))
        prompting: dict[str, Any] = {}
        if self.body.styles:
            prompting["styles"] = [self._style(name) for name in self.body.styles]
        if self.options.emphasis != "Original":
            prompting["emphasis"] = self.options.emphasis
        return found | ({"prompting": prompting} if prompting else {})

    def _text(self, text: str) -> str:
        """The prompt without arguments that clients of stable-diffusion.cpp hide in it."""
        if "<sd_cpp_extra_args>" not in text:
            return text
        self.notes.append("<sd_cpp_extra_args> in the prompt is ignored: it is of stable-diffusion.cpp")
        return SD_CPP.sub(" ", text).strip()

    def _tag(self, lora: LoraField) -> str:
        """A LoRA as the prompt's own tag: found by name alone."""
        name = self.library.loras.find(lora.name or lora.path).name
        return f" <lora:{name}:{lora.multiplier:g}>"

    def _style(self, name: str) -> str:
        known = self.library.styles()
        if name in known:
            return name
        close = nearest(name, known)
        raise InvalidRequest(
            f"there is no style {brief(name, 60)!r}; "
            + (f"did you mean {close!r}?" if close else f"{len(known)} styles are known, see /sdapi/v1/prompt-styles")
        )

    def _plain(self) -> dict[str, Any]:
        body = self.body
        found: dict[str, Any] = {"count": body.batch_size * body.n_iter}
        for name, ours in (("steps", "steps"), ("cfg_scale", "guidance"), ("width", "width"), ("height", "height")):
            if (value := getattr(body, name)) is not None:
                found[ours] = value
        if self.options.sd_model_checkpoint:
            found["model"] = checkpoint(self.library, self.options.sd_model_checkpoint).name
        if self.options.token_merging_ratio:
            found["token_merging"] = min(self.options.token_merging_ratio, 0.75)  # three of every four can be merged
        skip = self.options.CLIP_stop_at_last_layers
        if skip == 1 and "CLIP_stop_at_last_layers" not in body.override_settings and body.clip_skip is not None:
            skip = body.clip_skip
        if skip > 1:
            found["clip_skip"] = skip
        if body.tiling:
            found["canvas"] = {"tiling": "both"}
        return found

    def _seeds(self) -> dict[str, Any]:
        body = self.body
        found: dict[str, Any] = {} if body.seed < 0 else {"seed": body.seed}
        variation: dict[str, Any] = {}
        if body.subseed_strength != 0:
            variation["strength"] = body.subseed_strength
            if body.subseed >= 0:
                variation["seed"] = body.subseed
        if body.seed_resize_from_w > 0 and body.seed_resize_from_h > 0:
            variation["resize_from"] = [body.seed_resize_from_w, body.seed_resize_from_h]
        return found | ({"variation": variation} if variation else {})

    def _refiner(self) -> dict[str, Any]:
        name, switch = self.body.refiner_checkpoint, self.body.refiner_switch_at
        if not name or name.casefold() == "none" or (switch is not None and switch >= 1):
            return {}
        refiner: dict[str, Any] = {"model": checkpoint(self.library, name).name}
        return {"refiner": refiner if switch is None else {**refiner, "switch": switch}}

    def _ignored(self) -> None:
        body = self.body
        if body.restore_faces:
            self.notes.append("restore_faces is ignored: there is no restorer of faces")
        if body.s_min_uncond:
            self.notes.append("s_min_uncond is ignored: guidance acts in every step")
        if body.distilled_cfg_scale is not None:
            self.notes.append("distilled_cfg_scale is ignored: it is of models whose network reads its guidance")

    def _infotext(self) -> dict[str, Any]:
        """The settings of `infotext`, below those that the body gives itself."""
        if not self.body.infotext:
            return {}
        found = parse_parameters(self.body.infotext)
        self.notes.extend(f"infotext: {note}" for note in found.notes)
        base = to_json(found.request)
        given = self.body.model_fields_set
        without = ("image", "mask", "controls") if self.has_image else ("strength", "inpaint", "controls")
        wanted = {name: value for name, value in base.items() if name not in without}
        named = wanted.get("model")
        if named is not None:
            wanted["model"] = checkpoint(self.library, str(named)).name
        return wanted if "batch_size" in given or "n_iter" in given else {**wanted, "count": 1}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the settings of `over`; a group keeps the fields that only `base` has, an empty prompt is none."""
    found = dict(base)
    for name, value in over.items():
        if name in ("prompt", "negative_prompt") and not value and base.get(name):
            continue
        both = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
        found[name] = {**found[name], **value} if both else value
    return found


def txt2img_settings(body: Txt2Img, options: Options, library: Library) -> Translated:
    """The request of POST /sdapi/v1/txt2img."""
    translator = Translator(body=body, options=options, library=library)
    found = translator.translated()
    notes = list(found.notes)
    extra = _hires(body, library, notes) if body.enable_hr else {}
    return replace(found, settings=merged(found.settings, extra), notes=tuple(notes))


def _hires(body: Txt2Img, library: Library, notes: list[str]) -> dict[str, Any]:
    """Hires fix, and the size of the first pass where the fields of A1111's former way name that."""
    found: dict[str, Any] = {}
    if body.firstphase_width > 0 and body.firstphase_height > 0:
        first = (body.firstphase_width, body.firstphase_height)
        found = {"width": first[0], "height": first[1]}
        scale = _scale(first, (body.width or 0, body.height or 0), "width and height")
    elif body.hr_resize_x > 0 or body.hr_resize_y > 0:
        scale = _scale((body.width or 0, body.height or 0), (body.hr_resize_x, body.hr_resize_y), "hr_resize")
    else:
        scale = body.hr_scale
    strength = HIRES_STRENGTH if body.denoising_strength is None else body.denoising_strength
    hires: dict[str, Any] = {"scale": scale, "strength": strength}
    if steps := body.hr_second_pass_steps or body.hr_steps:
        hires["steps"] = steps
    if body.hr_upscaler:
        name = upscaler_named(body.hr_upscaler, library, notes, latent=True)
        hires["upscaler"] = LANCZOS if name == NONE else name
    _same_in_both(body, notes)
    return {**found, "hires": hires}


def _scale(size: tuple[int, int], target: tuple[int, int], what: str) -> float:
    """The factor from a size to another; of two sides that grow otherwise no picture is cut, but an error says so."""
    if min(size) < 1:
        raise InvalidRequest(f"{what} of hires fix needs width and height; give both")
    scales = [large / small for small, large in zip(size, target, strict=True) if large > 0]
    if not scales:
        raise InvalidRequest(f"{what} of hires fix is missing; expected a size in pixels")
    if max(scales) / min(scales) > 1 + SHAPE:
        height = round(target[0] * size[1] / size[0])
        raise InvalidRequest(
            f"{what} {target[0]}x{target[1]} of hires fix has another shape than {size[0]}x{size[1]}; expected the "
            f"same, such as {target[0]}x{height}"
        )
    return math.floor(scales[0] * 1e6) / 1e6 if scales[0] != round(scales[0]) else scales[0]


def _same_in_both(body: Txt2Img, notes: list[str]) -> None:
    """Notes on what the second pass cannot have of its own."""
    texts = {
        "hr_sampler_name": (body.hr_sampler_name, body.sampler_name or body.sampler_index),
        "hr_scheduler": (body.hr_scheduler, body.scheduler),
        "hr_checkpoint_name": (body.hr_checkpoint_name, None),
        "hr_prompt": (body.hr_prompt, body.prompt),
        "hr_negative_prompt": (body.hr_negative_prompt, body.negative_prompt),
    }
    for name, (given, first) in texts.items():
        if given and given.casefold() not in SAME and given != first:
            notes.append(f"{name} is ignored: the second pass has what the first one has")
    if body.hr_cfg is not None and body.hr_cfg != body.cfg_scale:
        notes.append("hr_cfg is ignored: the second pass has the guidance of the first")

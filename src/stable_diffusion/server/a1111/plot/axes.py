"""The axes of A1111's X/Y/Z plot, by the numbers and labels that it has, and what each changes in a request."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import InvalidRequest, brief, nearest
from ....request.axes import MAX_VALUES
from ..bodies import Generation

Put = Callable[[Generation, Any, Sequence[Any]], Mapping[str, Any]]
"""(body, a value, all values of its axis) -> the fields that change."""


@dataclass(frozen=True)
class PlotAxis:
    """One of A1111's axes.

    kind   int, float or str: what its values are
    put    None where nothing here has that effect
    image  whether it is of img2img alone (True), of txt2img alone (False), or of both (None)
    plain  whether a label shows the value alone
    """

    label: str
    kind: type = str
    put: Put | None = None
    image: bool | None = None
    plain: bool = False

    def text(self, value: Any) -> str:
        """How the sheet labels a value."""
        shown = f"{round(value, 8):g}" if isinstance(value, float) else str(value)
        if self.label == NOTHING:
            return ""
        return shown if self.plain else f"{self.label}: {shown}"


NOTHING, ORDER = "Nothing", "Prompt order"
SEEDS = ("Seed", "Var. seed")


def _field(name: str) -> Put:
    return lambda body, value, values: {name: value}


def _option(name: str) -> Put:
    return lambda body, value, values: {"override_settings": {**body.override_settings, name: value}}


def _replaced(body: Generation, value: str, values: Sequence[str]) -> dict[str, str]:
    """The first value is searched for in both prompts, and replaced."""
    texts = {"prompt": body.prompt, "negative_prompt": body.negative_prompt}
    if not values[0] or not any(values[0] in text for text in texts.values()):
        raise InvalidRequest(
            f"Prompt S/R: {brief(values[0], 60)!r} is in neither prompt; the first value is what is replaced"
        )
    return {name: text.replace(values[0], value) for name, text in texts.items()}


def _ordered(body: Generation, value: str, values: Sequence[str]) -> dict[str, str]:
    """The words of a value, one permutation, put where the prompt has any of them."""
    words = value.split(", ")
    places = sorted((body.prompt.find(word) if word else -1, word) for word in words)
    if places[0][0] < 0:
        raise InvalidRequest(f"{ORDER}: {brief(places[0][1], 60)!r} is not in the prompt; expected words of it")
    text, rest = "", body.prompt
    for (_, old), new in zip(places, words, strict=True):
        before, _, rest = rest.partition(old)
        text += before + new
    return {"prompt": text + rest}


def _size(body: Generation, value: str, values: Sequence[str]) -> dict[str, int]:
    width, _, height = (part.strip() for part in value.casefold().partition("x"))
    if not (width.isdecimal() and height.isdecimal() and len(width + height) < 12):
        raise InvalidRequest(f"Size: {brief(value, 40)!r} is no size; expected width x height, such as 256x256")
    return {"width": int(width), "height": int(height)}


def _styled(body: Generation, value: str, values: Sequence[str]) -> dict[str, list[str]]:
    return {"styles": [*body.styles, *(name.strip() for name in value.split(",") if name.strip())]}


AXES = (
    PlotAxis(NOTHING, put=lambda body, value, values: {}),
    PlotAxis("Seed", int, _field("seed")),
    PlotAxis("Var. seed", int, _field("subseed")),
    PlotAxis("Var. strength", float, _field("subseed_strength")),
    PlotAxis("Steps", int, _field("steps")),
    PlotAxis("Hires steps", int, _field("hr_second_pass_steps"), image=False),
    PlotAxis("CFG Scale", float, _field("cfg_scale")),
    PlotAxis("Image CFG Scale", float, _field("image_cfg_scale"), image=True),
    PlotAxis("Prompt S/R", put=_replaced, plain=True),
    PlotAxis(ORDER, put=_ordered, plain=True),
    PlotAxis("Sampler", put=_field("sampler_name"), image=False, plain=True),
    PlotAxis("Hires sampler", image=False),
    PlotAxis("Sampler", put=_field("sampler_name"), image=True, plain=True),
    PlotAxis("Checkpoint name", put=_option("sd_model_checkpoint"), plain=True),
    PlotAxis("Negative Guidance minimum sigma", float),
    PlotAxis("Sigma Churn", float, _field("s_churn")),
    PlotAxis("Sigma min", float, _field("s_tmin")),
    PlotAxis("Sigma max", float, _field("s_tmax")),
    PlotAxis("Sigma noise", float, _field("s_noise")),
    PlotAxis("Schedule type", put=_field("scheduler")),
    PlotAxis("Schedule min sigma", float),
    PlotAxis("Schedule max sigma", float),
    PlotAxis("Schedule rho", float),
    PlotAxis("Beta schedule alpha", float),
    PlotAxis("Beta schedule beta", float),
    PlotAxis("Eta", float, _field("eta")),
    PlotAxis("Clip skip", int, _option("CLIP_stop_at_last_layers")),
    PlotAxis("Denoising", float, _field("denoising_strength")),
    PlotAxis("Initial noise multiplier", float),
    PlotAxis("Extra noise", float),
    PlotAxis("Hires upscaler", put=_field("hr_upscaler"), image=False),
    PlotAxis("Cond. Image Mask Weight", float, image=True),
    PlotAxis("VAE"),
    PlotAxis("Styles", put=_styled),
    PlotAxis("UniPC Order", int),
    PlotAxis("Face restore"),
    PlotAxis("Token merging ratio", float, _option("token_merging_ratio")),
    PlotAxis("Token merging ratio high-res", float),
    PlotAxis("Always discard next-to-last sigma"),
    PlotAxis("SGM noise multiplier"),
    PlotAxis("Refiner checkpoint", put=_field("refiner_checkpoint"), plain=True),
    PlotAxis("Refiner switch at", float, _field("refiner_switch_at")),
    PlotAxis("RNG source", put=_option("randn_source")),
    PlotAxis("FP8 mode"),
    PlotAxis("Size", put=_size),
)
"""In A1111's order, for clients give the number of an axis among those of its route."""


def axes_of(*, has_image: bool) -> list[PlotAxis]:
    """The axes of txt2img or img2img, at the numbers by which clients name them."""
    return [axis for axis in AXES if axis.image in (None, has_image)]


def axis_named(given: Any, what: str, *, has_image: bool) -> PlotAxis:
    """The axis of a number, or of a label in any case; InvalidRequest where there is none, or it changes nothing."""
    known = axes_of(has_image=has_image)
    labels = [axis.label for axis in known if axis.put is not None]
    if isinstance(given, str) and not given.strip().isdecimal():
        axis = next((axis for axis in known if axis.label.casefold() == given.strip().casefold()), None)
        if axis is None:
            close = nearest(given, labels)
            hint = f"did you mean {close!r}?" if close else f"choose from {', '.join(labels)}"
            raise InvalidRequest(f"{what} is {brief(given, 60)!r}; {hint}")
    else:
        number = _number(given)
        if number is None or not 0 <= number < len(known):
            raise InvalidRequest(
                f"{what} is {brief(given, 60)}; expected the number of an axis from 0 to {len(known) - 1}, or its label"
            )
        axis = known[number]
    if axis.put is None:
        raise InvalidRequest(f"{what} is {axis.label!r}, which changes nothing here; choose from {', '.join(labels)}")
    return axis


def _number(given: Any) -> int | None:
    if given in ("", None):
        return 0
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        return None
    try:
        return int(given) if int(given) == float(given) else None
    except (ValueError, OverflowError):
        return None


def permutations(words: Sequence[str]) -> list[str]:
    """Every order of the words, joined by commas; one too many where that is more than an axis may have."""
    found = itertools.islice(itertools.permutations(words), MAX_VALUES + 1)
    return [", ".join(each) for each in found]

"""The prompts of a request: styles joined, choices made by each picture's seed, and then encoded for each pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..request.fields import checked_text
from ..request.request import Request
from ..request.settings import Emphasis
from ..text import encode
from ..text.prompt_schedule import Timeline, encode_timeline
from ..text.prompt_styles import apply_styles
from ..text.variants import has_variants, resolve_variants, wildcard_names
from .loras import RequestAdapters, request_adapters
from .tasks.wildcards import WildcardFolder, load_styles

if TYPE_CHECKING:
    from .models import StableDiffusion

EMPHASIS: dict[Emphasis, encode.Emphasis] = {
    "Original": "restore_mean",
    "ComfyUI": "from_empty",
    "No norm": "no_norm",
    "Ignore": "ignore",
    "None": "none",
}
"""A request's names -> those of the text encoder."""


def join_styles(request: Request) -> Request:
    """The request with its styles joined to its prompts, and none named any more."""
    if not request.prompting.styles:
        return request
    styles = load_styles(request.prompting.styles_file)
    prompt, negative = apply_styles(request.prompt, request.negative_prompt, request.prompting.styles, styles)
    return replace(request, prompt=prompt, negative_prompt=negative, prompting=replace(request.prompting, styles=()))


def varies(request: Request) -> bool:
    """Whether pictures of other seeds get other prompts."""
    if not request.prompting.variants:
        return False
    texts = (request.prompt, request.negative_prompt)
    if request.prompting.wildcards_dir is not None and any(map(wildcard_names, texts)):
        return True
    return any(has_variants(resolved) for resolved in texts)


def choose_variants(request: Request, folder: WildcardFolder | None) -> Request:
    """The request of one picture with every choice of its prompts made by its seed."""
    if not request.prompting.variants or request.seed is None:
        return request
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    made = {name: resolve_variants(text, request.seed, folder, role=name) for name, text in texts.items()}
    if made == texts:
        return request
    if not checked_text("prompt", made["prompt"]):
        raise InvalidRequest(f"the choices of seed {request.seed} leave the prompt empty; expected a few words")
    return replace(request, **made)  # type: ignore[arg-type]  # mypy takes the values for any field's


Pair = tuple[Timeline, Timeline]
"""A prompt and a negative prompt."""


@dataclass(frozen=True)
class EncodedPrompts:
    """The prompts of one picture for each pass, those of the refiner for the last pass (where there is one), and the
    adapters that they name."""

    passes: tuple[Pair, ...]
    adapters: RequestAdapters
    notes: tuple[str, ...]
    refiner: Pair | None = None


def encode_prompts(
    model: StableDiffusion, request: Request, steps: Sequence[tuple[int, int]], refiner: StableDiffusion | None = None
) -> EncodedPrompts:
    """Encode the prompts of one picture, for the `refiner` too.

    steps  of each pass: how many, and how many were before them
    """
    adapters = request_adapters(model, request)
    emphasis = None if request.prompting.emphasis is None else EMPHASIS[request.prompting.emphasis]
    texts = adapters.prompt, adapters.negative_prompt
    passes, notes, refined = list[Pair](), list[str](), None
    encoder = adapters.model.text_encoder.with_emphasis(emphasis)
    for each in steps:
        pair, said = _encoded(encoder, texts, *each, request.clip_skip)
        passes.append(pair)
        notes += said
    if refiner is not None:
        new_words, unread = adapters.words_for(refiner)
        notes += unread
        reading = refiner.text_encoder.with_embeddings(new_words).with_emphasis(emphasis)
        refined, _ = _encoded(reading, texts, *steps[-1], request.clip_skip)
    notes += [*_unread(request), *adapters.notes]
    return EncodedPrompts(tuple(passes), adapters, tuple(dict.fromkeys(notes)), refined)


def _encoded(
    encoder: encode.TextEncoder, texts: tuple[str, str], steps: int, before: int, clip_skip: int | None
) -> tuple[Pair, list[str]]:
    """A prompt and a negative prompt for one pass, and notes on how they were read."""
    prompt, negative = (
        encode_timeline(encoder, text, steps, before=before, clip_skip=clip_skip, negative=away)
        for text, away in zip(texts, (False, True), strict=True)
    )
    return (prompt.timeline, negative.timeline), [*prompt.notes(), *negative.notes()]


def _unread(request: Request) -> list[str]:
    """Wildcards that stayed in the text."""
    if request.prompting.wildcards_dir is not None or not request.prompting.variants:
        return []
    names = wildcard_names(f"{request.prompt}\n{request.negative_prompt}")
    return [f"'__{name}__' is read as text: no folder of wildcards is given" for name in dict.fromkeys(names)]

"""The prompts of a request: styles joined, choices made by each picture's seed, and then encoded for each pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..request.request import Request
from ..request.settings import Emphasis
from ..text.encode import Emphasis as EncoderEmphasis
from ..text.encode import TextEncoder
from ..text.prompt_schedule import Timeline, encode_timeline
from ..text.prompt_styles import apply_styles
from ..text.variants import has_variants, resolve_variants, wildcard_names
from .loras import LoraWeights, RequestAdapters, request_adapters
from .tasks.wildcards import WildcardFolder, load_styles

if TYPE_CHECKING:
    from .models import StableDiffusion

EMPHASIS: dict[Emphasis, EncoderEmphasis] = {
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
    model: StableDiffusion,
    request: Request,
    steps: Sequence[tuple[int, int]],
    refiner: StableDiffusion | None = None,
    weights: LoraWeights | None = None,
    calls: int = 1,
) -> EncodedPrompts:
    """Encode the prompts of one picture, for the `refiner` too.

    steps    of each pass: how many, and how many were before them
    calls    of the network in a step, where the numbers in `[a:b:10]` count those
    weights  of the LoRAs, shared by the pictures of a run
    """
    adapters = request_adapters(model, request, weights)
    emphasis = None if request.prompting.emphasis is None else EMPHASIS[request.prompting.emphasis]

    def encode(encoder: TextEncoder, count: int, before: int) -> tuple[Pair, list[str]]:
        run = partial(encode_timeline, encoder.with_emphasis(emphasis), steps=count, before=before, calls=calls)
        prompt = run(adapters.prompt, clip_skip=request.clip_skip)
        negative = run(adapters.negative_prompt, clip_skip=request.clip_skip, negative=True)
        return (prompt.timeline, negative.timeline), [*prompt.notes(), *negative.notes()]

    passes, notes, refined = list[Pair](), list[str](), None
    for each in steps:
        pair, read = encode(adapters.model.text_encoder, *each)
        passes.append(pair)
        notes += read
    if refiner is not None:
        new_words, unread = adapters.words_for(refiner)
        notes += unread
        refined, _ = encode(refiner.text_encoder.with_embeddings(new_words), *steps[-1])
    notes += [*_unread(request), *adapters.notes]
    return EncodedPrompts(tuple(passes), adapters, tuple(dict.fromkeys(notes)), refined)


def _unread(request: Request) -> list[str]:
    """Wildcards that stayed in the text."""
    if request.prompting.wildcards_dir is not None or not request.prompting.variants:
        return []
    names = wildcard_names(f"{request.prompt}\n{request.negative_prompt}")
    return [f"'__{name}__' is read as text: no folder of wildcards is given" for name in dict.fromkeys(names)]

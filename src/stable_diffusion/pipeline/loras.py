"""Adapters and embeddings of one request: found, checked, and put on the model only while its networks run.

A request's adapters never change the model for anybody else: its weights are exchanged around each step and around the
encoding of the prompts, so that two streams on one model do not see each other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from ..adapters.attach import Matched, match
from ..adapters.file import read_adapter
from ..adapters.folder import in_folder, listing
from ..adapters.patch import Layer, stack_of
from ..adapters.textual_inversion import Embedding, read_embedding
from ..errors import BrokenModel
from ..request.lora import Lora
from ..request.metadata import Used
from ..text.embeddings import mentioned
from ..text.lora_tags import LoraTag, take_tags

if TYPE_CHECKING:
    from ..request.request import Request
    from .models import StableDiffusion

T = TypeVar("T")

HASH = 12
"""Digits of an adapter's hash in a picture's text."""
LORAS, EMBEDDINGS = "adapters", "embeddings"


@dataclass(frozen=True)
class RequestAdapters:
    """The adapters of a request, ready: what the encoder reads, and the weights to exchange."""

    prompt: str
    negative_prompt: str
    used: Used
    notes: tuple[str, ...]
    layers: Mapping[str, Sequence[Layer]]
    words: Mapping[str, Tensor]
    embeddings: Mapping[str, Embedding]
    _model: StableDiffusion = field(repr=False)

    def words_for(self, refiner: StableDiffusion) -> tuple[dict[str, Tensor], list[str]]:
        """(the new words of the prompts for another model's text encoder, a note for each that it has no vectors of)"""
        words: dict[str, Tensor] = {}
        notes: list[str] = []
        for name, embedding in self.embeddings.items():
            try:
                words[name] = embedding.fitting(refiner.text_widths)
            except BrokenModel:
                notes.append(f"the refiner reads {name!r} as text: the embedding has no vectors for its text encoder")
        return words, notes

    def encoding(self) -> AbstractContextManager[object]:
        """While this is open, the text encoder has the request's adapters and words."""
        stack = ExitStack()
        stack.enter_context(self._model.text_encoder.with_embeddings(self.words))
        for network in self._model.networks[1:]:
            stack.enter_context(self._weights(network.role))
        return stack

    def denoising(self, steps: Iterator[T]) -> Iterator[T]:
        """The same steps, made with the request's adapters on the U-Net."""
        return steps if not self.layers.get("unet") else _within(self._weights("unet"), steps)

    def _weights(self, role: str) -> AbstractContextManager[None]:
        layers = self.layers.get(role, ())
        network = next(network for network in self._model.networks if network.role == role)
        return stack_of(network.module).with_layers(layers) if layers else nullcontext()


def _within(weights: AbstractContextManager[None], steps: Iterator[T]) -> Iterator[T]:
    while True:
        with weights:
            step = next(steps, None)
        if step is None:
            return
        yield step


def request_adapters(model: StableDiffusion, request: Request) -> RequestAdapters:
    """Read what a request names: `loras`, the tags of its prompt, and the embeddings that its prompts mention.

    Raises InvalidRequest where a tag names nothing in `lora_dir`, and ModelFileError where a file does not fit.
    """
    prompt, tags = take_tags(request.prompt)
    negative, away = take_tags(request.negative_prompt)
    # A1111 applies the tags of the prompt alone; those of the negative prompt are only taken out.
    notes = [f"<lora:{tag.name}> in the negative prompt is ignored" for tag in away]
    layers: dict[str, list[Layer]] = {network.role: [] for network in model.networks}
    hashes: dict[str, str] = {each.name: each.hash[:HASH] for each in model.attachments}
    written = [_tag(each.name, each.strength, each.text_strength) for each in model.attachments]
    resolved = [_resolved(tag, request.lora_dir) for tag in tags]
    for number, lora in enumerate((*request.loras, *resolved)):
        matched = match(read_adapter(lora.path), model.networks)
        if number < len(request.loras):
            written.append(_tag(matched.file.name, lora.strength, lora.text_strength))
        for role, layer in matched.layers(lora.strength, lora.text_strength).items():
            layers[role].append(layer)
        hashes[matched.file.name] = matched.file.hash[:HASH]
        notes += _unmatched_note(matched)
    text = f"{prompt}\n{negative}"
    own = [embedding for embedding in model.embeddings if mentioned(embedding.names, text)]
    word_hashes = {embedding.names[0]: embedding.hash[:HASH] for embedding in own}
    found = _mentioned_in(request.embeddings_dir, text)
    word_hashes |= {name: embedding.hash[:HASH] for name, embedding in found.items()}
    words = {name: embedding.fitting(model.text_widths) for name, embedding in found.items()}
    used = Used(hashes, word_hashes, "".join(written))
    known = {name: embedding for embedding in own for name in embedding.names} | found
    return RequestAdapters(prompt, negative, used, tuple(notes), layers, words, known, model)


def _resolved(tag: LoraTag, folder: Path | None) -> Lora:
    path = in_folder(tag.name, folder, LORAS, "lora_dir (--lora-dir on the command line)")
    return Lora.of((path, tag.strength, tag.text_strength))


def _tag(name: str, strength: float, text_strength: float | None) -> str:
    """An adapter that was given as a file, as the tag that means it where its folder is configured."""
    if any(sign in name for sign in ":<>\n"):
        return ""  # no tag can say this name; the hash is written all the same
    text = strength if text_strength is None else text_strength
    return f" <lora:{name}:{text:g}>" if text == strength else f" <lora:{name}:{text:g}:{strength:g}>"


def _unmatched_note(matched: Matched) -> list[str]:
    if not matched.unmatched:
        return []
    first, count = ", ".join(matched.unmatched[:3]), len(matched.unmatched)
    more = f" and {count - 3} more" if count > 3 else ""
    return [f"{matched.file.name}: {count} parts fit nothing in this model and were left out: {first}{more}"]


def _mentioned_in(folder: Path | None, text: str) -> dict[str, Embedding]:
    """The embeddings of a folder that a text mentions, by name."""
    names = [] if folder is None else mentioned(list(listing(folder, EMBEDDINGS)), text)
    return {name: read_embedding(in_folder(name, folder, EMBEDDINGS, "embeddings_dir"), name) for name in names}

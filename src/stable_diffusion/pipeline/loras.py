"""Adapters and embeddings of one request: found, checked, and put on the model only while its networks run.

A request's adapters never change the model: what they change are tensors of the request's own networks, which share
all others with the model's (`adapters.patch.patched`). Two runs on one model, in threads or by turns, do not see each
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..adapters.attach import Matched, match
from ..adapters.file import read_adapter
from ..adapters.folder import in_folder, listing
from ..adapters.patch import Layer, patched
from ..adapters.textual_inversion import Embedding, read_embedding
from ..errors import BrokenModel
from ..request.lora import Lora
from ..request.metadata import Used
from ..text.embeddings import mentioned
from ..text.lora_tags import LoraTag, take_tags

if TYPE_CHECKING:
    from ..request.request import Request
    from .models import StableDiffusion

HASH = 12
"""Digits of an adapter's hash in a picture's text."""
LORAS, EMBEDDINGS = "adapters", "embeddings"


@dataclass(frozen=True)
class RequestAdapters:
    """The adapters of a request, ready. `model` is the model as this request sees it: its text encoder knows the words,
    and it and the denoising process run networks with the LoRAs in their weights. All else is the model's own."""

    prompt: str
    negative_prompt: str
    used: Used
    notes: tuple[str, ...]
    embeddings: Mapping[str, Embedding]
    model: StableDiffusion = field(repr=False)

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
    return RequestAdapters(prompt, negative, used, tuple(notes), known, _patched_model(model, layers, words))


def _patched_model(
    model: StableDiffusion, layers: Mapping[str, Sequence[Layer]], words: Mapping[str, Tensor]
) -> StableDiffusion:
    """The model with these changes in its networks and these words in its text encoder."""
    changed = {each.module: patched(each.module, layers[each.role]) for each in model.networks if layers[each.role]}
    encoder = model.text_encoder.with_embeddings(words)
    encoder = encoder.with_networks(changed) if changed else encoder
    unet = changed.get(model.parts.unet, model.parts.unet)
    process = model.denoising_process.with_networks(unet, encoder)  # type: ignore[arg-type]  # of the same class
    return replace(model, text_encoder=encoder, denoising_process=process)


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

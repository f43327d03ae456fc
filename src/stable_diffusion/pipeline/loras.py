"""Adapters and embeddings of one request: found, checked, and put on the model only while its networks run.

A request's adapters never change the model: what they change are tensors of the request's own networks, which share
all others with the model's (`adapters.patch.patched`). Two runs on one model, in threads or by turns, do not see each
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..errors import BrokenModel
from ..request.lora import Lora
from ..request.metadata import Used
from ..text.embeddings import mentioned
from ..text.lora_tags import LoraTag, take_tags

if TYPE_CHECKING:
    from ..adapters.attach import Matched
    from ..adapters.patch import Layer
    from ..adapters.textual_inversion import Embedding
    from ..request.request import Request
    from .models import StableDiffusion

HASH = 12
"""Digits of an adapter's hash in a picture's text."""
LORAS, EMBEDDINGS = "adapters", "embeddings"
PIVOTAL = ".pti"
"""Files of new words of pivotal tuning, which prompts name otherwise than the file is called."""


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


@dataclass(frozen=True, eq=False)
class PatchedNetworks:
    """The networks that LoRAs change, as they change them: the model's own -> one that shares all else with it; and for
    the text of pictures the names and hashes of the files, notes on what fitted nothing, and the words that the files
    bring along."""

    networks: Mapping[nn.Module, nn.Module]
    names: tuple[str, ...]
    hashes: Mapping[str, str]
    notes: tuple[str, ...]
    words: Mapping[str, Embedding] = field(default_factory=dict)


class LoraWeights:
    """`weights(loras)` puts LoRAs into the weights of a model's networks; the last ones are remembered, so that
    pictures of one run whose prompts differ have the same tensors."""

    def __init__(self, model: StableDiffusion) -> None:
        self.model = model
        self._last: tuple[tuple[Lora, ...], PatchedNetworks] | None = None

    def __call__(self, loras: tuple[Lora, ...]) -> PatchedNetworks:
        """Raises ModelFileError where a file is damaged or does not fit."""
        if self._last is None or self._last[0] != loras:
            self._last = None  # before the next, so that no more than one set of weights is held
            self._last = loras, self._patched(loras)
        return self._last[1]

    def _patched(self, loras: tuple[Lora, ...]) -> PatchedNetworks:
        if not loras:
            return PatchedNetworks(networks={}, names=(), hashes={}, notes=())
        from ..adapters.attach import match
        from ..adapters.file import read_adapter
        from ..adapters.patch import patched

        networks = self.model.networks
        layers: dict[str, list[Layer]] = {network.role: [] for network in networks}
        found = [match(read_adapter(lora.path), networks) for lora in loras]
        for lora, matched in zip(loras, found, strict=True):
            for role, layer in matched.layers(lora.strength, lora.text_strength).items():
                layers[role].append(layer)
        return PatchedNetworks(
            networks={each.module: patched(each.module, layers[each.role]) for each in networks if layers[each.role]},
            names=tuple(matched.file.name for matched in found),
            hashes={matched.file.name: matched.file.hash[:HASH] for matched in found},
            notes=tuple(note for matched in found for note in _unmatched_note(matched)),
            words={word.names[0]: word for matched in found for word in matched.file.words},
        )


def request_adapters(model: StableDiffusion, request: Request, weights: LoraWeights | None = None) -> RequestAdapters:
    """Read what a request names: `loras`, the tags of its prompt, and the embeddings that its prompts mention.

    `weights` of this model are shared by the pictures of a run; None makes some for this request alone.

    Raises InvalidRequest where a tag names nothing in `lora_dir`, and ModelFileError where a file does not fit.
    """
    prompt, tags = take_tags(request.prompt)
    negative, away = take_tags(request.negative_prompt)
    made = (LoraWeights(model) if weights is None else weights)(
        (*request.loras, *(_resolved(tag, request.lora_dir) for tag in tags))
    )
    # A1111 applies the tags of the prompt alone; those of the negative prompt are only taken out.
    notes = [*(f"<lora:{tag.name}> in the negative prompt is ignored" for tag in away), *made.notes]
    hashes = {each.name: each.hash[:HASH] for each in model.attachments} | dict(made.hashes)
    written = [_tag(each.name, each.strength, each.text_strength) for each in model.attachments]
    # those of tags are in the prompt already
    written += [_tag(name, lora.strength, lora.text_strength) for name, lora in zip(made.names, request.loras)]  # noqa: B905
    text = f"{prompt}\n{negative}"
    own = [embedding for embedding in model.embeddings if mentioned(embedding.names, text)]
    word_hashes = {embedding.names[0]: embedding.hash[:HASH] for embedding in own}
    found = _mentioned_in(request.embeddings_dir, text)
    word_hashes |= {name: embedding.hash[:HASH] for name, embedding in found.items()}
    brought = {word.names[0]: word for each in model.attachments for word in each.file.words} | dict(made.words)
    bundled = {word: brought[word] for word in mentioned(list(brought), text)}  # the hash of their file is written
    found = {name: embedding for name, embedding in found.items() if name not in bundled} | bundled
    words = {name: embedding.fitting(model.text_widths) for name, embedding in found.items()}
    used = Used(hashes, word_hashes, "".join(written))
    known = {name: embedding for embedding in own for name in embedding.names} | found
    return RequestAdapters(prompt, negative, used, tuple(notes), known, _seen_by(model, made.networks, words))


def _seen_by(
    model: StableDiffusion, changed: Mapping[nn.Module, nn.Module], words: Mapping[str, Tensor]
) -> StableDiffusion:
    """The model with these networks in place of its own, and these words in its text encoder."""
    encoder = model.text_encoder.with_embeddings(words).with_networks(changed)
    unet = changed.get(model.parts.unet, model.parts.unet)
    process = model.denoising_process.with_networks(unet, encoder)  # type: ignore[arg-type]  # of the same class
    return replace(model, text_encoder=encoder, denoising_process=process)


def _resolved(tag: LoraTag, folder: Path | None) -> Lora:
    from ..adapters.folder import in_folder

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
    """The embeddings of a folder that a text mentions: by the names of files, and those of pivotal tuning also by the
    words that such files have themselves."""
    if folder is None:
        return {}
    from ..adapters.folder import in_folder, listing
    from ..adapters.textual_inversion import read_embedding

    files = listing(folder, EMBEDDINGS)
    found = {
        name: read_embedding(in_folder(name, folder, EMBEDDINGS, "embeddings_dir"), name)
        for name in mentioned(list(files), text)
    }
    for path in (path for path in files.values() if path.suffix.lower() == PIVOTAL):
        embedding = read_embedding(in_folder(path.name, folder, EMBEDDINGS, "embeddings_dir"))
        found |= dict.fromkeys(mentioned(embedding.names, text), embedding)
    return found

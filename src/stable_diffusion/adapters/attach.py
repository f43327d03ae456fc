"""Putting an adapter on a model: its groups meet the model's layers, and what fits nothing is listed."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn

from ..errors import BrokenModel, InvalidRequest, brief
from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..weights.checkpoints.families import TOKEN_WIDTHS
from ..weights.keys import Rule, apply
from .family import CROSS_KEYS, SD3, is_text
from .file import AdapterFile, Group, read_adapter
from .formulas import bias_delta, delta, label
from .patch import Change, Layer, Stack, stack_of
from .targets import Network

MAX_STRENGTH = 100.0
LONGEST = 200
"""Characters of a name of a file that are kept for messages; real ones have under 150."""
_Deltas = Callable[[Group, Rule, Sequence[Tensor]], Sequence[Tensor] | None]


@dataclass(frozen=True)
class Matched:
    """An adapter's changes by network ("unet", "text", "text_2" ...), its groups by kind, and what fits nothing."""

    file: AdapterFile
    changes: Mapping[str, tuple[Change, ...]]
    kinds: Mapping[str, int]
    unmatched: tuple[str, ...]

    def layers(self, strength: float, text_strength: float | None) -> dict[str, Layer]:
        """One layer for each network that the adapter changes."""
        strengths = _strengths(strength, text_strength)
        source = str(self.file.path)
        return {role: Layer(changes, strengths[role], source) for role, changes in self.changes.items() if changes}


class Attachment:
    """An adapter on a model, until `detach` or the end of a `with` block.

    `kinds` counts its groups ("LoRA": 192), `unmatched` names what fitted no layer of this model and was left out.
    """

    def __init__(
        self,
        matched: Matched,
        networks: Sequence[Network],
        strength: float,
        text_strength: float | None,
        listed: list[Attachment],
    ) -> None:
        """`listed` are all attachments of the model: this one is among them as long as it is on it."""
        self.file = replace(matched.file, groups={})  # the tensors are held by the layers, which go when it is detached
        self.kinds, self.unmatched = dict(matched.kinds), matched.unmatched
        self.strength = strength
        self.text_strength = strength if text_strength is None else text_strength
        layers = matched.layers(strength, text_strength)
        self._on: dict[str, tuple[Stack, Layer]] = {
            network.role: (stack_of(network.module), layers[network.role])
            for network in networks
            if network.role in layers
        }
        self._listed = listed
        try:
            for stack, layer in self._on.values():
                stack.attach(layer)
        except BrokenModel:
            self.detach()
            raise
        listed.append(self)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def hash(self) -> str:
        """64 hex digits; pictures carry the first 12."""
        return self.file.hash

    @property
    def attached(self) -> bool:
        return bool(self._on)

    def set_strength(self, strength: float, text_strength: float | None = None) -> None:
        """Change how much of the adapter is added; 0 is none of it, less than 0 its opposite. BrokenModel, and it stays
        as it was, where a weight would not be finite."""
        strengths = _strengths(strength, text_strength)
        before = {role: layer.strength for role, (_, layer) in self._on.items()}
        try:
            for role, (stack, layer) in self._on.items():
                stack.set_strength(layer, strengths[role])
        except BrokenModel:
            for role, (stack, layer) in self._on.items():
                stack.set_strength(layer, before[role])
            raise
        self.strength, self.text_strength = strengths["unet"], strengths["text"]

    def detach(self) -> None:
        """Take the adapter off; the weights are again what they were, bit for bit. A second call does nothing."""
        for stack, layer in self._on.values():
            stack.detach(layer)
        self._forget()

    def fuse(self) -> None:
        """Make the change part of the model's own weights for good: it can no longer be detached."""
        for stack, layer in self._on.values():
            stack.fuse(layer)
        self._forget()

    def _forget(self) -> None:
        self._on = {}
        if self in self._listed:
            self._listed.remove(self)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        state = f"strength {self.strength:g}, text {self.text_strength:g}" if self.attached else "detached"
        return f"Attachment({self.name!r}, {kinds}, {state}, {len(self.unmatched)} unmatched)"


def attach(
    networks: Sequence[Network],
    path: str | os.PathLike[str],
    strength: float = 1.0,
    text_strength: float | None = None,
    listed: list[Attachment] | None = None,
) -> Attachment:
    """Put the adapter at `path` on networks. Raises what `read_adapter` and `match` raise; then nothing is changed."""
    _strengths(strength, text_strength)
    matched = match(read_adapter(path), networks)
    return Attachment(matched, networks, strength, text_strength, [] if listed is None else listed)


def match(file: AdapterFile, networks: Sequence[Network]) -> Matched:
    """Which groups change which weights, each weight once. BrokenModel where not one fits, or where the file is for
    models of another family, some of whose layers have the shapes of this one's."""
    changes: dict[str, list[Change]] = {network.role: [] for network in networks}
    kinds: Counter[str] = Counter()
    unmatched, misfits = [brief(name, LONGEST) for name in file.unknown], []
    changed: dict[tuple[str, str], str] = {}
    for stem, group in file.groups.items():
        try:
            role, made = _first_fit(stem, group, networks)
        except BrokenModel as error:
            misfits.append((stem, f"{brief(stem, LONGEST)} ({error})"))
            continue
        if not made:
            unmatched.append(brief(stem, LONGEST))
            continue
        again = next((changed[role, name] for change in made for name in change.names if (role, name) in changed), None)
        if again is not None:
            if not _same(group, file.groups[again]):
                unmatched.append(f"{brief(stem, LONGEST)} (the same layer as {brief(again, LONGEST)}, which is used)")
            continue
        changed |= {(role, name): stem for change in made for name in change.names}
        changes[role] += made
        kinds[label(group.tensors)] += 1
    _check_family(file, networks, changed, [stem for stem, _ in misfits])
    if not kinds and not file.words:
        why = misfits[0][1] if misfits else f"it has no layer {unmatched[0]!r}"
        raise BrokenModel(f"{file.path} fits nothing in this model: {why}")
    said = (*unmatched, *(sentence for _, sentence in misfits))
    return Matched(file, {role: tuple(made) for role, made in changes.items()}, kinds, said)


def _first_fit(stem: str, group: Group, networks: Sequence[Network]) -> tuple[str, list[Change]]:
    """(the first network that has the layer in the group's shape, the changes to it); no changes where none has the
    layer, and the BrokenModel of the first one where none has the shape."""
    error: BrokenModel | None = None
    for network in networks:
        target = network.find(stem)
        if target is None:
            continue
        try:
            return network.role, _changes(stack_of(network.module), group, target.weight, target.bias)
        except BrokenModel as misfit:
            error = misfit if error is None else error
    if error is not None:
        raise error
    return "", []


def _check_family(
    file: AdapterFile, networks: Sequence[Network], changed: Mapping[tuple[str, str], str], misfits: Sequence[str]
) -> None:
    """BrokenModel where a file is for another family. Some layers have the same shape in all of them, and text encoders
    are shared by families as they are; the layers that read tokens tell them apart, or else the file's own word."""
    ours = next((_family(network.module) for network in networks if network.role == "unet"), "")
    fitted = {stem for (role, _), stem in changed.items() if role == "unet"}
    if any(stem.endswith(CROSS_KEYS) for stem in fitted):
        return
    why = ""
    if changed and any(stem.endswith(CROSS_KEYS) for stem in misfits):
        why = "the layers that read tokens have other shapes"
    elif changed and not fitted and not all(map(is_text, file.groups)):
        why = "its text encoder fits, and nothing of its denoising network does"
    elif file.family and ours and file.family != ours:
        why = "the file says so" if changed else "nothing in it fits"
    if why:
        kind = f"is made for {file.family}" if file.family and file.family != ours else "is made for another model"
        raise BrokenModel(f"{file.path} {kind}{f', and this is {ours}' if ours else ''}: {why}")


def _family(denoiser: nn.Module) -> str:
    """The family of a denoising network by the width of its tokens; an empty text for other widths."""
    if isinstance(denoiser, MMDiT):
        return SD3
    return TOKEN_WIDTHS.get(denoiser.config.context_dim, "") if isinstance(denoiser, UNet) else ""


def _same(one: Group, other: Group) -> bool:
    """Whether two groups are the same layer written twice."""
    names = one.tensors.keys()
    if (one.alpha, one.on_input, one.terms) != (other.alpha, other.on_input, other.terms):
        return False
    return names == other.tensors.keys() and all(torch.equal(one.tensors[name], other.tensors[name]) for name in names)


def _changes(stack: Stack, group: Group, weight: Rule, bias: Rule | None) -> list[Change]:
    """The changes of a group, after trying each on shapes alone; BrokenModel where a shape does not fit."""
    made = []
    for rule, deltas in ((weight, _weight_deltas), (bias, _bias_deltas)):
        if rule is None:
            continue
        shapes = [stack.original(name).to("meta", torch.float32) for name in rule.ours]
        tried = replace(group, tensors={what: tensor.to("meta") for what, tensor in group.tensors.items()})
        if deltas(tried, rule, shapes) is not None:
            made.append(Change(rule.ours, partial(_required, deltas, group, rule)))
    if not made:
        raise BrokenModel("the layer has no bias, or the group changes nothing")
    return made


def _required(deltas: _Deltas, group: Group, rule: Rule, originals: Sequence[Tensor]) -> Sequence[Tensor]:
    """The differences on the device of the originals, in float32."""
    like = originals[0]
    moved = {what: tensor.to(like.device, torch.float32) for what, tensor in group.tensors.items()}
    found = deltas(replace(group, tensors=moved), rule, originals)
    assert found is not None
    return found


def _weight_deltas(group: Group, rule: Rule, originals: Sequence[Tensor]) -> Sequence[Tensor] | None:
    (theirs,) = apply(rule.op.inverse, list(originals), 1)
    found = delta(group.tensors, theirs, alpha=group.alpha, on_input=group.on_input, terms=group.terms)
    return None if found is None else apply(rule.op, [found], len(rule.ours))


def _bias_deltas(group: Group, rule: Rule, originals: Sequence[Tensor]) -> Sequence[Tensor] | None:
    (theirs,) = apply(rule.op.inverse, list(originals), 1)
    found = bias_delta(group.tensors, theirs, alpha=group.alpha)
    return None if found is None else apply(rule.op, [found], len(rule.ours))


def _strengths(strength: float, text_strength: float | None) -> dict[str, float]:
    """Strength by network; InvalidRequest where one is no number from -100 to 100."""
    text = strength if text_strength is None else text_strength
    for name, value in (("strength", strength), ("text_strength", text)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or abs(value) > MAX_STRENGTH:
            raise InvalidRequest(f"{name} is {value!r}; expected a number from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}")
    return {"unet": float(strength), **dict.fromkeys(("text", "text_2", "text_3"), float(text))}

"""What a reader understood of a model on disk: everything but the numbers of its weights.

The readers of single files, of diffusers folders and of our own format each give a `Blueprint`; `load` builds the model
from it and `describe` says what it is, so that the two cannot disagree.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...diffusion.prediction import Prediction, resolve_prediction
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, schedule_from_config
from ...errors import InvalidRequest, unknown_choice
from ...latents import LatentFormat
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT, MMDiTConfig
from ...models.t5 import T5Config, T5Encoder
from ...models.tiny_vae import TinyVAE, TinyVAEConfig
from ...models.unet import UNet, UNetConfig
from ...models.vae import VAE, VAEConfig
from ..build import Prefixed, build
from ..containers.packing import SCALE, unpack
from ..containers.tensors import TensorFile
from ..keys import KeyTable
from ..networks.t5 import SECOND_EMBEDDING
from ..parts import Card, Defaults, TokenizerSource

Schedule = DiscreteSchedule | FlowSchedule

NETWORKS: dict[type, Callable[[Any], nn.Module]] = {
    UNetConfig: UNet,
    MMDiTConfig: MMDiT,
    VAEConfig: VAE,
    TinyVAEConfig: TinyVAE,
    CLIPTextConfig: CLIPText,
    T5Config: T5Encoder,
}
"""Config of a network -> its class."""
PARTS = ("unet", "vae", "clip", "clip2", "t5")
"""Fields of `Parts` that are networks."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """One network of a model, ready to be built: its config, its tensors, and the key table of the layout they are in
    (None: the network's own names).

    `what` names network and file in errors. A text encoder has its tokenizer with it. `packed` weights are integers
    with scales (our own format).
    """

    config: Any
    table: Callable[[Any], KeyTable] | None
    tensors: Prefixed
    what: str
    tokenizer: TokenizerSource | None = None
    packed: bool = False

    @property
    def count(self) -> int:
        """How many weights it has."""
        return sum(map(prod, self.tensors.shapes().values()))

    def build(
        self,
        *,
        dtype: torch.dtype | None = torch.float32,
        device: torch.device | str = "cpu",
        mapped: bool = False,
    ) -> Any:
        """The network, strictly; BrokenModel where its tensors do not fit (see `weights.build`)."""
        tensors = unpack(dict(self.tensors)) if self.packed else self.tensors
        make, table = NETWORKS[type(self.config)], None if self.table is None else self.table(self.config)
        placed: dict[str, Any] = {"dtype": dtype, "device": device, "mapped": mapped}
        return build(lambda: make(self.config), tensors, table, what=self.what, **placed)


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A model understood; the fields from `latents` on are those of `Parts`, which it becomes.

    layout     "ldm" (a single file of the released names), "diffusers" (a folder) or "native" (our own format)
    container  how the file holds its tensors
    networks   field of `Parts` (unet, vae, clip, clip2, t5) -> network, in the order in which they are read
    guesses    in plain sentences, what neither the file nor the caller said
    metadata   what the header of the file says in words
    """

    path: Path
    layout: str
    container: str
    family: str
    label: str
    networks: Mapping[str, NetworkPlan]
    latents: LatentFormat
    schedule: Schedule
    prediction: Prediction
    defaults: Defaults
    clip_layer: int = -1
    text_norm: bool = True
    size_numbers: int = 0
    zero_empty: bool = False
    card: Card = field(default_factory=Card)
    guesses: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many weights all networks have."""
        return sum(plan.count for plan in self.networks.values())

    def shown(self) -> list[tuple[str, NetworkPlan]]:
        """The networks in the order in which people are shown them."""
        return [(name, self.networks[name]) for name in PARTS if name in self.networks]

    def with_network(self, name: str, plan: NetworkPlan) -> Blueprint:
        """The same model with another network in the place of one of its own."""
        return replace(self, networks={**self.networks, name: plan})


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a caller may say of a model instead of leaving it to detection; None leaves it.

    heads and head_dim: attention heads of the U-Net, or their width; clip_heads: those of the text encoder; clip_layer:
    -1 the last hidden layer, -2 the one before; latent_scale: the factor from VAE latents to unit scale; variant: which
    weights of a diffusers folder ("fp16"). Of Stable Diffusion 3, shift: of its noise levels; t5: False leaves its
    largest text encoder out; text_folder: where text encoders that the file does not hold are looked for.
    """

    family: str | None = None
    prediction: str | None = None
    heads: int | tuple[int, ...] | None = None
    head_dim: int | None = None
    clip_heads: int | None = None
    clip_layer: int | None = None
    latent_scale: float | None = None
    zero_terminal_snr: bool | None = None
    variant: str | None = None
    shift: float | None = None
    t5: bool | None = None
    text_folder: str | os.PathLike[str] | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Overrides:
        """From keyword arguments; InvalidRequest names the nearest where one does not exist."""
        known = [item.name for item in fields(cls)]
        for name in given:
            if name not in known:
                raise unknown_choice("model setting", name, known)
        return cls(**given)

    def refuse(self, layout: str) -> None:
        """InvalidRequest where something was given that a model of this layout says itself, or does not have."""
        if layout != "diffusers" and self.variant is not None:
            raise InvalidRequest(f"variant={self.variant!r} was given, but only diffusers folders have variants")
        names, what = SAID[layout]
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidRequest(f"{name}={getattr(self, name)!r} was given, but {what} says it itself")

    def apply(self, found: Blueprint) -> Blueprint:
        """What was understood with what the caller said; overrides that shape networks have already been used."""
        if self.prediction is not None:
            found = replace(found, prediction=resolve_prediction(self.prediction))
        if self.clip_layer is not None:
            layers = found.networks["clip"].config.layers
            if not -layers - 1 <= self.clip_layer <= layers:
                raise InvalidRequest(f"clip_layer is {self.clip_layer}; the text encoder has {layers} layers")
            found = replace(found, clip_layer=self.clip_layer)
        if self.latent_scale is not None:
            if not 0 < self.latent_scale < float("inf"):
                raise InvalidRequest(f"latent_scale is {self.latent_scale}; a finite number above 0 is expected")
            found = replace(found, latents=replace(found.latents, scale=self.latent_scale))
        for name in ("zero_terminal_snr", "shift"):
            if getattr(self, name) is not None:
                found = replace(found, schedule=_changed(found.schedule, name, getattr(self, name)))
        if self.t5 and "t5" not in found.networks:
            why = next((guess for guess in found.guesses if "T5" in guess), "it has none, and none is beside it")
            raise InvalidRequest(f"t5=True was given, but the model runs without T5: {why}")
        return found


SHAPING = ("family", "heads", "head_dim", "clip_heads")
"""Settings that shape networks."""
SAID: dict[str, tuple[tuple[str, ...], str]] = {
    "diffusers": ((*SHAPING, "text_folder"), "a diffusers folder"),
    "native": ((*SHAPING, "t5", "text_folder"), "a file in our own format"),
    "ldm": ((), "a single file"),
}
"""Layout -> what its files say themselves, so that a caller cannot."""


def _changed(schedule: Schedule, name: str, value: Any) -> Schedule:
    """A noise schedule with another setting; InvalidRequest where its kind has no such setting."""
    config = schedule.to_config()
    if name not in config:
        raise InvalidRequest(f"{name} was given, but the noise schedule is of kind {config.get('kind')!r}")
    return schedule_from_config({**config, name: value})


def count_under(tensors: TensorFile, prefix: str) -> int:
    """Weights under a prefix: floating or packed tensors, without position numbers, the scales of packed ones, and
    the second name of T5's embedding."""
    total = 0
    for name in tensors:
        if not name.startswith(prefix) or name.endswith("position_ids"):
            continue
        if name.endswith(SECOND_EMBEDDING) and name.removesuffix(SECOND_EMBEDDING) + "shared.weight" in tensors:
            continue
        if not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            total += tensors.info(name).count
    return total


def main_dtype(tensors: TensorFile, prefix: str) -> str:
    """How most weights under a prefix are stored: a dtype as torch names it, or a kind of quantisation."""
    counts: Counter[str] = Counter()
    for name in tensors:
        if name.startswith(prefix):
            counts[tensors.stored(name)] += tensors.info(name).count
    return counts.most_common(1)[0][0] if counts else "none"

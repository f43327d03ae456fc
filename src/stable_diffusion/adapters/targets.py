"""Which parameter of ours a stem of an adapter file means: every spelling of every layer, made from the key tables.

A stem is looked up, never parsed. For each layer its dotted path in the diffusers layout, in the layout of single files
and in our own is taken from the tables of `weights`, and from each path the spellings that tools use are made:

    kohya           lora_unet_down_blocks_0_attentions_0_proj_in, lora_te_text_model_encoder_layers_0_mlp_fc1
    kohya, SGM      lora_unet_input_blocks_1_1_proj_in
    diffusers       unet.down_blocks.0.attentions.0.proj_in, text_encoder.text_model.encoder.layers.0.mlp.fc1
    old diffusers   unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q
    PEFT            base_model.model.down_blocks.0.attentions.0.proj_in
    generic         diffusion_model.input_blocks.1.1.proj_in
    OneTrainer      unet.input_blocks.1.1.proj_in, clip_l.text_model.encoder.layers.0.mlp.fc1
    native          unet.down.0.transformers.0.proj_in, text.layers.0.mlp.up

The same for the transformer of Stable Diffusion 3 and T5: lora_unet_joint_blocks_0_x_block_attn_qkv,
lora_transformer_transformer_blocks_0_attn_to_q, transformer.transformer_blocks.0.attn.to_q,
lora_te3_encoder_block_0_layer_0_SelfAttention_q.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from ..models.clip import CLIPText, CLIPTextConfig
from ..models.mmdit import MMDiT, MMDiTConfig
from ..models.t5 import T5Config, T5Encoder
from ..models.unet import UNet, UNetConfig
from ..weights.keys import KeyTable, Op, Rule
from ..weights.networks.clip import clip_openclip, clip_transformers
from ..weights.networks.mmdit import mmdit_diffusers, mmdit_ldm
from ..weights.networks.t5 import t5_transformers
from ..weights.networks.unet import unet_diffusers, unet_ldm

WRAPPED = re.compile(r"(?:^|(?<=\.))base_model\.model\.")
"""What PEFT puts before the names of a module; it says nothing, wherever it stands."""
UNET_DOTTED = ("", "unet.", "lora_unet.", "diffusion_model.", "model.diffusion_model.")
UNET_FLAT = ("lora_unet_", "lycoris_", "lycoris_unet_")
MMDIT_DOTTED = (*UNET_DOTTED, "transformer.", "lora_transformer.")
MMDIT_FLAT = (*UNET_FLAT, "lora_transformer_", "lycoris_transformer_")
TEXT_DOTTED = (
    (
        *("", "text_encoder.", "te.", "te1.", "lora_te.", "lora_te1.", "text.", "cond_stage_model.transformer."),
        *("cond_stage_model.model.", "conditioner.embedders.0.transformer."),
        *("text_encoders.clip_l.transformer.", "text_encoders.clip_h.transformer."),
        *("clip_l.", "clip_h.", "clip_l.transformer.", "clip_h.transformer.", "lora_te.text_encoder."),
    ),
    (
        *("text_encoder_2.", "te2.", "lora_te2.", "text_2.", "conditioner.embedders.1.model."),
        *("text_encoders.clip_g.transformer.", "clip_g.", "clip_g.transformer.", ""),
    ),
    (
        *("text_encoder_3.", "te3.", "lora_te3.", "text_3.", "text_encoders.t5xxl.transformer."),
        *("t5.", "t5xxl.", "t5.transformer.", "t5xxl.transformer.", ""),
    ),
)
TEXT_FLAT = (
    ("lora_te_", "lora_te1_", "lycoris_te_", "lycoris_te1_", "lycoris_text_encoder_", "lora_clip_l_"),
    ("lora_te2_", "lycoris_te2_", "lycoris_text_encoder_2_", "lora_clip_g_"),
    ("lora_te3_", "lycoris_te3_", "lycoris_text_encoder_3_", "lora_t5_", "lora_t5xxl_"),
)
"""Prefixes of the first, the second and the third text encoder. PEFT's folders name none: the shapes decide."""
OLD_ATTENTION = {".to_q": ".processor.to_q", ".to_k": ".processor.to_k", ".to_v": ".processor.to_v"} | {
    ".to_out.0": ".processor.to_out"
}
OLD_TEXT = {".q_proj": ".to_q", ".k_proj": ".to_k", ".v_proj": ".to_v", ".out_proj": ".to_out"}


@dataclass(frozen=True)
class Target:
    """The weight that a stem means, and the bias of the same layer, with how a file's layout becomes ours."""

    weight: Rule
    bias: Rule | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A network that adapters can change: its module, and the target of every stem."""

    role: str
    module: nn.Module
    targets: dict[str, Target]

    def find(self, stem: str) -> Target | None:
        """The target of a stem, wrapped or not; None where this network has no such layer."""
        plain = WRAPPED.sub("", stem)
        names = (stem, plain, plain.removeprefix("model."))
        return next((self.targets[name] for name in names if name in self.targets), None)


def networks(
    unet: UNet | MMDiT, clip: CLIPText, clip2: CLIPText | None = None, t5: T5Encoder | None = None
) -> tuple[Network, ...]:
    """The networks of a model with all spellings of their layers: "unet" (the denoising network, whichever it is),
    "text" and, where they are there, "text_2" and "text_3"."""
    targets = unet_targets(unet.config) if isinstance(unet.config, UNetConfig) else mmdit_targets(unet.config)
    found = [Network("unet", unet, targets), Network("text", clip, text_targets(clip.config))]
    if clip2 is not None:
        found.append(Network("text_2", clip2, text_targets(clip2.config, second=True)))
    if t5 is not None:
        found.append(Network("text_3", t5, t5_targets(t5.config)))
    return tuple(found)


@functools.lru_cache(maxsize=4)
def mmdit_targets(config: MMDiTConfig) -> dict[str, Target]:
    """Stem -> target for a transformer of Stable Diffusion 3 of this shape."""
    found: dict[str, Target] = {}
    for table in (mmdit_diffusers(config), mmdit_ldm(config), _native(mmdit_diffusers(config))):
        for path, target in _layers(table):
            _add(found, target, _spelled([path], MMDIT_DOTTED, MMDIT_FLAT))
    return found


@functools.lru_cache(maxsize=4)
def t5_targets(config: T5Config) -> dict[str, Target]:
    """Stem -> target for an encoder of T5 of this shape."""
    found: dict[str, Target] = {}
    for table in (t5_transformers(config), _native(t5_transformers(config))):
        for path, target in _layers(table):
            _add(found, target, _spelled([path], TEXT_DOTTED[2], TEXT_FLAT[2]))
    return found


@functools.lru_cache(maxsize=4)
def unet_targets(config: UNetConfig) -> dict[str, Target]:
    """Stem -> target for a U-Net of this shape."""
    found: dict[str, Target] = {}
    for table in (unet_diffusers(config), unet_ldm(config), _native(unet_diffusers(config))):
        for path, target in _layers(table):
            paths = [path, *(path.removesuffix(new) + old for new, old in OLD_ATTENTION.items() if path.endswith(new))]
            _add(found, target, _spelled(paths, UNET_DOTTED, UNET_FLAT))
    return found


@functools.lru_cache(maxsize=4)
def text_targets(config: CLIPTextConfig, second: bool = False) -> dict[str, Target]:
    """Stem -> target for a text encoder of this shape, the first or the second one of a model."""
    found: dict[str, Target] = {}
    for table in (clip_transformers(config), clip_openclip(config), _native(clip_transformers(config))):
        for path, target in _layers(table):
            paths = [path, path.removeprefix("text_model.")]
            paths += [
                each.removesuffix(new) + old
                for each in tuple(paths)
                for new, old in OLD_TEXT.items()
                if each.endswith(new)
            ]
            _add(found, target, _spelled(paths, TEXT_DOTTED[second], TEXT_FLAT[second]))
    return found


def _layers(table: KeyTable) -> Iterator[tuple[str, Target]]:
    """(their path without `.weight`, target) for every tensor of a table that a single tensor of theirs becomes."""
    by_name = {rule.theirs[0]: rule for rule in table.rules if len(rule.theirs) == 1}
    reverse = {name: alias for alias, name in table.aliases.items()}
    for name, rule in by_name.items():
        # `in_proj_weight` of a fused attention is the one weight without a dot before it.
        path = next((name.removesuffix(end) for end in (".weight", "_weight") if name.endswith(end)), None)
        if path is None:
            if not name.endswith(("bias", "_bias")):
                yield name, Target(rule)
            continue
        bias = by_name.get(name.removesuffix("weight") + "bias")
        yield path, Target(rule, bias)
        if name in reverse and reverse[name].endswith(".weight"):
            yield reverse[name].removesuffix(".weight"), Target(rule, bias)


def _native(table: KeyTable) -> KeyTable:
    """Our own names for the same parameters."""
    return KeyTable(tuple(Rule((name,), (name,), Op.SAME) for name in table.our_names()))


def _spelled(paths: Iterable[str], dotted: tuple[str, ...], flat: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        yield from (prefix + path for prefix in dotted)
        yield from (prefix + path.replace(".", "_") for prefix in flat)


def _add(found: dict[str, Target], target: Target, spellings: Iterable[str]) -> None:
    for stem in spellings:
        known = found.setdefault(stem, target)
        assert known.weight.ours == target.weight.ours, f"{stem} means two layers"

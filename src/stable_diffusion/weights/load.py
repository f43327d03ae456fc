"""Loading a model from a single file (LDM layout or our own) or from a diffusers folder, strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ..diffusion.prediction import Prediction, resolve_prediction
from ..diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule, schedule_from_config
from ..errors import BrokenModel, InvalidRequest, unknown_choice
from ..models.clip import CLIPText, CLIPTextConfig
from ..models.mmdit import MMDiT, MMDiTConfig
from ..models.t5 import T5Encoder
from ..models.unet import UNet, UNetConfig
from ..models.vae import VAE
from .build import Under, build
from .checkpoints.canonical import canonical
from .checkpoints.families import FAMILIES, SD3_T5, Family, TextPlace
from .checkpoints.few_step import METADATA, few_step_defaults, noted_defaults, told_defaults
from .checkpoints.folder import INDEX
from .checkpoints.folder_load import load_folder
from .checkpoints.native import is_native, load_native
from .checkpoints.separate import AnyPath, as_paths, complete, load_vae, text_places, with_text, with_vae
from .checkpoints.single import AUTOENCODER_LEFTOVERS, UNET, Overrides, Recognised, recognise
from .checkpoints.single import VAE as VAE_PREFIX
from .checkpoints.single_sd3 import T5_LEFTOVERS
from .containers.limits import check_plausible, using_config
from .containers.open import existing, read_tensors
from .containers.tensors import TensorFile
from .keys import KeyTable
from .networks.diffusers import clip_transformers
from .networks.ldm import unet_ldm, vae_ldm
from .networks.mmdit import mmdit_ldm, t5_transformers
from .networks.openclip import clip_openclip
from .parts import Card, Defaults, Parts, Source, TokenizerSource

SHAPING = ("family", "heads", "head_dim", "clip_heads")
"""Settings that shape networks."""
SAID: dict[str, tuple[tuple[str, ...], str]] = {
    "diffusers": ((*SHAPING, "text_folder"), "a diffusers folder"),
    "native": ((*SHAPING, "t5", "text_folder"), "a file in our own format"),
    "ldm": ((), "a single file"),
}
"""Layout -> what its files say themselves, so that a caller cannot."""

__all__ = ["Card", "Defaults", "Parts", "Source", "TokenizerSource", "load_parts"]


def load_parts(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    vae: AnyPath | None = None,
    text_encoders: AnyPath | Sequence[AnyPath] = (),
    **overrides: Any,
) -> Parts:
    """The model at `path`, which is a single file or a diffusers folder.

    `vae` and `text_encoders` are files or folders whose networks take the place of the model's own, or give it those
    that it lacks (a file of a denoiser alone); `vae` may be a tiny one (TAESD), and a text encoder may be a folder of
    those of Stable Diffusion 3 (clip_l, clip_g and t5xxl as files).

    Files are .safetensors, .gguf or torch checkpoints of Stable Diffusion 1, 2, XL or 3, or in our own format. Weights
    are cast to `dtype` (None: each stays as it is stored) and moved to `device` once; gradients are off. `overrides`
    name what detection would otherwise decide (fields of `Overrides`: family, prediction, heads, head_dim, clip_heads,
    clip_layer, latent_scale, zero_terminal_snr, variant, shift, t5, text_folder); None leaves it to detection.
    `guesses` says what neither the model nor the caller told.

    Raises ModelFileError (with UnknownModel, BrokenModel and UnsafeFile below it) for what is wrong with the model,
    and InvalidRequest for an override that does not exist or does not fit.
    """
    given = parse_overrides(overrides)
    place = existing(path)
    if place.name == INDEX:
        place = place.parent
    if place.is_dir():
        refuse_overrides(given, "diffusers")
        parts = load_folder(place, given.variant, dtype, device, t5=given.t5 is not False)
        for text in as_paths(text_encoders):
            parts = with_text(parts, text, dtype=dtype, device=device)
    else:
        tensors, metadata = read_tensors(place)
        parts = load_file(tensors, metadata, given, dtype, device, vae=vae, texts=as_paths(text_encoders))
    if vae is not None:
        parts = with_vae(parts, load_vae(vae, dtype=dtype, device=device))
    return _overridden(parts, given)


def load_file(
    tensors: TensorFile,
    metadata: Mapping[str, str],
    given: Overrides,
    dtype: torch.dtype | None,
    device: torch.device | str,
    *,
    vae: AnyPath | None = None,
    texts: Sequence[AnyPath] = (),
) -> Parts:
    """The model in the tensors of a single file, with the autoencoder and text encoders of other files."""
    refuse_overrides(given, "native" if is_native(metadata) else "ldm")
    if is_native(metadata):
        if texts:
            raise InvalidRequest("a text encoder was given, but a file in our own format has one that belongs to it")
        return load_native(tensors.path, tensors, metadata, dtype=dtype, device=device)
    files, folder = text_places(texts)
    if folder is not None:
        given = replace(given, text_folder=folder)
    found = recognise(complete(canonical(tensors), vae, files), metadata, given)
    return _load_single(metadata, found, dtype, device)


def parse_overrides(overrides: Mapping[str, Any]) -> Overrides:
    """Keyword arguments -> Overrides; InvalidRequest names the nearest where one does not exist."""
    known = [item.name for item in fields(Overrides)]
    for name in overrides:
        if name not in known:
            raise unknown_choice("model setting", name, known)
    return Overrides(**overrides)


def refuse_overrides(given: Overrides, layout: str) -> None:
    """InvalidRequest where something was given that a model of this layout says itself, or does not have."""
    if layout != "diffusers" and given.variant is not None:
        raise InvalidRequest(f"variant={given.variant!r} was given, but only diffusers folders have variants")
    names, what = SAID[layout]
    for name in names:
        if getattr(given, name) is not None:
            raise InvalidRequest(f"{name}={getattr(given, name)!r} was given, but {what} says it itself")


def _overridden(parts: Parts, given: Overrides) -> Parts:
    """`parts` with what the caller said; overrides that shape networks have already been used."""
    if given.prediction is not None:
        parts = replace(parts, prediction=resolve_prediction(given.prediction))
    if given.clip_layer is not None:
        layers = parts.clip.config.layers
        if not -layers - 1 <= given.clip_layer <= layers:
            raise InvalidRequest(f"clip_layer is {given.clip_layer}; the text encoder has {layers} layers")
        parts = replace(parts, clip_layer=given.clip_layer)
    if given.latent_scale is not None:
        if not 0 < given.latent_scale < float("inf"):
            raise InvalidRequest(f"latent_scale is {given.latent_scale}; a finite number above 0 is expected")
        parts = replace(parts, latents=replace(parts.latents, scale=given.latent_scale))
    if given.zero_terminal_snr is not None:
        parts = replace(parts, schedule=_changed(parts.schedule, "zero_terminal_snr", given.zero_terminal_snr))
    if given.shift is not None:
        parts = replace(parts, schedule=_changed(parts.schedule, "shift", given.shift))
    if given.t5 and parts.t5 is None:
        why = next((guess for guess in parts.guesses if "T5" in guess), "it has none, and none is beside it")
        raise InvalidRequest(f"t5=True was given, but the model runs without T5: {why}")
    return parts


def _changed(schedule: Any, name: str, value: Any) -> DiscreteSchedule | FlowSchedule:
    """A noise schedule with another setting; InvalidRequest where its kind has no such setting."""
    config = schedule.to_config()
    if name not in config:
        raise InvalidRequest(f"{name} was given, but the noise schedule is of kind {config.get('kind')!r}")
    return schedule_from_config({**config, name: value})


# --- single files ---------------------------------------------------------------------------------------------------


def _load_single(
    metadata: Mapping[str, str], found: Recognised, dtype: torch.dtype | None, device: torch.device | str
) -> Parts:
    family, tensors, path = found.family, found.tensors, found.tensors.path

    def read(kind: Any, config: Any, prefix: str, table: KeyTable, what: str, drop: tuple[str, ...] = ()) -> Any:
        theirs = Under(tensors, prefix, drop)
        what = f"{path} looks like {family.label}, but its {what}"
        return build(lambda: kind(config), theirs, table, what=what, dtype=dtype, device=device)

    def text(place: TextPlace, config: CLIPTextConfig) -> Any:
        table = clip_transformers(config) if place.layout == "transformers" else clip_openclip(config)
        return read(CLIPText, config, place.prefix, table, "text encoder")

    clips = [text(place, config) for place, config in zip(family.texts, found.clips, strict=True)]
    tokenizers = [TokenizerSource(pad_token_id=place.pad_token_id) for place in family.texts]
    t5 = None
    if found.t5 is not None:
        t5 = read(T5Encoder, found.t5, SD3_T5, t5_transformers(found.t5), "text encoder T5", T5_LEFTOVERS)
    prediction, guesses = found.prediction, found.guesses
    if isinstance(found.unet, UNetConfig):
        unet = read(UNet, found.unet, UNET, unet_ldm(found.unet), "U-Net")
        prediction, guesses = _probed(unet, found)
    else:
        unet = read(MMDiT, found.unet, UNET, mmdit_ldm(found.unet), "transformer")
    family = FAMILIES[_named_for(family.name, prediction)]
    defaults, hurry = single_defaults(family, found.unet, metadata, path)
    return Parts(
        unet=unet,
        vae=read(VAE, found.vae, VAE_PREFIX, vae_ldm(found.vae), "autoencoder", AUTOENCODER_LEFTOVERS),
        clip=clips[0],
        tokenizer=tokenizers[0],
        clip2=clips[1] if len(clips) > 1 else None,
        tokenizer2=tokenizers[1] if len(clips) > 1 else None,
        t5=t5,
        tokenizer3=None if t5 is None else TokenizerSource(folder=found.t5_tokenizer),
        latents=replace(family.latents, channels=found.vae.latent_channels, downscale=found.vae.downscale),
        schedule=single_schedule(found),
        prediction=prediction,
        family=family.name,
        defaults=defaults,
        clip_layer=found.clip_layer,
        text_norm=family.text_norm,
        size_numbers=family.size_numbers,
        zero_empty=family.zero_empty,
        card=_card(metadata),
        source=Source(path),
        guesses=guesses + hurry,
    )


def single_schedule(found: Recognised) -> DiscreteSchedule | FlowSchedule:
    """The noise schedule of a single file, which never says it."""
    if found.family.prediction == "flow":
        return FlowSchedule(found.family.shift)
    return ddpm_schedule(zero_terminal_snr=found.zero_terminal_snr)


def single_defaults(
    family: Family, network: UNetConfig | MMDiTConfig, metadata: Mapping[str, str], path: Path
) -> tuple[Defaults, tuple[str, ...]]:
    """Settings that a single file is run with, and a sentence where they are guessed from its title or name."""
    noted = _noted(family.defaults, metadata, path)
    if noted is not None:
        return noted, ()
    flow = family.prediction == "flow"
    named, guesses = few_step_defaults(family.defaults, metadata.get("modelspec.title", ""), path.stem, flow=flow)
    told = told_defaults(named, network)
    return (named, guesses) if told is None else (told, ())


def _noted(defaults: Defaults, metadata: Mapping[str, str], path: Path) -> Defaults | None:
    """What our own note in the header says of sampling, None where there is none."""
    if METADATA not in metadata:
        return None
    with using_config(path):
        try:
            note = json.loads(metadata[METADATA])
        except RecursionError:
            raise InvalidRequest(f"{METADATA} is nested too deeply") from None
        check_plausible(note, path)
        return noted_defaults(defaults, note)


def _probed(unet: UNet, found: Recognised) -> tuple[Prediction, tuple[str, ...]]:
    """The prediction, asked of the network itself where the file does not tell.

    At the last timestep an eps network answers about its input, a v network minus the picture that it imagines; for a
    constant input of 0.5 the mean of (output - input) is far below zero only for the latter. Only the released
    shape was measured for this, so that other shapes keep the guess.
    """
    guessed = [guess for guess in found.guesses if guess.startswith("prediction ")]
    shape = unet.config
    measured = shape.channels[0] == 320 and shape.in_channels == 4 and shape.guidance_dim is None
    if not guessed or "training steps" in guessed[0] or not measured:
        return found.prediction, found.guesses
    like = next(unet.parameters())
    if any(parameter.dtype != like.dtype for parameter in unet.parameters()):
        return found.prediction, found.guesses
    x = torch.full((1, 4, 8, 8), 0.5, dtype=like.dtype, device=like.device)
    tokens = torch.full((1, 2, shape.context_dim), 0.5, dtype=like.dtype, device=like.device)
    try:
        with torch.no_grad():
            answer = float((unet(x, torch.tensor([999.0], device=like.device), tokens) - x).mean())
    except BrokenModel:  # numbers that are not finite, which are for the first use to tell
        return found.prediction, found.guesses
    prediction: Prediction = "v" if answer < -1 else "eps"
    others = tuple(guess for guess in found.guesses if guess not in guessed)
    return prediction, (f"prediction {prediction!r} is inferred from the network's answer to a constant input", *others)


def _named_for(name: str, prediction: Prediction) -> str:
    """Stable Diffusion 2 and its base differ in nothing but the prediction."""
    return {"v": "sd2", "eps": "sd2-base"}.get(prediction, name) if name in ("sd2", "sd2-base") else name


def _card(metadata: Mapping[str, str]) -> Card:
    """Title and licence as modelspec has them."""
    return Card(name=metadata.get("modelspec.title", ""), licence=metadata.get("modelspec.license", ""))

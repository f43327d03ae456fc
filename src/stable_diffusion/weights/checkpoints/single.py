"""Single files in the layout of the released checkpoints: the `Blueprint` of one, from names, shapes and its header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...diffusion.prediction import Prediction
from ...diffusion.schedule import FlowSchedule, ddpm_schedule
from ...errors import BrokenModel, InvalidRequest
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ...models.unet import UNetConfig
from ...models.vae import VAEConfig
from ..build import Prefixed
from ..containers.limits import check_plausible, using_config
from ..containers.open import AnyPath
from ..containers.tensors import TensorFile
from ..networks.clip import CLIP_LAYOUTS, CLIP_LEFTOVERS
from ..networks.layout import Layout, layout_of
from ..networks.mmdit import MMDIT_LAYOUTS, check_texts
from ..networks.t5 import T5_LAYOUTS, T5_LEFTOVERS
from ..networks.unet import UNET_LAYOUTS
from ..networks.vae import VAE_LAYOUTS, VAE_LEFTOVERS
from ..parts import Card, Defaults, TokenizerSource
from .blueprint import Blueprint, NetworkPlan, Overrides
from .components import reads_t5, split_texts, t5_tokenizer, with_sidecars, with_text_files
from .detect import detect
from .edm import edm_defaults, edm_latents, edm_schedule
from .families import FAMILIES, SD3_T5, UNET, VAE, Family, TextPlace, named_for
from .few_step import METADATA, few_step_defaults, guided_defaults, noted_defaults
from .folder import TOKENIZER
from .places import rename_to_ldm

SIZE_WIDTH = 256
"""Fourier features of each number on size (Podell et al. 2023, section 2.2)."""
LEFT_OUT = {
    **dict.fromkeys(("vision_model.", "visual."), "the image tower beside a text encoder"),
    "loss.": "the discriminator of the autoencoder's training",
    "model_ema.": "an averaged copy of the autoencoder",
    "decoder.": "the decoder of T5",
}
"""How the names of a network's other half begin -> what that is."""
T5_LEFT_OUT = "T5 is left out"
"""How a guess begins that says so."""


def read_single(
    tensors: TensorFile,
    metadata: Mapping[str, str],
    overrides: Overrides | None = None,
    *,
    vae: NetworkPlan | None = None,
    texts: Sequence[AnyPath] = (),
) -> Blueprint:
    """The model in the tensors of a single file, with the autoencoder and text encoders of other files.

    UnknownModel where no family matches (with why, family by family), BrokenModel where one does but tensors that
    decide its shape are missing.
    """
    given = Overrides() if overrides is None else overrides
    files, folder = split_texts(texts)
    given = given if folder is None else replace(given, text_folder=folder)
    tensors = with_text_files(rename_to_ldm(tensors), files)
    notes: tuple[str, ...] = ()
    if reads_t5(tensors):
        tensors, notes = with_sidecars(tensors, given.text_folder, t5=given.t5 is not False)
    shapes = {name: tensors.info(name).shape for name in tensors}
    family, prediction, guess = detect(tensors.path, shapes, metadata, given, vae=vae is not None)
    try:
        networks, guesses = _networks(tensors, family, given, vae)
    except InvalidRequest as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but has an impossible shape: {error}") from error
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but {error}") from error
    pixels, zero_snr = networks["vae"].config, "ztsnr" in shapes or "ztsnr" in metadata
    noise = edm_schedule(tensors, prediction)
    found = Blueprint(
        path=tensors.path,
        layout="ldm",
        container=tensors.kind,
        family=family.name,
        label=family.label,
        networks=networks,
        latents=edm_latents(tensors, pixels)
        or replace(family.latents, channels=pixels.latent_channels, downscale=pixels.downscale),
        # beside the levels of EDM models a single file says no more of noise than that it ends in noise alone
        schedule=FlowSchedule(family.shift)
        if family.prediction == "flow"
        else noise or ddpm_schedule(zero_terminal_snr=zero_snr),
        prediction=prediction,
        defaults=family.defaults,
        clip_layer=_clip_layer(family, networks["clip"].config),
        text_norm=family.text_norm,
        size_numbers=family.size_numbers,
        zero_empty=family.zero_empty,
        card=Card(name=metadata.get("modelspec.title", ""), licence=metadata.get("modelspec.license", "")),
        metadata=metadata,
    )
    left = [note for plan in networks.values() for note in _left_out(plan.tensors)]
    return with_prediction(found, prediction, (*notes, *([guess] if guess else []), *guesses, *left))


def with_prediction(found: Blueprint, prediction: Prediction, guesses: Sequence[str]) -> Blueprint:
    """The same file with another prediction, and so with the defaults and the name of the family that has it."""
    family = named_for(FAMILIES[found.family], prediction)
    defaults, few_steps = _file_defaults(family, found)
    return replace(
        found,
        family=family.name,
        label=family.label,
        prediction=prediction,
        defaults=defaults,
        guesses=tuple(dict.fromkeys((*guesses, *few_steps))),
    )


# --- networks --------------------------------------------------------------------------------------------------------


def _networks(
    tensors: TensorFile, family: Family, given: Overrides, vae: NetworkPlan | None
) -> tuple[dict[str, NetworkPlan], list[str]]:
    """The networks in the order in which they are read, and what had to be guessed of them; `vae` replaces the
    file's own."""
    guesses: list[str] = []
    looks = f"{tensors.path} looks like {family.label}, but its"
    theirs = Prefixed(tensors, UNET)
    known: Mapping[str, Layout[Any]] = MMDIT_LAYOUTS if family.network == "mmdit" else UNET_LAYOUTS
    layout = layout_of(known, theirs.shapes()) or known["ldm"]
    config = _denoiser_config(family, layout.fields(theirs.shapes()), given)
    clips = [_clip(place, Prefixed(tensors, place.prefix, CLIP_LEFTOVERS), given, looks) for place in family.texts]
    networks = dict(zip(("clip", "clip2"), clips, strict=False))
    if isinstance(config, MMDiTConfig):
        t5, guesses = _t5(tensors, given, looks)
        networks |= {} if t5 is None else {"t5": t5}
        check_texts(config, tuple(plan.config for plan in clips), None if t5 is None else t5.config)
        networks["unet"] = NetworkPlan(config=config, table=layout.table, tensors=theirs, what=f"{looks} transformer")
    else:
        _check_vector(family, config, clips[-1].config)
        networks["unet"] = NetworkPlan(config=config, table=layout.table, tensors=theirs, what=f"{looks} U-Net")
    networks["vae"] = _vae(tensors, looks) if vae is None else vae
    return networks, guesses + [guess for plan in clips for guess in _heads_guess(plan.config, given)]


def _denoiser_config(family: Family, fields: dict[str, Any], given: Overrides) -> UNetConfig | MMDiTConfig:
    """The config of the fields that shapes tell, with the heads of the family or the caller."""
    if family.network == "mmdit":
        if isinstance(given.heads, tuple):
            raise InvalidRequest(f"heads is {given.heads}; {family.label} has one number of heads")
        count = given.heads if given.head_dim is None else fields["width"] // max(1, given.head_dim)
        return MMDiTConfig(**fields if count is None else {**fields, "heads": count})
    heads: dict[str, Any] = {"heads": family.heads, "head_dim": family.head_dim}
    if given.heads is not None or given.head_dim is not None:
        heads = {"heads": given.heads, "head_dim": given.head_dim}
    return UNetConfig(**fields, **heads, upcast_attention=family.upcast_attention)


def _left_out(tensors: Prefixed) -> list[str]:
    """Sentences on the halves of a training beside a network that are not read."""
    there = [each for each in tensors.drop if any(name.startswith(tensors.prefix + each) for name in tensors.file)]
    return [f"{LEFT_OUT[each]} in the file is left out" for each in there if each in LEFT_OUT]


def _clip(place: TextPlace, tensors: Prefixed, given: Overrides, looks: str) -> NetworkPlan:
    shapes = tensors.shapes()
    layout = layout_of(CLIP_LAYOUTS, shapes) or CLIP_LAYOUTS[place.layout]
    fields = layout.fields(shapes)
    heads = max(1, fields["width"] // 64) if given.clip_heads is None else given.clip_heads
    if place.layout == "transformers" and not place.projected:
        fields["projection_dim"] = None  # some files carry one that is never used
    elif place.projected and fields["projection_dim"] is None:
        raise BrokenModel(f"its text encoder lacks {place.prefix}text_projection")
    return NetworkPlan(
        config=CLIPTextConfig(**fields, heads=heads, activation=place.activation),
        table=layout.table,
        tensors=tensors,
        what=f"{looks} text encoder",
        tokenizer=TokenizerSource(pad_token_id=place.pad_token_id),
    )


def _t5(tensors: TensorFile, given: Overrides, looks: str) -> tuple[NetworkPlan | None, list[str]]:
    """T5 and its vocabulary; without the latter it is left out, and a sentence says so."""
    theirs = Prefixed(tensors, SD3_T5)
    if given.t5 is False or not theirs:
        return None, []
    layout = layout_of(T5_LAYOUTS, theirs.shapes()) or T5_LAYOUTS["t5"]
    config = T5Config(**layout.fields(theirs.shapes()))
    folder = t5_tokenizer(tensors.path, given.text_folder)
    if folder is None:
        return None, [f"{T5_LEFT_OUT}: no folder {TOKENIZER} with its tokenizer.json or spiece.model is beside it"]
    return NetworkPlan(
        config=config,
        table=layout.table,
        tensors=Prefixed(tensors, SD3_T5, T5_LEFTOVERS),
        what=f"{looks} text encoder T5",
        tokenizer=TokenizerSource(folder=folder),
    ), []


def _vae(tensors: TensorFile, looks: str) -> NetworkPlan:
    theirs = Prefixed(tensors, VAE, VAE_LEFTOVERS)
    if not theirs:
        raise BrokenModel("it has no autoencoder; --vae gives it one")
    shapes = theirs.shapes()
    layout = layout_of(VAE_LAYOUTS, shapes) or VAE_LAYOUTS["ldm"]
    config = VAEConfig(**layout.fields(shapes))
    return NetworkPlan(config=config, table=layout.table, tensors=theirs, what=f"{looks} autoencoder")


def _check_vector(family: Family, unet: UNetConfig, clip: CLIPTextConfig) -> None:
    """The U-Net's vector is the pooled text and the numbers on size, each as `SIZE_WIDTH` Fourier features."""
    if not family.size_numbers:
        return
    expected = (clip.projection_dim or 0) + family.size_numbers * SIZE_WIDTH
    if unet.vector_dim != expected:
        raise BrokenModel(f"its U-Net takes a vector of {unet.vector_dim} numbers; expected {expected}")


def _heads_guess(clip: CLIPTextConfig, given: Overrides) -> list[str]:
    if given.clip_heads is not None or clip.width % 64 == 0:
        return []
    return [f"{clip.heads} heads of the text encoder of width {clip.width} are a guess: heads are 64 wide as a rule"]


def _clip_layer(family: Family, clip: CLIPTextConfig) -> int:
    """The family's; but files converted from diffusers lack the unused 24th layer of OpenCLIP-H."""
    return -1 if (clip.width, clip.layers) == (1024, 23) else family.clip_layer


# --- defaults --------------------------------------------------------------------------------------------------------


def _file_defaults(family: Family, found: Blueprint) -> tuple[Defaults, tuple[str, ...]]:
    """Settings that a single file is run with, and a sentence where they are guessed from its title or name."""
    defaults = edm_defaults(family.defaults, found.schedule)
    noted = _noted(defaults, found.metadata, found.path)
    if noted is not None:
        return noted, ()
    flow, names = family.prediction == "flow", (found.card.name, found.path.stem)
    named, guesses = few_step_defaults(defaults, *names, flow=flow)
    guided = guided_defaults(named, found.networks["unet"].config)
    return (named, guesses) if guided is None else (guided, ())


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

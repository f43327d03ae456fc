"""Loading a model from a single file (LDM layout or our own) or from a diffusers folder, strictly.

A reader makes a `Blueprint` of what is on disk, and `build_parts` the model of the blueprint. Readers of foreign
layouts are imported when a file needs them: a new process with the built-in model starts sooner.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..diffusion.prediction import Prediction
from ..errors import BrokenModel, InvalidRequest
from ..models.tiny_vae import TinyVAEConfig
from ..models.unet import UNet
from .checkpoints.blueprint import Blueprint, NetworkPlan, Overrides
from .checkpoints.native import is_native, read_native
from .containers.open import AnyPath, as_paths, existing, read_tensors
from .containers.tensors import TensorFile
from .parts import Card, Defaults, Parts, Source, TokenizerSource

__all__ = ["Card", "Defaults", "Parts", "Source", "TokenizerSource", "load_parts"]


def load_parts(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    vae: AnyPath | None = None,
    text_encoders: AnyPath | Sequence[AnyPath] = (),
    mapped: bool = False,
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
    `guesses` says what neither the model nor the caller said. With `mapped` large networks on the CPU are views of
    files even where they had to be cast, which then happens before this returns (see `converted`).

    Raises ModelFileError (with UnknownModel, BrokenModel and UnsafeFile below it) for what is wrong with the model,
    and InvalidRequest for an override that does not exist or does not fit.
    """
    found = read_blueprint(path, vae=vae, text_encoders=text_encoders, **overrides)
    return build_parts(found, dtype=dtype, device=device, mapped=mapped)


def read_blueprint(
    path: str | os.PathLike[str],
    *,
    vae: AnyPath | None = None,
    text_encoders: AnyPath | Sequence[AnyPath] = (),
    **overrides: Any,
) -> Blueprint:
    """What the model at `path` is, from names, shapes and configs alone; arguments and errors as of `load_parts`."""
    given, place = Overrides.parse(overrides), existing(path)
    if place.suffix == ".safetensors" and not place.is_dir() and vae is None and not text_encoders:
        return read_file(*read_tensors(place), given)
    from .checkpoints.components import read_vae, with_text, with_vae
    from .checkpoints.folder import INDEX, read_folder

    texts = as_paths(text_encoders)
    place = place.parent if place.name == INDEX else place
    other_vae = None if vae is None else read_vae(vae)
    if not place.is_dir():
        return read_file(*read_tensors(place), given, vae=other_vae, texts=texts)
    given.refuse("diffusers")
    found = read_folder(place, given.variant, t5=given.t5 is not False)
    for text in texts:
        found = with_text(found, text)
    return given.apply(found if other_vae is None else with_vae(found, other_vae))


def read_file(
    tensors: TensorFile,
    metadata: Mapping[str, str],
    given: Overrides,
    *,
    vae: NetworkPlan | None = None,
    texts: Sequence[AnyPath] = (),
) -> Blueprint:
    """What the model in the tensors of one file is, with the autoencoder and text encoders of other files."""
    if is_native(metadata):
        given.refuse("native")
        if texts:
            raise InvalidRequest("a text encoder was given, but a file in our own format has one that belongs to it")
        found = read_native(tensors, metadata)
    else:
        given.refuse("ldm")
        from .checkpoints.single import read_single
        from .foreign import refuse_foreign

        refuse_foreign(tensors)
        whole = None if vae is None or isinstance(vae.config, TinyVAEConfig) else vae
        found = read_single(tensors, metadata, given, vae=whole, texts=texts)
    if vae is None:
        return given.apply(found)
    from .checkpoints.components import with_vae

    return given.apply(with_vae(found, vae))


def build_parts(
    found: Blueprint,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    mapped: bool = False,
) -> Parts:
    """The model of a blueprint; BrokenModel where the tensors of a network are not exactly those that it has."""
    networks = {name: plan.build(dtype=dtype, device=device, mapped=mapped) for name, plan in found.networks.items()}
    if found.layout == "ldm" and isinstance(networks["unet"], UNet):
        found = _probed(networks["unet"], found)
    sources = {name: plan.tokenizer for name, plan in found.networks.items()}
    return Parts(
        **networks,
        tokenizer=sources["clip"] or TokenizerSource(),
        tokenizer2=sources.get("clip2"),
        tokenizer3=sources.get("t5"),
        latents=found.latents,
        schedule=found.schedule,
        prediction=found.prediction,
        family=found.family,
        defaults=found.defaults,
        clip_layer=found.clip_layer,
        text_norm=found.text_norm,
        size_numbers=found.size_numbers,
        zero_empty=found.zero_empty,
        card=found.card,
        source=Source(found.path),
        guesses=found.guesses,
        device=torch.device(device),
        dtype=dtype,
    )


def _probed(unet: UNet, found: Blueprint) -> Blueprint:
    """The prediction, asked of the network itself where the file does not say it.

    At the last timestep an eps network answers about its input, a v network minus the picture that it imagines; for a
    constant input of 0.5 the mean of (output - input) is far below zero only for the latter. Only the released
    shape was measured for this, so that other shapes keep the guess.
    """
    guessed = [guess for guess in found.guesses if guess.startswith("prediction ")]
    shape, like = unet.config, {(parameter.dtype, parameter.device) for parameter in unet.parameters()}
    measured = shape.channels[0] == 320 and shape.in_channels == 4 and shape.guidance_dim is None
    if not guessed or "training steps" in guessed[0] or not measured or len(like) > 1:
        return found
    ((dtype, device),) = like
    x = torch.full((1, 4, 8, 8), 0.5, dtype=dtype, device=device)
    tokens = torch.full((1, 2, shape.context_dim), 0.5, dtype=dtype, device=device)
    try:
        with torch.no_grad():
            answer = float((unet(x, torch.tensor([999.0], device=device), tokens) - x).mean())
    except BrokenModel:  # numbers that are not finite, which are for the first use to tell
        return found
    from .checkpoints.single import with_prediction

    prediction: Prediction = "v" if answer < -1 else "eps"
    others = (guess for guess in found.guesses if guess not in guessed)
    asked = f"prediction {prediction!r} is inferred from the network's answer to a constant input"
    return with_prediction(found, prediction, (asked, *others))

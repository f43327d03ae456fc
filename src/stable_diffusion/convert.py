"""Writing a model in another form: one file to a diffusers folder and back, in another precision, with adapters fused.

A tensor that is neither cast nor changed by an adapter is written bit for bit as it was read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine.precision import DTYPES
from .errors import InvalidRequest, unknown_choice
from .pipeline.models import StableDiffusion
from .request.lora import checked_loras
from .text.tokenizer_files import FILES, copy_tokenizer, write_clip_tokenizer
from .weights.checkpoints.components import t5_tokenizer
from .weights.checkpoints.families import FAMILIES
from .weights.checkpoints.folder import TOKENIZER, is_folder_model, read_config
from .weights.checkpoints.save_ldm import ldm_metadata, ldm_state
from .weights.checkpoints.scheduler import schedule_from_words, with_note
from .weights.checkpoints.single import T5_LEFT_OUT
from .weights.containers.atomic import atomic_folder
from .weights.containers.finite import check_now, not_finite_message
from .weights.containers.open import SUFFIXES, AnyPath
from .weights.containers.safetensors import write_safetensors
from .weights.load import load_parts
from .weights.parts import Parts, TokenizerSource
from .weights.save import save_folder

SINGLE = ".safetensors"
NO_ESTIMATOR = "the network that estimates depth is not written; a depth map is given with each picture"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written: where, as "single file" or "diffusers folder", of which family, and what there is to know."""

    path: Path
    layout: str
    family: str
    notes: tuple[str, ...] = ()


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    loras: Sequence[Any] = (),
    variant: str | None = None,
    vae: AnyPath | None = None,
    text_encoders: AnyPath | Sequence[AnyPath] = (),
    **overrides: Any,
) -> Converted:
    """Write the model at `source` to `destination`: a name that ends in .safetensors is one file in the layout of the
    released checkpoints, any other a diffusers folder.

    dtype      "float32", "float16" or "bfloat16" (or fp32, fp16, bf16); None leaves every tensor as it is
    loras      adapters to make part of the weights: paths, "PATH:STRENGTH" or (path, strength[, text strength])
    variant    goes into the names of a folder's weights, as in `model.fp16.safetensors`
    vae, text_encoders
               files or folders whose networks are written in the place of the model's own, or that it lacks, as for
               `load_parts`; a tiny autoencoder (TAESD) has no place in what is written
    overrides  what detection would decide otherwise, as for `load_parts`; `variant` of a folder that is read is
               `source_variant`

    Nothing that exists is overwritten, and what is written appears when it is complete. T5's vocabulary, which no
    single file holds, is written beside it as `tokenizer_3`. Numbers that are not finite are written as they are, and a
    note names their tensors. Raises InvalidRequest where the place is taken, the layout
    has no such model or T5 lacks its vocabulary, ModelFileError where `source` is no model or the disk refuses.
    """
    place = _free_place(destination)
    single = place.suffix.lower() == SINGLE
    if dtype is not None and dtype not in DTYPES:
        raise unknown_choice("dtype", dtype, DTYPES)
    if variant is not None and (single or not variant.isidentifier()):
        expected = (
            "a folder is expected, since one file has no variants" if single else "letters and digits are expected"
        )
        raise InvalidRequest(f"variant {variant!r} was given for {str(place)!r}; {expected}")
    overrides["variant"] = overrides.pop("source_variant", None)
    parts = load_parts(source, dtype=None, vae=vae, text_encoders=text_encoders, **overrides)
    if any(guess.startswith(T5_LEFT_OUT) for guess in parts.guesses):
        raise InvalidRequest(
            f"{str(source)!r} holds T5 without its vocabulary; put the folder {TOKENIZER} of the model's repository "
            "beside it, or say t5=False to write the model without T5"
        )
    notes = [*parts.guesses, *_fuse(parts, loras), *_not_finite(parts)]
    if parts.family == "sd2-depth":
        notes.append(NO_ESTIMATOR)
    cast = None if dtype is None else DTYPES[dtype]
    if single:
        state = ldm_state(_released(parts))
        notes += _vocabulary_beside(place, parts)
        write_safetensors(place, state, ldm_metadata(parts, place.stem), dtype=cast)
    else:
        scheduler = _scheduler_of(Path(source), parts)
        save_folder(place, parts, _write_tokenizer, dtype=cast, variant=variant, scheduler=scheduler)
    layout = "single file" if single else "diffusers folder"
    return Converted(path=place, layout=layout, family=parts.family, notes=tuple(notes))


def _released(parts: Parts) -> Parts:
    """The parts; InvalidRequest where no released checkpoint is of their family."""
    if parts.family not in FAMILIES:
        raise InvalidRequest(
            f"a model of family {parts.family!r} cannot be written as one file of the released layout; only "
            f"{', '.join(FAMILIES)} can"
        )
    return parts


def _free_place(destination: str | os.PathLike[str]) -> Path:
    place = Path(destination).expanduser()
    if place.suffix.lower() in SUFFIXES and place.suffix.lower() != SINGLE:
        raise InvalidRequest(f"{str(place)!r} would be a pickle; give a name that ends in {SINGLE}, or a folder's")
    if os.path.lexists(place):
        raise InvalidRequest(f"{str(place)!r} exists and is not overwritten; give a name that is free")
    return place


def _vocabulary_beside(place: Path, parts: Parts) -> list[str]:
    """Put T5's vocabulary where readers of the file `place` look for it; a sentence says where that is."""
    source = parts.tokenizer3.folder if parts.tokenizer3 is not None else None
    if parts.t5 is None or source is None:
        return []
    there = t5_tokenizer(place, None)
    if there is None:
        with atomic_folder(place.parent / TOKENIZER) as folder:
            copy_tokenizer(source, folder)
        return [f"T5's vocabulary is {place.parent / TOKENIZER}; the file needs it beside it"]
    both = [name for name in FILES if (there / name).is_file() and (source / name).is_file()]
    if any((there / name).read_bytes() != (source / name).read_bytes() for name in both):
        raise InvalidRequest(f"{str(there)!r} is the vocabulary of another T5; give a file in a folder without it")
    return []


def _fuse(parts: Parts, loras: Sequence[Any]) -> list[str]:
    """Make adapters part of the weights, and say what of them fitted nothing."""
    checked = checked_loras(loras)
    if not checked:
        return []
    model = StableDiffusion.from_parts(parts)
    notes = []
    for lora in checked:
        attachment = model.attach(lora.path, lora.strength, lora.text_strength)
        if attachment.unmatched:
            first = ", ".join(attachment.unmatched[:3])
            notes.append(f"{attachment.name}: {len(attachment.unmatched)} parts fit nothing in this model: {first}")
    # Fused together, so that each difference is that of the original weight, as it is where they are only attached.
    return notes


def _not_finite(parts: Parts) -> Iterator[str]:
    """A sentence for each network with numbers that are not finite, which are written like all others."""
    for part in ("unet", "vae", "clip", "clip2", "t5"):
        network = getattr(parts, part)
        for what, names in check_now(network) if network is not None else ():
            yield f"{not_finite_message(what, names)}; they are written as they are"


def _scheduler_of(source: Path, parts: Parts) -> dict[str, Any] | None:
    """The scheduler of a folder that is written again stays as it is, but for our note on models of few steps; None
    where there is none, or the caller said something else of the noise schedule or the prediction."""
    file = source.expanduser() / "scheduler" / "scheduler_config.json"
    if not is_folder_model(source.expanduser()) or not file.is_file():
        return None
    words = read_config(file)
    schedule, prediction = schedule_from_words(words, file)
    changed = prediction != parts.prediction or schedule.to_config() != parts.schedule.to_config()  # type: ignore[attr-defined]
    return None if changed else with_note(words, parts)


def _write_tokenizer(folder: Path, source: TokenizerSource) -> None:
    if source.json is not None:
        raise InvalidRequest("a model with a tokenizer of its own cannot be written as a diffusers folder")
    if source.folder is not None:
        copy_tokenizer(source.folder, folder)
    else:
        write_clip_tokenizer(folder, source.pad_token_id)

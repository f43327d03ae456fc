"""Networks in files of their own, and names as other programs write them: what makes one model of several files.

Autoencoders and text encoders may be given as files, as folders of one component, or as part of a whole model. The text
encoders of Stable Diffusion 3 are found beside the model's file: most single files of 3 and all of 3.5 hold the
transformer and the autoencoder alone, and their makers publish beside them a folder `text_encoders/` with clip_l,
clip_g and t5xxl as files, and T5's vocabulary in `tokenizer_3/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from ...latents import LatentFormat
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ...models.tiny_vae import TinyVAE, TinyVAEConfig
from ...models.vae import VAE as Autoencoder
from ...models.vae import VAEConfig
from ..build import Prefixed
from ..containers.limits import using_config
from ..containers.open import existing, read_tensors
from ..containers.tensors import TensorFile
from ..networks.clip import CLIP_LAYOUTS
from ..networks.layout import Shapes, layout_of
from ..networks.t5 import T5_LEFTOVERS, t5_fields, t5_transformers
from ..networks.tiny_vae import tiny_config, tiny_layout, tiny_table
from ..networks.vae import VAE_LAYOUTS, VAE_LEFTOVERS
from ..parts import TokenizerSource
from .blueprint import Blueprint, NetworkPlan
from .detect import FIRST
from .families import (
    CLIP_L,
    OPENCLIP_H,
    REFINER_CLIP_G,
    SD3_CLIP_G,
    SD3_CLIP_L,
    SD3_T5,
    UNET,
    VAE,
    XL_CLIP_G,
    XL_CLIP_L,
    TextPlace,
)
from .folder import INDEX, TOKENIZER, component, has_t5_tokenizer

AnyPath = str | os.PathLike[str]

BARE_UNET = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
"""How the names of a U-Net begin without the prefix."""
BARE_MMDIT = (
    *(f"{name}_embedder." for name in ("x", "t", "y", "context")),
    "joint_blocks.",
    "final_layer.",
    "pos_embed",
)
"""How the names of the transformer of Stable Diffusion 3 begin without the prefix."""
CPP_SECOND = "cond_stage_model.1.transformer."
"""Where stable-diffusion.cpp has the second text encoder of XL; all others are where Stable Diffusion 1 has its own."""
VAE_PREFIXES = (VAE, "vae.", "")
TEXT_PREFIXES = (CLIP_L.prefix, OPENCLIP_H.prefix, "text_encoder.", "")


def as_paths(paths: AnyPath | Sequence[AnyPath]) -> tuple[AnyPath, ...]:
    """One path or several, as several."""
    return (paths,) if isinstance(paths, str | os.PathLike) else tuple(paths)


# --- names of other programs -----------------------------------------------------------------------------------------


def rename_to_ldm(tensors: TensorFile) -> TensorFile:
    """The same tensors with the prefixes of the released checkpoints; a file that has those is returned as it is.

    Files that hold a denoiser alone leave its prefix out; stable-diffusion.cpp has text encoders at places of its own.
    """
    tensors = _with_unet_prefix(tensors)
    if any(name.startswith(CPP_SECOND) for name in tensors):
        return _moved(tensors, {CLIP_L.prefix: XL_CLIP_L.prefix, CPP_SECOND: XL_CLIP_G.prefix})
    projection = next((name for name in tensors if name.startswith(UNET) and name.endswith(".proj_in.weight")), None)
    # matrices and not convolutions: the U-Net of Stable Diffusion 2
    if projection is not None and len(tensors.info(projection).shape) == 2:
        return _moved(tensors, {CLIP_L.prefix: OPENCLIP_H.prefix})
    return tensors


def _with_unet_prefix(tensors: TensorFile) -> TensorFile:
    for first, bare in (("input_blocks.0.0.weight", BARE_UNET), (FIRST, BARE_MMDIT)):
        if first in tensors:
            return tensors.renamed({UNET + name if name.startswith(bare) else name: name for name in tensors})
    if "diffusion_model.input_blocks.0.0.weight" in tensors:
        return tensors.renamed({UNET + name.removeprefix("diffusion_model."): name for name in tensors})
    return tensors


def _moved(tensors: TensorFile, prefixes: Mapping[str, str]) -> TensorFile:
    """The tensors under some prefixes {old: new} under others."""
    if not any(name.startswith(tuple(prefixes)) for name in tensors):
        return tensors
    names: dict[str, str] = {}
    for name in tensors:
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        names[name if old is None else prefixes[old] + name.removeprefix(old)] = name
    return tensors.renamed(names)


def merged(first: TensorFile, *others: TensorFile) -> TensorFile:
    """The tensors of several files as one, which keeps the path and kind of the first; later ones replace earlier."""
    place: dict[str, TensorFile] = {}
    for file in (first, *others):
        place.update(dict.fromkeys(file, file))
    infos = {name: file.info(name) for name, file in place.items()}
    stored: Mapping[str, str] = {name: file.stored(name) for name, file in place.items()}
    origins = {name: file.origin(name) for name, file in place.items()}
    return TensorFile(first.path, infos, lambda name: place[name][name], first.kind, stored, origins)


def _placed(tensors: TensorFile, text: TensorFile, prefix: str) -> TensorFile:
    """A file with the text encoder of another one under `prefix`, instead of what it has there."""
    kept = tensors.renamed({name: name for name in tensors if not name.startswith(prefix)})
    return merged(kept, text.renamed({prefix + name: name for name in text}))


# --- text encoders beside a file of Stable Diffusion 3 ---------------------------------------------------------------

FOLDER = "text_encoders"
SIDECARS: dict[str, tuple[str, ...]] = {
    SD3_CLIP_L.prefix: ("clip_l",),
    SD3_CLIP_G.prefix: ("clip_g",),
    SD3_T5: ("t5xxl", "t5xxl_fp16", "t5xxl_bf16", "t5xxl_fp8_e4m3fn_scaled", "t5xxl_fp8_e4m3fn"),
}
"""Prefix in a whole file -> names of the file that holds this text encoder alone, the best first."""


def _places(file: Path, folder: AnyPath | None) -> Iterator[Path]:
    """Where text encoders of a model file are looked for: `folder`, `text_encoders/` beside the file, and beside it."""
    if folder is not None:
        yield Path(folder)
    yield from (file.parent / FOLDER, file.parent)


def with_sidecars(tensors: TensorFile, folder: AnyPath | None, *, t5: bool) -> tuple[TensorFile, tuple[str, ...]]:
    """The file with the text encoders that it lacks under the names of a whole file, and which were read from where.

    `t5` False leaves out T5. What is found nowhere stays missing; detection says what it needs.
    """
    notes = []
    for prefix, names in SIDECARS.items():
        if any(name.startswith(prefix) for name in tensors) or (prefix == SD3_T5 and not t5):
            continue
        candidates = (place / f"{name}.safetensors" for place in _places(tensors.path, folder) for name in names)
        found = next((path for path in candidates if path.is_file()), None)
        if found is not None:
            tensors = _placed(tensors, read_tensors(found)[0], prefix)
            notes.append(f"the text encoder {names[0]} is {found}, since the file has none")
    return tensors, tuple(notes)


def t5_tokenizer(file: Path, folder: AnyPath | None) -> Path | None:
    """The folder of T5's vocabulary beside a model file or its text encoders; None where there is none."""
    around = [*_places(file, folder), *(place / TOKENIZER for place in _places(file, folder))]
    return next((place for place in around if has_t5_tokenizer(place)), None)


# --- autoencoders ----------------------------------------------------------------------------------------------------


def read_vae(path: AnyPath) -> NetworkPlan:
    """The autoencoder at `path`: a file (released, diffusers' or TAESD's names; a whole checkpoint has one too), or a
    diffusers folder. UnknownModel where there is none, BrokenModel where its shape cannot be told."""
    return vae_plan(read_component(path, "vae"))


def load_vae(
    path: AnyPath, *, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> Autoencoder | TinyVAE:
    """The autoencoder at `path`, built; BrokenModel where it is not whole."""
    made: Autoencoder | TinyVAE = read_vae(path).build(dtype=dtype, device=device)
    return made


def read_component(path: AnyPath, part: str) -> TensorFile:
    """The tensors of a file, of a component's folder, or of the component `part` of a diffusers folder."""
    place = existing(path)
    if not place.is_dir():
        return read_tensors(place)[0]
    return component(place / part if (place / INDEX).is_file() else place)


def vae_plan(tensors: TensorFile) -> NetworkPlan:
    """The autoencoder in the tensors of a file; errors as of `read_vae`."""
    prefix = next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    theirs = Prefixed(tensors, prefix, VAE_LEFTOVERS)
    shapes, what = theirs.shapes(), f"{tensors.path} looks like an autoencoder, but it"
    with using_config(tensors.path):
        tiny = tiny_layout(shapes)
        if tiny is not None:
            config = tiny_config(shapes, tiny)
            return NetworkPlan(config=config, table=lambda config: tiny_table(config, tiny), tensors=theirs, what=what)
        layout = layout_of(VAE_LAYOUTS, shapes)
        if layout is None:
            expected = "AutoencoderKL or TAESD is expected"
            raise UnknownModel(f"{tensors.path} holds no autoencoder that this version knows: {expected}")
        return NetworkPlan(config=VAEConfig(**layout.fields(shapes)), table=layout.table, tensors=theirs, what=what)


def check_latents(latents: LatentFormat, vae: VAEConfig | TinyVAEConfig) -> None:
    """InvalidRequest where an autoencoder makes other latents than these."""
    found, expected = (vae.latent_channels, vae.downscale), (latents.channels, latents.downscale)
    if found != expected:
        raise InvalidRequest(
            f"the autoencoder makes latents of {found[0]} channels, {found[1]} pixels each; "
            f"the model expects {expected[0]} channels, {expected[1]} pixels each"
        )


def with_vae(found: Blueprint, vae: NetworkPlan) -> Blueprint:
    """A model with another autoencoder of the same latent space; InvalidRequest where it is of another."""
    check_latents(found.latents, vae.config)
    if isinstance(vae.config, TinyVAEConfig):  # trained on latents of unit scale
        found = replace(found, latents=replace(found.latents, scale=1.0, shift=0.0))
    return found.with_network("vae", vae)


# --- text encoders ---------------------------------------------------------------------------------------------------

KINDS = {"openclip": "OpenCLIP", "t5": "T5", "transformers": "CLIP", "cpp": "CLIP"}
"""Layout of a text encoder -> what it is called."""


def split_texts(paths: Sequence[AnyPath]) -> tuple[list[AnyPath], AnyPath | None]:
    """(text encoders, where the others of Stable Diffusion 3 and T5's vocabulary lie): a folder of them, or beside."""
    folders = [path for path in paths if Path(path).is_dir() and _holds_sidecars(Path(path))]
    if len(folders) > 1:
        raise InvalidRequest(f"{folders[0]} and {folders[1]} are both folders of text encoders; one is expected")
    files = [path for path in paths if path not in folders]
    return files, folders[0] if folders else Path(files[0]).parent if files else None


def _holds_sidecars(folder: Path) -> bool:
    return any((folder / f"{name}.safetensors").is_file() for names in SIDECARS.values() for name in names)


def read_text(path: AnyPath) -> tuple[TensorFile, str]:
    """(tensors of a text encoder without a prefix, its layout: "transformers", "cpp", "openclip" or "t5"); else
    UnknownModel."""
    tensors = read_component(path, "text_encoder")
    for prefix in TEXT_PREFIXES:
        theirs = Prefixed(tensors, prefix)
        layout, t5 = layout_of(CLIP_LAYOUTS, theirs.shapes()), "layer.0.SelfAttention.q.weight"
        if layout is not None or ("shared.weight" in theirs and any(t5 in name for name in theirs)):
            bare = tensors.renamed({name: prefix + name for name in theirs})
            return bare, "t5" if layout is None else layout.name
    raise UnknownModel(f"{tensors.path} holds no text encoder: CLIP, OpenCLIP or T5 is expected")


def with_text_files(tensors: TensorFile, texts: Sequence[AnyPath]) -> TensorFile:
    """A single file with the text encoders of other files in it, at the places that they would have there."""
    given = [read_text(path) for path in texts]
    for (text, layout), place in zip(given, _text_places(tensors, given), strict=True):
        wanted = "t5" if place is None else place.layout
        fits = {"openclip": ("openclip", "transformers", "cpp"), "transformers": ("transformers", "cpp")}
        if layout not in fits.get(wanted, (wanted,)):
            expected = "CLIP in the layout of transformers" if wanted == "transformers" else "CLIP or OpenCLIP"
            raise ModelFileError(
                f"{text.path} is a text encoder of kind {KINDS[layout]}; this model expects {expected}"
            )
        tensors = _placed(tensors, text, SD3_T5 if place is None else place.prefix)
    return tensors


def _text_places(tensors: TensorFile, given: Sequence[tuple[TensorFile, str]]) -> list[TextPlace | None]:
    """Where each of the given text encoders belongs in a single file with this denoiser; None for T5."""
    shapes: Shapes = Prefixed(tensors, UNET).shapes()
    texts = [text for text, _ in given]
    if FIRST in shapes:
        places = [SD3_CLIP_L if layout != "t5" and _is_first(text) else SD3_CLIP_G for text, layout in given]
        return [None if layout == "t5" else place for place, (_, layout) in zip(places, given, strict=True)]
    context = next((shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    if "label_emb.0.0.weight" in shapes:
        if len(texts) == 1 and _width(texts[0]) == context:
            return [REFINER_CLIP_G]
        return [XL_CLIP_L if _is_first(text) else XL_CLIP_G for text in texts]
    projection = next((shape for name, shape in shapes.items() if name.endswith(".proj_in.weight")), ())
    return [OPENCLIP_H if len(projection) == 2 else CLIP_L] * len(texts)


def _width(text: TensorFile) -> int:
    name = next(name for name in text if name.endswith("token_embedding.weight"))
    return int(text.info(name).shape[-1])


def _is_first(text: TensorFile) -> bool:
    """Whether a text encoder is the smaller one of XL or 3: by its width, or because its vector is not projected."""
    width = _width(text)
    return width == 768 or (width != 1280 and not any(name.startswith("text_projection") for name in text))


def with_text(found: Blueprint, path: AnyPath) -> Blueprint:
    """The model of a folder with the text encoder at `path` in the place of the one that has its width."""
    tensors, layout = read_text(path)
    if layout == "t5":
        return _with_t5(found, tensors)
    width = _width(tensors)
    clips = ((name, found.networks[name]) for name in ("clip", "clip2") if name in found.networks)
    name, old = next(((name, plan) for name, plan in clips if plan.config.width == width), ("", None))
    if old is None:
        raise InvalidRequest(f"{tensors.path} is a text encoder of width {width}, which this model does not have")
    theirs = Prefixed(tensors)
    try:
        fields: dict[str, Any] = CLIP_LAYOUTS[layout].fields(theirs.shapes())
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} looks like a text encoder, but {error}") from error
    fields |= {"heads": old.config.heads, "activation": old.config.activation}
    fields["projection_dim"] = fields["projection_dim"] if old.config.projection_dim is not None else None
    config, what = CLIPTextConfig(**fields), f"{tensors.path} looks like a text encoder, but it"
    # an encoder with the layers that a folder leaves out is read at the same layer as before
    more = 0 if found.size_numbers else config.layers - old.config.layers
    plan = replace(old, config=config, table=CLIP_LAYOUTS[layout].table, tensors=theirs, what=what)
    return replace(found.with_network(name, plan), clip_layer=found.clip_layer - more)


def _with_t5(found: Blueprint, tensors: TensorFile) -> Blueprint:
    """The model of a folder of Stable Diffusion 3 with this T5; its vocabulary lies beside it, or is theirs."""
    unet, beside, old = found.networks["unet"].config, t5_tokenizer(tensors.path, None), found.networks.get("t5")
    source = None if old is None else old.tokenizer
    source = source if beside is None else TokenizerSource(folder=beside)
    if not isinstance(unet, MMDiTConfig):
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder, which this model does not have")
    theirs = Prefixed(tensors, "", T5_LEFTOVERS)
    with using_config(tensors.path):
        config = T5Config(**t5_fields(theirs.shapes()))
    if source is None or config.width != unet.context_dim:
        why = "has no vocabulary beside it" if source is None else "makes tokens of another width than the model reads"
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder that {why}")
    what = f"{tensors.path} looks like T5, but it"
    plan = NetworkPlan(config=config, table=t5_transformers, tensors=theirs, what=what, tokenizer=source)
    return found.with_network("t5", plan)

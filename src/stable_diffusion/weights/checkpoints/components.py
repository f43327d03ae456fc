"""Networks in files of their own: what makes one model of several files.

Autoencoders and text encoders may be given as files, as folders of one component, or as part of a whole model. The text
encoders of Stable Diffusion 3 are found beside the model's file: most single files of 3 and all of 3.5 hold the
transformer and the autoencoder alone, and their makers publish beside them a folder `text_encoders/` with clip_l,
clip_g and t5xxl as files, and T5's vocabulary in `tokenizer_3/`.
"""

from __future__ import annotations

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
from ..containers.open import AnyPath, existing, read_tensors
from ..containers.tensors import TensorFile
from ..foreign import refuse_foreign
from ..networks.clip import CLIP_LAYOUTS, CLIP_LEFTOVERS
from ..networks.layout import layout_of
from ..networks.t5 import T5_LAYOUTS, T5_LEFTOVERS
from ..networks.tiny_vae import tiny_config, tiny_layout, tiny_table
from ..networks.vae import VAE_LAYOUTS, VAE_LEFTOVERS
from ..parts import TokenizerSource
from .blueprint import Blueprint, NetworkPlan
from .families import SD3_CLIP_G, SD3_CLIP_L, SD3_T5, UNET
from .folder import INDEX, TOKENIZER, component, has_t5_tokenizer
from .places import (
    TEXT_PREFIXES,
    VAE_PREFIXES,
    denoiser_layout,
    network_prefix,
    text_places,
    text_towers,
    width_of,
)


def merged(first: TensorFile, *others: TensorFile) -> TensorFile:
    """The tensors of several files as one, which keeps the path and kind of the first; later ones replace earlier."""
    place: dict[str, TensorFile] = {}
    for file in (first, *others):
        place.update(dict.fromkeys(file, file))
    infos = {name: file.info(name) for name, file in place.items()}
    stored: Mapping[str, str] = {name: file.stored(name) for name, file in place.items()}
    origins = {name: file.origin(name) for name, file in place.items()}

    def release(name: str) -> None:
        place[name].release(name)

    return TensorFile(first.path, infos, lambda name: place[name][name], first.kind, stored, origins, release)


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
    diffusers folder. UnknownModel where there is none, BrokenModel where its shape cannot be determined."""
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
        tensors = read_tensors(place)[0]
        refuse_foreign(tensors)
        return tensors
    return component(place / part if (place / INDEX).is_file() else place)


def vae_plan(tensors: TensorFile) -> NetworkPlan:
    """The autoencoder in the tensors of a file; errors as of `read_vae`."""
    there = (prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in tensors))
    prefix = network_prefix(tensors, VAE_PREFIXES, VAE_LAYOUTS)
    prefix = next(there, "") if prefix is None else prefix
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
    """(tensors of a text encoder without a prefix, the name of its layout: a key of `CLIP_LAYOUTS` or `T5_LAYOUTS`);
    else UnknownModel."""
    tensors = read_component(path, "text_encoder")
    known: tuple[Mapping[str, Any], ...] = (CLIP_LAYOUTS, T5_LAYOUTS)
    prefix = network_prefix(tensors, TEXT_PREFIXES, *known)
    prefix = next(iter(text_towers(tensors)), None) if prefix is None else prefix
    if prefix is None:
        raise UnknownModel(f"{tensors.path} holds no text encoder: CLIP, OpenCLIP or T5 is expected")
    theirs = Prefixed(tensors, prefix)
    layout = next(layout for layouts in known if (layout := layout_of(layouts, theirs.shapes())) is not None)
    return tensors.renamed({name: prefix + name for name in theirs}), layout.name


def with_text_files(tensors: TensorFile, texts: Sequence[AnyPath]) -> TensorFile:
    """A single file with the text encoders of other files in it, at the places that they would have there."""
    given = [read_text(path) for path in texts]
    for (text, layout), place in zip(given, text_places(tensors, given), strict=True):
        if layout in T5_LAYOUTS and not reads_t5(tensors):
            raise ModelFileError(f"{text.path} is a T5 text encoder; this model expects CLIP")
        tensors = _placed(tensors, text, SD3_T5 if place is None else place.prefix)
    return tensors


def reads_t5(tensors: TensorFile) -> bool:
    """Whether the denoiser of a single file is one that reads T5: the transformer of Stable Diffusion 3."""
    found = denoiser_layout(Prefixed(tensors, UNET).shapes())
    return found is not None and found[0] == "mmdit"


def with_text(found: Blueprint, path: AnyPath) -> Blueprint:
    """The model of a folder with the text encoder at `path` in the place of the one that has its width."""
    tensors, layout = read_text(path)
    if layout in T5_LAYOUTS:
        return _with_t5(found, tensors, layout)
    width = width_of(tensors)
    clips = ((name, found.networks[name]) for name in ("clip", "clip2") if name in found.networks)
    name, old = next(((name, plan) for name, plan in clips if plan.config.width == width), ("", None))
    if old is None:
        raise InvalidRequest(f"{tensors.path} is a text encoder of width {width}, which this model does not have")
    theirs = Prefixed(tensors, "", CLIP_LEFTOVERS)
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


def _with_t5(found: Blueprint, tensors: TensorFile, layout: str) -> Blueprint:
    """The model of a folder of Stable Diffusion 3 with this T5; its vocabulary lies beside it, or is theirs."""
    unet, beside, old = found.networks["unet"].config, t5_tokenizer(tensors.path, None), found.networks.get("t5")
    source = None if old is None else old.tokenizer
    source = source if beside is None else TokenizerSource(folder=beside)
    if not isinstance(unet, MMDiTConfig):
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder, which this model does not have")
    theirs = Prefixed(tensors, "", T5_LEFTOVERS)
    with using_config(tensors.path):
        config = T5Config(**T5_LAYOUTS[layout].fields(theirs.shapes()))
    if source is None or config.width != unet.context_dim:
        why = "has no vocabulary beside it" if source is None else "makes tokens of another width than the model reads"
        raise InvalidRequest(f"{tensors.path} is a T5 text encoder that {why}")
    what = f"{tensors.path} looks like T5, but it"
    table = T5_LAYOUTS[layout].table
    plan = NetworkPlan(config=config, table=table, tensors=theirs, what=what, tokenizer=source)
    return found.with_network("t5", plan)

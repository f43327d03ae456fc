"""A loaded model: its four parts, each usable alone; the cache of what is loaded, and `load`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..adapters.targets import Network, networks
from ..diffusion.forward import DiffusionProcess
from ..diffusion.schedule import FlowSchedule
from ..diffusion.sigmas import Table
from ..embedded import fast_path, model_path
from ..engine.base import Engine
from ..engine.choose import AUTO, choose
from ..engine.memory import available_memory
from ..engine.precision import computed_in, resolve_device, resolve_dtype
from ..engine.torch import TORCH
from ..errors import InvalidRequest, ModelFileError, nearest, unknown_choice, what_is
from ..images import ModelTable
from ..models.mmdit import MMDiT
from ..request.names import automatic_schedule, resolve_sampler
from ..text.encode import TextEncoder
from ..weights.load import build_parts, read_blueprint
from ..weights.offload import Offload, Turns, offloads
from ..weights.parts import Defaults, Parts
from .cache import OTHER_PARTS, FileCache, hashable
from .codec import TILINGS, ImageDecoder, ImageEncoder, Tiling, tiny_decoder
from .denoiser import AnySchedule, LatentNetwork
from .process import DenoisingProcess
from .resolve import PixelGrid
from .text import text_encoder

if TYPE_CHECKING:
    from ..adapters.attach import Attachment
    from ..adapters.textual_inversion import Embedding
    from ..weights.containers.open import AnyPath

EMBEDDED = "embedded"
"""Name of the model that comes with the package."""
EMBEDDED_FAST = "embedded-fast"
"""Name of the same model made to generate in a few steps."""
BUILT_IN = (EMBEDDED, EMBEDDED_FAST)
MODEL_FOLDERS = "STABLE_DIFFUSION_MODELS"
"""Environment variable: folders, parted as in PATH, in which `load` looks for a model by name."""
MODEL_ENDINGS = (".safetensors", ".gguf", ".ckpt", ".pt")


@dataclass(frozen=True, eq=False, kw_only=True)
class StableDiffusion(ModelTable):
    """A model ready to generate.

    text_encoder       "a cat" -> Conditioning
    image_encoder      picture -> latent
    image_decoder      latent -> pictures
    diffusion_process  picture or latent -> noisy latents: `add_gaussian_noise`, `chain`
    denoising_process  noise and text -> steps towards a latent
    device, dtype      of the denoising network
    cache              what it is loaded from, and what is loaded for it: its refiner, its controls
    engine             what runs its networks in `generate`
    memory             in sentences, how much of it there is and how it is used
    """

    parts: Parts
    name: str
    device: torch.device
    dtype: torch.dtype
    cache: ModelCache = field(repr=False)
    text_encoder: TextEncoder
    image_encoder: ImageEncoder
    image_decoder: ImageDecoder
    diffusion_process: DiffusionProcess
    denoising_process: DenoisingProcess
    engine: Engine = TORCH
    memory: list[str] = field(default_factory=list, repr=False)
    _attachments: list[Attachment] = field(default_factory=list, repr=False)
    _embeddings: list[Embedding] = field(default_factory=list, repr=False)
    _by_engine: dict[Engine, StableDiffusion] = field(default_factory=dict, repr=False)

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        name: str | None = None,
        cache: ModelCache | None = None,
        device: torch.device | None = None,
    ) -> StableDiffusion:
        """Put the parts together; BrokenModel where they do not fit one another. `device` is where they run, if they
        are not there yet."""
        encode_text, schedule = text_encoder(parts), parts.schedule
        assert isinstance(schedule, AnySchedule)
        where, dtype = placement(parts.unet)
        device = where if device is None else device
        vae = placement(parts.vae)
        if device is not None:
            vae = device, vae[1]
        encoder = ImageEncoder(parts.vae, parts.latents, *vae)
        network = LatentNetwork(
            unet=parts.unet,
            schedule=schedule,
            prediction=parts.prediction,
            channels=parts.latents.channels,
            downscale=parts.latents.downscale,
            size_numbers=parts.size_numbers,
            guidance=parts.defaults.guidance,
            device=device,
            dtype=dtype,
        )
        table: Table = "sdxl" if parts.family.startswith("sdxl") else "sd15"
        return cls(
            parts=parts,
            name=_name(parts) if name is None else name,
            device=device,
            dtype=dtype,
            cache=MODELS if cache is None else cache,
            text_encoder=encode_text,
            image_encoder=encoder,
            image_decoder=ImageDecoder(parts.vae, parts.latents, *vae),
            diffusion_process=DiffusionProcess(schedule, encoder),
            denoising_process=DenoisingProcess(network, encode_text, parts.defaults, table),
        )

    def __repr__(self) -> str:
        return f"StableDiffusion({self.name!r}, family={self.parts.family!r}, {self.device}, {self.dtype})"

    def on(self, engine: Engine) -> StableDiffusion:
        """The same model, its weights and attachments included, run by another engine."""
        return self if engine is self.engine else self._by_engine.setdefault(engine, replace(self, engine=engine))

    @property
    def defaults(self) -> Defaults:
        """Size, steps, guidance, sampler and schedule that the model was made for."""
        return self.parts.defaults

    @property
    def factor(self) -> int:
        """Both sides of a picture must be multiples of this many pixels."""
        return self.parts.latents.downscale

    @property
    def hash(self) -> str | None:
        """First ten hex digits of the file's sha256, as A1111 prints it; None for a folder or a model built in code."""
        return None if self.parts.source is None else self.parts.source.short_hash

    @property
    def grid(self) -> PixelGrid:
        """The grid of pixels on which sides of pictures lie."""
        network = self.parts.unet
        coarse = network.config.patch_size if isinstance(network, MMDiT) else 2 ** (len(network.config.channels) - 1)
        return PixelGrid(self.factor, self.factor * coarse)

    @property
    def has_alpha(self) -> bool:
        """Whether its pictures can be transparent."""
        return self.parts.vae.config.image_channels == 4

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that adapters can change."""
        return networks(self.parts.unet, self.parts.clip, self.parts.clip2, self.parts.t5)

    @property
    def text_widths(self) -> tuple[int, ...]:
        """Token width of each CLIP text encoder."""
        return tuple(clip.config.width for clip in (self.parts.clip, self.parts.clip2) if clip is not None)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Adapters that are on the model, in the order of attaching."""
        return tuple(self._attachments)

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """Embeddings that were added."""
        return tuple(self._embeddings)

    def attach(
        self, path: str | os.PathLike[str], strength: float = 1.0, text_strength: float | None = None
    ) -> Attachment:
        """Put a LoRA or one of its relatives on the model: `strength` for the U-Net, `text_strength` for the text
        encoders (the same where it is None).

        It stays until `detach()` of what is returned, or to the end of a `with` block; then the weights are again what
        they were, bit for bit. A model from `load` may be shared: it stays in memory and so do its attachments.
        Raises ModelFileError where the file is damaged, no adapter, or fits nothing in this model.
        """
        from ..adapters.attach import attach

        return attach(self.networks, path, strength, text_strength, self._attachments)

    def add_embedding(self, path: str | os.PathLike[str], name: str | None = None) -> Embedding:
        """Let prompts use a textual inversion embedding, by `name` or else by its file's name and the one it has.

        Raises ModelFileError where the file is damaged, no embedding, or not made for a text encoder of this width.
        """
        from ..adapters.textual_inversion import read_embedding

        embedding = read_embedding(path, name)
        vectors = embedding.fitting(self.text_widths)
        self.text_encoder.embeddings = {**self.text_encoder.embeddings, **dict.fromkeys(embedding.names, vectors)}
        self._embeddings.append(embedding)
        return embedding

    def automatic_schedule(self, sampler: str) -> str:
        """The noise schedule that "automatic" means for a sampler with this model."""
        return automatic_schedule(resolve_sampler(sampler).id, flow=isinstance(self.parts.schedule, FlowSchedule))


class ModelCache(FileCache):
    """Loads models, and keeps them and what is loaded for them: refiners, control networks, hashes of files.

    The built-in models stay in memory, of others the last one, and beside it the last refiner (`cache.LIMITS`).
    """

    def get(
        self,
        path_or_name: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        engine: str = AUTO,
        **chosen: Any,
    ) -> StableDiffusion:
        """The model of a path or name; arguments and errors are those of `load`."""
        where, precision = resolve_device(device), computed_in(dtype)
        small = {"small": True} if precision == "int8-weights" else {}
        model = self._stored(path_or_name, where, dtype, **chosen, **small)
        weights = sum(each.numel() for each in model.parts.unet.parameters())
        return model.on(choose(engine, device=where.type, weights=weights, precision=precision).engine)

    def _stored(
        self, path_or_name: str | os.PathLike[str] | None, where: torch.device, dtype: str | torch.dtype, **chosen: Any
    ) -> StableDiffusion:
        """The model as its weights are stored in memory, run by torch."""
        place = where, resolve_dtype(dtype, where)
        parts = {name: hashable(name, value) for name, value in chosen.items()}
        parts = {name: value for name, value in parts.items() if value or name not in OTHER_PARTS}
        more = (*place, *sorted(parts.items()))
        if path_or_name is not None and str(path_or_name) not in BUILT_IN:
            path = find_model(path_or_name)
            named = {name: value for name, value in parts.items() if name not in LOADING}
            weights = self.kept(
                "weights", path, lambda: read_blueprint(path, **named).networks["unet"].count, *sorted(named.items())
            )
            place = where, resolve_dtype(dtype, where, weights)
            more = (*place, *more[2:])
            return self.kept("model", path, lambda: self._read(path, *place, **parts), *more)
        name = EMBEDDED if path_or_name is None else str(path_or_name)
        base, fast = model_path(), fast_path() if name == EMBEDDED_FAST else None
        if base is None or (fast is None and name == EMBEDDED_FAST):
            kind = "few-step" if base is not None else "embedded"
            raise ModelFileError(
                f"this installation has no {kind} model; give the path of a model, or install a release"
            )
        found = base
        return self.kept(
            "built-in", base, lambda: self._read(found, *place, name=name, fast=fast, **parts), name, *more
        )

    def refiner(self, path_or_name: str, model: StableDiffusion) -> StableDiffusion:
        """The model of a path or name, on the device of `model` and in its precision, beside it."""
        if path_or_name in BUILT_IN:
            return self.get(path_or_name, model.device, model.dtype)
        path, place = find_model(path_or_name), (model.device, model.dtype)
        return self.kept("refiner", path, lambda: self._read(path, *place), *place)

    def _read(
        self,
        path: Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        name: str | None = None,
        fast: Path | None = None,
        preview_vae: str | None = None,
        vae_tiling: Tiling = "auto",
        offload: Offload = "auto",
        small: bool = False,
        **chosen: Any,
    ) -> StableDiffusion:
        if vae_tiling not in TILINGS:
            raise unknown_choice("vae_tiling", str(vae_tiling), TILINGS)
        found = read_blueprint(path, **chosen)
        turns, memory = offloads(offload, found.count * dtype.itemsize, available_memory(device))
        first = torch.device("cpu") if turns else device
        parts = build_parts(found, device=first, dtype=dtype, mapped=small or turns)
        if fast is not None:
            from ..adapters.distilled import distilled

            parts = distilled(parts, fast)
        if parts.source is not None:
            parts.source.hash_in_background()
        model = StableDiffusion.from_parts(parts, name=name, cache=self, device=device if turns else None)
        model.memory.append(memory)
        if turns:
            Turns((*(each.module for each in model.networks), parts.vae), device)
        if preview_vae is not None:
            model.image_decoder.tiny = tiny_decoder(preview_vae, parts.latents, device, dtype)
        model.image_decoder.tiling = vae_tiling
        return model


MODELS = ModelCache()
"""The cache of `load`."""
LOADING = ("preview_vae", "vae_tiling", "offload", "small")
"""Arguments of loading that say nothing of the model itself."""


def load(
    path_or_name: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    vae: str | os.PathLike[str] | None = None,
    text_encoders: AnyPath | Sequence[AnyPath] = (),
    preview_vae: str | os.PathLike[str] | None = None,
    vae_tiling: Tiling = "auto",
    offload: Offload = "auto",
    engine: str = AUTO,
    **overrides: Any,
) -> StableDiffusion:
    """The model at a path, or of a name in a folder of `STABLE_DIFFUSION_MODELS`; without one, the embedded model.

    A path is a single file (.safetensors, .gguf or .ckpt of Stable Diffusion 1.x, 2.x, XL or 3.x, or our own format)
    or a diffusers folder. device "auto" is a CUDA GPU where there is one, else the CPU; dtype "auto" is float16 on a
    GPU, and on a CPU bfloat16 for large networks where the processor is measured to be faster in it, else float32
    (always for the embedded models); "int8" computes with weights and activations in 8 bits, "int8-weights" keeps the
    denoiser's weights in 8 bits for memory. "embedded-fast" is the
    embedded model made to generate in a few steps. The embedded models and the last one loaded from a path stay in
    memory, so loading them again costs nothing.

    vae, text_encoders  files or folders whose networks take the place of the model's own, or that it lacks
    preview_vae         a tiny autoencoder (TAESD) for previews alone
    vae_tiling          when pictures are decoded in tiles: "always", "never", or "auto" where memory does not suffice
    offload             "model": networks are in memory in turns, "none": all at once, "auto": as memory suffices
    engine              what runs the networks: "torch", "openvino", or "auto" for the fastest here
    overrides           what detection would decide otherwise: prediction="v", family=..., see `weights.load.load_parts`

    Raises ModelFileError or InvalidRequest.
    """
    parts = {"vae": vae, "text_encoders": text_encoders, "preview_vae": preview_vae}
    chosen = {"vae_tiling": vae_tiling, "offload": offload}
    chosen = {name: value for name, value in chosen.items() if value != "auto"}
    return MODELS.get(path_or_name, device, dtype, engine, **parts, **chosen, **overrides)


def as_model(model: object) -> StableDiffusion:
    """A loaded model as it is; the one of a path or a name, or for None the embedded one, loaded."""
    if model is None or isinstance(model, (str, os.PathLike)):
        return load(model)
    if not isinstance(model, StableDiffusion):
        raise InvalidRequest(f"model is {what_is(model)}; expected a loaded model, or the path or name of one")
    return model


def placement(module: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the weights of a network are, and their precision."""
    first = next(module.parameters())
    return first.device, first.dtype


def model_names() -> dict[str, Path]:
    """Models that `load` knows by name: files and diffusers folders in the folders of STABLE_DIFFUSION_MODELS."""
    found: dict[str, Path] = {}
    for folder in filter(None, os.environ.get(MODEL_FOLDERS, "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("*")):
            if path.suffix.lower() in MODEL_ENDINGS:
                found.setdefault(path.stem, path)
            elif (path / "model_index.json").is_file():
                found.setdefault(path.name, path)
    return found


def find_model(path_or_name: str | os.PathLike[str]) -> Path:
    """A path that exists, or the path of the model with that name or file name."""
    if not isinstance(path_or_name, (str, os.PathLike)):
        raise InvalidRequest(f"the model is {what_is(path_or_name)}; expected the path or name of one")
    path = Path(path_or_name).expanduser()
    if os.fspath(path_or_name) != "" and path.exists():
        return path.resolve()
    names = model_names()
    for name, known in names.items():
        if str(path_or_name) in (name, known.name):
            return known.resolve()
    close = nearest(str(path_or_name), [*names, *BUILT_IN])
    hint = f"did you mean {close!r}? " if close is not None else ""
    raise InvalidRequest(
        f"there is no model {str(path_or_name)!r}: {hint}expected the path of a model file or diffusers folder, "
        f"'{EMBEDDED}' or '{EMBEDDED_FAST}', or the name of a model in a folder of {MODEL_FOLDERS}"
    )


def _name(parts: Parts) -> str:
    return parts.card.name or parts.family if parts.source is None else parts.source.name

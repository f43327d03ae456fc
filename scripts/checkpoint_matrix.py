"""The tables of docs/checkpoints.md on layouts: what the reader says of every network in every layout, and of every
kind of file that is not run.

Nothing is written down by hand: each cell is the answer of the package to the names of such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from checkpoint_sides import sides

from stable_diffusion.errors import ModelFileError
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.build import Prefixed
from stable_diffusion.weights.checkpoints.places import UNET_PREFIXES, VAE_PREFIXES, network_prefix, text_towers
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.containers.wrappers import BEFORE, INSIDE, without_wrappers
from stable_diffusion.weights.foreign import KINDS, PACKED, PIPELINES, Foreign, refuse_foreign
from stable_diffusion.weights.networks.clip import CLIP_LAYOUTS
from stable_diffusion.weights.networks.layout import layout_of
from stable_diffusion.weights.networks.mmdit import MMDIT_LAYOUTS
from stable_diffusion.weights.networks.t5 import T5_LAYOUTS
from stable_diffusion.weights.networks.unet import UNET_LAYOUTS
from stable_diffusion.weights.networks.vae import VAE_LAYOUTS

NETWORKS: dict[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "U-Net": (UNet, UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=64),
              UNET_LAYOUTS),
    "transformer of 3": (MMDiT, MMDiTConfig(width=64, depth=2, heads=1, context_dim=32, vector_dim=16, positions=4),
                         MMDIT_LAYOUTS),
    "autoencoder": (VAE, VAEConfig(channels=(32, 64)), VAE_LAYOUTS),
    "CLIP": (CLIPText, CLIPTextConfig(width=64, layers=2, heads=1, mlp_width=64, projection_dim=32), CLIP_LAYOUTS),
    "T5": (T5Encoder, T5Config(vocab_size=40, width=16, layers=2, heads=2, head_dim=8, mlp_width=24), T5_LAYOUTS),
}  # fmt: skip
PLACES = (
    *("", "model.diffusion_model.", "unet.", "transformer.", "first_stage_model.", "vae."),
    *("cond_stage_model.transformer.", "text_encoder."),
)
WRAPPERS = ("", *(f"{word}." for word in (*INSIDE, *BEFORE)), "model.")
COLUMNS = ("ldm", "diffusers", "transformers", "openclip", "cpp", "t5", "t5-llama")


def tables() -> str:
    """All tables, as text of the page."""
    return "\n".join((layouts(), sides(), kinds(), packings(), pipelines()))


def layouts() -> str:
    lines = ["| network | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {network} | {' | '.join(cell(network, layout) for layout in COLUMNS)} |" for network in NETWORKS]
    wrapped = ", ".join(f"`{word}`" for word in WRAPPERS if word)
    said = (
        f'\n"reads (N)" counts the forms that were tried: {len(PLACES)} places, each without a wrapper and inside '
        f"{wrapped}. A dash is a layout that nobody writes this network in; such a file is one that is not known.\n"
    )
    return "\n".join(lines) + "\n" + said


def cell(network: str, layout: str) -> str:
    """The answer to a network in a layout at every place and in every wrapper."""
    known = NETWORKS[network][2]
    if layout not in known:
        return "-"
    forms = [(place, wrapper) for place in PLACES for wrapper in WRAPPERS]
    read = sum(is_read(network, layout, place, wrapper) for place, wrapper in forms)
    return f"reads ({read})"


def is_read(network: str, layout: str, place: str, wrapper: str) -> bool:
    """Whether the network is found there, and known to be in this layout."""
    known = NETWORKS[network][2]
    file = without_wrappers(fake({wrapper + place + name: shape for name, shape in shapes_of(network, layout).items()}))
    refuse_foreign(file)
    if network in ("CLIP", "T5"):
        return layout in text_towers(file).values()
    prefixes = VAE_PREFIXES if network == "autoencoder" else UNET_PREFIXES
    prefix = network_prefix(file, prefixes, known)
    found = None if prefix is None else layout_of(known, Prefixed(file, prefix).shapes())
    return found is not None and found.name == layout


@cache
def shapes_of(network: str, layout: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a small network in a layout."""
    kind, config, known = NETWORKS[network]
    with torch.device("meta"):
        state = known[layout].table(config).invert(kind(config).state_dict())
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def fake(shapes: Mapping[str, tuple[int, ...]]) -> TensorFile:
    """A file of these tensors without their numbers."""
    infos = {name: TensorInfo(torch.float16, shape) for name, shape in shapes.items()}
    return TensorFile(Path("FILE"), infos, lambda name: torch.empty(0), "safetensors")


def kinds() -> str:
    rows = dict.fromkeys(f"| {kind.name.split(' ', 1)[1]} | {answer(kind)} |" for kind in KINDS)
    return "\n".join(("| other kinds | `info` and loading say |", "|---|---|", *rows)) + "\n"


def packings() -> str:
    rows = (f"| {kind.name} | {answer(kind)} |" for kind in PACKED)
    return "\n".join(("| packings | `info` and loading say |", "|---|---|", *rows)) + "\n"


def pipelines() -> str:
    rows = (f"| {name} | {what}, which {use} |" for name, (what, use) in PIPELINES.items())
    return "\n".join(("| folders of diffusers by class | said to be |", "|---|---|", *rows)) + "\n"


def answer(kind: Foreign) -> str:
    """The sentence that a file with the marks of a kind gets."""
    try:
        refuse_foreign(fake({named(mark): (2, 2) for mark in (kind.first, kind.second)}))
    except ModelFileError as error:
        return str(error).replace("|", "\\|")
    raise AssertionError(f"{kind.name} is not known by its own marks")


def named(mark: tuple[str, ...]) -> str:
    """A name with this mark."""
    piece = mark[0].rstrip("$")
    name = piece[1:] if piece.startswith("^") else f"x{piece}"
    return f"{name}weight" if name.endswith(".") else name

"""A latent to a picture of 512x512: the autoencoder of Stable Diffusion 1, and the tiny decoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from .measure import Call
from .networks import autoencoders, dtype_of, engine, random, raw_openvino
from .rows import Goal, Row, Side
from .steps import inferring

OURS, TINY = "ours, default engine, bfloat16", "ours, tiny decoder, bfloat16"
THEIRS = "diffusers, float32 (its default)"


def latent(quick: bool) -> torch.Tensor:
    side = 8 if quick else 64
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1))


def ours(quick: bool, name: str, dtype: str) -> Call:
    decode = engine(name).network(autoencoders(dtype, quick)[1], "image_decoder")
    given = latent(quick).to(dtype_of(dtype))
    return inferring(lambda: decode(given))


def tiny(quick: bool, name: str) -> Call:
    """The tiny decoder (TAESD's shape) with random weights."""
    from stable_diffusion.models.tiny_vae import TinyVAE, TinyVAEConfig

    network = random(lambda: TinyVAE(TinyVAEConfig()), "bfloat16")
    decode, given = engine(name).network(network, "image_decoder"), latent(quick).to(torch.bfloat16)
    return inferring(lambda: decode(given))


def diffusers(quick: bool, dtype: str) -> Call:
    network, given = autoencoders(dtype, quick)[0], latent(quick).to(dtype_of(dtype))
    return inferring(lambda: network.decode(given, return_dict=False))


class _Decoder(torch.nn.Module):
    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.vae.decode(latent, return_dict=False)[0]  # type: ignore[operator]
        return found


def openvino(quick: bool) -> Call:
    given = {"latent": latent(quick)}
    small = {"latent": given["latent"][..., :8, :8]}
    call: Call = raw_openvino(_Decoder(autoencoders("float32", quick)[0]), given, small)
    return call


def rows(quick: bool) -> Iterator[Row]:
    """decode, decode-openvino."""
    yield Row(
        "decode",
        "A latent to a picture of 512x512 (Stable Diffusion 1)",
        (
            Side(OURS, partial(ours, quick, "auto", "bfloat16")),
            Side(TINY, partial(tiny, quick, "auto")),
            Side(THEIRS, partial(diffusers, quick, "float32")),
            Side("diffusers, bfloat16", partial(diffusers, quick, "bfloat16")),
        ),
        repeats=2,
        goals=(Goal(OURS, THEIRS, 3.0), Goal(TINY, THEIRS, 30.0)),
    )
    yield Row(
        "decode-openvino",
        "The same by OpenVINO, as our engine and on diffusers' network",
        (
            Side(OURS, partial(ours, quick, "auto", "bfloat16")),
            Side("ours, OpenVINO, bfloat16", partial(ours, quick, "openvino", "bfloat16")),
            Side("OpenVINO on diffusers' network, bfloat16", partial(openvino, quick)),
            Side("ours, tiny decoder, OpenVINO, bfloat16", partial(tiny, quick, "openvino")),
        ),
        repeats=2,
    )

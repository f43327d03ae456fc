"""Names of upscalers: A1111's, those of files, and what stands in for one of A1111's own that is not installed."""

from __future__ import annotations

from ...errors import unknown_choice
from ...request.settings import UPSCALERS
from ..library import Library

NONE, LANCZOS, NEAREST = "None", "Lanczos", "Nearest"
LATENT = tuple(name for name in UPSCALERS if name not in (LANCZOS, NEAREST))
"""Upscalers that work on the latent: of hires fix alone."""
STOCK = (
    *(
        "R-ESRGAN 4x+",
        "R-ESRGAN 4x+ Anime6B",
        "R-ESRGAN General 4xV3",
        "R-ESRGAN General WDN 4xV3",
        "R-ESRGAN AnimeVideo",
    ),
    *("R-ESRGAN 2x+", "ESRGAN_4x", "LDSR", "ScuNET", "ScuNET GAN", "ScuNET PSNR", "SwinIR 4x", "SwinIR_4x"),
    *("DAT x2", "DAT x3", "DAT x4"),
)
"""Upscalers that every installation of A1111 lists, and that clients therefore name without asking."""


def upscaler_names(library: Library) -> list[str]:
    """Those of pictures, in the order of GET /sdapi/v1/upscalers."""
    return [NONE, LANCZOS, NEAREST, *library.upscalers.entries()]


def upscaler_named(name: str, library: Library, notes: list[str], *, latent: bool = False) -> str:
    """The upscaler of a name in any case; with `latent` those of the latent count too.

    One of A1111's own that is not installed becomes Lanczos, with a note. InvalidRequest with the nearest name else.
    """
    known = [*upscaler_names(library), *(LATENT if latent else ())]
    folded = {each.casefold(): each for each in known}
    found = folded.get(name.strip().casefold())
    if found is not None:
        return found
    if name.strip().casefold() in {each.casefold() for each in STOCK}:
        notes.append(f"the upscaler {name!r} is not installed; Lanczos took its place")
        return LANCZOS
    raise unknown_choice("upscaler", name, known)

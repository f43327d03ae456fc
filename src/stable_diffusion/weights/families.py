"""What tensor shapes cannot tell, family by family: heads, prediction, latent scale, layer of the text encoder.

Sources: the released configuration files of Stable Diffusion 1 and 2 (Rombach et al. 2022), and of OpenCLIP-H.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..diffusion.prediction import Prediction
from ..errors import unknown_choice
from ..latents import LatentFormat
from .parts import Defaults

SD_LATENTS = LatentFormat(
    channels=4,
    downscale=8,
    scale=0.18215,
    preview=((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
)
"""The latent space of Stable Diffusion 1 and 2; preview factors as published by the community for its 4 channels."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model. `text` is the layout of its text encoder in a single file, `in_channels` those of its U-Net.

    Exactly one of `heads` and `head_dim` is set: attention with a fixed number of heads, or heads of a fixed width.
    """

    name: str
    label: str
    text: str
    in_channels: int
    prediction: Prediction
    size: int
    heads: int | None = None
    head_dim: int | None = None
    clip_layer: int = -1
    activation: str = "quick_gelu"
    pad_token_id: int | None = None
    upcast_attention: bool = False
    latents: LatentFormat = field(default=SD_LATENTS)

    @property
    def defaults(self) -> Defaults:
        return Defaults(width=self.size, height=self.size)


_SD1 = {"text": "transformers", "prediction": "eps", "size": 512, "heads": 8}
_SD2 = {"text": "openclip", "head_dim": 64, "clip_layer": -2, "activation": "gelu", "pad_token_id": 0}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="sd1", label="Stable Diffusion 1.x", in_channels=4, **_SD1),  # type: ignore[arg-type]
        Family(name="sd1-inpaint", label="Stable Diffusion 1.x inpainting", in_channels=9, **_SD1),  # type: ignore[arg-type]
        Family(name="sd2", label="Stable Diffusion 2.x, 768 pixels (v-prediction)", in_channels=4, prediction="v",
               size=768, upcast_attention=True, **_SD2),  # type: ignore[arg-type]
        Family(name="sd2-base", label="Stable Diffusion 2.x base, 512 pixels", in_channels=4, prediction="eps",
               size=512, **_SD2),  # type: ignore[arg-type]
        Family(name="sd2-inpaint", label="Stable Diffusion 2.x inpainting", in_channels=9, prediction="eps",
               size=512, **_SD2),  # type: ignore[arg-type]
    )
}  # fmt: skip


def family_named(name: str) -> Family:
    """The preset of that name; InvalidRequest names the nearest one otherwise."""
    if name not in FAMILIES:
        raise unknown_choice("model family", name, FAMILIES)
    return FAMILIES[name]

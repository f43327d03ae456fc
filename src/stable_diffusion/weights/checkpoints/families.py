"""What tensor shapes cannot tell, family by family: heads, prediction, latent scale, layer of the text encoder.

Sources: the released configuration files of Stable Diffusion 1 and 2 (Rombach et al. 2022), of OpenCLIP-H, of Stable
Diffusion XL (Podell et al. 2023), and of Stable Diffusion 3 and 3.5 (Esser et al. 2024) with their model cards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...diffusion.prediction import Prediction
from ...errors import unknown_choice
from ...latents import LatentFormat
from ...models.mmdit import MMDiTConfig
from ...models.unet import UNetConfig
from ..networks.vae import SD3_LATENTS, SD_LATENTS, XL_LATENTS
from ..parts import Defaults

UNET, VAE = "model.diffusion_model.", "first_stage_model."
"""How the names of the denoising network, whichever it is, and of the autoencoder begin in a single file."""


@dataclass(frozen=True, kw_only=True)
class TextPlace:
    """A text encoder of a single file: where its tensors are, in which layout, and what their shapes cannot tell.

    `projected` says that the pooled vector is used and passes a projection; files may carry one that is not used.
    """

    prefix: str
    layout: Literal["transformers", "openclip"]
    activation: str
    pad_token_id: int | None = None
    projected: bool = False


CLIP_L = TextPlace(prefix="cond_stage_model.transformer.", layout="transformers", activation="quick_gelu")
OPENCLIP_H = TextPlace(prefix="cond_stage_model.model.", layout="openclip", activation="gelu", pad_token_id=0)
XL_CLIP_L = replace(CLIP_L, prefix="conditioner.embedders.0.transformer.")
XL_CLIP_G = replace(OPENCLIP_H, prefix="conditioner.embedders.1.model.", projected=True)
REFINER_CLIP_G = replace(XL_CLIP_G, prefix="conditioner.embedders.0.model.")
SD3_CLIP_L = replace(CLIP_L, prefix="text_encoders.clip_l.transformer.")
SD3_CLIP_G = replace(XL_CLIP_G, prefix="text_encoders.clip_g.transformer.", layout="transformers")
SD3_T5 = "text_encoders.t5xxl.transformer."
"""Where T5's encoder is; files may leave it out."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model. `texts` are its CLIP text encoders in a single file, `in_channels` those of its network.

    Exactly one of `heads` and `head_dim` is set: attention with a fixed number of heads, or heads of a fixed width.
    `text_norm`, `size_numbers` and `zero_empty` are explained at `parts.Parts`. `network` is a U-Net or an MMDiT; kinds
    of MMDiT differ in normed queries and keys (`qk_norm`) and in blocks with a second attention (`dual_attention`).
    `shift` is that of flow models (`prediction` "flow").
    """

    name: str
    label: str
    texts: tuple[TextPlace, ...]
    in_channels: int
    prediction: Prediction
    size: int
    steps: int = 20
    guidance: float = 7.5
    sampler: str = Defaults.sampler
    schedule: str = Defaults.schedule
    heads: int | None = None
    head_dim: int | None = None
    clip_layer: int = -1
    text_norm: bool = True
    size_numbers: int = 0
    zero_empty: bool = False
    upcast_attention: bool = False
    latents: LatentFormat = field(default=SD_LATENTS)
    network: Literal["unet", "mmdit"] = "unet"
    qk_norm: bool = False
    dual_attention: bool = False
    shift: float = 1.0

    @property
    def defaults(self) -> Defaults:
        return Defaults(width=self.size, height=self.size, steps=self.steps, guidance=self.guidance,
                        sampler=self.sampler, schedule=self.schedule)  # fmt: skip


_SD1 = Family(name="sd1", label="Stable Diffusion 1.x", texts=(CLIP_L,), in_channels=4, prediction="eps", size=512,
              heads=8)  # fmt: skip
_SD2 = Family(name="sd2", label="Stable Diffusion 2.x, 768 pixels (v-prediction)", texts=(OPENCLIP_H,), in_channels=4,
              prediction="v", size=768, head_dim=64, clip_layer=-2, upcast_attention=True)  # fmt: skip
_SD2_BASE = replace(_SD2, name="sd2-base", label="Stable Diffusion 2.x base, 512 pixels", prediction="eps", size=512,
                    upcast_attention=False)  # fmt: skip
_SDXL = Family(
    name="sdxl", label="Stable Diffusion XL", texts=(XL_CLIP_L, XL_CLIP_G), in_channels=4, prediction="eps", size=1024,
    steps=30, guidance=5.0, head_dim=64, clip_layer=-2, text_norm=False, size_numbers=6, zero_empty=True,
    latents=XL_LATENTS,
)  # fmt: skip
_SD3 = Family(
    name="sd3", label="Stable Diffusion 3 medium", texts=(SD3_CLIP_L, SD3_CLIP_G), in_channels=16, prediction="flow",
    size=1024, steps=28, guidance=7.0, sampler="euler", schedule="normal", head_dim=64, clip_layer=-2, text_norm=False,
    latents=SD3_LATENTS, network="mmdit", shift=3.0,
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _SD1,
        replace(_SD1, name="sd1-inpaint", label="Stable Diffusion 1.x inpainting", in_channels=9),
        _SD2,
        _SD2_BASE,
        replace(_SD2_BASE, name="sd2-inpaint", label="Stable Diffusion 2.x inpainting", in_channels=9),
        replace(_SD1, name="sd1-pix2pix", label="Stable Diffusion 1.x that edits pictures (instruct-pix2pix)",
                in_channels=8),
        replace(_SD2_BASE, name="sd2-depth", label="Stable Diffusion 2.x guided by depth", in_channels=5),
        _SDXL,
        replace(_SDXL, name="sdxl-pix2pix", label="Stable Diffusion XL that edits pictures (instruct-pix2pix)",
                in_channels=8),
        replace(_SDXL, name="sdxl-inpaint", label="Stable Diffusion XL inpainting", in_channels=9),
        replace(_SDXL, name="sdxl-refiner", label="Stable Diffusion XL refiner", texts=(REFINER_CLIP_G,),
                size_numbers=5, zero_empty=False),
        _SD3,
        replace(_SD3, name="sd3.5-medium", label="Stable Diffusion 3.5 medium", steps=40, guidance=4.5, qk_norm=True,
                dual_attention=True),
        replace(_SD3, name="sd3.5-large", label="Stable Diffusion 3.5 large", guidance=3.5, qk_norm=True),
    )
}  # fmt: skip


def family_named(name: str) -> Family:
    """The preset of that name; InvalidRequest names the nearest one otherwise."""
    if name not in FAMILIES:
        raise unknown_choice("model family", name, FAMILIES)
    return FAMILIES[name]


TOKEN_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
"""Width of the tokens that the cross-attention of a U-Net reads -> the models of this width."""


def family_of_width(width: int | None) -> str:
    """The models whose tokens have this width, in words."""
    if width is None:
        return "a model of unknown kind"
    return TOKEN_WIDTHS.get(width, f"a model whose tokens have width {width}")


VARIANTS = {9: "-inpaint", 8: "-pix2pix", 5: "-depth"}
"""Channels that a U-Net takes -> the end of the family's name."""


def family_of_folder(
    network: UNetConfig | MMDiTConfig, activation: str, prediction: str, texts: tuple[str, ...] = ()
) -> Family:
    """The family of a diffusers folder, whose configs say nearly all that matters.

    `activation` is that of its first text encoder, `texts` are the names of the folders of its text encoders.
    """
    if isinstance(network, MMDiTConfig):
        name = "sd3" if not network.qk_norm else "sd3.5-medium" if network.dual_attention else "sd3.5-large"
        return FAMILIES[name]
    if texts == ("text_encoder_2",):
        return FAMILIES["sdxl-refiner"]
    base = "sdxl" if "text_encoder_2" in texts else "sd1" if activation == "quick_gelu" else "sd2"
    variant = FAMILIES.get(base + VARIANTS.get(network.in_channels, ""))
    return named_for(FAMILIES[base] if variant is None else variant, prediction)


def named_for(family: Family, prediction: str) -> Family:
    """Stable Diffusion 2 and its base differ in nothing but the prediction."""
    name = {"v": "sd2", "eps": "sd2-base"}.get(prediction) if family.name in ("sd2", "sd2-base") else None
    return family if name is None else FAMILIES[name]

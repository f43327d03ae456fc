"""Which family a single file of the LDM layout belongs to, the configs of its networks, and what had to be guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..diffusion.prediction import Prediction, resolve_prediction
from ..errors import BrokenModel, InvalidRequest, UnknownModel
from ..models.clip import CLIPTextConfig
from ..models.unet import UNetConfig
from ..models.vae import VAEConfig
from .families import FAMILIES, Family, TextPlace, family_named
from .other_kinds import other_kind
from .shapes import Shapes, clip_fields, openclip_fields, unet_fields, vae_fields
from .tensors import TensorFile

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXTS = ("cond_stage_model.", "conditioner.")
EMA = "model_ema."
TOKEN_EMBEDDING = "token_embedding.weight"
SIZE_WIDTH = 256
"""Fourier features of each number on size (Podell et al. 2023, section 2.2)."""
OTHER_NOISE = {"edm_mean": "a Playground 2.5 model", "edm_vpred.sigma_max": "a Stable Diffusion XL model of EDM kind"}
"""Tensors that mark models with continuous noise levels of their own (Karras et al. 2022)."""
STEP_OF_SD2_BASE = 875_000
"""Training steps of the released Stable Diffusion 2 base checkpoint; the others were trained for v-prediction."""


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a caller may say of a model instead of leaving it to detection; None leaves it.

    heads and head_dim: attention heads of the U-Net, or their width; clip_heads: those of the text encoder; clip_layer:
    -1 the last hidden layer, -2 the one before; latent_scale: the factor from VAE latents to unit scale; variant: which
    weights of a diffusers folder ("fp16").
    """

    family: str | None = None
    prediction: str | None = None
    heads: int | tuple[int, ...] | None = None
    head_dim: int | None = None
    clip_heads: int | None = None
    clip_layer: int | None = None
    latent_scale: float | None = None
    zero_terminal_snr: bool | None = None
    variant: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A single file understood: everything but the tensors' values."""

    family: Family
    unet: UNetConfig
    vae: VAEConfig
    clip: CLIPTextConfig
    clip2: CLIPTextConfig | None = None
    prediction: Prediction
    zero_terminal_snr: bool
    guesses: tuple[str, ...] = ()

    @property
    def clips(self) -> tuple[CLIPTextConfig, ...]:
        """The configs of all text encoders, in the order of `Family.texts`."""
        return (self.clip,) if self.clip2 is None else (self.clip, self.clip2)

    @property
    def clip_layer(self) -> int:
        """The family's; but files converted from diffusers lack the unused 24th layer of OpenCLIP-H."""
        lacks_last = (self.clip.width, self.clip.layers) == (1024, 23)
        return -1 if lacks_last else self.family.clip_layer


def under(tensors: TensorFile, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: tensors.info(name).shape for name in tensors if name.startswith(prefix)}


def recognise(tensors: TensorFile, metadata: Mapping[str, str], overrides: Overrides | None = None) -> Recognised:
    """The family and configs of a file in the LDM layout.

    UnknownModel where no family matches (with why, family by family), BrokenModel where one does but tensors that
    decide its shape are missing.
    """
    given = Overrides() if overrides is None else overrides
    shapes = {name: tensors.info(name).shape for name in tensors}
    if given.family is None:
        matching = _matching(tensors.path, shapes, metadata)
    else:
        matching = [family_named(given.family)]
    prediction, guess = _prediction(matching, tensors.path, shapes, metadata, given)
    family = next((family for family in matching if family.prediction == prediction), matching[0])
    guesses = [guess] if guess else []
    try:
        unet = _unet_config(family, under(tensors, UNET), given)
        clips = [_clip_config(text, under(tensors, text.prefix), given, family) for text in family.texts]
        _check_vector(family, unet, clips[-1])
        vae = VAEConfig(**vae_fields(_autoencoder(under(tensors, VAE))))
    except InvalidRequest as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but has an impossible shape: {error}") from error
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but {error}") from error
    guesses += [guess for clip in clips for guess in _heads_guess(clip, given)]
    return Recognised(
        family=family,
        unet=unet,
        vae=vae,
        clip=clips[0],
        clip2=clips[1] if len(clips) > 1 else None,
        prediction=prediction,
        zero_terminal_snr="ztsnr" in shapes or "ztsnr" in metadata,
        guesses=tuple(guesses),
    )


def _matching(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> list[Family]:
    """The families whose layout the file has; an error that says what it is instead where there is none."""
    foreign = next((kind for key, kind in OTHER_NOISE.items() if key in shapes), None)
    if foreign is not None:
        raise UnknownModel(f"{path} is {foreign}, whose noise levels this version does not have")
    reasons = mismatches(shapes)
    matching = [family for name, family in FAMILIES.items() if reasons[name] is None]
    if matching:
        return matching
    kind = other_kind(shapes, metadata)
    why = {name: reason for name, reason in reasons.items() if reason is not None}
    if kind is not None:
        raise UnknownModel(f"{path} is {kind}, which this version does not run as a model", why)
    if f"{UNET}input_blocks.0.0.weight" in shapes and not any(name.startswith(TEXTS) for name in shapes):
        raise BrokenModel(f"{path} has a U-Net but no text encoder; a whole Stable Diffusion checkpoint is expected")
    raise UnknownModel(f"{path} is not a model of a family that this version knows: {_distinct(why)}", why)


def _distinct(reasons: Mapping[str, str]) -> str:
    """Families with the same reason share a mention."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"not {', '.join(names)}, since {reason}" for reason, names in by_reason.items())


def mismatches(shapes: Shapes) -> dict[str, str | None]:
    """For each family why a file is not of it, or None where it is as far as layout and shapes tell."""
    return {name: _mismatch(family, shapes) for name, family in FAMILIES.items()}


def _mismatch(family: Family, shapes: Shapes) -> str | None:
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None or len(first) != 4:
        return f"it has no U-Net under {UNET}"
    if first[1] != family.in_channels:
        return f"its U-Net takes {first[1]} channels instead of {family.in_channels}"
    for text in family.texts:
        if not any(name.startswith(text.prefix) for name in shapes):
            return f"it has no text encoder under {text.prefix}"
    context = next((shape for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    widths = [_token_width(shapes, text.prefix) for text in family.texts]
    if context is None or len(context) != 2 or 0 in widths:
        return "it has no cross-attention, or no token embedding"
    if context[-1] != sum(widths):
        makes = "its text encoder makes" if len(widths) == 1 else "its text encoders together make"
        return f"its U-Net expects tokens of width {context[-1]}, and {makes} {sum(widths)}"
    return None


def _token_width(shapes: Shapes, prefix: str) -> int:
    """Width of the token embedding under a prefix, 0 where there is none."""
    found = (shape for name, shape in shapes.items() if name.startswith(prefix) and name.endswith(TOKEN_EMBEDDING))
    return next((shape[-1] for shape in found if shape), 0)


def _prediction(
    matching: list[Family], path: Path, shapes: Shapes, metadata: Mapping[str, str], given: Overrides
) -> tuple[Prediction, str | None]:
    """What the network predicts, and a sentence where that is a guess."""
    if given.prediction is not None:
        return resolve_prediction(given.prediction), None
    told = _told_by_metadata(metadata) or ("v" if "v_pred" in shapes else None) or _told_by_yaml(path)
    if told is not None:
        return told, None
    if len({family.prediction for family in matching}) == 1:
        return matching[0].prediction, None
    step = metadata.get("global_step", "")
    if step.isdigit() and int(step) > 0:
        found: Prediction = "eps" if int(step) == STEP_OF_SD2_BASE else "v"
        return found, f"prediction {found!r} is inferred from the {step} training steps that the file mentions"
    return "v", "prediction 'v' is a guess: nothing in the file tells a 768-pixel model (v) from a base model (eps)"


def _told_by_metadata(metadata: Mapping[str, str]) -> Prediction | None:
    """modelspec 1.0: `prediction_type` is epsilon or v; older writers only name the architecture."""
    kind = metadata.get("modelspec.prediction_type", "").strip().lower()
    if kind in ("v", "v_prediction", "v-prediction"):
        return "v"
    if kind in ("epsilon", "eps"):
        return "eps"
    architecture = metadata.get("modelspec.architecture", "").lower()
    if architecture.startswith("stable-diffusion-v2-768-v"):
        return "v"
    return "eps" if architecture.startswith("stable-diffusion-v2-512") else None


def _told_by_yaml(path: Path) -> Prediction | None:
    """A training config beside the file, as the first releases had; only the one line that matters is looked at."""
    config = path.with_suffix(".yaml")
    if not config.is_file() or config.stat().st_size > 2**20:
        return None
    text = config.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
    if found is not None:
        return {"v": "v", "eps": "eps", "x0": "x0"}.get(found.group(1))  # type: ignore[return-value]
    # LDM's own default; a file that is no such config says nothing.
    return "eps" if "unet_config" in text else None


def _unet_config(family: Family, shapes: Shapes, given: Overrides) -> UNetConfig:
    heads: dict[str, int | tuple[int, ...] | None] = {"heads": family.heads, "head_dim": family.head_dim}
    if given.heads is not None or given.head_dim is not None:
        heads = {"heads": given.heads, "head_dim": given.head_dim}
    return UNetConfig(**unet_fields(shapes), **heads, upcast_attention=family.upcast_attention)  # type: ignore[arg-type]


def _clip_config(text: TextPlace, shapes: Shapes, given: Overrides, family: Family) -> CLIPTextConfig:
    fields = clip_fields(shapes) if text.layout == "transformers" else openclip_fields(shapes)
    heads = max(1, fields["width"] // 64) if given.clip_heads is None else given.clip_heads
    if text.layout == "transformers":
        fields["projection_dim"] = None  # the pooled vector of this one is never used, and some files carry it
    elif family.size_numbers and fields["projection_dim"] is None:
        raise BrokenModel(f"its text encoder lacks {text.prefix}text_projection")
    return CLIPTextConfig(**fields, heads=heads, activation=text.activation)


def _check_vector(family: Family, unet: UNetConfig, clip: CLIPTextConfig) -> None:
    """The U-Net's vector is the pooled text and the numbers on size, each as `SIZE_WIDTH` Fourier features."""
    if not family.size_numbers:
        return
    expected = (clip.projection_dim or 0) + family.size_numbers * SIZE_WIDTH
    if unet.vector_dim != expected:
        raise BrokenModel(f"its U-Net takes a vector of {unet.vector_dim} numbers; expected {expected}")


def _heads_guess(clip: CLIPTextConfig, given: Overrides) -> list[str]:
    if given.clip_heads is not None or clip.width % 64 == 0:
        return []
    return [f"{clip.heads} heads of the text encoder of width {clip.width} are a guess: heads are 64 wide as a rule"]


def _autoencoder(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(AUTOENCODER_LEFTOVERS)}


AUTOENCODER_LEFTOVERS = ("loss.", "model_ema.")
"""Tensors of the autoencoder's training (discriminator, averages) that some files still carry."""

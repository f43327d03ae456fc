"""Which family a single file of the LDM layout belongs to, the configs of its networks, and what had to be guessed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...diffusion.prediction import Prediction, resolve_prediction
from ...errors import BrokenModel, InvalidRequest, UnknownModel
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ...models.unet import UNetConfig
from ...models.vae import VAEConfig
from ..containers.tensors import TensorFile
from ..networks.shapes import Shapes, clip_fields, openclip_fields, unet_fields, vae_fields
from ..other_kinds import other_kind
from .beside import TOKENIZER, t5_tokenizer, with_texts
from .families import FAMILIES, SD3_T5, Family, TextPlace, family_named
from .single_sd3 import FIRST, check_texts, lacking, mmdit_config, mmdit_mismatch, t5_config

UNET = "model.diffusion_model."
"""Prefix of the denoising network, whichever it is."""
VAE = "first_stage_model."
TEXTS = ("cond_stage_model.", "conditioner.")
EMA = "model_ema."
TOKEN_EMBEDDING = "token_embedding.weight"
SD3_TEXTS = tuple(text.prefix for text in FAMILIES["sd3"].texts)
SIZE_WIDTH = 256
"""Fourier features of each number on size (Podell et al. 2023, section 2.2)."""
OTHER_NOISE = {"edm_mean": "a Playground 2.5 model", "edm_vpred.sigma_max": "a Stable Diffusion XL model of EDM kind"}
"""Tensors that mark models with continuous noise levels of their own (Karras et al. 2022)."""
T5_LEFT_OUT = "T5 is left out"
"""How a guess begins that says so."""
STEP_OF_SD2_BASE = 875_000
"""Training steps of the released Stable Diffusion 2 base checkpoint; the others were trained for v-prediction."""


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a caller may say of a model instead of leaving it to detection; None leaves it.

    heads and head_dim: attention heads of the U-Net, or their width; clip_heads: those of the text encoder; clip_layer:
    -1 the last hidden layer, -2 the one before; latent_scale: the factor from VAE latents to unit scale; variant: which
    weights of a diffusers folder ("fp16"). Of Stable Diffusion 3, shift: of its noise levels; t5: False leaves its
    largest text encoder out; text_folder: where text encoders that the file does not hold are looked for.
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
    shift: float | None = None
    t5: bool | None = None
    text_folder: str | os.PathLike[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A single file understood: everything but the tensors' values.

    `tensors` are the file's with those of text encoders that lie beside it; `t5_tokenizer` is a folder.
    """

    tensors: TensorFile
    family: Family
    unet: UNetConfig | MMDiTConfig
    vae: VAEConfig
    clip: CLIPTextConfig
    clip2: CLIPTextConfig | None = None
    t5: T5Config | None = None
    t5_tokenizer: Path | None = None
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

    @property
    def parts(self) -> dict[str, str]:
        """Name of each network -> prefix of its tensors."""
        texts = dict(zip(("clip", "clip2"), (text.prefix for text in self.family.texts), strict=False))
        t5 = {} if self.t5 is None else {"t5": SD3_T5}
        return {self.family.network: UNET, "vae": VAE, **texts, **t5}


def under(tensors: TensorFile, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: tensors.info(name).shape for name in tensors if name.startswith(prefix)}


def recognise(tensors: TensorFile, metadata: Mapping[str, str], overrides: Overrides | None = None) -> Recognised:
    """The family and configs of a file in the LDM layout.

    UnknownModel where no family matches (with why, family by family), BrokenModel where one does but tensors that
    decide its shape are missing.
    """
    given = Overrides() if overrides is None else overrides
    notes: tuple[str, ...] = ()
    if UNET + FIRST in tensors:
        tensors, notes = with_texts(tensors, given.text_folder, t5=given.t5 is not False)
    shapes = {name: tensors.info(name).shape for name in tensors}
    if given.family is None:
        matching = _matching(tensors.path, shapes, metadata)
    else:
        matching = [family_named(given.family)]
    prediction, guess = _prediction(matching, tensors.path, shapes, metadata, given)
    family = next((family for family in matching if family.prediction == prediction), matching[0])
    guesses = [*notes, *([guess] if guess else [])]
    t5, tokenizer = None, None
    try:
        unet = _network_config(family, under(tensors, UNET), given)
        clips = [_clip_config(text, under(tensors, text.prefix), given) for text in family.texts]
        if isinstance(unet, MMDiTConfig):
            t5, tokenizer, missing = _t5(tensors, given)
            guesses += missing
            check_texts(unet, tuple(clips), t5)
        else:
            _check_vector(family, unet, clips[-1])
        vae = VAEConfig(**vae_fields(_autoencoder(under(tensors, VAE))))
    except InvalidRequest as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but has an impossible shape: {error}") from error
    except BrokenModel as error:
        raise BrokenModel(f"{tensors.path} looks like {family.label}, but {error}") from error
    guesses += [guess for clip in clips for guess in _heads_guess(clip, given)]
    return Recognised(
        tensors=tensors,
        family=family,
        unet=unet,
        vae=vae,
        clip=clips[0],
        clip2=clips[1] if len(clips) > 1 else None,
        t5=t5,
        t5_tokenizer=tokenizer,
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
    sd3 = UNET + FIRST in shapes
    if sd3:
        there = {prefix: any(name.startswith(prefix) for name in shapes) for prefix in SD3_TEXTS}
        if not all(there.values()):
            raise BrokenModel(f"{path} {lacking(FAMILIES['sd3'], there)}")
    kind = None if sd3 else other_kind(shapes, metadata)
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
    if family.network == "mmdit":
        network = {name.removeprefix(UNET): shape for name, shape in shapes.items() if name.startswith(UNET)}
        return mmdit_mismatch(family, network) or _text_mismatch(family, shapes)
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None or len(first) != 4:
        return f"it has no U-Net under {UNET}"
    if first[1] != family.in_channels:
        return f"its U-Net takes {first[1]} channels instead of {family.in_channels}"
    missing = _text_mismatch(family, shapes)
    if missing is not None:
        return missing
    context = next((shape for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    widths = [_token_width(shapes, text.prefix) for text in family.texts]
    if context is None or len(context) != 2 or 0 in widths:
        return "it has no cross-attention, or no token embedding"
    if context[-1] != sum(widths):
        makes = "its text encoder makes" if len(widths) == 1 else "its text encoders together make"
        return f"its U-Net expects tokens of width {context[-1]}, and {makes} {sum(widths)}"
    return None


def _text_mismatch(family: Family, shapes: Shapes) -> str | None:
    for text in family.texts:
        if not any(name.startswith(text.prefix) for name in shapes):
            return f"it has no text encoder under {text.prefix}"
    return None


def _token_width(shapes: Shapes, prefix: str) -> int:
    """Width of the token embedding under a prefix, 0 where there is none."""
    found = (shape for name, shape in shapes.items() if name.startswith(prefix) and name.endswith(TOKEN_EMBEDDING))
    return next((shape[-1] for shape in found if shape), 0)


def _prediction(
    matching: list[Family], path: Path, shapes: Shapes, metadata: Mapping[str, str], given: Overrides
) -> tuple[Prediction, str | None]:
    """What the network predicts, and a sentence where that is a guess."""
    if given.prediction is None and matching[0].prediction == "flow":
        return "flow", None
    if given.prediction is not None:
        return resolve_prediction(given.prediction), None
    written = _told_by_metadata(metadata)
    if "v_pred" in shapes:  # put there on purpose; the text may be left over from a model that was merged in
        doubt = "prediction 'v' is told by the tensor v_pred, though the file's text says epsilon"
        return "v", doubt if written == "eps" else None
    told = written or _told_by_yaml(path)
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


def _network_config(family: Family, shapes: Shapes, given: Overrides) -> UNetConfig | MMDiTConfig:
    if family.network == "mmdit":
        if isinstance(given.heads, tuple):
            raise InvalidRequest(f"heads is {given.heads}; {family.label} has one number of heads")
        return mmdit_config(shapes, given.heads, given.head_dim)
    heads: dict[str, int | tuple[int, ...] | None] = {"heads": family.heads, "head_dim": family.head_dim}
    if given.heads is not None or given.head_dim is not None:
        heads = {"heads": given.heads, "head_dim": given.head_dim}
    return UNetConfig(**unet_fields(shapes), **heads, upcast_attention=family.upcast_attention)  # type: ignore[arg-type]


def _clip_config(text: TextPlace, shapes: Shapes, given: Overrides) -> CLIPTextConfig:
    fields = clip_fields(shapes) if text.layout == "transformers" else openclip_fields(shapes)
    heads = max(1, fields["width"] // 64) if given.clip_heads is None else given.clip_heads
    if text.layout == "transformers" and not text.projected:
        fields["projection_dim"] = None  # some files carry one that is never used
    elif text.projected and fields["projection_dim"] is None:
        raise BrokenModel(f"its text encoder lacks {text.prefix}text_projection")
    return CLIPTextConfig(**fields, heads=heads, activation=text.activation)


def _t5(tensors: TensorFile, given: Overrides) -> tuple[T5Config | None, Path | None, list[str]]:
    """T5's config and the folder of its vocabulary; without the latter it is left out, and a sentence says so."""
    config = None if given.t5 is False else t5_config(under(tensors, SD3_T5))
    folder = t5_tokenizer(tensors.path, given.text_folder)
    if config is None or folder is not None:
        return config, folder, []
    return None, None, [f"{T5_LEFT_OUT}: no folder {TOKENIZER} with its tokenizer.json or spiece.model is beside it"]


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

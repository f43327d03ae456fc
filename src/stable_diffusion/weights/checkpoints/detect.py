"""Which family a single file belongs to, and what its network predicts, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ...diffusion.prediction import Prediction, resolve_prediction
from ...errors import BrokenModel, UnknownModel
from ..identify import identify
from ..networks.layout import Shapes
from ..networks.unet import VECTORS
from .blueprint import Overrides
from .edm import edm_kind
from .families import FAMILIES, REFINER_CLIP_G, UNET, VAE, Family, family_named, family_of_width
from .places import denoiser_layout

FIRST_LAYERS = ("input_blocks.0.0.weight", "conv_in.weight", "x_embedder.proj.weight", "pos_embed.proj.weight")
"""The first layer of a denoiser in each layout."""
CHANNELS = (4, 5, 8, 9)
"""Channels that a U-Net of some family takes."""
TEXTS = ("cond_stage_model.", "conditioner.")
TOKEN_EMBEDDING = "token_embedding.weight"
STEP_OF_SD2_BASE = 875_000
"""Training steps of the released Stable Diffusion 2 base checkpoint; the others were trained for v-prediction."""


def detect(
    path: Path, shapes: Shapes, metadata: Mapping[str, str], given: Overrides, *, vae: bool = False
) -> tuple[Family, Prediction, str | None]:
    """(family, prediction, a sentence where the latter is a guess) of a file in the layout of the released ones.

    UnknownModel where no family matches (with why, family by family), BrokenModel where whole networks are missing.
    `vae` says that the autoencoder of another file was given.
    """
    matching = _matching(path, shapes, metadata, vae) if given.family is None else [family_named(given.family)]
    prediction, guess = _prediction(matching, path, shapes, metadata, given)
    return next((family for family in matching if family.prediction == prediction), matching[0]), prediction, guess


def _matching(path: Path, shapes: Shapes, metadata: Mapping[str, str], vae: bool) -> list[Family]:
    """The families whose layout the file has; an error that says what it is instead where there is none."""
    reasons = mismatches(shapes)
    matching = [family for name, family in FAMILIES.items() if reasons[name] is None]
    if matching:
        return matching
    network = _network(shapes)
    found = denoiser_layout(network)
    lacking = None if found is None else _lacking(found[0], network, shapes, vae=vae or _under(shapes, VAE))
    if lacking is not None:
        raise BrokenModel(f"{path} {lacking}")
    kind = None if found is not None and found[0] == "mmdit" else identify(shapes, metadata)
    why = {name: reason for name, reason in reasons.items() if reason is not None}
    if kind is not None:
        raise UnknownModel(f"{path} is {kind}, which this version does not run as a model", why)
    raise UnknownModel(f"{path} is not a model of a family that this version knows: {_distinct(why)}", why)


def _network(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The denoising network alone, without its prefix."""
    return {name.removeprefix(UNET): shape for name, shape in shapes.items() if name.startswith(UNET)}


def _distinct(reasons: Mapping[str, str]) -> str:
    """Families with the same reason share a mention."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"not {', '.join(names)}, since {reason}" for reason, names in by_reason.items())


def _lacking(kind: str, network: Shapes, shapes: Shapes, *, vae: bool) -> str | None:
    """What a file with a denoiser lacks that other files could give it, in words; None where it has all text encoders.

    `vae` says that an autoencoder is there or was given.
    """
    also = "" if vae else "; it lacks an autoencoder too, which --vae gives it"
    sd3, xl = FAMILIES["sd3"], FAMILIES["sdxl"]
    missing = [text.prefix for text in (sd3 if kind == "mmdit" else xl).texts if not _under(shapes, text.prefix)]
    if kind == "mmdit":
        files = " and ".join(f"{prefix.split('.')[1]}.safetensors" for prefix in missing)
        found = "would be found beside it, and --text-encoder gives one from elsewhere"
        what = f"has a transformer of Stable Diffusion 3 but lacks text encoders; {files} {found}{also}"
        return what if missing else None
    if _first(network)[1:2] not in [(count,) for count in CHANNELS]:
        return None
    context = next((shape[-1] for name, shape in network.items() if name.endswith("attn2.to_k.weight")), None)
    what = "has a U-Net" if context is None else f"has a U-Net of {family_of_width(context)}"
    if not any(_under(shapes, start) for start in TEXTS):
        return f"{what} but no text encoder; --text-encoder gives it one, and a second one to Stable Diffusion XL{also}"
    if len(missing) == 1 and any(name in network for name in VECTORS) and not _under(shapes, REFINER_CLIP_G.prefix):
        which = "first" if missing[0] == xl.texts[0].prefix else "second"
        return f"{what} but not its {which} text encoder; --text-encoder gives it one{also}"
    return None


def _under(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


# --- the family ------------------------------------------------------------------------------------------------------


def mismatches(shapes: Shapes) -> dict[str, str | None]:
    """For each family why a file is not of it, or None where it is as far as layout and shapes tell."""
    network = _network(shapes)
    found = denoiser_layout(network)
    kind = "" if found is None else found[0]
    return {name: _mismatch(family, kind, network, shapes) for name, family in FAMILIES.items()}


def _mismatch(family: Family, kind: str, network: Shapes, shapes: Shapes) -> str | None:
    if family.network == "mmdit":
        return _mmdit_mismatch(family, kind, network) or _text_mismatch(family, shapes)
    first = _first(network)
    if kind != "unet" or len(first) != 4:
        return f"it has no U-Net under {UNET}"
    if first[1] != family.in_channels:
        return f"its U-Net takes {first[1]} channels instead of {family.in_channels}"
    missing = _text_mismatch(family, shapes)
    if missing is not None:
        return missing
    context = next((shape for name, shape in network.items() if name.endswith("attn2.to_k.weight")), None)
    widths = [_token_width(shapes, text.prefix) for text in family.texts]
    if context is None or len(context) != 2 or 0 in widths:
        return "it has no cross-attention, or no token embedding"
    if context[-1] != sum(widths):
        makes = "its text encoder makes" if len(widths) == 1 else "its text encoders together make"
        return f"its U-Net expects tokens of width {context[-1]}, and {makes} {sum(widths)}"
    return None


def _first(network: Shapes) -> tuple[int, ...]:
    """The shape of the first layer of a denoiser, whatever its layout."""
    return next((network[name] for name in FIRST_LAYERS if name in network), ())


def _mmdit_mismatch(family: Family, kind: str, network: Shapes) -> str | None:
    """Why a network is not the transformer of this family, or None where it is."""
    first = _first(network)
    if kind != "mmdit" or len(first) != 4:
        return "it has no transformer of joint blocks"
    if first[1] != family.in_channels:
        return f"its transformer takes {first[1]} channels instead of {family.in_channels}"
    normed = any(name.endswith(("attn.ln_q.weight", "attn.norm_q.weight")) for name in network)
    if normed != family.qk_norm:
        return f"its transformer {'norms' if normed else 'does not norm'} queries and keys"
    dual = any(".attn2." in name for name in network)
    if dual != family.dual_attention:
        return f"its transformer has {'a' if dual else 'no'} second attention"
    return None


def _text_mismatch(family: Family, shapes: Shapes) -> str | None:
    for text in family.texts:
        if not _under(shapes, text.prefix):
            return f"it has no text encoder under {text.prefix}"
    return None


def _token_width(shapes: Shapes, prefix: str) -> int:
    """Width of the token embedding under a prefix, 0 where there is none."""
    found = (shape for name, shape in shapes.items() if name.startswith(prefix) and name.endswith(TOKEN_EMBEDDING))
    return next((shape[-1] for shape in found if shape), 0)


# --- the prediction --------------------------------------------------------------------------------------------------


def _prediction(
    matching: list[Family], path: Path, shapes: Shapes, metadata: Mapping[str, str], given: Overrides
) -> tuple[Prediction, str | None]:
    """What the network predicts, and a sentence where that is a guess."""
    if given.prediction is None and matching[0].prediction == "flow":
        return "flow", None
    if given.prediction is not None:
        return resolve_prediction(given.prediction), None
    if edm_kind(shapes) is not None:
        return edm_kind(shapes), None  # type: ignore[return-value]  # not None
    written = _from_metadata(metadata)
    if "v_pred" in shapes:  # put there on purpose; the text may be left over from a model that was merged in
        doubt = "prediction 'v' follows from the tensor v_pred, though the file's text says epsilon"
        return "v", doubt if written == "eps" else None
    said = written or _from_yaml(path)
    if said is not None:
        return said, None
    if len({family.prediction for family in matching}) == 1:
        return matching[0].prediction, None
    step = metadata.get("global_step", "")
    if step.isdigit() and int(step) > 0:
        found: Prediction = "eps" if int(step) == STEP_OF_SD2_BASE else "v"
        return found, f"prediction {found!r} is inferred from the {step} training steps that the file mentions"
    return "v", "prediction 'v' is a guess: nothing in the file tells a 768-pixel model (v) from a base model (eps)"


def _from_metadata(metadata: Mapping[str, str]) -> Prediction | None:
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


def _from_yaml(path: Path) -> Prediction | None:
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

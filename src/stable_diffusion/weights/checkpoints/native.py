"""Our own single-file format: everything that a model is, in one .safetensors file that needs nothing beside it.

Metadata `format` is `stable_diffusion.v1`; `config` is JSON with the networks' shapes, latent space, noise schedule,
prediction, default settings, name, version and licence; `tokenizer` is the text of a tokenizer.json (left out where the
model uses CLIP's vocabulary, which ships with the package); `packing` says how weights are stored (see `packing`).
Tensors have our own names under the prefixes `unet.`, `vae.` and `text.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ...diffusion.prediction import resolve_prediction
from ...diffusion.schedule import schedule_from_config
from ...errors import BrokenModel, InvalidRequest, ModelFileError
from ...latents import LatentFormat
from ...models.clip import CLIPTextConfig
from ...models.config import ModelConfig
from ...models.unet import UNet, UNetConfig
from ...models.vae import VAEConfig
from ..build import Prefixed
from ..containers.limits import check_latent_numbers, check_plausible, using_config
from ..containers.packing import pack
from ..containers.safetensors import write_safetensors
from ..containers.tensors import TensorFile
from ..parts import Card, Defaults, Parts, TokenizerSource
from .blueprint import Blueprint, NetworkPlan

FORMAT = "stable_diffusion.v1"
CONFIGS: dict[str, type[ModelConfig]] = {"unet": UNetConfig, "vae": VAEConfig, "clip": CLIPTextConfig}
PREFIXES = {"unet": "unet.", "vae": "vae.", "clip": "text."}

Record = TypeVar("Record")


def save_native(
    path: str | Path, parts: Parts, *, dtype: str | Mapping[str, str] = "int8", tokenizer_json: str | None = None
) -> None:
    """Write a model to one file, atomically.

    `dtype` is int8, float16, bfloat16 or float32 (see `packing`), for all networks or one for each of unet, vae and
    clip. `tokenizer_json` is needed only for a model whose tokenizer folder has no tokenizer.json. ModelFileError where
    the disk refuses, or where that text is missing.
    """
    if parts.clip2 is not None or parts.size_numbers or not isinstance(parts.unet, UNet):
        raise InvalidRequest(f"a model of family {parts.family!r} cannot be written in our own format yet")
    packing = dict.fromkeys(PREFIXES, dtype) if isinstance(dtype, str) else dict(dtype)
    if set(packing) != set(PREFIXES):
        raise InvalidRequest(f"dtype is given for {', '.join(packing)}; expected one for each of {', '.join(PREFIXES)}")
    tensors: dict[str, Tensor] = {}
    for part, prefix in PREFIXES.items():
        state = getattr(parts, "full_vae" if part == "vae" else part).state_dict()
        tensors.update({prefix + name: tensor for name, tensor in pack(state, packing[part]).items()})
    metadata = {"format": FORMAT, "config": json.dumps(config_of(parts), sort_keys=True)}
    metadata["packing"] = ", ".join(f"{part} {kind}" for part, kind in packing.items())
    tokenizer = tokenizer_json if tokenizer_json is not None else _tokenizer_text(parts.tokenizer)
    if tokenizer is not None:
        metadata["tokenizer"] = tokenizer
    write_safetensors(Path(path), tensors, metadata)


def _tokenizer_text(source: TokenizerSource) -> str | None:
    if source.json is not None or source.folder is None:
        return source.json
    file = source.folder / "tokenizer.json"
    if not file.is_file():
        raise ModelFileError(f"{source.folder} has no tokenizer.json to put into the model file; give tokenizer_json")
    return file.read_text(encoding="utf-8")


def config_of(parts: Parts) -> dict[str, Any]:
    """The `config` of a model: plain values, ready for JSON."""
    schedule = parts.schedule
    if not hasattr(schedule, "to_config"):
        raise InvalidRequest(f"a noise schedule of type {type(schedule).__name__} cannot be written to a file")
    return {
        "family": parts.family,
        "unet": parts.unet.config.to_dict(),
        "vae": parts.vae.config.to_dict(),
        "clip": parts.clip.config.to_dict(),
        "latents": asdict(parts.latents),
        "schedule": schedule.to_config(),
        "prediction": parts.prediction,
        "defaults": asdict(parts.defaults),
        "clip_layer": parts.clip_layer,
        "pad_token_id": parts.tokenizer.pad_token_id,
        "card": asdict(parts.card),
    }


def is_native(metadata: Mapping[str, str]) -> bool:
    """Whether a file's metadata says that it is in our format, of this or a later version."""
    return metadata.get("format", "").startswith("stable_diffusion.v")


def read_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The parsed `config`; BrokenModel where it is of a later version or damaged."""
    if metadata.get("format") != FORMAT:
        raise BrokenModel(f"{path} has the format {metadata.get('format')!r}; this version reads {FORMAT}")
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise BrokenModel(f"{path} is in our format, but its config is missing or damaged ({error})") from error
    needed = ("family", "unet", "vae", "clip", "latents", "schedule", "prediction")
    missing = [name for name in needed if not isinstance(config, dict) or name not in config]
    if missing:
        raise BrokenModel(f"{path} is in our format, but its config lacks {', '.join(missing)}")
    check_plausible(config, path)
    return dict(config)


def read_native(tensors: TensorFile, metadata: Mapping[str, str]) -> Blueprint:
    """The model of a file in our format; BrokenModel where anything in its header does not fit together."""
    path = tensors.path
    config = read_header(path, metadata)
    tokenizer = TokenizerSource(json=metadata.get("tokenizer"), pad_token_id=config.get("pad_token_id"))
    with using_config(path):
        networks = {
            part: NetworkPlan(
                config=kind.from_dict(config[part]),
                table=None,
                tensors=Prefixed(tensors, PREFIXES[part]),
                what=f"{part} of {path}",
                tokenizer=tokenizer if part == "clip" else None,
                packed=True,
            )
            for part, kind in CONFIGS.items()
        }
        card = record(Card, config.get("card", {}))
        found = Blueprint(
            path=path,
            layout="native",
            container=tensors.kind,
            family=str(config["family"]),
            label=f"{card.name} {card.version}".strip() or "a model in this package's own format",
            networks=networks,
            latents=_latents(config["latents"]),
            schedule=schedule_from_config(config["schedule"]),
            prediction=resolve_prediction(config["prediction"]),
            defaults=record(Defaults, config.get("defaults", {})),
            clip_layer=int(config.get("clip_layer", -1)),
            card=card,
            metadata=metadata,
        )
    for name in tensors:
        if not name.startswith(tuple(PREFIXES.values())):
            raise BrokenModel(f"{path} has the tensor {name[:80]!r}; names begin with {', '.join(PREFIXES.values())}")
    return found


def _latents(values: Mapping[str, Any]) -> LatentFormat:
    """The latent space, with as many numbers as channels where a scale or shift has one for each."""
    latents = record(LatentFormat, values)
    for name in ("scale", "shift"):
        numbers = getattr(latents, name)
        numbers = numbers if isinstance(numbers, tuple) else (numbers,) * latents.channels
        if len(numbers) != latents.channels:
            raise InvalidRequest(
                f"the latent {name} is {getattr(latents, name)!r}; expected a number, or one per channel"
            )
    check_latent_numbers(latents)
    return latents


def record(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """A frozen dataclass from parsed JSON; fields that this version does not know are an error."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidRequest(f"{kind.__name__} has no {unknown[0]!r}; expected {', '.join(sorted(known))}")
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

"""Diffusers folders: finding and reading the files of each component, without believing any path in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import BrokenModel, ModelFileError, UnknownModel, brief
from ..containers.limits import check_plausible
from ..containers.open import read_tensors
from ..containers.tensors import TensorFile

JSON_LIMIT = 32 * 2**20
NETWORKS = ("unet", "transformer")
TRANSFORMER = "SD3Transformer2DModel"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
INDEX = "model_index.json"


def is_folder_model(path: Path) -> bool:
    return (path / INDEX).is_file()


def read_index(path: Path) -> dict[str, Any]:
    """model_index.json: {component: [library, class]}; UnknownModel where the folder has none or it is another kind."""
    if not is_folder_model(path):
        inside = sorted(item.name for item in path.iterdir() if item.suffix in (".safetensors", ".ckpt"))[:3]
        hint = f"; did you mean {path / inside[0]}?" if inside else ""
        raise UnknownModel(f"{path} is a folder without {INDEX}, so it is not a diffusers model{hint}")
    index = read_json(path / INDEX)
    kind = brief(index.get("_class_name", "model of no stated class"))
    networks, texts = [part for part in NETWORKS if has_part(index, part)], text_folders(index)
    sd3 = networks == ["transformer"] and index["transformer"][-1] == TRANSFORMER and len(texts) == 2
    if not sd3 and (networks != ["unet"] or not texts):
        raise UnknownModel(
            f"{path} is a {kind}, which this version does not run; a Stable Diffusion 1, 2, XL or 3 is expected"
        )
    missing = [part for part in (*networks, "vae", *texts) if not (path / part).is_dir()]
    if missing:
        raise BrokenModel(f"{path} lacks the folder {', '.join(missing)} of a diffusers model")
    return index


def text_folders(index: dict[str, Any]) -> tuple[str, ...]:
    """The folders of the CLIP text encoders; a component that a pipeline does without is written as [null, null]."""
    return tuple(part for part in ("text_encoder", "text_encoder_2") if has_part(index, part))


def has_part(index: dict[str, Any], part: str) -> bool:
    """Whether a component is there."""
    about = index.get(part)
    return isinstance(about, list) and bool(about) and about[0] is not None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; BrokenModel where it is missing, too long or not one."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise BrokenModel(f"{path} has more than {JSON_LIMIT} bytes; a short JSON file is expected")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BrokenModel(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise BrokenModel(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise BrokenModel(f"{path} holds {type(value).__name__} instead of a JSON object")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a component, with numbers that a model can have."""
    config = read_json(path)
    check_plausible(config, path)
    return config


def component(folder: Path, variant: str | None = None) -> TensorFile:
    """The tensors of one component (`unet/`, `vae/`, `text_encoder/`), sharded or not.

    Without a `variant`, full precision is preferred, then fp16, then any one that is there; safetensors before pickles.
    """
    for found in (None, "fp16") if variant is None else (variant,):
        for ending in (".safetensors", ".bin"):
            for stem in STEMS:
                tensors = _weights(folder, stem, ending, found)
                if tensors is not None:
                    return tensors
    present = sorted(item.name for item in folder.iterdir() if item.suffix in (".safetensors", ".bin"))
    wanted = "" if variant is None else f" of the variant {variant!r}"
    raise BrokenModel(f"{folder} has no weights{wanted}; there are {', '.join(present[:10]) or 'none at all'}")


def _weights(folder: Path, stem: str, ending: str, variant: str | None) -> TensorFile | None:
    dotted = "" if variant is None else f".{variant}"
    single = folder / f"{stem}{dotted}{ending}"
    if single.is_file():
        return read_tensors(single)[0]
    # diffusers puts the variant before the last suffix of the index, transformers before the first
    for name in (f"{stem}{ending}.index{dotted}.json", f"{stem}{dotted}{ending}.index.json"):
        if (folder / name).is_file():
            return _sharded(folder / name)
    return None


def _sharded(index: Path) -> TensorFile:
    """The shards of an index as one mapping; a shard must lie beside its index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BrokenModel(f"{index} has no weight_map")
    shards: dict[str, TensorFile] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or file != Path(file).name or "\\" in file or file in ("", ".", ".."):
            raise ModelFileError(f"{index} names the shard {str(file)[:80]!r}; a file beside it is expected")
        if file not in shards:
            shards[file] = read_tensors(index.parent / file)[0]
        if name not in shards[file]:
            raise BrokenModel(f"{index} expects {name[:80]!r} in {file}, which does not have it")
    infos = {name: shards[file].info(name) for name, file in weight_map.items()}
    return TensorFile(index, infos, lambda name: shards[weight_map[name]][name], kind="sharded")

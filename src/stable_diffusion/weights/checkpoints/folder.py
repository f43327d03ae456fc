"""Diffusers folders: the files of each component, without believing any path in them, and the `Blueprint` of all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...diffusion.prediction import Prediction
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule
from ...errors import BrokenModel, ModelFileError, UnknownModel, brief
from ...models.clip import CLIPTextConfig
from ...models.mmdit import MMDiTConfig
from ...models.t5 import T5Config
from ...models.unet import UNetConfig
from ..build import Prefixed
from ..containers.limits import check_plausible, using_config
from ..containers.open import read_tensors
from ..containers.tensors import TensorFile
from ..foreign import PIPELINES, refuse_foreign
from ..keys import KeyTable
from ..networks.clip import clip_from_words, clip_transformers
from ..networks.mmdit import check_texts, mmdit_diffusers, mmdit_from_words
from ..networks.t5 import T5_LEFTOVERS, t5_from_words, t5_transformers
from ..networks.unet import unet_diffusers
from ..networks.unet_words import size_numbers, unet_from_words
from ..networks.vae import latents_from_words, vae_diffusers, vae_from_words
from ..parts import Defaults, Source, TokenizerSource
from .blueprint import Blueprint, NetworkPlan
from .edm import scheduled_defaults
from .families import FAMILIES, Family, family_of_folder
from .few_step import NOTE, few_step_defaults, guided_defaults, noted_defaults, scheduler_defaults
from .scheduler import schedule_from_words

JSON_LIMIT = 32 * 2**20
NETWORKS = ("unet", "transformer")
TRANSFORMER = "SD3Transformer2DModel"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ENDINGS = (".safetensors", ".bin")
VARIANT = re.compile(
    rf"(?:{'|'.join(STEMS)})(?:\.(?:safetensors|bin)\.index)?\.(?!safetensors|bin|index|json)(?P<variant>\w+)"
    r"\.(?:safetensors|bin|json)(?:\.index\.json)?"
)
"""Names of weights of a variant, whole or by their index: diffusion_pytorch_model.fp16.safetensors."""
INDEX = "model_index.json"
T5, TOKENIZER = "text_encoder_3", "tokenizer_3"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
SCHEDULER = "scheduler/scheduler_config.json"


def is_folder_model(path: Path) -> bool:
    """Whether a folder is a whole model of diffusers."""
    return (path / INDEX).is_file()


def has_t5_tokenizer(folder: Path) -> bool:
    """Whether a folder holds T5's vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def read_index(path: Path) -> dict[str, Any]:
    """model_index.json: {component: [library, class]}; UnknownModel where the folder has none or it is another kind."""
    if not is_folder_model(path):
        inside = sorted(item.name for item in path.iterdir() if item.suffix in (".safetensors", ".ckpt"))[:3]
        hint = f"; did you mean {path / inside[0]}?" if inside else ""
        raise UnknownModel(f"{path} is a folder without {INDEX}, so it is not a diffusers model{hint}")
    index = read_json(path / INDEX)
    kind = brief(index.get("_class_name", "model of no stated class"))
    if kind in PIPELINES:
        name, use = PIPELINES[kind]
        raise UnknownModel(
            f"{path} is {name} ({kind}), which {use}; this version runs Stable Diffusion 1, 2, XL and 3 alone"
        )
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
    for found in (None, "fp16", *variants(folder)) if variant is None else (variant,):
        for ending in ENDINGS:
            for stem in STEMS:
                tensors = _weights(folder, stem, ending, found)
                if tensors is not None:
                    refuse_foreign(tensors)
                    return tensors
    present = sorted(item.name for item in folder.iterdir() if item.suffix in ENDINGS)
    wanted = "" if variant is None else f" of the variant {variant!r}"
    raise BrokenModel(f"{folder} has no weights{wanted}; there are {', '.join(present[:10]) or 'none at all'}")


def variants(folder: Path) -> list[str]:
    """The variants that the weights of a component are there under, in the order of their names."""
    names = sorted(item.name for item in folder.iterdir())
    return list(dict.fromkeys(match["variant"] for name in names if (match := VARIANT.fullmatch(name))))


def _components(folder: Path, parts: Iterable[str], variant: str | None) -> tuple[dict[str, TensorFile], list[str]]:
    """The tensors of each component, and sentences on those that are not there as `variant`: as in diffusers, one that
    is there as it alone is enough. BrokenModel where none is."""
    there = {part: None if variant is None else variant in variants(folder / part) for part in parts}
    if variant is not None and not any(there.values()):
        found = sorted({name for part in there for name in variants(folder / part)})
        raise BrokenModel(f"{folder} has no weights of the variant {variant!r}; there are {', '.join(found) or 'none'}")
    files = {part: component(folder / part, variant if there[part] else None) for part in there}
    others = [f"the {part} is not there as the variant {variant!r}, so that {files[part].path.name} is read"
              for part in there if there[part] is False]  # fmt: skip
    return files, others


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

    def release(name: str) -> None:
        shards[weight_map[name]].release(name)

    return TensorFile(index, infos, lambda name: shards[weight_map[name]][name], kind="sharded", release=release)


# --- the model -------------------------------------------------------------------------------------------------------


def read_folder(folder: Path, variant: str | None, *, t5: bool = True) -> Blueprint:
    """The model of a diffusers folder, from its configs and the headers of its files.

    UnknownModel or BrokenModel where it is none that we run. `variant` is that of its weights, and `t5` False leaves
    out T5.
    """
    index = read_index(folder)
    texts = text_folders(index)
    network = "unet" if has_part(index, "unet") else "transformer"
    third = (T5,) if t5 and network == "transformer" and has_part(index, T5) else ()
    words = {part: read_config(folder / part / "config.json") for part in (network, "vae", *texts, *third)}
    files, others = _components(folder, words, variant)
    places = {part: folder / part / "config.json" for part in words}
    with using_config(folder):
        from_words = unet_from_words if network == "unet" else mmdit_from_words
        config: UNetConfig | MMDiTConfig = from_words(words[network], places[network])
        vae = vae_from_words(words["vae"], places["vae"])
        clips = [
            clip_from_words(
                words[part],
                places[part],
                # the pooled vector of the first of two is used by Stable Diffusion 3 alone
                projection="text_projection.weight" in files[part] and (part == texts[-1] or network == "transformer"),
            )
            for part in texts
        ]
        encoder = t5_from_words(words[T5], places[T5]) if third else None
        latents = latents_from_words(words["vae"], vae)
        if isinstance(config, MMDiTConfig):
            _check_texts(folder, config, clips, encoder)
        numbers = size_numbers(words[network], clips[-1].projection_dim or 0, places[network])
    schedule, prediction, guesses = _schedule(folder, config)
    family = family_of_folder(config, clips[0].activation, prediction, texts)
    defaults, few_steps = _folder_defaults(folder, family, config, words[network].get("sample_size"), vae.downscale)
    guesses, networks = guesses + few_steps, {}
    for name, part, clip in zip(("clip", "clip2"), texts, clips, strict=False):
        source, guess = _tokenizer(folder, part, clip, family)
        networks[name], guesses = _plan(clip, clip_transformers, files[part], source), guesses + guess
    networks["unet"] = _plan(config, unet_diffusers if network == "unet" else mmdit_diffusers, files[network])
    networks["vae"] = _plan(vae, vae_diffusers, files["vae"])
    if encoder is not None:
        networks["t5"] = _plan(encoder, t5_transformers, files[T5], _t5_tokenizer(folder), T5_LEFTOVERS)
    return Blueprint(
        path=folder,
        layout="diffusers",
        container=files[network].kind,
        family=family.name,
        label=family.label,
        networks=networks,
        latents=latents,
        schedule=schedule,
        prediction=prediction,
        defaults=defaults,
        # folders of Stable Diffusion 2 leave the unused last layer out; those of XL and 3 have all
        clip_layer=-1 if family.text_norm else family.clip_layer,
        text_norm=family.text_norm,
        size_numbers=numbers,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
        guesses=(*guesses, *others),
    )


def _plan(
    config: Any,
    table: Callable[[Any], KeyTable],
    file: TensorFile,
    tokenizer: TokenizerSource | None = None,
    drop: tuple[str, ...] = (),
) -> NetworkPlan:
    tensors = Prefixed(file, "", drop)
    return NetworkPlan(config=config, table=table, tensors=tensors, what=str(file.path), tokenizer=tokenizer)


def _check_texts(folder: Path, mmdit: MMDiTConfig, clips: list[CLIPTextConfig], t5: T5Config | None) -> None:
    try:
        check_texts(mmdit, tuple(clips), t5)
    except BrokenModel as error:
        raise BrokenModel(f"{folder} does not fit together: {error}") from None


def _schedule(
    folder: Path, network: UNetConfig | MMDiTConfig
) -> tuple[DiscreteSchedule | FlowSchedule, Prediction, tuple[str, ...]]:
    file = folder / SCHEDULER
    if file.is_file():
        return *schedule_from_words(read_config(file), file), ()
    if isinstance(network, MMDiTConfig):
        shift = FAMILIES["sd3"].shift
        return FlowSchedule(shift), "flow", (f"the shift {shift:g} of noise levels: the folder has no scheduler",)
    guess = "the noise schedule and prediction 'eps' are those of Stable Diffusion 1: the folder has no scheduler"
    return ddpm_schedule(), "eps", (guess,)


def _folder_defaults(
    folder: Path, family: Family, network: UNetConfig | MMDiTConfig, size: Any, downscale: int
) -> tuple[Defaults, tuple[str, ...]]:
    """The family's, at the size of the U-Net's config; those of a few-step model where scheduler or name say so."""
    # folders of before the size was written are 512 pixels wide
    written = isinstance(size, int) and size > 0
    pixels = size * downscale if written else family.size if not family.text_norm else 512
    defaults = replace(family.defaults, width=pixels, height=pixels)
    file = folder / SCHEDULER
    name = Source(folder).name
    scheduler = read_config(file) if file.is_file() else {}
    with using_config(file):
        defaults = scheduled_defaults(defaults, scheduler)
        noted = noted_defaults(defaults, scheduler.get(NOTE))
    if noted is not None:
        return noted, ()
    scheduled = scheduler_defaults(defaults, scheduler, name)
    if scheduled is None:
        named, guesses = few_step_defaults(defaults, name, flow=family.prediction == "flow")
        scheduled = replace(named, width=pixels, height=pixels), guesses
    guided = guided_defaults(scheduled[0], network)
    return scheduled if guided is None else (guided, ())


def _tokenizer(
    folder: Path, text: str, config: CLIPTextConfig, family: Family
) -> tuple[TokenizerSource, tuple[str, ...]]:
    """The tokenizer of a text encoder's folder; CLIP's own where there is none."""
    name = text.replace("text_encoder", "tokenizer")
    place = folder / name
    if any((place / file).is_file() for file in ("vocab.json", "tokenizer.json")):
        return TokenizerSource(folder=place), ()
    if config.vocab_size != 49408:
        raise BrokenModel(f"{folder} has no {name}, and its text encoder does not have CLIP's 49408 tokens")
    pad = 0 if config.activation == "gelu" and not family.text_norm else None
    return TokenizerSource(pad_token_id=pad), (f"the {name} is CLIP's own: the folder has none",)


def _t5_tokenizer(folder: Path) -> TokenizerSource:
    place = folder / TOKENIZER
    if not has_t5_tokenizer(place):
        expected = " or ".join(TOKENIZER_FILES)
        raise BrokenModel(f"{folder} has {T5} but no {TOKENIZER} with {expected}; t5=False leaves T5 out")
    return TokenizerSource(folder=place)

"""Join finished runs into one model file in the package's own format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..diffusion.schedule import schedule_from_config
from ..errors import InvalidRequest, unknown_choice
from ..models.clip import CLIPText, CLIPTextConfig
from ..models.unet import UNet, UNetConfig
from ..weights.checkpoints.native import save_native
from ..weights.parts import Card, Defaults, Parts, TokenizerSource
from .checkpoint import assign, find_checkpoint, load_part, read_state
from .data import load_tokenizer, special_ids
from .stages.denoiser import load_vae
from .tables import build


def export(
    denoiser_run: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path,
    vae_run: str | Path | None = None,
    dtype: str | Mapping[str, str] = "int8",
    defaults: Defaults | Mapping[str, Any] | None = None,
    card: Card | Mapping[str, str] | None = None,
) -> Path:
    """Write the native model file `out` from runs, packed as `dtype` says (see `weights.native.save_native`).

    The other arguments and errors are those of `join`. `packing_cost.packing_cost` tells what packing lost.
    """
    parts = join(denoiser_run, tokenizer=tokenizer, vae_run=vae_run, defaults=defaults, card=card)
    save_native(out, parts, dtype=dtype)
    return Path(out)


def join(
    denoiser_run: str | Path,
    *,
    tokenizer: str | Path,
    vae_run: str | Path | None = None,
    defaults: Defaults | Mapping[str, Any] | None = None,
    card: Card | Mapping[str, str] | None = None,
) -> Parts:
    """The model of a denoiser (or joint) run and of the VAE run it was trained on, in float32.

    tokenizer: the data pack's folder or a tokenizer.json. vae_run: where it is not the one the run's config names; the
    decoder of a joint run replaces the VAE run's. defaults: where they say nothing, the training size, 20 steps of
    Euler, the SGM-uniform schedule, the guidance of the config. Averaged weights are taken. Errors: InvalidRequest for
    a folder that is no such run, BrokenModel where weights do not fit.
    """
    state = _state(denoiser_run)
    facts, config = state["facts"], state["config"]
    vae, latents = load_vae(str(_vae_run(config) if vae_run is None else vae_run))
    if "vae" in state["modules"]:
        assign(vae, load_part(denoiser_run, "vae")[0], f"the VAE of {denoiser_run}")
    text_config = build(CLIPTextConfig, facts["text"], "text")
    unet, text = UNet(build(UNetConfig, facts["unet"], "unet")), CLIPText(text_config)
    for name, module in (("unet", unet), ("text", text)):
        assign(module, load_part(denoiser_run, name)[0], f"{name} of {denoiser_run}")
    return Parts(
        unet=unet.eval(),
        vae=vae.eval(),
        clip=text.eval(),
        tokenizer=TokenizerSource(json=_tokenizer_text(Path(tokenizer), text_config)),
        latents=latents,
        schedule=schedule_from_config(facts["schedule"]),
        prediction=facts["prediction"],
        family="embedded",
        defaults=defaults if isinstance(defaults, Defaults) else _defaults(facts, config, defaults or {}),
        card=card if isinstance(card, Card) else build(Card, card or {}, "card"),
    )


def _defaults(facts: Mapping[str, Any], config: Mapping[str, Any], given: Mapping[str, Any]) -> Defaults:
    size = int(facts["size"])
    table = {"width": size, "height": size, "steps": 20, "guidance": config["guidance"]}
    return build(Defaults, {**table, "sampler": "euler", "schedule": "sgm_uniform", **given}, "defaults")


def _vae_run(config: Mapping[str, Any]) -> str:
    """The VAE run that a run was trained on; a joint run that names none goes on from its denoiser run's."""
    named = str(config["vae_run"])
    return named or str(_state(config["denoiser_run"])["config"]["vae_run"]) if config.get("denoiser_run") else named


def _state(run: str | Path) -> dict[str, Any]:
    path = find_checkpoint(run)
    if path is None:
        raise InvalidRequest(f"{str(run)!r} is not the folder of a training run: it holds no checkpoint")
    state = read_state(path)
    if state["stage"] not in ("denoiser", "joint"):
        raise unknown_choice("stage to export", state["stage"], ("denoiser", "joint"))
    return state


def _tokenizer_text(path: Path, config: CLIPTextConfig) -> str:
    """The text of tokenizer.json, after checking that it fits the text encoder."""
    folder = path if path.is_dir() else path.parent
    loaded = load_tokenizer(folder)
    _, end = special_ids(loaded)
    if loaded.get_vocab_size() != config.vocab_size or end != config.eos_token_id:
        raise InvalidRequest(
            f"the tokenizer in {folder} has {loaded.get_vocab_size()} tokens and end token {end}; the text encoder was "
            f"trained with {config.vocab_size} and {config.eos_token_id}"
        )
    return (folder / "tokenizer.json").read_text(encoding="utf-8")

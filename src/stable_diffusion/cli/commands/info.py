"""`stable-diffusion info`: what a file is, whether a model, a picture of ours or a latent, without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...errors import BrokenModel, InvalidRequest, UnknownModel, brief, printable
from ..command import Command
from ..files import named_model
from ..format import echo_json, echo_table, in_units
from ..options import override_option

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SHOWN = 5
"""How many damaged tensors are shown; JSON has all."""
EXAMPLES = """
stable-diffusion info
stable-diffusion info model.safetensors --json
stable-diffusion info model.safetensors --check
stable-diffusion info outputs/7-a-red-apple.png
"""


@click.command("info", cls=Command, examples=EXAMPLES)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("--hash/--no-hash", "hashes", default=True, show_default=True, help="Hash the whole file.")
@click.option("--check", is_flag=True, help="Look at all numbers that are used: NaN or infinite ones are an error.")
@override_option
def command(path: Path | None, as_json: bool, hashes: bool, check: bool, overrides: dict[str, Any]) -> None:
    """Say what a file is: a model, an adapter (LoRA and relatives, textual inversion, ControlNet, T2I-Adapter,
    IP-Adapter), an autoencoder or text encoder alone, a picture with its settings, or a latent. Without PATH: the
    built-in model. A name that --model takes is a PATH too.

    A model is recognised by the names and shapes of its tensors; no code in a file is ever run. Adapters are always
    looked at for numbers that are not finite, models with --check.
    """
    path = path and named_model(path)
    if path is not None and path.suffix.lower() in PICTURES:
        _show(picture_facts(path), as_json)
        return
    from ..latent_file import is_latent, latent_facts

    if path is not None and is_latent(path):
        _show(latent_facts(path), as_json)
        return
    facts = _adapter_facts(path, hashes) or model_facts(path, hashes, overrides)
    if check:
        from ...weights.check import damaged

        facts["damaged"] = damaged(_given_or_embedded(path), **overrides)
    _show(facts, as_json)
    if check and facts["damaged"]:
        names = facts["damaged"]
        tensors = "the tensor" if len(names) == 1 else f"{len(names)} tensors, the first of which is"
        raise BrokenModel(f"{facts['path']} has numbers that are not finite in {tensors} {brief(names[0], 200)}")


def _adapter_facts(path: Path | None, hashes: bool) -> dict[str, Any] | None:
    """What a LoRA, one of its relatives, an embedding, a side network or a part of a model is; None for other files."""
    if path is None:
        return None
    from ...adapters.describe import adapter_facts
    from ...weights.control import control_facts
    from ...weights.describe import part_facts, refuse_other_kinds

    path = path.expanduser()
    refuse_other_kinds(path)
    looks = (adapter_facts, control_facts, part_facts)
    return next((facts for look in looks if (facts := look(path, hashes=hashes)) is not None), None)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
        return
    # A file's own words may hold signs that a terminal acts on; line breaks are left to the settings of a picture.
    shown = {name: "\n".join(map(printable, _fact_text(name, value).split("\n"))) for name, value in facts.items()}
    rows = [(name.replace("_", " "), text) for name, text in shown.items()]
    echo_table([row for row in rows if row[1]])


def model_facts(path: Path | None, hashes: bool, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """What detection found, with `kind` first. Where no family matches, the reasons of all are shown on stderr."""
    from ...weights.describe import inspect

    try:
        return {"kind": "model", **inspect(_given_or_embedded(path), hashes=hashes, **(overrides or {}))}
    except UnknownModel as error:
        for family, reason in error.reasons.items():
            click.echo(f"note: not {family}: {reason}", err=True)
        raise


def _given_or_embedded(path: Path | None) -> Path:
    from ...embedded import model_path

    embedded = model_path() if path is None else path
    if embedded is None:
        raise InvalidRequest("this installation has no built-in model: give the path of a model")
    return embedded


def picture_facts(path: Path) -> dict[str, Any]:
    """Size, and the settings that were written into the picture."""
    from ...request.metadata_read import MAX_TEXT, written_text
    from ...request.pictures import open_picture
    from ...request.writers.infotext import split_text

    image = open_picture(path, "picture")
    facts = {"kind": "picture", "path": str(path), "width": image.width, "height": image.height, "mode": image.mode}
    text = written_text(path) or ""  # as it stands: much that cannot be generated here is worth reading
    known = len(text) <= MAX_TEXT and split_text(text)[2]
    return {**facts, "settings": text if known else "none"}


def _fact_text(name: str, value: Any) -> str:
    """A fact for people; empty where there is nothing to say."""
    if name == "parameters" and isinstance(value, dict):
        counts = [f"{part} {count / 1e6:.1f} M" for part, count in value.items()]
        return ", ".join([*counts, f"together {sum(value.values()) / 1e6:.1f} M"] if len(counts) > 1 else counts)
    if name == "averaged" and value:
        return f"{value / 1e6:.1f} M, a second copy that is not used"
    if name == "damaged" and value:
        more = f"; and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return f"not finite: {'; '.join(value[:SHOWN])}{more}"
    if value is True:
        return "yes"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    if value is None or value == 0:
        return ""
    return in_units(value) if name == "bytes" else str(value)

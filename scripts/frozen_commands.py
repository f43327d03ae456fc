"""Entries of `frozen` about the options of the command line, and training."""

from __future__ import annotations

from pathlib import Path

import click
import frozen_hooks as hooks
from frozen_paint import HEX, Entries, Entry, digest
from frozen_shop import Shop
from PIL import Image
from safetensors.torch import load_file

STEPS = 20
"""Of each stage of training."""


def options(shop: Shop) -> Entries:
    """The names of the options of every command, and what they can be."""
    yield from _options(hooks.command(), "")


def _options(command: click.Command, path: str) -> Entries:
    choices = {
        parameter.opts[0]: sorted(map(str, parameter.type.choices))
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    }
    names = sorted(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    yield path or "all", {"options": " ".join(names), "choices": digest(choices)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _options(below, f"{path} {name}".strip())


def training(shop: Shop) -> Entries:
    """The weights, averages and optimiser's state after some steps of every stage, and the pictures on the way."""
    for stage, folder in hooks.train_stages(shop.folder("training"), STEPS):
        state = load_file(folder / hooks.CHECKPOINT)
        entry: Entry = {
            "state": digest(*[part for name in sorted(state) for part in (name, state[name])]),
            "names": digest(sorted(state)),
            "lines": len((folder / "log.jsonl").read_text().splitlines()),
        }
        if (folder / "samples.png").exists():
            entry["pixels"] = shown(folder / "samples.png")["pixels"]
        yield stage, entry


def shown(path: Path) -> Entry:
    """A picture file: what is seen, and what is written in it."""
    with Image.open(path) as image:
        text = _text(image)
        entry: Entry = {"pixels": digest(image.format, image.mode, image.size, image.tobytes())}
    if text:
        entry |= {"parameters": digest(text), "words": digest(HEX.sub("#", text))}
    return entry


def _text(image: Image.Image) -> str:
    """The parameters, in whatever way this kind of file holds them."""
    comment = image.getexif().get_ifd(0x8769).get(0x9286)
    found = image.info.get("parameters") or (comment.hex() if isinstance(comment, bytes) else comment)
    return str(found or "")

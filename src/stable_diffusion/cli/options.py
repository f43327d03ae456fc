"""Options that several commands share: which model, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .command import SectionOption, apply
from .setting_options import named_setting, setting_option

if TYPE_CHECKING:
    from ..pipeline.models import StableDiffusion

SECTION = "Model and device"
_CHOSEN = "stable_diffusion.model"


class Overrides(SectionOption):
    """`--set NAME=VALUE`, repeated: what a caller says of a model, as a dictionary of numbers, truths and names."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> dict[str, Any]:
        """The dictionary; made here and not later, so that a callback of the option gets it too."""
        found: dict[str, Any] = {}
        for word in super().type_cast_value(ctx, value) or ():
            name, sign, text = str(word).partition("=")
            if not sign or not name:
                raise click.BadParameter(f"{word!r} is not NAME=VALUE", ctx, self)
            found[name.strip().replace("-", "_")] = _override(text.strip())
        return found

    def process_value(self, ctx: click.Context, value: Any) -> dict[str, Any]:
        """An empty dictionary where the option is not given, for which click makes a tuple."""
        return super().process_value(ctx, value) or {}


def _override(text: str) -> Any:
    """A number, "true" or "false" as what they are, numbers with commas as a tuple, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "," in text:
        return tuple(_override(part.strip()) for part in text.split(","))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


override_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    cls=Overrides,
    section="Options",
    metavar="NAME=VALUE",
    help="Say what would be guessed: family, prediction, clip_layer, heads ...; may be repeated.",
)


def _choose(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what is said of the model for `chosen`, so that commands need not hand it on."""
    if value and not ctx.resilient_parsing:
        found = value if parameter.name == "overrides" else {str(parameter.name): value}
        ctx.meta.setdefault(_CHOSEN, {}).update(found)


def _kept(*names: str, section: str = SECTION, **settings: Any) -> Callable[[Any], Any]:
    """An option of the model, which `chosen` knows and the command does not get."""
    facts = {"cls": SectionOption, "section": section, "callback": _choose, "expose_value": False, **settings}
    return click.option(*names, **facts)


def _parts(vae: str, section: str = SECTION) -> list[Callable[[Any], Any]]:
    """What takes the place of a model's parts, and what is said of it; `vae` is the help of --vae."""
    many: dict[str, Any] = {"multiple": True, "section": section}
    text = "Another text encoder; may be repeated."
    said = "Say what would be guessed, such as prediction=v; may be repeated."
    return [
        _kept("--vae", metavar="PATH", help=vae, section=section),
        _kept("--text-encoder", "text_encoders", metavar="PATH", help=text, **many),
        _kept("--set", "overrides", metavar="NAME=VALUE", cls=Overrides, help=said, **many),
    ]


written_part_options = _parts("Another autoencoder.", "Options")
"""Those of a model that is written, in which a tiny autoencoder has no place."""

preview_vae_option = _kept("--preview-vae", metavar="PATH", help="Tiny autoencoder for the preview.")

device_options = [
    _kept("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps."),
    _kept(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8", "int8-weights"]),
        default="auto",
        show_default=True,
        help="Number type of the networks.",
    ),
    _kept(
        "--engine",
        type=click.Choice(["auto", "torch", "openvino"]),
        default="auto",
        show_default=True,
        help="What runs the networks.",
    ),
]
tiling_option = _kept(
    "--vae-tiling",
    type=click.Choice(["auto", "always", "never"]),
    help="Decode in tiles; auto where memory does not suffice.",
)
offload_option = _kept(
    "--offload",
    type=click.Choice(["auto", "none", "model"]),
    help="Networks in memory in turns; auto where memory does not suffice for all.",
)
loading_options = apply([*device_options, tiling_option, offload_option, *_parts("Another autoencoder; TAESD too.")])
"""Where a model runs, and what takes the place of its parts."""
model_options = apply([setting_option(named_setting("model"), SECTION), loading_options])
"""Those, and which model."""


def chosen() -> dict[str, Any]:
    """What the options of a model say, as keywords of what loads it."""
    found: dict[str, Any] = click.get_current_context().meta.get(_CHOSEN, {})
    return found


def load_model(model: str | None) -> StableDiffusion:
    """The model, with what was guessed about it on stderr."""
    from ..pipeline.models import load

    loaded = load(model, **chosen())
    for guess in loaded.parts.guesses:
        click.echo(f"note: {guess}", err=True)
    return loaded

"""Options that several commands share: which model, where it runs, what is asked for, where the picture goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .command import Number, Size

if TYPE_CHECKING:
    from ..pipeline.models import StableDiffusion

F = TypeVar("F", bound=Callable[..., Any])

MAX_STEPS, MAX_COUNT, MAX_SIDE, MAX_GUIDANCE, MAX_SEED = 1000, 1000, 8192, 100.0, 2**63 - 1
"""The limits of `pipeline.request`, repeated here because that module takes long to import; a test compares them."""


def apply(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    """One decorator from several, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Overrides(click.Option):
    """`--set NAME=VALUE`, repeated: what a caller says of a model, as a dictionary of numbers, truths and names."""

    def process_value(self, ctx: click.Context, value: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for word in super().process_value(ctx, value) or ():
            name, sign, text = str(word).partition("=")
            if not sign or not name:
                raise click.BadParameter(f"{word!r} is not NAME=VALUE", ctx, self)
            found[name.strip().replace("-", "_")] = _override(text.strip())
        return found


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
    metavar="NAME=VALUE",
    help="Say what would be guessed: family, prediction, clip_layer, heads ...; may be repeated.",
)


_CHOSEN = "stable_diffusion.model"


def _choose(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what is said of the model for `chosen`, so that commands need not hand it on."""
    if value and not ctx.resilient_parsing:
        found = value if parameter.name == "overrides" else {str(parameter.name): value}
        ctx.meta.setdefault(_CHOSEN, {}).update(found)


def _parts(vae: str) -> list[Callable[[Any], Any]]:
    """What takes the place of a model's parts, and what is said of it; `vae` is the help of --vae."""
    kept: dict[str, Any] = {"callback": _choose, "expose_value": False}
    text = {"multiple": True, "metavar": "PATH", "help": "Another text encoder; may be repeated.", **kept}
    said = {"multiple": True, "metavar": "NAME=VALUE", "cls": Overrides, **kept}
    return [
        click.option("--vae", metavar="PATH", help=vae, **kept),
        click.option("--text-encoder", "text_encoders", **text),
        click.option(
            "--set", "overrides", help="Say what would be guessed, such as prediction=v; may be repeated.", **said
        ),
    ]


part_options = _parts("Another autoencoder; TAESD too.")
written_part_options = _parts("Another autoencoder.")
"""Those of a model that is written, in which a tiny autoencoder has no place."""

preview_vae_option = click.option(
    "--preview-vae", metavar="PATH", callback=_choose, expose_value=False, help="Tiny autoencoder for the preview."
)


OWN = "the model's own"

model_options = apply(
    [
        click.option(
            "-m",
            "--model",
            metavar="PATH",
            show_default="the built-in one",
            help="Model file, folder or name; embedded-fast paints in 4 steps.",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps."),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="Number type of the networks.",
        ),
        *part_options,
    ]
)

step_options = apply(
    [
        click.option("--negative", "--negative-prompt", "negative_prompt", metavar="TEXT", help="What to avoid."),
        click.option("-t", "--steps", type=click.IntRange(1, MAX_STEPS), show_default=OWN, help="Sampler steps."),
        click.option(
            "--guidance",
            "--cfg",
            type=Number(min=0, max=MAX_GUIDANCE),
            show_default=OWN,
            help="How closely to follow the words; 1 is off.",
        ),
        click.option("--sampler", metavar="NAME", show_default=OWN, help="See `stable-diffusion list`."),
        click.option(
            "--schedule", metavar="NAME", show_default="the sampler's own", help="See `stable-diffusion list`."
        ),
    ]
)
"""What every painting has."""

size_options = apply(
    [
        click.option("--width", type=click.IntRange(1, MAX_SIDE), show_default=OWN, help="Pixels."),
        click.option("--height", type=click.IntRange(1, MAX_SIDE), show_default=OWN, help="Pixels."),
        click.option("--size", type=Size(), help="Width and height at once, or one number for both."),
    ]
)

sampling_options = apply([step_options, size_options])

seed_option = click.option(
    "-s", "--seed", type=click.IntRange(-1, MAX_SEED), show_default="random", help="Of the first picture."
)


def out_options(default: str, kinds: str = "File (.png, .webp, .jpg) or folder.") -> Callable[[F], F]:
    """--out and --overwrite; `default` says where the result goes without them."""
    out = click.option("-o", "--out", type=click.Path(path_type=Path), show_default=default, help=kinds)
    return apply([out, click.option("--overwrite", is_flag=True, help="Replace the file that --out names.")])


json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line, with --size taken apart and GROUP__FIELD put in its group."""
    values = {name: value for name, value in values.items() if value is not None}
    for name in [name for name in values if "__" in name]:
        group, _, field = name.partition("__")
        value = values.pop(name)
        if value != ():  # an option that may be repeated, and was not given
            values.setdefault(group, {})[field] = value
    size = values.pop("size", None)
    if size is not None:
        if "width" in values or "height" in values:
            raise click.UsageError("Give --size, or --width and --height, not both", click.get_current_context())
        values["width"], values["height"] = size
    return values


def chosen() -> dict[str, Any]:
    """What the options of `part_options` say of the model, as keywords of what loads it."""
    found: dict[str, Any] = click.get_current_context().meta.get(_CHOSEN, {})
    return found


def load_model(model: str | None, device: str, dtype: str) -> StableDiffusion:
    """The model, with what was guessed about it on stderr."""
    from ..pipeline.models import load

    loaded = load(model, device=device, dtype=dtype, **chosen())
    for guess in loaded.parts.guesses:
        click.echo(f"note: {guess}", err=True)
    return loaded

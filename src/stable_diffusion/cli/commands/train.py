"""`stable-diffusion train`: one command per part of the model, and `export`, which joins the parts to a model file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InvalidRequest
from ..command import CONTEXT_SETTINGS, Command, Number
from ..files import destination, prepare_folder
from ..format import echo_json

if TYPE_CHECKING:
    from ...training.report import Progress

_FOLDER = click.Path(path_type=Path)
STAGES = {
    "vae": "Train the autoencoder: pictures to latents and back.",
    "text": "Train the text encoder, with an image tower that reads the same pictures.",
    "denoiser": "Train the denoiser on latents, conditioned on text.",
    "joint": "Train several parts end to end, from finished runs.",
    "student": "Train a few-step student of a model file, as a LoRA.",
}
GROUP_EPILOG = """\b
Examples:
  stable-diffusion train vae --data pack --out runs/vae --minutes 30
  stable-diffusion train text --data pack --out runs/text --minutes 30
  stable-diffusion train denoiser --data pack --out runs/denoiser --minutes 60 \\
      --set vae_run=runs/vae --set text_run=runs/text
  torchrun --nproc-per-node 8 -m stable_diffusion train denoiser --data pack --out runs/denoiser --minutes 60
"""


EXPORT_EXAMPLE = """
stable-diffusion train export --denoiser runs/denoiser --vae runs/vae --tokenizer pack/tokenizer.json -o m.safetensors
"""


@click.group("train", context_settings=CONTEXT_SETTINGS, epilog=GROUP_EPILOG)
def command() -> None:
    """Train the parts of a model on a data pack, each within a time budget.

    A run folder holds the checkpoint, log.jsonl, loss.png and samples.png. The same command again goes on where the run
    stopped; Ctrl-C saves a checkpoint first.
    """


def _add_stage(name: str, summary: str) -> None:
    """One training command; all stages take the same options."""

    @command.command(
        name,
        cls=Command,
        help=summary,
        examples=f"stable-diffusion train {name} --data pack --out runs/{name} --minutes 30",
    )
    @click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the data pack.")
    @click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Run folder.")
    @click.option("--minutes", type=Number(min=0, min_open=True, max=1e6), help="Wall-clock budget of this call.")
    @click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
    @click.option(
        "--resume",
        type=click.Choice(["auto", "must", "never"]),
        default="auto",
        show_default=True,
        help="Go on from the run folder's checkpoint if there is one, only if there is one, or start again.",
    )
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")
    def stage(**given: Any) -> None:
        run_stage(name, **given)


for _name, _summary in STAGES.items():
    _add_stage(_name, _summary)


@command.command(
    "export",
    cls=Command,
    examples=EXPORT_EXAMPLE,
)
@click.option(
    "--denoiser", "denoiser_run", type=_FOLDER, required=True, help="Run of the denoiser or of joint training."
)
@click.option("--vae", "vae_run", type=_FOLDER, required=True, help="Run of the autoencoder.")
@click.option("--tokenizer", type=click.Path(path_type=Path), required=True, help="The data pack's tokenizer.json.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Model file (.safetensors).")
@click.option("--overwrite", is_flag=True, help="Replace the file that --out names.")
@click.option(
    "--dtype",
    type=click.Choice(["int8", "float16", "bfloat16", "float32"]),
    default="int8",
    show_default=True,
    help="How weights are stored.",
)
@click.option("--data", type=_FOLDER, help="Data pack; with it, held-out pictures show what packing costs.")
@click.option("--name", default="", help="Name of the model, written into the file.")
@click.option("--version", "release", default="", help="Version of the model, written into the file.")
@click.option("--licence", default="", help="Licence of the model, written into the file.")
def export_command(
    out: Path, overwrite: bool, dtype: str, data: Path | None, name: str, release: str, licence: str, **given: Any
) -> None:
    """Join finished runs into one model file that `--model` takes, and say what packing its weights cost."""
    if out.suffix != ".safetensors":
        raise InvalidRequest(f"--out {str(out)!r} does not end in .safetensors, which is what a model is written as")
    path = destination(out, "", overwrite=overwrite)
    prepare_folder(path)
    from ...training.export import join
    from ...training.packing_cost import held_out_pictures, packing_cost
    from ...weights.checkpoints.native import save_native
    from ...weights.parts import Card

    parts = join(card=Card(name=name, version=release, licence=licence), **given)
    pictures = None if data is None else held_out_pictures(data, parts.defaults.width)
    save_native(path, parts, dtype=dtype)
    for line in packing_cost(parts, path, pictures).lines():
        click.echo(line, err=True)
    click.echo(str(path))


def run_stage(stage: str, **given: Any) -> None:
    """Train with a live line on stderr; the last numbers as JSON on stdout, from the first process only."""
    from ...training.run import train

    on_terminal = sys.stderr.isatty()
    try:
        numbers = train(stage, on_progress=_live_line if on_terminal else _log_line, **given)
    finally:
        if on_terminal:
            click.echo(err=True)
    if os.environ.get("RANK", "0") == "0":
        echo_json({"stage": stage, "run": given["out"], **numbers})


def _live_line(progress: Progress) -> None:
    """Rewrite the line in place."""
    click.echo(f"\r\x1b[2K{progress.line()}", nl=False, err=True)


def _log_line(progress: Progress) -> None:
    click.echo(progress.line(), err=True)

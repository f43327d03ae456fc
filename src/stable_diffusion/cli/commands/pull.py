"""`stable-diffusion pull`: a model from the model hub to a folder. The one command that uses the network."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..command import Command
from ..format import echo_json, json_option

MODELS = Path("models")
EXAMPLES = """
stable-diffusion pull stable-diffusion-v1-5/stable-diffusion-v1-5
stable-diffusion pull stabilityai/stable-diffusion-xl-base-1.0 --file sd_xl_base_1.0.safetensors --to models
stable-diffusion pull stabilityai/stable-diffusion-xl-base-1.0 --variant fp16
"""


@click.command("pull", cls=Command, examples=EXAMPLES)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--file", "files", multiple=True, metavar="NAME", help="One of its files, or a pattern; may be repeated.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="the first of STABLE_DIFFUSION_MODELS, else models",
    help="Folder.",
)
@click.option("--variant", metavar="NAME", help="Which weights of a diffusers folder, such as fp16.")
@click.option("--revision", metavar="NAME", show_default="the newest", help="Branch, tag or commit.")
@json_option
def command(
    repo: str, files: tuple[str, ...], folder: Path | None, variant: str | None, revision: str | None, as_json: bool
) -> None:
    """Fetch the model of the repository OWNER/NAME of the model hub; its path goes to stdout.

    A download that broke off goes on where it stopped. Needs the extra `hub`; no other command uses the network.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from ...hub import pull
    from ..terminal import stderr_console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = stderr_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        made = pull(repo, folder or default_folder(), files=files, variant=variant, revision=revision, progress=show)
    if as_json:
        echo_json({"path": made.path, "files": list(made.files), "commit": made.commit})
    else:
        click.echo(str(made.path))


def default_folder() -> Path:
    """Where `--model NAME` finds what was fetched, where such a folder is set."""
    folders = [each for each in os.environ.get("STABLE_DIFFUSION_MODELS", "").split(os.pathsep) if each]
    return Path(folders[0]).expanduser() if folders else MODELS

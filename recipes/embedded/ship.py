"""`python -m recipes.embedded.ship split | join`: a run as a model file in pieces, for a machine to be left.

    python -m recipes.embedded.ship split RUNS/denoiser --tokenizer PACK/tokenizer.json --out DIR
    python -m recipes.embedded.ship join DIR/model.safetensors.piece* --out model.safetensors

What travels is all that training goes on from: the averaged weights in 16 bits with the model's facts, as a file in our
own format, which `start_from`, `vae_run` and `text_run` take. The optimiser's state stays behind: together with float32
weights and their average it is six times as large, and a warm-up of some hundred steps replaces it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recipes.embedded.pieces import MEBIBYTE, read_pieces, write_pieces
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.training.checkpoint import find_checkpoint, read_state
from stable_diffusion.training.export import join
from stable_diffusion.training.stages.denoiser import load_vae
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.containers.atomic import atomic_file
from stable_diffusion.weights.containers.packing import PACKINGS
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Parts

NAME = "model.safetensors"


def shipped_parts(run: str | Path, tokenizer: str | Path | None = None, vae_run: str | Path | None = None) -> Parts:
    """The model of a run: of a denoiser or joint run as `export` joins it; of a VAE run the model that it started from,
    with the new autoencoder and latent statistics.

    Raises InvalidRequest for another folder, a VAE run that started from no model file, or a tokenizer not given.
    """
    path = find_checkpoint(run)
    if path is None:
        raise InvalidRequest(f"{str(run)!r} is not the folder of a training run: it holds no checkpoint")
    state = read_state(path)
    if state["stage"] == "vae":
        base = str(state["config"]["start_from"])
        if not Path(base).is_file():
            raise InvalidRequest(
                f"the VAE run {run} started from {base or 'nothing'}, not from a model file that the new autoencoder "
                "could travel in; ship the denoiser run that is trained on it"
            )
        vae, latents = load_vae(str(run))
        return dataclasses.replace(load_parts(base), vae=vae.eval(), latents=latents)
    if tokenizer is None:
        raise InvalidRequest("tokenizer is not given: it is the tokenizer.json of the data pack (--tokenizer)")
    return join(run, tokenizer=tokenizer, vae_run=vae_run)


def split(
    run: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    vae_run: str | Path | None = None,
    dtype: str = "float16",
    text_dtype: str | None = None,
    piece_size: int = 15 * MEBIBYTE,
) -> list[Path]:
    """Write the run's model into the folder `out` in pieces of at most `piece_size` bytes; returns the files.

    dtype: as in `save_native`. text_dtype: the same for the text encoder alone; "int8" loses nothing where a frozen one
    came from an int8 file.
    """
    parts = shipped_parts(run, tokenizer, vae_run)
    kinds = {"unet": dtype, "vae": dtype, "clip": text_dtype or dtype}
    with tempfile.TemporaryDirectory() as folder:
        save_native(Path(folder) / NAME, parts, dtype=kinds)
        return write_pieces((Path(folder) / NAME).read_bytes(), out, NAME, size=piece_size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, split or join; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.ship", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    splitting = commands.add_parser("split", help="a run as a model file in pieces")
    splitting.add_argument("run", type=Path, help="run of the denoiser, of joint training or of the autoencoder")
    splitting.add_argument("--tokenizer", type=Path, help="the data pack's tokenizer.json (not for an autoencoder)")
    splitting.add_argument("--vae", dest="vae_run", type=Path, help="VAE run, where the run's config names another")
    splitting.add_argument("--dtype", choices=PACKINGS, default="float16", help="how weights are stored (float16)")
    splitting.add_argument("--text-dtype", choices=PACKINGS, help="the same for the text encoder alone")
    splitting.add_argument("--piece-size", type=float, default=15.0, help="MiB of one piece at most (15)")
    splitting.add_argument("--out", type=Path, required=True, help="folder of the pieces")
    joining = commands.add_parser("join", help="the model file of the pieces")
    joining.add_argument("pieces", type=Path, nargs="+", help="the pieces, with their list beside them")
    joining.add_argument("--out", type=Path, required=True, help="model file (.safetensors)")
    given = vars(parser.parse_args(arguments))
    command, out = given.pop("command"), given.pop("out")
    try:
        if command == "split":
            size = int(given.pop("piece_size") * MEBIBYTE)
            files = split(given.pop("run"), out, piece_size=size, **given)
        else:
            content = read_pieces(given["pieces"])
            with atomic_file(out) as file:
                file.write(content)
            files = [out]
    except StableDiffusionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in files:
        sys.stderr.write(f"{path}: {path.stat().st_size / MEBIBYTE:.2f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A tiny model in our own file format, and two ways to run the command: in this process and as its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import Run, RunProcess, environment
from click.testing import CliRunner, Result

from stable_diffusion.cli.main import cli
from stable_diffusion.models.clip import CLIPText
from stable_diffusion.models.unet import UNet
from stable_diffusion.models.vae import VAE
from stable_diffusion.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def model_file(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_native_unet: UNet,
    tiny_native_vae: VAE,
    tiny_native_clip: CLIPText,
    tiny_native_tokenizer: Tokenizer,
) -> Path:
    """16 x 24 pixels RGBA, two steps, flow prediction."""

    from stable_diffusion.diffusion.schedule import FlowSchedule
    from stable_diffusion.latents import LatentFormat
    from stable_diffusion.weights.checkpoints.native import save_native
    from stable_diffusion.weights.parts import Card, Defaults, Parts, TokenizerSource

    parts = Parts(
        unet=tiny_native_unet,
        vae=tiny_native_vae,
        clip=tiny_native_clip,
        tokenizer=TokenizerSource(json=tiny_native_tokenizer._backend.to_str(), pad_token_id=tiny_native_tokenizer.eos),
        latents=LatentFormat(channels=6, downscale=8),
        schedule=FlowSchedule(),
        prediction="flow",
        family="embedded",
        defaults=Defaults(width=16, height=24, steps=2, guidance=2.0, sampler="euler", schedule="normal"),
        card=Card(name="tiny"),
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_native(path, parts, dtype="float32")
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Run:
    """The command in this process; output and errors are kept apart."""

    def invoke(*arguments: object, **settings: object) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="stable-diffusion", **settings)  # type: ignore[arg-type]

    return invoke


@pytest.fixture
def process(here: Path) -> RunProcess:
    """The command as a process of its own, as a shell runs it."""

    def start(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stable_diffusion", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment(), **settings)  # type: ignore[call-overload, no-any-return]

    return start

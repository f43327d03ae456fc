from __future__ import annotations

import json
from pathlib import Path

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.vae import VAEConfig
from stable_diffusion.training.config import DenoiserStage, VAEStage, load_config
from stable_diffusion.training.tables import build, to_table

RECIPES = Path(__file__).parents[2] / "recipes" / "embedded"


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('batch_size = 7\n[optimiser]\nname = "muon"\n[vae]\nchannels = [8, 16]\n')
    config = load_config("vae", path, ["batch_size=9", "optimiser.clip=0", "data.kinds=['glyph']", "vae.patch_size=2"])
    assert isinstance(config, VAEStage)
    assert (config.batch_size, config.optimiser.name, config.optimiser.clip) == (9, "muon", 0.0)
    assert config.data.kinds == ("glyph",)
    assert config.vae == {"channels": [8, 16], "patch_size": 2}


def test_bare_strings_and_weights() -> None:
    config = load_config("denoiser", None, ["vae_run=runs/vae", "data.weights.glyph=0.5", "steps=3"])
    assert isinstance(config, DenoiserStage)
    assert (config.vae_run, config.data.weights, config.steps) == ("runs/vae", {"glyph": 0.5}, 3)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["batch_sise=3"], "did you mean 'batch_size'"),
        (["optimiser.learning=3"], "learning_rate"),
        (["optimiser.name=mouon"], "did you mean 'muon'"),
        (["batch_size=big"], "vae.batch_size = 'big' has the wrong type: expected int"),
        (["batch_size=true"], "wrong type"),
        (["batch_size=0"], "at least 1"),
        (["ema=1.0"], "less than 1"),
        (["batch_size"], "not of the form key=value"),
        (["size.x=1"], "wrong type"),
    ],
)
def test_errors_name_the_key_and_the_nearest(overrides: list[str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load_config("vae", None, overrides)


@pytest.mark.parametrize(
    ("override", "words"), [("high_noise_share=1.5", "from 0 to 1"), ("high_noise_from=1.0", "less than 1")]
)
def test_shares_of_high_noise_are_checked(override: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load_config("denoiser", None, [override])


def test_model_table_is_checked_against_the_model_config() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'patch_size'"):
        build(VAEConfig, {"patchsize": 2}, "vae")
    assert build(VAEConfig, {"channels": [32, 64]}, "vae").channels == (32, 64)


def test_unknown_stage_missing_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'denoiser'"):
        load_config("denoise")
    with pytest.raises(InvalidRequest, match="cannot read"):
        load_config("vae", tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("batch_size = = 3")
    with pytest.raises(InvalidRequest, match="is not TOML"):
        load_config("vae", tmp_path / "bad.toml")


def test_to_table_is_json_and_round_trips() -> None:
    config = load_config("denoiser", None, {"data.kinds": ["object"], "unet": {"channels": [16, 32]}})
    table = json.loads(json.dumps(to_table(config)))
    assert build(DenoiserStage, table, "denoiser") == config


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    config = load_config(path.stem.rpartition("_")[2], path)
    assert config.batch_size > 1

"""Pictures enlarged: tiles without seams, alpha, sizes, the text inside, the command, and hires fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from upscaler_files import compact, rrdb

from stable_diffusion import InvalidRequest, Request, generate_image
from stable_diffusion.cli.main import cli
from stable_diffusion.errors import ModelFileError
from stable_diffusion.models.upscalers import RRDBConfig
from stable_diffusion.request.json import from_json, to_json
from stable_diffusion.upscaling.network import load_upscaler
from stable_diffusion.upscaling.picture import Target, enlarged_image, last_value, upscaled
from stable_diffusion.upscaling.tiles import tiled


def run(network: object, picture: Tensor, scale: int, **options: int) -> Tensor:
    found: Tensor = last_value(tiled(network, picture, scale, **options))  # type: ignore[arg-type]
    return found


def photo(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    pixels = np.stack([x, y, (x * y), (x > 0.3)], -1)[..., : len(mode)]
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(50, 70), (33, 20), (90, 31)])
def test_tiles_give_the_whole_picture(size: tuple[int, int]) -> None:
    network, _ = compact()  # it sees four pixels far
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    made = run(network, picture, 4, tile=32, overlap=8)
    assert torch.allclose(made, network(picture), atol=1e-5)


def test_seams_of_a_network_that_sees_far_are_small() -> None:
    network, _ = rrdb(RRDBConfig(width=8, growth=4, blocks=3))
    picture = F.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3)), size=(96, 96))
    difference = (run(network, picture, 4, tile=48) - network(picture)).abs()
    assert difference.max() < 0.5 / 255, difference.max()


def test_memory_is_that_of_a_tile() -> None:
    seen = []

    def network(tile: Tensor) -> Tensor:
        seen.append(tile.shape[-2:].numel())
        return tile

    picture = torch.rand(1, 3, 500, 300)
    assert torch.allclose(run(network, picture, 1, tile=64, overlap=16), picture, atol=1e-6)
    assert max(seen) <= (64 + 32) ** 2 and len(seen) == 8 * 5


def test_a_tile_below_the_overlap() -> None:
    with pytest.raises(InvalidRequest, match="tile is 20; expected at least 32"):
        run(lambda tile: tile, torch.zeros(1, 3, 8, 8), 1, tile=20, overlap=16)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 1.5, 2, 4, 6])
def test_any_factor(upscaler: Path, scale: float) -> None:
    made = last_value(upscaled(photo(), load_upscaler(upscaler), Target(scale=scale)))
    assert made.size == (round(40 * scale), round(30 * scale)) and made.mode == "RGB"
    assert made.info["parameters"].endswith("Postprocess upscaler: 4x-small")


def test_a_size_is_covered_and_cut(upscaler: Path) -> None:
    by = load_upscaler(upscaler)
    assert last_value(upscaled(photo(), by, Target(size=(80, 80)))).size == (107, 80)
    assert last_value(upscaled(photo(), by, Target(size=(80, 80), crop=True))).size == (80, 80)


def test_alpha_is_enlarged_and_hidden_colour_does_not_show(upscaler: Path) -> None:
    by = load_upscaler(upscaler)
    clear = photo(mode="RGBA")
    made = last_value(enlarged_image(clear, by, (160, 120)))
    assert made.mode == "RGBA"
    hidden = np.array(clear)
    hidden[hidden[..., 3] == 0, :3] = (255, 0, 255)
    assert np.array_equal(np.array(last_value(enlarged_image(Image.fromarray(hidden), by, (160, 120)))), np.array(made))
    whole = photo(mode="RGBA")
    whole.putalpha(255)
    assert np.array(last_value(enlarged_image(whole, by, (160, 120))))[..., 3].min() == 255


def test_share_of_a_second_upscaler(upscaler: Path) -> None:
    by, target = load_upscaler(upscaler), Target(scale=2)
    first, second, mixed = (
        np.array(last_value(each)).astype(float)
        for each in (
            upscaled(photo(), by, target),
            upscaled(photo(), "Lanczos", target),
            upscaled(photo(), by, target, second="Lanczos", share=0.25),
        )
    )
    assert np.abs(0.75 * first + 0.25 * second - mixed).max() <= 1.01


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(upscaler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    photo().save(picture)
    arguments = ["upscale", str(picture), "--upscaler", str(upscaler), "--size", "60", "--crop", "--json"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "b.png")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"][0]["width"] == 60
    monkeypatch.setenv("STABLE_DIFFUSION_UPSCALERS", str(tmp_path))
    named = [*arguments[:3], "4x-SMALL", *arguments[4:], "--out", str(tmp_path / "c.png")]
    assert CliRunner().invoke(cli, named).exit_code == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    plain = CliRunner().invoke(cli, ["upscale", str(picture), "--out", str(tmp_path / "d.png")])
    assert plain.exit_code == 0 and Image.open(tmp_path / "d.png").size == (80, 60)
    wrong = CliRunner().invoke(cli, ["upscale", str(picture), "--upscaler", "4x-smal"])
    assert wrong.exit_code != 0 and "did you mean '4x-small'?" in wrong.output
    missing = CliRunner().invoke(cli, ["upscale", str(picture), "--upscaler", str(tmp_path / "4x-smal.pth")])
    assert missing.exit_code != 0 and "did you mean" in missing.output and "Traceback" not in missing.output


# --- hires fix --------------------------------------------------------------------------------------------------------

TINY = {"model": "embedded-fast", "steps": 1, "width": 64, "height": 64, "seed": 3}


def test_hires_by_a_file(upscaler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hires = {"scale": 2, "strength": 0.5, "upscaler": str(upscaler)}
    made = generate_image("a red apple", hires=hires, **TINY)
    plain = generate_image("a red apple", hires={**hires, "upscaler": "Lanczos"}, **TINY)
    assert made.size == (128, 128) and made.tobytes() != plain.tobytes()
    assert "Hires upscaler: 4x-small" in made.info["parameters"] and str(upscaler.parent) not in made.info["parameters"]
    monkeypatch.setenv("STABLE_DIFFUSION_UPSCALERS", str(upscaler.parent))
    assert Request.like(made).hires.upscaler == str(upscaler)  # type: ignore[union-attr]
    assert generate_image("a red apple", hires={**hires, "upscaler": "4x-small"}, **TINY).tobytes() == made.tobytes()


def test_hires_upscalers_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'Lanczos'"):
        Request("a", hires={"upscaler": "Lanczo"})
    with pytest.raises(ModelFileError, match=r"gone\.pth"):
        generate_image("a red apple", hires={"upscaler": str(tmp_path / "gone.pth")}, **TINY)


def test_json_takes_no_paths_of_upscalers(upscaler: Path) -> None:
    request = Request("a", hires={"upscaler": str(upscaler)})
    assert from_json(to_json(request)) == request
    with pytest.raises(InvalidRequest, match="paths are not taken here"):
        from_json(to_json(request), files=False)

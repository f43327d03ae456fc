"""Quality: equal sets are at distance 0, a known shift at its square; an autoencoder with a known error shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_fakes import SIDE, FakeEye, FakePainter, identity_autoencoder, obedient, picture_of, record, write_pack
from torch import Tensor

from stable_diffusion.data.similarity import CEILING
from stable_diffusion.evaluation.bench import Bench, Plan
from stable_diffusion.evaluation.clip_eye import load_clip_eye
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.evaluation.report import Quality
from stable_diffusion.evaluation.sections.quality import measure
from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig
from stable_diffusion.weights.containers.safetensors import write_safetensors
from stable_diffusion.weights.networks.clip_vision import clip_vision_transformers

NAMES = [f"thing {k}" for k in range(30)]
PLAN = Plan(painted=30, held_out=30, training=30, reconstructed=5)


def flat(value: float) -> Tensor:
    return torch.full((4, SIDE, SIDE), value)


def pack(folder: Path, held_out: Any = picture_of, train: Any = picture_of) -> PicturePack:
    """30 held-out pictures, and 30 training pictures of the same names."""
    held = [(record(k, "heldout", name), held_out(name)) for k, name in enumerate(NAMES)]
    return write_pack(folder, held + [(record(k, "train", name), train(name)) for k, name in enumerate(NAMES)])


def found(pack: PicturePack, make: Any = obedient, model: Any = None, eye: Any = None) -> tuple[Quality, Bench]:
    bench = Bench(painter=FakePainter(make, model), plan=PLAN, pack=pack, eye=FakeEye() if eye is None else eye)
    result = measure(bench)
    assert result is not None
    return result, bench


def test_a_painter_of_the_held_out_pictures_is_at_distance_zero(tmp_path: Path) -> None:
    result, _ = found(pack(tmp_path))
    assert result.frechet is not None and result.frechet < 1e-9
    assert result.frechet_of_training is not None and result.frechet_of_training < 1e-9
    assert result.painted == result.held_out == 30 and result.reconstructed == 5


def test_a_shift_is_seen_as_its_square(tmp_path: Path) -> None:
    """The features are the means of the channels: one is 0.1 higher in what is painted, another 0.2 in training."""

    def shifted(channel: int, by: float) -> Any:
        def make(prompt: str, seed: int = 0, settings: Mapping[str, Any] | None = None) -> Tensor:
            picture = picture_of(prompt).clone() * 0.5
            picture[channel] += by
            return picture

        return make

    result, _ = found(pack(tmp_path, shifted(0, 0.0), shifted(2, 0.2)), shifted(1, 0.1))
    assert result.frechet is not None and math.isclose(result.frechet, 0.01, rel_tol=0.05)
    assert result.frechet_of_training is not None and math.isclose(result.frechet_of_training, 0.04, rel_tol=0.05)


def test_kernel_distance_of_single_points(tmp_path: Path) -> None:
    """All pictures of a set are one, so that the distance is k(x, x) + k(y, y) - 2 k(x, y), k = (x.y / 4 + 1)^3."""
    low, high = 51 / 255, 204 / 255
    result, _ = found(pack(tmp_path, lambda name: flat(low), lambda name: flat(low)), lambda *_: flat(high))

    def kernel(x: float, y: float) -> float:
        return (x * y + 1) ** 3

    expected = kernel(low, low) + kernel(high, high) - 2 * kernel(low, high)
    assert result.kernel is not None and math.isclose(result.kernel, expected, rel_tol=1e-5)
    assert result.kernel_of_training is not None and math.isclose(result.kernel_of_training, 0.0, abs_tol=1e-9)


def test_an_autoencoder_that_changes_nothing(tmp_path: Path) -> None:
    result, _ = found(pack(tmp_path))
    assert result.psnr is not None and result.psnr > 90  # premultiplied and back in float32
    assert result.ssim is not None and math.isclose(result.ssim, 1.0, abs_tol=1e-6) and result.alpha_iou == 1.0
    exact, _ = found(pack(tmp_path / "flat", lambda name: torch.ones(4, SIDE, SIDE)))
    assert exact.psnr == CEILING and math.isclose(exact.ssim, 1.0, abs_tol=1e-9) and exact.alpha_iou == 1.0


def test_an_autoencoder_with_a_known_error(tmp_path: Path) -> None:
    """Opaque grey that comes back 0.1 lighter: 20 dB; the SSIM of two flat greys in closed form."""
    grey = torch.cat([torch.full((3, SIDE, SIDE), 102 / 255), torch.ones(1, SIDE, SIDE)])
    result, _ = found(pack(tmp_path, lambda name: grey), model=identity_autoencoder(error=0.1))
    assert result.psnr is not None and math.isclose(result.psnr, 20.0, abs_tol=1e-3)
    expected = (2 * 0.4 * 0.5 + 1e-4) / (0.4**2 + 0.5**2 + 1e-4)
    assert result.ssim is not None and math.isclose(result.ssim, expected, rel_tol=1e-4)
    assert result.alpha_iou == 1.0


def test_alpha_that_is_lost_and_alpha_that_is_half_there(tmp_path: Path) -> None:
    half = torch.ones(4, SIDE, SIDE)
    half[3, :2] = 0.0  # three quarters are opaque; an autoencoder that makes all opaque overlaps in 3 of 4
    result, _ = found(pack(tmp_path, lambda name: half), model=identity_autoencoder(alpha_error=1.0))
    assert result.alpha_iou is not None and math.isclose(result.alpha_iou, 0.75, rel_tol=1e-6)
    lost, _ = found(pack(tmp_path / "lost", lambda name: half), model=identity_autoencoder(alpha_error=-1.0))
    assert lost.alpha_iou == 0.0


def test_a_pack_without_training_pictures_leaves_their_numbers_out(tmp_path: Path) -> None:
    held = [(record(k, "heldout", name), picture_of(name)) for k, name in enumerate(NAMES)]
    result, bench = found(write_pack(tmp_path, held))
    assert result.frechet is not None and result.frechet_of_training is None and result.kernel_of_training is None
    assert "Fréchet and kernel distance of training pictures" in [item.what for item in bench.left_out]


def test_a_pack_that_holds_nothing_out(tmp_path: Path) -> None:
    train = [(record(k, "train", name), picture_of(name)) for k, name in enumerate(NAMES)]
    result, bench = found(write_pack(tmp_path, train))
    assert result == Quality()
    assert {"reconstruction", "Fréchet and kernel distance"} <= {item.what for item in bench.left_out}


class FakeClip:
    """Embeddings are the channels' means."""

    def look(self, pictures: Tensor) -> Tensor:
        return pictures.mean(dim=(2, 3))


def test_distances_in_clip_s_eyes(tmp_path: Path) -> None:
    """All pictures of a set are one: the squared distance, and CMMD in closed form; the tower is not needed."""
    low = torch.tensor([51.0, 0.0, 0.0, 0.0])[:, None, None].expand(4, SIDE, SIDE) / 255
    high = torch.tensor([0.0, 102.0, 0.0, 0.0])[:, None, None].expand(4, SIDE, SIDE) / 255
    painter = FakePainter(lambda *_: high)
    made = Bench(painter=painter, plan=PLAN, pack=pack(tmp_path, lambda name: low, lambda name: low), clip=FakeClip())  # type: ignore[arg-type]
    result = measure(made)
    assert result is not None and result.frechet is None and result.kernel is None
    assert result.frechet_clip is not None and math.isclose(result.frechet_clip, 0.2**2 + 0.4**2, rel_tol=1e-5)
    assert result.cmmd_clip is not None and math.isclose(result.cmmd_clip, 2000 * (1 - math.exp(-0.01)), rel_tol=1e-5)
    assert result.frechet_clip_of_training is not None and result.frechet_clip_of_training < 1e-9
    assert result.cmmd_clip_of_training is not None and abs(result.cmmd_clip_of_training) < 1e-9


def test_clip_sees_pictures_over_white(tmp_path: Path) -> None:
    """What is transparent has no colour; the size and the range are the encoder's own."""
    config = CLIPVisionConfig(image_size=8, patch_size=4, width=16, layers=1, heads=16, mlp_width=8, projection_dim=3)
    torch.manual_seed(1)
    network = CLIPVision(config).eval()
    path = tmp_path / "clip.safetensors"
    write_safetensors(path, clip_vision_transformers(config).invert(network.state_dict()), {})
    eye = load_clip_eye(path)
    hidden, white = torch.rand(2, 4, 20, 20), torch.ones(2, 3, 20, 20)
    hidden[:, 3] = 0.0
    assert eye.look(hidden).shape == (2, 3) and eye.name == "clip"
    torch.testing.assert_close(eye.look(hidden), eye.look(white))


@pytest.mark.parametrize("given", ["neither", "pack"])
def test_what_is_missing_is_said(tmp_path: Path, given: str) -> None:
    there = pack(tmp_path) if given == "pack" else None
    bench = Bench(painter=FakePainter(obedient), plan=PLAN, pack=there)
    result = measure(bench)
    assert (result is None) == (there is None)
    assert result is None or (result.psnr is not None and result.frechet is None)
    assert bench.left_out[0].what == ("quality" if there is None else "Fréchet and kernel distance")

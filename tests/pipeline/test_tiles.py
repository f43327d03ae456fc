"""Pictures decoded in tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stable_diffusion.engine.memory import available_memory, is_out_of_memory, peak_memory
from stable_diffusion.latents import LatentFormat
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.pipeline import codec
from stable_diffusion.pipeline.codec import ImageDecoder
from stable_diffusion.pipeline.tasks.tiles import decode_tiled, decoding_bytes

CONFIG = VAEConfig(channels=(8, 8), blocks_per_stage=1, groups=4, mid_attention=False)


def enlarge(latent: Tensor) -> Tensor:
    return F.interpolate(latent, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (17, 40), (64, 33)])
def test_tiles_of_a_local_decoder_are_the_whole_picture(size: tuple[int, int]) -> None:
    latent = torch.randn(1, 3, *size)
    assert torch.allclose(decode_tiled(enlarge, latent, 2, tile=16), enlarge(latent), atol=1e-6)


def test_no_tile_is_larger_than_asked() -> None:
    seen: list[tuple[int, ...]] = []

    def decode(latent: Tensor) -> Tensor:
        seen.append(tuple(latent.shape[-2:]))
        return enlarge(latent)

    decode_tiled(decode, torch.randn(1, 3, 40, 20), 2, tile=16)
    assert len(seen) > 2 and all(max(shape) <= 16 for shape in seen)


def decoder() -> ImageDecoder:
    torch.manual_seed(0)
    return ImageDecoder(VAE(CONFIG).eval().requires_grad_(False), LatentFormat(channels=4, downscale=2, scale=1.0))


def test_a_decoder_without_memory_goes_on_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = decoder(), []
    whole = made.vae.decode

    def limited(latent: Tensor) -> Tensor:
        calls.append(latent.shape[-1])
        if latent.shape[-1] > 32:
            raise torch.OutOfMemoryError("out of memory")
        return whole(latent)

    monkeypatch.setattr(made.vae, "decode", limited)
    with pytest.warns(UserWarning, match="decoded in tiles: there is not enough memory"):
        picture = made.tensor(torch.randn(1, 4, 96, 96))
    assert picture.shape == (1, 3, 192, 192) and calls[0] == 96 and 32 in calls


def test_an_estimate_beyond_what_is_free_means_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    made, latent = decoder(), torch.randn(1, 4, 80, 80)
    monkeypatch.setattr(codec, "SMALL", 0)
    monkeypatch.setattr(codec, "available_memory", lambda device: 1000)
    with pytest.warns(UserWarning, match="GiB of memory are free"):
        tiled = made.tensor(latent)
    made.tiling = "never"
    assert not torch.equal(tiled, made.tensor(latent))
    made.tiling = "always"
    assert torch.equal(tiled, made.tensor(latent))


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoder()

    def broken(latent: Any) -> Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(made.vae, "decode", broken)
    with pytest.raises(RuntimeError, match="something else"):
        made.tensor(torch.randn(1, 4, 8, 8))


def test_the_estimate_grows_with_the_area_and_memory_is_known() -> None:
    assert decoding_bytes(VAEConfig(), 128, 128, 2) == 4 * decoding_bytes(VAEConfig(), 64, 64, 2)
    assert 2**29 < decoding_bytes(VAEConfig(), 64, 64, 4) < 2**31
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shape"))
    free, peak = available_memory(torch.device("cpu")), peak_memory()
    assert free is None or free > 0
    assert peak is None or peak > 2**25

"""Cross-attention maps: what is recorded, and that the network is left as it was."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.attention import AttentionMaps, record_attention
from stable_diffusion.pipeline.models import StableDiffusion


def test_maps_are_shares_of_one(tiny_model: StableDiffusion) -> None:
    with record_attention(tiny_model.parts.unet) as maps:
        list(tiny_model.denoising_process("a red cat", seed=1, size=(6, 10)))
    assert maps.count == 3 * 4  # steps times cross-attentions: one down, one in the middle, two up
    assert torch.allclose(maps.heat(range(77)), torch.ones(6, 10), atol=1e-5)
    heats = [maps.heat(word.positions) for word in tiny_model.text_encoder.words("a red cat")]
    assert all(heat.shape == (6, 10) and float(heat.min()) > 0 for heat in heats)
    assert float((heats[1] - heats[2]).abs().max()) > 1e-4


def test_recording_changes_nothing_and_goes_away(tiny_native_model: StableDiffusion) -> None:
    def last() -> torch.Tensor:
        *_, step = tiny_native_model.denoising_process("a cat", seed=1)
        return step.x

    before = last()
    with record_attention(tiny_native_model.parts.unet) as maps:
        during = last()
    count = maps.count
    assert torch.equal(before, during) and torch.equal(before, last()) and maps.count == count > 0


def test_the_prompt_is_recorded_and_not_the_negative_one(tiny_model: StableDiffusion) -> None:
    def heat(negative: str, guidance: float) -> torch.Tensor:
        with record_attention(tiny_model.parts.unet) as maps:
            next(tiny_model.denoising_process("a red cat", negative, seed=1, guidance=guidance))
        return maps.heat([2])

    alone = heat("", 1.0)
    for negative in ("a dog", "dog " * 100):
        assert torch.allclose(heat(negative, 5.0), alone, atol=1e-6)


def test_maps_of_another_resolution_are_scaled() -> None:
    maps = AttentionMaps()
    coarse = torch.tensor([0.2, 0.8]).expand(1, 2, 1, 2)  # [B, heads, h w = 1, T]
    maps.add(coarse, (1, 1))
    fine = torch.full((1, 2, 4, 2), 0.5)
    maps.add(fine, (2, 2))
    assert torch.allclose(maps.heat([1]), torch.full((2, 2), 0.65))


def test_bad_questions() -> None:
    with pytest.raises(InvalidRequest, match="no attention was recorded"):
        AttentionMaps().heat([1])
    maps = AttentionMaps()
    maps.add(torch.ones(1, 1, 1, 3), (1, 1))
    for wrong in ([], [3], [-1]):
        with pytest.raises(InvalidRequest, match="expected numbers below 3"):
            maps.heat(wrong)

"""Philox against the published vectors, and the numbers of an NVIDIA card."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stable_diffusion.diffusion.noise import NOISE_KINDS, noise_streams
from stable_diffusion.diffusion.philox import PhiloxStream, philox
from stable_diffusion.diffusion.samplers import SOLVERS, noise_source
from stable_diffusion.diffusion.schedule import ddpm_schedule
from stable_diffusion.errors import InvalidRequest

ONES = 0xFFFFFFFF
SIZE = (4, 5, 7)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_vectors_of_random123(counter: tuple, key: tuple, wanted: tuple) -> None:
    """The known answers that come with the authors' library, for philox4x32 with 10 rounds."""
    found = philox(np.array(counter, dtype=np.uint32).reshape(4, 1), key)
    assert tuple(int(word) for word in found[:, 0]) == wanted


def test_the_numbers_of_a_card() -> None:
    """torch.manual_seed(0); torch.randn(4, device="cuda")."""
    wanted = torch.tensor([-0.9247, -0.4253, -2.6438, 0.1452])
    torch.testing.assert_close(PhiloxStream(0).normal((4,)), wanted, atol=5e-5, rtol=0)


def test_each_draw_is_new_and_standard_normal() -> None:
    stream, again = PhiloxStream(2**40 + 7), PhiloxStream(2**40 + 7)
    first, second = stream.normal((1, 200, 200)), stream.normal((1, 200, 200))
    assert first.dtype == torch.float32 and torch.equal(again.normal((1, 200, 200)), first)
    assert not torch.equal(PhiloxStream(7).normal((1, 200, 200)), first)  # the seed's high word counts
    for draw in (first, second):
        assert abs(float(draw.mean())) < 4.5 / 200 and abs(float(draw.std()) - 1) < 4.5 / 283
    assert abs(float((first * second).mean())) < 4.5 / 200


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_a_batch_holds_each_image_alone_whatever_the_source(name: str, kind: str) -> None:
    def source(seeds: list[int], delta: int = 0):
        return noise_source(SOLVERS[name], seeds, SIZE, ddpm_schedule(), kind=kind, seed_delta=delta)

    both, alone, moved = source([3, 4]), source([4]), source([4], 31337)
    assert torch.equal(both.start()[1], alone.start()[0]) and torch.equal(moved.start(), alone.start())
    later = alone(2.0, 1.0)
    assert torch.equal(both(2.0, 1.0)[1], later[0]) and not torch.equal(moved(2.0, 1.0), later)


def test_later_noise_of_a_seed_delta_is_that_of_the_other_seed() -> None:
    moved = noise_source(SOLVERS["euler_ancestral"], [4], SIZE, ddpm_schedule(), kind="nv", seed_delta=10)
    assert torch.equal(moved(2.0, 1.0)[0], PhiloxStream(14).normal(SIZE))
    cpu = noise_source(SOLVERS["ddim"], [2**64 - 1], SIZE, ddpm_schedule(), seed_delta=3)
    assert torch.equal(cpu(2.0, 1.0)[0], torch.randn(SIZE, generator=torch.Generator().manual_seed(2)))


def test_bad_input() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'cpu'"):
        noise_streams([1], SIZE, "cpus")  # type: ignore[arg-type]

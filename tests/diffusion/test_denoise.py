"""Network wrapper, guidance, inpainting."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from closed_form import SCHEDULES
from torch import Tensor

from stable_diffusion.diffusion.denoise import by_step, guided, network_denoiser, sigma_interval
from stable_diffusion.diffusion.inpaint import inpainting
from stable_diffusion.diffusion.noise import PerImageNoise
from stable_diffusion.diffusion.samplers import SOLVERS, noise_source, sample
from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule, start_state
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.types import Conditioning, Estimate

DDPM = ddpm_schedule()


class Recorder:
    """A network that keeps what it was given; its answer depends on every input."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, x: Tensor, timestep: Tensor, tokens: Tensor, *, vector: Tensor | None = None) -> Tensor:
        self.calls.append({"x": x, "timestep": timestep, "tokens": tokens, "vector": vector})
        bias = tokens.float().mean((1, 2)).reshape(-1, 1, 1, 1) + timestep.reshape(-1, 1, 1, 1) / 1000
        return (0.5 * x[:, :4].float() + bias).to(x.dtype)


def words(value: float, rows: int = 1, length: int = 3, **more: Tensor) -> Conditioning:
    return Conditioning(tokens=torch.full((rows, length, 6), value), **more)


def test_network_sees_scaled_state_timestep_and_extra_channels() -> None:
    network = Recorder()
    x, image = torch.randn(2, 4, 3, 5), torch.randn(2, 5, 3, 5)
    vector = torch.randn(2, 7)
    sigma = DDPM.sigma(torch.tensor([100.0, 900.0]))
    found = network_denoiser(network, DDPM, "eps")(x, sigma, words(0.1, 2, image=image, vector=vector))
    call = network.calls[0]
    scale = (1 / (1 + sigma**2).sqrt()).reshape(2, 1, 1, 1)
    torch.testing.assert_close(call["x"], torch.cat([x * scale, image], dim=1))
    assert call["timestep"].tolist() == [100, 900] and torch.equal(call["vector"], vector)
    eps = 0.5 * x * scale + 0.1 + torch.tensor([0.1, 0.9]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(found, x - sigma.reshape(2, 1, 1, 1) * eps)


def test_network_of_a_flow_sees_the_state_itself() -> None:
    network = Recorder()
    x = torch.randn(1, 4, 3, 5)
    network_denoiser(network, FlowSchedule(3.0), "flow")(x, torch.tensor([0.7]), words(0.0))
    assert torch.equal(network.calls[0]["x"], x) and network.calls[0]["timestep"].item() == pytest.approx(700)


def test_low_precision_stays_inside_the_network() -> None:
    network = Recorder()
    denoise = network_denoiser(network, DDPM, "v", dtype=torch.bfloat16)
    x = torch.randn(1, 4, 3, 5)
    found = denoise(x, torch.tensor([2.0]), words(0.3))
    assert network.calls[0]["x"].dtype == torch.bfloat16 and network.calls[0]["tokens"].dtype == torch.bfloat16
    assert found.dtype == torch.float32
    exact = network_denoiser(network, DDPM, "v")(x, torch.tensor([2.0]), words(0.3))
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_guidance_of_x0_is_guidance_of_the_output(prediction: Any) -> None:
    network = Recorder()
    base = network_denoiser(network, DDPM, prediction)
    x, sigma = torch.randn(2, 4, 3, 5), torch.tensor([1.3, 1.3])
    found, unguided = guided(base, words(0.4), words(-0.2), 7.5)(x, sigma)
    assert len(network.calls) == 1 and len(network.calls[0]["x"]) == 4  # one batched call
    outputs = [base.output(base(x, sigma, words(w, 2)), x, sigma) for w in (0.4, -0.2)]
    mixed = outputs[1] + 7.5 * (outputs[0] - outputs[1])
    torch.testing.assert_close(found, base.x0(mixed, x, sigma), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unguided, base(x, sigma, words(-0.2, 2)))


@pytest.mark.parametrize(("scale", "value"), [(1.0, 0.4), (0.0, -0.2)])
def test_scales_one_and_zero_skip_a_branch(scale: float, value: float) -> None:
    network = Recorder()
    base = network_denoiser(network, DDPM, "eps")
    x, sigma = torch.randn(2, 4, 3, 5), torch.ones(2)
    found = guided(base, words(0.4), words(-0.2), scale)(x, sigma)
    assert [len(call["x"]) for call in network.calls] == [2]
    assert torch.equal(found.x0, base(x, sigma, words(value, 2))) and found.unguided is found.x0


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_paired_guidance_knows_the_unguided_estimate_at_every_scale(scale: float) -> None:
    network = Recorder()
    base = network_denoiser(network, DDPM, "eps")
    x, sigma = torch.randn(2, 4, 3, 5), torch.ones(2)
    found = guided(base, words(0.4), words(-0.2), scale, paired=True)(x, sigma)
    assert [len(call["x"]) for call in network.calls] == [4]
    torch.testing.assert_close(found.x0, guided(base, words(0.4), words(-0.2), scale)(x, sigma).x0)
    torch.testing.assert_close(found.unguided, base(x, sigma, words(-0.2, 2)))


def test_different_token_counts_go_in_two_calls_with_the_same_answer() -> None:
    network = Recorder()
    base = network_denoiser(network, DDPM, "eps")
    x, sigma = torch.randn(2, 4, 3, 5), torch.ones(2)
    split = guided(base, words(0.4, length=6), words(-0.2, length=3), 3.0)(x, sigma).x0
    assert [call["tokens"].shape[1] for call in network.calls] == [6, 3]
    torch.testing.assert_close(split, guided(base, words(0.4), words(-0.2), 3.0)(x, sigma).x0)


def test_interval_guides_inside_and_uses_the_prompt_alone_outside() -> None:
    network = Recorder()
    base = network_denoiser(network, DDPM, "eps")
    denoise = guided(base, words(0.4), words(-0.2), 5.0, interval=(0.5, 2.0))
    plain, full = guided(base, words(0.4), None, 1.0), guided(base, words(0.4), words(-0.2), 5.0)
    x = torch.randn(3, 4, 3, 5)
    network.calls.clear()
    for level, expected in ((0.5, plain), (0.51, full), (2.0, full), (2.1, plain)):
        sigma = torch.full((3,), level)
        found, wanted = denoise(x, sigma), expected(x, sigma)
        assert all(map(torch.equal, found, wanted))
    assert [len(call["x"]) for call in network.calls] == [3, 3, 6, 6, 6, 6, 3, 3]
    mixed = torch.tensor([0.1, 1.0, 9.0])
    for found, outside, inside in zip(denoise(x, mixed), plain(x, mixed), full(x, mixed), strict=True):
        torch.testing.assert_close(found, torch.stack([outside[0], inside[1], outside[2]]))


def test_interval_from_fractions_of_the_steps() -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    assert sigma_interval(sigmas, 0.0, 1.0) == (0.0, 8.0)
    assert sigma_interval(sigmas, 0.25, 0.75) == (1.0, 4.0)  # steps 1 and 2, at sigma 4 and 2
    assert sigma_interval(sigmas, 0.2, 0.3) == (2.0, 4.0)
    with pytest.raises(InvalidRequest, match="none of 4 steps"):
        sigma_interval(sigmas, 0.3, 0.4)


def test_rescale_restores_the_spread_of_the_network_output() -> None:
    """Lin et al.'s equations on the outputs, as diffusers' guidance_rescale."""
    base = network_denoiser(Recorder(), DDPM, "v")
    x, sigma = torch.randn(2, 4, 6, 5), torch.tensor([3.0, 3.0])
    cond = Conditioning(tokens=torch.randn(2, 3, 6))
    found = guided(base, cond, words(0.0), 9.0, rescale=0.7)(x, sigma).x0
    positive = base.output(base(x, sigma, cond), x, sigma)
    mixed = base.output(guided(base, cond, words(0.0), 9.0)(x, sigma).x0, x, sigma)
    factor = positive.std((1, 2, 3), keepdim=True) / mixed.std((1, 2, 3), keepdim=True)
    expected = base.x0(0.7 * mixed * factor + 0.3 * mixed, x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    wrapped = guided(lambda *a: base(*a), cond, words(0.0), 9.0, rescale=0.7, space=base)(x, sigma).x0
    assert torch.equal(wrapped, found)
    alone = guided(base, cond.at(1), words(0.0), 9.0, rescale=0.7)(x[1:], sigma[1:]).x0
    assert torch.equal(alone, found[1:])


def test_rescale_of_a_bare_denoiser_is_measured_on_x0() -> None:
    def bare(x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        return x * conditioning.tokens.mean((1, 2)).reshape(-1, 1, 1, 1)

    x = torch.randn(1, 4, 6, 5)
    found = guided(bare, words(1.0), words(0.5), 3.0, rescale=1.0)(x, torch.ones(1)).x0
    torch.testing.assert_close(found, x)  # mixed is 2 x, whose spread goes back to that of x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: guided(b, words(0.1), words(0.2), math.nan), "guidance nan"),
        (lambda b: guided(b, words(0.1), None, 7.5), "negative conditioning"),
        (lambda b: guided(b, words(0.1), words(0.2), 7.5, rescale=1.5), "rescale 1.5"),
        (lambda b: guided(b, words(0.1), words(0.2), 7.5, rescale=math.nan), "rescale nan"),
        (lambda b: guided(b, words(0.1), words(0.2), 7.5, interval=(2.0, 1.0)), "interval"),
        (lambda b: guided(b, words(0.1), words(0.2), 7.5, interval=(0.0, math.nan)), "interval"),
        (lambda b: guided(b, words(0.1, 2), words(0.2), 7.5)(torch.zeros(3, 4, 2, 2), torch.ones(3)), "2 rows for 3"),
        (lambda b: sigma_interval(torch.tensor([1.0, 0.0]), 0.5, 0.5), "0 <= start < end"),
        (
            lambda b: inpainting(
                b, torch.zeros(1, 4, 2, 2), torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 4, 2, 2), DDPM
            ),
            "mask",
        ),
        (
            lambda b: inpainting(b, torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 2, 3), torch.zeros(1, 4, 2, 2), DDPM),
            "do not fit",
        ),
        (
            lambda b: inpainting(b, torch.zeros(1, 4, 2, 2), torch.zeros(2, 2), torch.zeros(1, 4, 2, 2), DDPM),
            "do not fit",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make(network_denoiser(Recorder(), DDPM, "eps"))


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_sampler_ends_on_the_known_latent_outside_the_mask(name: str, kind: str) -> None:
    schedule = SCHEDULES[kind]
    latent = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 6, 5)
    mask[..., 2:4, 1:] = 1
    source = noise_source(SOLVERS[name], [1, 2], (4, 6, 5), schedule)
    sigmas = torch.tensor([schedule.sigma_max, 0.6, 0.3, 0.1, 0.0])
    x = start_state(schedule, source.start(), sigmas[0], latent)
    denoise = inpainting(lambda x, sigma: Estimate.plain(x * 0.1 + 5.0), latent, mask, source.start(), schedule)
    *_, last = sample(name, denoise, x, sigmas, schedule, noise=source)
    # all but plms return x0 in the step to 0; it extrapolates, and rounding of a state near sigma 15 remains
    tolerance = 2e-4 if name == "plms" else 1e-6
    torch.testing.assert_close(last.x * (1 - mask), latent * (1 - mask), rtol=0, atol=tolerance)
    assert float(last.x[..., 2:4, 1:].mean()) > 3  # and it did paint inside


def test_inpainting_puts_the_known_latent_back_at_the_current_level() -> None:
    latent, noise = torch.randn(1, 2, 3, 4), PerImageNoise([1], (2, 3, 4)).start()
    mask = torch.tensor([0.0, 1.0, 0.5, 0.0]).reshape(1, 1, 1, 4).expand(1, 1, 3, 4)
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Estimate:
        seen.append(x)
        return Estimate(torch.full_like(x, 9.0), torch.full_like(x, 7.0))

    x = torch.randn(1, 2, 3, 4)
    found = inpainting(denoise, latent, mask, noise, SCHEDULES["flow"])(x, torch.tensor([0.3]))
    known = 0.7 * latent + 0.3 * noise
    torch.testing.assert_close(seen[0], x * mask + known * (1 - mask))
    torch.testing.assert_close(found.x0, 9.0 * mask + latent * (1 - mask))
    torch.testing.assert_close(found.unguided, 7.0 * mask + latent * (1 - mask))
    assert len(seen) == 1


def test_an_estimate_of_one_tensor_stays_one() -> None:
    both = torch.randn(1, 2, 3, 4)
    mapped, pair = Estimate.plain(both).map(lambda x0: x0 * 2), Estimate(both, both + 1).map(lambda x0: x0 * 2)
    assert mapped.unguided is mapped.x0 and torch.equal(mapped.x0, both * 2)
    assert torch.equal(pair.x0, both * 2) and torch.equal(pair.unguided, both * 2 + 2)


def test_each_stretch_of_steps_has_its_own_denoiser() -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    parts = [(k, lambda x, sigma, k=k: Estimate(x * 0 + k, x * 0 - k)) for k in (1, 3, 4)]
    denoise, x = by_step(parts, sigmas), torch.zeros(1, 1, 1, 1)
    levels = {8.0: 1, 4.1: 1, 4.0: 3, 3.0: 3, 2.0: 3, 1.5: 3, 1.0: 4, 0.5: 4, 9.0: 1}
    for level, wanted in levels.items():
        assert tuple(float(value) for value in denoise(x, torch.tensor([level]))) == (wanted, -wanted), level
    for wrong in ([], parts[::-1], [parts[0], parts[0]]):
        with pytest.raises(InvalidRequest, match="rising numbers"):
            by_step(wrong, sigmas)

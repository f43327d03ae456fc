"""The training objective: random times, their weights, and the squared error of the network's answer.

Rectified flow in our convention: x = (1 - sigma) x0 + sigma noise, target noise - x0.

Shapes: B batch, C channels, H W latent size, T tokens, D token width, V vector width.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import InvalidRequest, unknown_choice
from ..types import Schedule
from .prediction import Network, Prediction, output_gain, target
from .schedule import DiscreteSchedule, FlowSchedule, add_gaussian_noise

Times: TypeAlias = Literal["uniform", "logit_normal"]
Weighting: TypeAlias = Literal["none", "min_snr"]


def draw_times(
    count: int,
    distribution: Times = "uniform",
    *,
    mean: float = 0.0,
    std: float = 1.0,
    stratified: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Random times in (0, 1), float32 [count]; 0 is the picture, 1 is noise.

    logit_normal: sigmoid(mean + std z), z standard normal (Esser et al. 2024, arXiv:2403.03206, section 3.1).
    `stratified`: one draw per stratum of equal probability, in random order of strata (Kingma et al. 2021,
    arXiv:2107.00630, appendix I.1, spread the times likewise), which lowers the variance of the batch's loss.
    """
    if count < 1:
        raise InvalidRequest(f"{count} times: expected at least 1")
    uniform = torch.rand(count, generator=generator, device=device)
    if stratified:
        order = torch.randperm(count, generator=generator, device=device)
        uniform = (order + uniform) / count
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    if distribution == "uniform":
        return uniform
    if distribution == "logit_normal":
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise InvalidRequest(f"logit-normal times of mean {mean} and std {std}: expected finite, std above 0")
        return torch.sigmoid(mean + std * torch.special.ndtri(uniform))
    raise unknown_choice("distribution of times", distribution, ["uniform", "logit_normal"])


def to_timestep(schedule: DiscreteSchedule | FlowSchedule, time: Tensor) -> Tensor:
    """Times in (0, 1) [B] -> timesteps [B] as the network takes them.

    DDPM: whole numbers 0 .. N-1, each an equal share of time. Flow: N times the shifted time.
    """
    if isinstance(schedule, FlowSchedule):
        return schedule.timestep(schedule.shifted(time))
    return (time * schedule.timesteps).floor().clamp(0, schedule.timesteps - 1)


def with_high_noise(
    schedule: DiscreteSchedule | FlowSchedule,
    timestep: Tensor,
    share: float,
    lowest: float,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`timestep` [B] with the first round(share B) of them drawn again, evenly from `lowest` (0 to 1) to pure noise.

    What a picture shows is settled at the highest noise levels, which a logit-normal distribution visits least. The
    draws are stratified like those of `draw_times`. `lowest` is a noise level as the network reads it: timestep /
    number of timesteps, whatever shift the schedule has.
    """
    count = round(share * len(timestep))
    if count == 0:
        return timestep
    time = draw_times(count, "uniform", stratified=True, generator=generator, device=timestep.device)
    high = (lowest + (1 - lowest) * time) * schedule.timesteps
    if isinstance(schedule, DiscreteSchedule):
        high = high.floor().clamp(0, schedule.timesteps - 1)
    return torch.cat([high.to(timestep), timestep[count:]])


def min_snr_weight(prediction: Prediction, schedule: Schedule, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """Weights [B] of the squared output error so that the x0 error is weighted with min(SNR, gamma) (Hang et al. 2023,
    arXiv:2303.09556, section 3.4): min(SNR, gamma) / SNR for eps, / (SNR + 1) for v, times sigma^2 for flow."""
    snr = (schedule.alpha(sigma) / sigma) ** 2  # inf at the picture, 0 at a flow's pure noise
    if prediction == "eps":
        return (gamma / snr).clamp(max=1)  # the same, without 0 * inf at pure noise
    return snr.clamp(max=gamma) * output_gain(prediction, sigma, schedule) ** 2


def diffusion_loss(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    x0: Tensor,
    noise: Tensor,
    timestep: Tensor,
    tokens: Tensor,
    *,
    vector: Tensor | None = None,
    weighting: Weighting = "none",
    gamma: float = 5.0,
) -> Tensor:
    """Mean squared error of the network's answer, one number per image, float32 [B].

    x0, noise [B,C,H,W]; timestep [B] (see `to_timestep`); tokens [B,T,D]. The error is taken in float32 whatever the
    precision of the network.
    """
    sigma = schedule.sigma(timestep.to(torch.float32))
    noisy = add_gaussian_noise(schedule, x0, sigma, noise, variance_preserving=True)
    output = network(noisy, timestep, tokens, vector=vector)
    if output.shape != x0.shape:
        raise InvalidRequest(f"network output of shape {tuple(output.shape)}: expected {tuple(x0.shape)}")
    wanted = target(prediction, x0.float(), noise.float(), sigma, schedule)
    loss = (output.float() - wanted).square().flatten(1).mean(dim=1)
    if weighting == "none":
        return loss
    if weighting == "min_snr":
        return loss * min_snr_weight(prediction, schedule, sigma, gamma)
    raise unknown_choice("weighting", weighting, ["none", "min_snr"])

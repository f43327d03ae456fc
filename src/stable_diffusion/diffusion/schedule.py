"""Noise schedules: how much noise belongs to which timestep, and the forward process that adds it.

Every state is x = alpha(sigma) * x0 + sigma * noise. DDPM models (Ho et al. 2020, arXiv:2006.11239) are written in
variance-exploding coordinates (Karras et al. 2022, arXiv:2206.00364): alpha = 1 and
sigma(t) = sqrt((1 - abar_t) / abar_t), which is the classical sqrt(abar) x0 + sqrt(1 - abar) eps divided by sqrt(abar).
EDM models have continuous levels of the same coordinates and are given 0.25 log sigma for a timestep (`EDMSchedule`).
Flow models (Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206) have alpha = 1 - sigma.

Shapes: B batch, C channels, H W latent height and width, N number of training timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import InvalidRequest, unknown_choice
from ..types import Schedule

BetaKind: TypeAlias = Literal["linear", "scaled_linear", "cosine"]

SMALLEST_ALPHA_CUMPROD = 2.0**-24
"""Zero terminal SNR means abar = 0 and an infinite sigma at the last timestep. There abar is raised to this value, so
that sigma_max = sqrt(2^24 - 1), about 4096: all but noise, and still well inside float32 and float16."""

_SNAP = 1e-4  # a sigma rounded to float32 lies this near its timestep at worst; beyond it timesteps stay fractional


class DiscreteSchedule:
    """DDPM schedule of N trained levels, in variance-exploding coordinates: alpha = 1, sigma = sqrt((1 - abar) / abar).

    `alphas_cumprod` [N] is abar_0 .. abar_{N-1}, strictly decreasing in (0, 1). Levels between two timesteps are
    interpolated linearly in log sigma, as k-diffusion does; `timestep` gives back whole numbers at trained levels.
    """

    def __init__(self, alphas_cumprod: Tensor, *, config: Mapping[str, Any] | None = None) -> None:
        table = torch.as_tensor(alphas_cumprod).detach().to("cpu", torch.float64)
        if table.ndim != 1 or len(table) < 2 or not bool(torch.isfinite(table).all()):
            raise InvalidRequest(f"alphas_cumprod of shape {tuple(table.shape)}: expected at least two finite numbers")
        if bool((table < 0).any()) or bool((table >= 1).any()) or bool((table.diff() >= 0).any()):
            raise InvalidRequest("alphas_cumprod must fall strictly and lie in [0, 1)")
        if float(table[-1]) < 1e-12:
            table = torch.cat([table[:-1], table[-2:-1].mul(0.5).clamp(max=SMALLEST_ALPHA_CUMPROD)])
        self.alphas_cumprod = table
        self.sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        self._log_sigmas = self.sigmas.log()
        self._config = dict(config) if config is not None else {"kind": "table", "alphas_cumprod": table.tolist()}

    @property
    def timesteps(self) -> int:
        """N, the number of trained levels."""
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def alpha(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Sigma of any shape -> timestep in [0, N-1], fractional between trained levels, clamped outside them."""
        logs = self._log_sigmas.to(sigma.device)
        wanted = sigma.to(logs.dtype).log().clamp(logs[0], logs[-1])
        low = (torch.searchsorted(logs, wanted, right=True) - 1).clamp(0, len(logs) - 2)
        found = low + (wanted - logs[low]) / (logs[low + 1] - logs[low])
        whole = found.round()
        return torch.where((found - whole).abs() < _SNAP, whole, found).to(sigma.dtype)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Timestep of any shape, whole or fractional -> sigma; clamped to [0, N-1]."""
        logs = self._log_sigmas.to(timestep.device)
        time = timestep.to(logs.dtype).clamp(0, len(logs) - 1)
        low = time.floor().long().clamp(max=len(logs) - 2)
        found = (logs[low] + (time - low) * (logs[low + 1] - logs[low])).exp()
        return found.to(timestep.dtype if timestep.is_floating_point() else torch.float32)

    def to_config(self) -> dict[str, Any]:
        """JSON-ready description; `schedule_from_config` gives the same schedule back."""
        return dict(self._config)


class EDMSchedule(DiscreteSchedule):
    """Continuous levels from `sigma_min` to `sigma_max`, for networks of Karras et al. 2022 (table 1, "Ours") whose
    data have the spread `sigma_data`: 0.5 and up to 80 there and in Playground 2.5, 1.0 and up to 120 in CosXL.

    Time is counted as in `DiscreteSchedule`, by N levels evenly spaced in log sigma, and exact between them. The
    network is given `network_time` instead and sees x / sqrt(sigma^2 + sigma_data^2) (`input_scale`); see `prediction`
    for what it answers. InvalidRequest where a number is not from 0.000001 to 100000, or the ends are the wrong way
    round.
    """

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5, timesteps: int = 1000
    ) -> None:
        for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max), ("sigma_data", sigma_data)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 1e-6 <= value <= 1e5:
                raise InvalidRequest(f"{name} {value!r}: expected a number from 0.000001 to 100000")
        if not sigma_min < sigma_max:
            raise InvalidRequest(f"noise levels from {sigma_min} to {sigma_max}: expected the former to be smaller")
        if type(timesteps) is not int or not 2 <= timesteps <= 100_000:
            raise InvalidRequest(f"{timesteps!r} timesteps: expected a whole number from 2 to 100000")
        logs = torch.linspace(math.log(sigma_min), math.log(sigma_max), timesteps, dtype=torch.float64)
        numbers = {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data, "timesteps": timesteps}
        super().__init__(1 / (1 + (2 * logs).exp()), config={"kind": "edm", **numbers})
        self.sigmas, self._log_sigmas = logs.exp(), logs
        self.sigma_data = float(sigma_data)
        self._ends = float(sigma_min), float(sigma_max)

    @property
    def sigma_min(self) -> float:
        return self._ends[0]

    @property
    def sigma_max(self) -> float:
        return self._ends[1]


class FlowSchedule:
    """Rectified flow: x = (1 - sigma) * x0 + sigma * noise, timestep = N * sigma, sigma in [0, 1].

    `shift` moves sampling grids and training times towards noise: sigma = shift u / (1 + (shift - 1) u) of a uniform u
    (Esser et al. 2024, equation 23). It changes neither `timestep` nor `sigma`, which are linear.
    """

    def __init__(self, shift: float = 1.0, timesteps: int = 1000) -> None:
        if not (math.isfinite(shift) and shift > 0):
            raise InvalidRequest(f"flow shift {shift}: expected a finite number above 0")
        if timesteps < 2:
            raise InvalidRequest(f"{timesteps} timesteps: expected at least 2")
        self.shift = float(shift)
        self.timesteps = int(timesteps)

    @property
    def sigma_min(self) -> float:
        """The lowest level on which samplers ask the network: the shifted 1 / N."""
        return float(self.shifted(torch.tensor(1 / self.timesteps, dtype=torch.float64)))

    @property
    def sigma_max(self) -> float:
        return 1.0

    def shifted(self, u: Tensor) -> Tensor:
        """Uniform time in [0, 1] -> sigma in [0, 1]."""
        return self.shift * u / (1 + (self.shift - 1) * u)

    def alpha(self, sigma: Tensor) -> Tensor:
        return 1 - sigma

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * self.timesteps

    def sigma(self, timestep: Tensor) -> Tensor:
        return timestep / self.timesteps

    def to_config(self) -> dict[str, Any]:
        """JSON-ready description; `schedule_from_config` gives the same schedule back."""
        return {"kind": "flow", "shift": self.shift, "timesteps": self.timesteps}


def ddpm_schedule(
    kind: BetaKind = "scaled_linear",
    *,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    steps: int = 1000,
    zero_terminal_snr: bool = False,
) -> DiscreteSchedule:
    """The named DDPM schedules; the defaults are those of Stable Diffusion 1 and 2.

    linear: betas evenly spaced (Ho et al. 2020). scaled_linear: their square roots evenly spaced (Rombach et al. 2022).
    cosine: abar_t = cos^2 (Nichol & Dhariwal 2021, equation 17, betas capped at 0.999; beta_start and beta_end unused).
    `zero_terminal_snr` rescales so that the last level is pure noise, up to `SMALLEST_ALPHA_CUMPROD`.
    """
    if kind not in get_args(BetaKind):
        raise unknown_choice("noise schedule", kind, get_args(BetaKind))
    if steps < 2:
        raise InvalidRequest(f"{steps} timesteps: expected at least 2")
    if kind != "cosine" and not 0 < beta_start <= beta_end < 1:
        raise InvalidRequest(f"betas from {beta_start} to {beta_end}: expected 0 < beta_start <= beta_end < 1")
    alphas_cumprod = torch.cumprod(1 - _betas(kind, beta_start, beta_end, steps), dim=0)
    if zero_terminal_snr:
        alphas_cumprod = rescale_zero_terminal_snr(alphas_cumprod)
    config = {"kind": kind, "beta_start": beta_start, "beta_end": beta_end, "steps": steps}
    return DiscreteSchedule(alphas_cumprod, config={**config, "zero_terminal_snr": zero_terminal_snr})


def _betas(kind: BetaKind, start: float, end: float, steps: int) -> Tensor:
    """beta_0 .. beta_{steps-1}, float64 [steps]."""
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    survival = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - survival[1:] / survival[:-1]).clamp(max=0.999)


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """[N] -> [N]: sqrt(abar) shifted and scaled so that the first stays and the last is 0 (Lin et al. 2023,
    arXiv:2305.08891, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def schedule_from_config(config: Mapping[str, Any]) -> DiscreteSchedule | FlowSchedule:
    """The inverse of `to_config`."""
    values = dict(config)
    kind = values.pop("kind", None)
    try:
        if kind == "flow":
            return FlowSchedule(**values)
        if kind == "edm":
            return EDMSchedule(**values)
        if kind == "table":
            return DiscreteSchedule(torch.tensor(values.pop("alphas_cumprod"), dtype=torch.float64), **values)
        if kind in get_args(BetaKind):
            return ddpm_schedule(kind, **values)
    except (KeyError, TypeError) as error:
        raise InvalidRequest(f"noise schedule {kind!r} with settings {sorted(values)}: {error}") from None
    raise unknown_choice("noise schedule", kind, [*get_args(BetaKind), "table", "flow", "edm"])


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """One number per image [B], or a single number, shaped to multiply `like` [B,C,H,W]."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def input_scale(schedule: Schedule, sigma: Tensor) -> Tensor:
    """c_in [B]: the factor from a state x to what the network sees.

    DDPM networks were trained on sqrt(abar) x0 + sqrt(1 - abar) eps, which is x / sqrt(1 + sigma^2); EDM networks on
    x / sqrt(sigma_data^2 + sigma^2); flow networks on x.
    """
    if isinstance(schedule, FlowSchedule):
        return torch.ones_like(sigma)
    return ((schedule.alpha(sigma) * data_spread(schedule)) ** 2 + sigma**2).rsqrt()


def data_spread(schedule: Schedule) -> float:
    """sigma_data, the standard deviation of x0 that a network was made for; 1 but for EDM models."""
    return schedule.sigma_data if isinstance(schedule, EDMSchedule) else 1.0


def network_time(schedule: Schedule, sigma: Tensor) -> Tensor:
    """c_noise [B]: how a network is given the noise level. It is the timestep, and 0.25 log sigma for EDM models."""
    return sigma.log() / 4 if isinstance(schedule, EDMSchedule) else schedule.timestep(sigma)


def add_gaussian_noise(
    schedule: Schedule,
    x0: Tensor,
    level: Tensor | float,
    noise: Tensor,
    *,
    by: Literal["sigma", "timestep"] = "sigma",
    variance_preserving: bool = False,
) -> Tensor:
    """The forward process: x0 [B,C,H,W] and standard normal `noise` of the same shape -> noisy state [B,C,H,W].

    `level` is a sigma or a timestep (see `by`), one number or [B]. With `variance_preserving` the state is
    sqrt(abar) x0 + sqrt(1 - abar) noise, the classical view of DDPM (what the network sees); a flow state is the same
    in both views.
    """
    if noise.shape != x0.shape:
        raise InvalidRequest(f"noise of shape {tuple(noise.shape)}: expected the picture's shape {tuple(x0.shape)}")
    level = torch.as_tensor(level, dtype=x0.dtype, device=x0.device)
    sigma = schedule.sigma(level) if by == "timestep" else level
    if not bool(torch.isfinite(sigma).all()) or bool((sigma < 0).any()):
        raise InvalidRequest(f"noise level {level.tolist()}: expected finite numbers of at least 0")
    noisy = per_image(schedule.alpha(sigma), x0) * x0 + per_image(sigma, x0) * noise
    return noisy * per_image(input_scale(schedule, sigma), x0) if variance_preserving else noisy


def start_state(
    schedule: Schedule,
    noise: Tensor,
    sigma: Tensor | float,
    latent: Tensor | None = None,
    *,
    unit_variance: bool = True,
) -> Tensor:
    """The state [B,C,H,W] from which sampling starts at level `sigma`.

    With `latent` (img2img) it is the forward process. Without it the picture is unknown: noise times
    sqrt(alpha^2 + sigma^2), the spread of the noisy states of unit-variance pictures, as in DDIM, diffusers' leading
    spacing and ComfyUI; with `unit_variance=False` noise times sigma, as in k-diffusion.
    """
    if latent is not None:
        return add_gaussian_noise(schedule, latent, sigma, noise)
    level = torch.as_tensor(sigma, dtype=torch.float64)
    spread = (schedule.alpha(level) ** 2 + level**2).sqrt() if unit_variance else level
    return noise * per_image(spread.to(noise.device, noise.dtype), noise)

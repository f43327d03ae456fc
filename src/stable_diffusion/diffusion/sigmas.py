"""Grids of noise levels for sampling: which sigmas a sampler visits.

Every schedule gives `steps` levels above 0 and then the end, descending, float32 [steps + 1]. How they relate to
diffusers' `timestep_spacing`: normal is "linspace" (with log-sigma interpolation), ddim_uniform is "leading" with
steps_offset 1 (CompVis, A1111), sgm_uniform is "trailing".
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InvalidRequest, unknown_choice
from .schedule import DiscreteSchedule, FlowSchedule

AnySchedule = DiscreteSchedule | FlowSchedule
Grid = Callable[..., Tensor]

AYS_TABLES = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}

GITS_TABLES = {
    "sd15": (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029),
    "sdxl": (14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029),
}


def _times(schedule: AnySchedule, u: Tensor) -> Tensor:
    """Fractions u of the trained time (0 first level, 1 last) -> sigmas; a flow's u is its unshifted time."""
    if isinstance(schedule, FlowSchedule):
        return schedule.shifted(u)
    return schedule.sigma(u * (schedule.timesteps - 1))


def _lowest(schedule: AnySchedule) -> float:
    """u of the lowest level: 0 for DDPM; for a flow 1 / N, since at 0 there is nothing left to do."""
    return 1 / schedule.timesteps if isinstance(schedule, FlowSchedule) else 0.0


def _line(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


def normal(schedule: AnySchedule, count: int) -> Tensor:
    """Evenly spaced timesteps from the last to the first (k-diffusion's `get_sigmas`; A1111 "Uniform").

    A flow's run from 1 to sigma_min, the shifted 1 / N, and are then shifted once more, as in the released code of
    Stable Diffusion 3, in diffusers' flow matching schedulers and in ComfyUI.
    """
    lowest = schedule.sigma_min if isinstance(schedule, FlowSchedule) else 0.0
    return _times(schedule, _line(1.0, lowest, count))


def karras(schedule: AnySchedule, count: int, *, rho: float = 7.0) -> Tensor:
    """Evenly spaced sigma^(1/rho) (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
    if not (math.isfinite(rho) and rho > 0):
        raise InvalidRequest(f"rho {rho}: expected a finite number above 0")
    return _line(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), count) ** rho


def exponential(schedule: AnySchedule, count: int) -> Tensor:
    """Evenly spaced log sigma."""
    return _line(math.log(schedule.sigma_max), math.log(schedule.sigma_min), count).exp()


def polyexponential(schedule: AnySchedule, count: int, *, rho: float = 1.0) -> Tensor:
    """log sigma as the power `rho` of a line (k-diffusion): rho 1 is `exponential`, above it low noise is denser."""
    if not (math.isfinite(rho) and rho > 0):
        raise InvalidRequest(f"rho {rho}: expected a finite number above 0")
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return (_line(1.0, 0.0, count) ** rho * (high - low) + low).exp()


def linear_quadratic(schedule: AnySchedule, count: int, *, threshold: float = 0.025) -> Tensor:
    """Small even steps in sigma over the first half, to `threshold` of the way, then a parabola that meets them in
    value and slope and ends on 0 (Polyak et al. 2024, Movie Gen, arXiv:2410.13720, section 3.4.2; as Mochi and ComfyUI
    set it). In units of sigma_max.
    """
    if not 0 < threshold < 0.5:
        raise InvalidRequest(f"threshold {threshold}: expected a number between 0 and 0.5")
    if count == 1:
        return _line(schedule.sigma_max, schedule.sigma_max, 1)
    half = count // 2
    slope = threshold / half
    k = torch.arange(count, dtype=torch.float64)
    beyond = (k - half).clamp(min=0)
    bend = (1 - slope * count) / (count - half) ** 2
    return schedule.sigma_max * (1 - (slope * k + bend * beyond**2))


def sgm_uniform(schedule: AnySchedule, count: int) -> Tensor:
    """Evenly spaced timesteps from the last, the end (0) left out: "trailing" (Lin et al. 2023, arXiv:2305.08891).

    DDPM timesteps are whole numbers, round((1 - k / count) N) - 1, as diffusers rounds them.
    """
    u = 1 - torch.arange(count, dtype=torch.float64) / count
    if isinstance(schedule, FlowSchedule):
        return schedule.shifted(u)
    return schedule.sigma((u * schedule.timesteps).round() - 1)


def simple(schedule: AnySchedule, count: int) -> Tensor:
    """Every (N / count)-th trained level, counted from the last (ComfyUI's "simple")."""
    skipped = (torch.arange(count, dtype=torch.float64) * schedule.timesteps / count).floor()
    if isinstance(schedule, FlowSchedule):
        return schedule.shifted(1 - skipped / schedule.timesteps)
    return schedule.sigma(schedule.timesteps - 1 - skipped)


def ddim_uniform(schedule: AnySchedule, count: int) -> Tensor:
    """Timesteps 1, 1 + r, 1 + 2 r ... with r = N // count: "leading" with offset 1 (CompVis and A1111 DDIM).

    A flow must start at pure noise, which leading spacing leaves out; there it is the same as sgm_uniform.
    """
    if isinstance(schedule, FlowSchedule):
        return sgm_uniform(schedule, count)
    if count >= schedule.timesteps:
        raise InvalidRequest(
            f"{count} steps of ddim_uniform: expected fewer than the {schedule.timesteps} trained ones"
        )
    timesteps = torch.arange(count, dtype=torch.float64) * (schedule.timesteps // count) + 1
    return schedule.sigma(timesteps.flip(0))


def beta(schedule: AnySchedule, count: int, *, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Timesteps at quantiles of a beta distribution, dense at both ends (Lee et al. 2024, arXiv:2407.12173).

    As in ComfyUI the distribution is over time, from 1 down, the end left out; timesteps are not rounded.
    """
    if not (0.01 <= alpha <= 100 and 0.01 <= beta <= 100):
        raise InvalidRequest(f"beta distribution ({alpha}, {beta}): expected two numbers from 0.01 to 100")
    quantiles = [beta_quantile(1 - k / count, alpha, beta) for k in range(count)]
    lowest = _lowest(schedule)
    return _times(schedule, lowest + (1 - lowest) * torch.tensor(quantiles, dtype=torch.float64))


def kl_optimal(schedule: AnySchedule, count: int) -> Tensor:
    """Evenly spaced arctan sigma (Sabour et al. 2024, arXiv:2404.14507, section 3.3)."""
    return _line(math.atan(schedule.sigma_max), math.atan(schedule.sigma_min), count).tan()


def lcm_grid(schedule: AnySchedule, count: int, *, original: int = 50) -> Tensor:
    """`count` of the `original` timesteps on which a latent consistency model was distilled, evenly from the last
    (Luo et al. 2023, arXiv:2310.04378, section 4.3; as in diffusers' LCMScheduler).

    For `original` a multiple of `count` it is the same as sgm_uniform, as it always is for a flow; more steps than
    `original` take as many levels as there are steps.
    """
    if isinstance(schedule, FlowSchedule):
        return sgm_uniform(schedule, count)
    original = max(original, count)
    if original > schedule.timesteps:
        raise InvalidRequest(f"{original} levels of 'lcm': expected at most the {schedule.timesteps} trained ones")
    skipped = (torch.arange(count, dtype=torch.float64) * original / count).floor()
    return schedule.sigma((original - skipped) * (schedule.timesteps // original) - 1)


Table = Literal["sd15", "sdxl"]
"""Models for which levels were published: Stable Diffusion 1 (and 2, whose levels are the same), and XL."""


def ays(schedule: AnySchedule, count: int, *, table: Table = "sd15") -> Tensor:
    """Align Your Steps (Sabour et al. 2024): tables optimised for one noise schedule, log-linear between entries."""
    return _from_table("ays", AYS_TABLES, table, schedule, count)


def gits(schedule: AnySchedule, count: int, *, table: Table = "sd15") -> Tensor:
    """Geometry-inspired time steps (Chen et al. 2024, arXiv:2405.11326): tables as A1111's "Align Your Steps GITS"."""
    return _from_table("gits", GITS_TABLES, table, schedule, count)


def _from_table(
    name: str, tables: Mapping[str, tuple[float, ...]], table: str, schedule: AnySchedule, count: int
) -> Tensor:
    if table not in tables:
        raise unknown_choice(f"{name.upper()} table", table, tables)
    levels = tables[table]
    close = abs(schedule.sigma_max / levels[0] - 1) < 0.01 and abs(schedule.sigma_min / levels[-1] - 1) < 0.05
    if isinstance(schedule, FlowSchedule) or not close:
        raise InvalidRequest(
            f"schedule {name!r} is made for Stable Diffusion's own sigmas, {levels[0]} to {levels[-1]}, and this "
            f"model's go from {schedule.sigma_max:.4g} to {schedule.sigma_min:.3g}: choose 'sgm_uniform' or 'karras'"
        )
    logs = torch.tensor(levels, dtype=torch.float64).log()
    place = _line(0, len(levels) - 1, count)
    low = place.floor().long().clamp(max=len(levels) - 2)
    return (logs[low] + (place - low) * (logs[low + 1] - logs[low])).exp()


GRIDS: dict[str, Grid] = {
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "kl_optimal": kl_optimal,
    "ays": ays,
    "gits": gits,
    "lcm": lcm_grid,
    "polyexponential": polyexponential,
    "linear_quadratic": linear_quadratic,
}
"""Every noise schedule by its id; what else it is called stands in `request/names.py`."""


def grid_options(name: str) -> tuple[str, ...]:
    """The options of the schedule of this id; InvalidRequest, with the nearest one, where there is none."""
    if name not in GRIDS:
        raise unknown_choice("schedule", name, GRIDS)
    parameters = inspect.signature(GRIDS[name]).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


def schedule_sigmas(
    name: str,
    schedule: AnySchedule,
    steps: int,
    *,
    final: Literal["zero", "sigma_min"] = "zero",
    **options: Any,
) -> Tensor:
    """The levels of `steps` sampler steps: float32 [steps + 1], strictly descending, sigmas[-1] = 0.

    name     id of the schedule, one of `GRIDS`.
    final    "sigma_min": end on the first trained level instead of 0, as DDIM and PLMS do in CompVis and, with
             `set_alpha_to_one=False`, in diffusers. (To have their picture exactly, multiply the last state by
             `schedule.input_scale`: theirs is in variance-preserving coordinates.)
    options  rho of karras and polyexponential; alpha, beta of beta; table of ays and gits; threshold of
             linear_quadratic; original of lcm.
    """
    known = grid_options(name)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= 10_000:
        raise InvalidRequest(f"steps {steps!r}: expected a whole number from 1 to 10000")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise unknown_choice(f"option of schedule {name!r}", unknown[0], known or ["none"])
    if final not in ("zero", "sigma_min"):
        raise unknown_choice("final level", final, ["zero", "sigma_min"])
    grid = GRIDS[name]
    levels, end = grid(schedule, steps, **options), 0.0
    if final == "sigma_min":
        end = schedule.sigma_min
        if float(levels[-1]) <= end * (1 + 1e-9) or name in ("ays", "gits"):  # grids that reach the end by themselves
            levels = grid(schedule, steps + 1, **options)[:-1]
    sigmas = torch.cat([levels, levels.new_tensor([end])]).to(torch.float32)
    if bool((sigmas.diff() >= 0).any()):
        raise InvalidRequest(f"schedule {name!r} has fewer than {steps} distinct levels: ask for fewer steps")
    return sigmas


def truncate(sigmas: Tensor, strength: float) -> Tensor:
    """The levels that img2img visits: the last int(steps * strength) steps of `sigmas`, at least one, as in diffusers.

    strength in (0, 1]: 1 repaints everything. At 0 there would be nothing to do, which is an error here.
    """
    if not 0 < strength <= 1:
        raise InvalidRequest(f"strength {strength}: expected a number above 0 and at most 1")
    steps = len(sigmas) - 1
    return sigmas[steps - max(1, min(int(steps * strength), steps)) :]


def beta_quantile(probability: float, a: float, b: float) -> float:
    """x with I_x(a, b) = probability: the inverse of the regularised incomplete beta function, by bisection."""
    low, high = 0.0, 1.0
    if probability <= 0 or probability >= 1:
        return low if probability <= 0 else high
    for _ in range(80):
        middle = (low + high) / 2
        if _incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its continued fraction (DLMF 8.17.22), used on the side of the mean where it converges fast."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tail = 1.0
    for n in range(120, 0, -1):
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        tail = 1 + term / tail
    return front / tail

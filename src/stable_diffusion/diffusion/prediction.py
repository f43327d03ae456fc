"""What a network predicts, and the affine maps between that output and the clean latent x0.

With x = alpha x0 + sigma noise, n = sqrt(alpha^2 + sigma^2) and a = alpha / n, s = sigma / n (the variance-preserving
pair), all outputs are affine in x0 at a fixed x:

    eps    noise                        x0 = (x - sigma out) / alpha          Ho et al. 2020, equation 11
    v      a noise - s x0               x0 = a x / n - s out                  Salimans & Ho 2022, appendix D
    x0     x0                           x0 = out
    flow   noise - x0                   x0 = (x - sigma out) / (alpha + sigma)   Liu et al. 2022, equation 1
    edm    -v                           x0 = a x / n + s out                  Karras et al. 2022, equation 7 and table 1

For EDM models (`EDMSchedule`), whose x0 has the spread d = sigma_data, v and edm are those of x0 / d and sigma / d:
x0 = d^2 x / (sigma^2 + d^2) -+ sigma d out / sqrt(sigma^2 + d^2). What diffusers calls "epsilon" there is edm.

Shapes: x, x0, noise, output [B,C,H,W]; sigma [B].
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor

from ..errors import unknown_choice
from ..types import Schedule
from .schedule import data_spread, per_image


class Network(Protocol):
    """(x [B,C,H,W], timestep [B], tokens [B,T,D], vector [B,V] or None) -> output [B,C,H,W].

    A network that side networks can be added to takes `residuals` as well, and one that is given the guidance scale [B]
    takes `guidance`.
    """

    def __call__(
        self, x: Tensor, timestep: Tensor, tokens: Tensor, *, vector: Tensor | None = None, **added: Any
    ) -> Tensor: ...


Prediction: TypeAlias = Literal["eps", "v", "x0", "flow", "edm"]

PREDICTIONS: tuple[Prediction, ...] = ("eps", "v", "x0", "flow", "edm")

_ALIASES: dict[str, Prediction] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}


def resolve_prediction(name: str) -> Prediction:
    """Our own names and those of diffusers' `prediction_type`, in any case."""
    folded = str(name).strip().casefold()
    for prediction in PREDICTIONS:
        if folded == prediction:
            return prediction
    if folded in _ALIASES:
        return _ALIASES[folded]
    raise unknown_choice("prediction", name, PREDICTIONS)


def to_x0(prediction: Prediction, output: Tensor, x: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
    """Network output -> x0. An eps network cannot tell x0 where alpha is 0 (pure noise)."""
    if prediction == "x0":
        return output
    skip, out = _coefficients(prediction, sigma, schedule)
    return per_image(skip, x) * x + per_image(out, x) * output


def from_x0(prediction: Prediction, x0: Tensor, x: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
    """The inverse of `to_x0`: x0 -> the network output that means it. Needs sigma above 0, except for x0 itself."""
    if prediction == "x0":
        return x0
    skip, out = _coefficients(prediction, sigma, schedule)
    return (x0 - per_image(skip, x) * x) / per_image(out, x)


def target(prediction: Prediction, x0: Tensor, noise: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
    """What the network should answer in training for this x0 and noise."""
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    if prediction == "flow":
        return noise - x0
    if prediction in ("v", "edm"):
        data, sign = data_spread(schedule), 1.0 if prediction == "v" else -1.0
        alpha = schedule.alpha(sigma) * data
        norm = (alpha**2 + sigma**2).sqrt() * sign
        return per_image(alpha / norm, x0) * noise - per_image(sigma / (norm * data), x0) * x0
    raise unknown_choice("prediction", prediction, PREDICTIONS)


def output_gain(prediction: Prediction, sigma: Tensor, schedule: Schedule) -> Tensor:
    """|d x0 / d output| [B]: an output error of size e is an x0 error of size gain * e."""
    return sigma.new_ones(sigma.shape) if prediction == "x0" else _coefficients(prediction, sigma, schedule)[1].abs()


def _coefficients(prediction: Prediction, sigma: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) [B] of x0 = c_skip x + c_out output."""
    alpha = schedule.alpha(sigma)
    if prediction == "eps":
        return 1 / alpha, -sigma / alpha
    if prediction in ("v", "edm"):
        data = data_spread(schedule)
        square = (alpha * data) ** 2 + sigma**2
        out = sigma * data / square.sqrt()
        return alpha * data**2 / square, -out if prediction == "v" else out
    if prediction == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    raise unknown_choice("prediction", prediction, PREDICTIONS)

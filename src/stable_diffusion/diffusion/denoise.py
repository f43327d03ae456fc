"""Denoisers, and functions that make one of another: network wrapper, guidance, another one for each stretch of steps.

The order of wrapping is the order of use: `inpainting(guided(base, cond, uncond, 7.5), latent, mask, noise, schedule)`.
Guidance is written for x0. It equals guidance of eps, v or flow outputs, because at a fixed x x0 is affine in them.
A network with its conditioning (`CondDenoiser`) answers with x0; what samplers call (`Denoiser`), with an `Estimate`.

Shapes: B batch, C channels, H W latent size; sigma [B].
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..errors import InvalidRequest
from ..types import Blend, CondDenoiser, Conditioning, DeepFeatures, Denoiser, Estimate, Residuals, Schedule
from .prediction import Network, Prediction, from_x0, to_x0
from .schedule import input_scale, network_time, per_image
from .step_cache import StepCache

T = TypeVar("T")

Side: TypeAlias = Callable[[Tensor, Tensor, Conditioning], Residuals]
"""(network input [B,C,H,W], timestep [B], conditioning) -> what side networks add to the network's features."""


class _Remembered(Generic[T]):
    """What was last made of the same objects: a run asks with the same conditionings at every step."""

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], T] | None = None

    def of(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gives, or gave when it was last called for the very same objects."""
        last = self._last  # read once: several threads may ask
        if last is None or len(last[0]) != len(key) or any(a is not b for a, b in zip(last[0], key, strict=True)):
            self._last = last = (key, make())
        return last[1]


@dataclass(frozen=True, kw_only=True)
class NetworkDenoiser:
    """A network as a `CondDenoiser`: scales the state, names the level, and turns the answer into x0.

    `dtype` is the network's precision, if not that of the state; the answer is brought back before x0 is formed.
    `guidance` is the scale for networks that guide themselves; None for all others.
    A call with `side` asks it for features to add to the network's: (network input, timestep, conditioning) ->
    Residuals, which the network takes as `residuals`. With a `cache` it keeps deep features from step to step.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction
    dtype: torch.dtype | None = None
    guidance: float | None = None
    cache: StepCache | None = None
    _cast: _Remembered[Conditioning] = field(default_factory=_Remembered, repr=False, compare=False)

    def __call__(self, x: Tensor, sigma: Tensor, conditioning: Conditioning, side: Side | None = None) -> Tensor:
        seen = x * per_image(input_scale(self.schedule, sigma), x)
        if conditioning.image is not None:
            seen = torch.cat([seen, conditioning.image.to(seen)], dim=1)
        if self.dtype is not None:
            given, dtype = conditioning, self.dtype
            seen, conditioning = seen.to(dtype), self._cast.of((given,), lambda: given.to(dtype=dtype))
        timestep = network_time(self.schedule, sigma)
        added: dict[str, Any] = {}
        deep = None if self.cache is None else self.cache.features(seen)
        if deep is not None:
            added["deep"] = deep
        if side is not None:
            added["residuals"] = self._beside(side, seen, timestep, conditioning, deep)
        if self.guidance is not None:
            added["guidance"] = torch.full((len(x),), self.guidance, device=x.device)
        output = self.network(seen, timestep, conditioning.tokens, vector=conditioning.vector, **added)
        return self.x0(output.to(x.dtype), x, sigma)

    @staticmethod
    def _beside(
        side: Side, x: Tensor, timestep: Tensor, conditioning: Conditioning, deep: DeepFeatures | None
    ) -> Residuals:
        """What side networks add; that of the last whole call, where the deep features are of it too."""
        if deep is not None and deep.reuse and deep.residuals is not None:
            return deep.residuals
        made = side(x, timestep, conditioning)
        if deep is not None:
            deep.residuals = made
        return made

    def x0(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        return to_x0(self.prediction, output, x, sigma, self.schedule)

    def output(self, x0: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        return from_x0(self.prediction, x0, x, sigma, self.schedule)


def network_denoiser(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    *,
    dtype: torch.dtype | None = None,
    guidance: float | None = None,
    cache: StepCache | None = None,
) -> NetworkDenoiser:
    """Wrap `network` once; every sampler and every wrapper below takes the result."""
    return NetworkDenoiser(
        network=network, schedule=schedule, prediction=prediction, dtype=dtype, guidance=guidance, cache=cache
    )


# --- guidance ---------------------------------------------------------------------------------------------------------


def guided(
    cond_denoiser: CondDenoiser,
    cond: Conditioning | Blend,
    uncond: Conditioning | None,
    scale: float,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
    space: NetworkDenoiser | None = None,
    paired: bool = False,
) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): uncond + scale (cond - uncond).

    Conditionings have one row, used for every image, or B rows. Both branches go through the network in one batch;
    where their token counts differ they go in two calls, which is right for every network and as fast on a CPU.
    At scale 1 only `cond` is computed (`uncond` may be None), at scale 0 only `uncond`.

    Several conditionings with weights (`Blend`) are composed: what `cond` is above is then
    uncond + sum of weight * (cond - uncond) (Liu et al. 2022, arXiv:2206.01714, equation 11), for which `uncond` is
    needed at every scale.

    rescale   in [0, 1]: pull the spread of the guided output back to that of the conditional one (Lin et al. 2023,
              arXiv:2305.08891, equations 15 and 16). Measured on network outputs where the network wrapper is known
              (`cond_denoiser` itself, or `space` where it is wrapped in something else), otherwise on x0.
    interval  (low, high): guide only where low < sigma <= high, in units of sigma, and use `cond` alone elsewhere
              (Kynkaanniemi et al. 2024, arXiv:2404.07724); `sigma_interval` makes it from fractions of the steps.
    paired    compute the estimate without guidance at the scales 1 and 0 too, for CFG++ samplers; without `uncond` it
              is that of `cond`.
    """
    blend = ((cond, 1.0),) if isinstance(cond, Conditioning) else cond
    _check_guidance(blend, uncond, scale, rescale, interval)
    if space is None and isinstance(cond_denoiser, NetworkDenoiser):
        space = cond_denoiser
    return _Guided(cond_denoiser, blend, uncond, scale, rescale, interval, space, paired)


@dataclass(frozen=True)
class _Guided:
    """The `Denoiser` that `guided` returns."""

    base: CondDenoiser
    cond: Blend
    uncond: Conditioning | None
    scale: float
    rescale: float
    interval: tuple[float, float] | None
    space: NetworkDenoiser | None
    paired: bool
    _joined: _Remembered[Conditioning] = field(default_factory=_Remembered, repr=False, compare=False)

    def __call__(self, x: Tensor, sigma: Tensor) -> Estimate:
        if self.uncond is None or (self.scale == 1 and not self.paired) or not _any_inside(sigma, self.interval):
            return Estimate.plain(self._positive(x, sigma))
        if self.scale == 0 and self.interval is None and not self.paired:
            return Estimate.plain(self.base(x, sigma, _rows(self.uncond, len(x))))
        positive, negative = self._both(x, sigma, self.uncond)
        mixed = negative + (positive - negative) * self.scale
        if self.rescale > 0:
            mixed = _rescaled(mixed, positive, self.rescale, x, sigma, self.space)
        if self.interval is None:
            return Estimate(mixed, negative)
        inside = per_image((sigma > self.interval[0]) & (sigma <= self.interval[1]), x)
        return Estimate(torch.where(inside, mixed, positive), torch.where(inside, negative, positive))

    def _positive(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x0 as the prompt has it, without guidance."""
        if is_plain(self.cond):
            return self.base(x, sigma, _rows(self.cond[0][0], len(x)))
        assert self.uncond is not None  # checked
        return self._both(x, sigma, self.uncond)[0]

    def _both(self, x: Tensor, sigma: Tensor, uncond: Conditioning) -> tuple[Tensor, Tensor]:
        """x0 of the prompt and of the negative prompt."""
        given = [_rows(each, len(x)) for each in (*(cond for cond, _ in self.cond), uncond)]
        *estimates, negative = _all(self.base, x, sigma, given, self._joined)
        if is_plain(self.cond):
            return estimates[0], negative
        weighted = [(x0 - negative) * weight for x0, (_, weight) in zip(estimates, self.cond, strict=True)]
        positive = negative
        for difference in weighted:
            positive = positive + difference
        return positive, negative


def is_plain(blend: Blend) -> bool:
    """Whether it is one conditioning of weight 1."""
    return len(blend) == 1 and blend[0][1] == 1


def _check_guidance(
    blend: Blend, uncond: Conditioning | None, scale: float, rescale: float, interval: tuple[float, float] | None
) -> None:
    if not blend or not all(math.isfinite(weight) for _, weight in blend):
        raise InvalidRequest(f"weights {[weight for _, weight in blend]}: expected one finite number per conditioning")
    if not math.isfinite(scale):
        raise InvalidRequest(f"guidance {scale}: expected a finite number")
    if not 0 <= rescale <= 1:
        raise InvalidRequest(f"guidance rescale {rescale}: expected a number from 0 to 1")
    if uncond is None and not is_plain(blend):
        raise InvalidRequest("composed conditionings need a negative conditioning")
    if uncond is None and scale != 1:
        raise InvalidRequest(f"guidance {scale} needs a negative conditioning; only guidance 1 goes without")
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise InvalidRequest(f"guidance interval {interval}: expected (low, high) in sigma with 0 <= low < high")


def _rows(conditioning: Conditioning, count: int) -> Conditioning:
    have = len(conditioning.tokens)
    if have == count:
        return conditioning
    if have != 1:
        raise InvalidRequest(f"conditioning of {have} rows for {count} images: expected 1 or {count}")
    return conditioning.repeat(count)


def _any_inside(sigma: Tensor, interval: tuple[float, float] | None) -> bool:
    return interval is None or bool(((sigma > interval[0]) & (sigma <= interval[1])).any())


def _all(
    denoise: CondDenoiser, x: Tensor, sigma: Tensor, given: Sequence[Conditioning], joined: _Remembered[Conditioning]
) -> list[Tensor]:
    """x0 for each conditioning: in one call of the network where their shapes agree, else one after another."""
    if any(each.tokens.shape[1:] != given[0].tokens.shape[1:] for each in given):
        return [denoise(x, sigma, each) for each in given]
    count = len(given)
    together = joined.of(tuple(given), lambda: Conditioning.cat(given))
    every = denoise(torch.cat([x] * count), torch.cat([sigma] * count), together)
    return list(every.chunk(count))


def _rescaled(
    mixed: Tensor, positive: Tensor, rescale: float, x: Tensor, sigma: Tensor, space: NetworkDenoiser | None
) -> Tensor:
    if space is not None:
        mixed, positive = space.output(mixed, x, sigma), space.output(positive, x, sigma)
    # image by image: a reduction over the whole batch may add in another order than over one image
    spreads = [(p.std(), m.std()) for p, m in zip(positive, mixed, strict=True)]
    factors = torch.stack([p / m.clamp(min=torch.finfo(m.dtype).tiny) for p, m in spreads])
    mixed = mixed * per_image(rescale * factors + (1 - rescale), mixed)
    return mixed if space is None else space.x0(mixed, x, sigma)


def sigma_interval(sigmas: Tensor, start: float, end: float) -> tuple[float, float]:
    """The guidance interval (low, high) in sigma that covers the steps from fraction `start` to fraction `end`.

    sigmas [steps + 1] descending. With n steps, step i is inside where start <= i / n < end.
    """
    if not 0 <= start < end <= 1:
        raise InvalidRequest(f"guidance from {start} to {end} of the steps: expected 0 <= start < end <= 1")
    steps = len(sigmas) - 1
    inside = [i for i in range(steps) if start <= i / steps < end]
    if not inside:
        raise InvalidRequest(f"guidance from {start} to {end} covers none of {steps} steps")
    return float(sigmas[inside[-1] + 1]), float(sigmas[inside[0]])


IMAGE_GUIDANCE = 1.5
"""s_I of `image_guided` where none is given, as in the paper."""


def image_guided(
    denoiser: CondDenoiser, cond: Conditioning | Blend, uncond: Conditioning, scale: float, image_scale: float
) -> Denoiser:
    """Guidance by text (`scale`, s_T) and by the picture in `image` of both conditionings (`image_scale`, s_I) at once,
    for networks that edit a picture (Brooks et al. 2023, "InstructPix2Pix", equation 3):

    e(no picture, no text) + s_I (e(picture, no text) - e(no picture, no text))
                           + s_T (e(picture, text) - e(picture, no text)).

    Conditionings have one row, or one for each image. Several with weights are composed as in `guided`: what e(picture,
    text) is above is then e(picture, no text) + sum of weight * (e(picture, text i) - e(picture, no text)). The
    estimate without guidance is e(picture, no text). InvalidRequest where a scale is not finite, or there is no
    picture.
    """
    for name, value in (("guidance", scale), ("image guidance", image_scale)):
        if not math.isfinite(value):
            raise InvalidRequest(f"{name} {value}: expected a finite number")
    blend = ((cond, 1.0),) if isinstance(cond, Conditioning) else cond
    if uncond.image is None or any(each.image is None for each, _ in blend):
        raise InvalidRequest("guidance by a picture needs the picture in both conditionings")
    blank = replace(uncond, image=torch.zeros_like(uncond.image))

    def denoise(x: Tensor, sigma: Tensor) -> Estimate:
        pictured, empty = (denoiser(x, sigma, _rows(each, len(x))) for each in (uncond, blank))
        mixed = empty + image_scale * (pictured - empty)
        for each, weight in blend:
            mixed = mixed + scale * weight * (denoiser(x, sigma, _rows(each, len(x))) - pictured)
        return Estimate(mixed, pictured)

    return denoise


# --- by step ----------------------------------------------------------------------------------------------------------

_ROUNDING = 1e-5
"""Levels reach the denoiser in float32."""


def by_step(parts: Sequence[tuple[int, Denoiser]], sigmas: Tensor) -> Denoiser:
    """The denoiser that is parts[k] up to and including its last step, counted from 1; the last one to the end.

    This is how prompts that change while painting reach the sampler. The step is found by the noise level of the call,
    so that the denoiser stays a function of (x, sigma): step i of a run covers the levels above sigmas[i] up to
    sigmas[i - 1]. What a sampler asks between two levels belongs to the step that lies there, and what it asks on the
    next level already to the next step.

    sigmas [steps + 1] are the levels of the run, descending; all images of a run are at the same level. Raises
    InvalidRequest where last steps do not rise.
    """
    lasts, denoisers = [last for last, _ in parts], [denoise for _, denoise in parts]
    if not parts or any(a >= b for a, b in itertools.pairwise(lasts)):
        raise InvalidRequest(f"the last steps are {lasts}; expected rising numbers, one at least")
    levels: list[float] = sigmas.double().tolist()

    def denoise(x: Tensor, sigma: Tensor) -> Estimate:
        level = float(sigma[0]) * (1 - _ROUNDING)
        step = sum(known > level for known in levels)  # how many levels of the run are not below this one
        return denoisers[min(bisect_left(lasts, max(step, 1)), len(denoisers) - 1)](x, sigma)

    return denoise

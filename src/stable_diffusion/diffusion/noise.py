"""Random numbers, one CPU generator per image, so that image k of a batch is what it would be alone, on any device.

The contract: the start noise of seed s is `torch.randn((C, H, W), generator=torch.Generator("cpu").manual_seed(s))` in
float32, the same numbers as shape (1, C, H, W) gives. Noise of later steps is drawn from the same generator, in order;
for the SDE samplers it comes from a Brownian path whose seed is the generator's next draw.

Two other generators can be chosen for pictures of other programs: that of the torch device, whose numbers depend on the
kind of device and on the version of torch, and "nv", which makes the numbers of an NVIDIA card anywhere (philox.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import InvalidRequest, unknown_choice
from ..types import Schedule
from .philox import PhiloxStream

_NODES: int = 2**24  # points of the Brownian path: neighbours differ by a factor exp(23 / 2^24) in sigma / alpha
_WIDEST = 1e5  # the path starts where sigma / alpha is this ...
_NARROWEST = 1e-5  # ... and ends here; no sampler steps between levels outside
_REMEMBERED = 4  # points of the path kept: the next step starts where the last one ended


NoiseKind: TypeAlias = Literal["cpu", "device", "nv"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)


class Stream(Protocol):
    """Random numbers of one image, one draw after another."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, CPU float32."""
        ...

    def integer(self) -> int:
        """Uniform in [0, 2^63 - 1)."""
        ...


class TorchStream:
    """torch's own generator on a device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device).manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        drawn = torch.randn(shape, generator=self._generator, dtype=torch.float32, device=self._device)
        return drawn.cpu()

    def integer(self) -> int:
        return int(torch.randint(2**63 - 1, (), generator=self._generator, device=self._device))


@dataclass(frozen=True)
class Streams:
    """For each image the stream of its start noise and that of all later noise, which may be the same."""

    start: tuple[Stream, ...]
    later: tuple[Stream, ...]


def noise_streams(
    seeds: Sequence[int],
    shape: tuple[int, ...],
    kind: NoiseKind = "cpu",
    device: torch.device | str = "cpu",
    seed_delta: int = 0,
) -> Streams:
    """One stream per seed; with `seed_delta` later noise has a stream of its own, of seed + seed_delta modulo 2^64."""
    if not seeds:
        raise InvalidRequest("no seeds: expected one per image")
    if any(size < 1 for size in shape):
        raise InvalidRequest(f"noise of shape {shape}: expected sizes of at least 1")
    if kind not in NOISE_KINDS:
        raise unknown_choice("noise source", kind, NOISE_KINDS)
    if any(not 0 <= seed < 2**64 for seed in seeds):
        raise InvalidRequest(f"seeds {list(seeds)}: expected whole numbers from 0 to 2^64 - 1")

    def stream(seed: int) -> Stream:
        return (
            PhiloxStream(int(seed)) if kind == "nv" else TorchStream(int(seed), device if kind == "device" else "cpu")
        )

    start = tuple(stream(seed) for seed in seeds)
    return Streams(start, start if seed_delta == 0 else tuple(stream((s + seed_delta) % 2**64) for s in seeds))


class PerImageNoise:
    """Independent noise for every step, drawn from one generator per image in the order of the calls.

    Returns CPU float32 [B,C,H,W], B = len(seeds). `start()` is the first draw and may be called again.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], streams: Streams | None = None) -> None:
        self._shape = shape
        self._streams = noise_streams(seeds, shape) if streams is None else streams
        self._start = torch.stack([stream.normal(shape) for stream in self._streams.start])

    def start(self) -> Tensor:
        return self._start.clone()

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        return torch.stack([stream.normal(self._shape) for stream in self._streams.later])


class BrownianNoise:
    """Noise that is the increment of one Brownian path per image between two levels, scaled to unit variance.

    The path is a function of the image's seed alone, so a call gives the same whatever was asked before, and a finer
    grid of steps follows the same path. Its clock is the signal-to-noise ratio (alpha / sigma)^2: in that clock the
    noise of an SDE step at eta = 1, the integral of exp(lambda) dW(lambda), is exactly the increment. Returns CPU
    float32 [B,C,H,W].
    """

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, ...], schedule: Schedule, streams: Streams | None = None
    ) -> None:
        streams = noise_streams(seeds, shape) if streams is None else streams
        self._start = torch.stack([stream.normal(shape) for stream in streams.start])
        self._paths = [_BrownianPath(stream.integer(), shape) for stream in streams.later]
        self._schedule = schedule

    def start(self) -> Tensor:
        return self._start.clone()

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        """Needs sigma > sigma_next > 0."""
        begin, end = self._index(sigma), self._index(sigma_next)
        if not begin < end:
            raise InvalidRequest(f"noise from sigma {float(sigma)} to {float(sigma_next)}: expected a fall")
        elapsed = _clock(end) - _clock(begin)
        increments = [(path.at(end) - path.at(begin)) / math.sqrt(elapsed) for path in self._paths]
        return torch.stack(increments).to(torch.float32)

    def _index(self, sigma: Tensor | float) -> int:
        """The node of the path nearest to this level, evenly spaced in log(sigma / alpha)."""
        level = torch.as_tensor(sigma, dtype=torch.float64)
        ratio = float(level / self._schedule.alpha(level))  # inf for pure noise
        ratio = min(max(ratio, _NARROWEST), _WIDEST)
        return round(math.log(_WIDEST / ratio) / math.log(_WIDEST / _NARROWEST) * _NODES)


def _clock(index: int) -> float:
    """Signal-to-noise ratio at a node, counted from the path's start."""
    if index == 0:
        return 0.0
    ratio: float = _WIDEST * (_NARROWEST / _WIDEST) ** (index / _NODES)
    return 1 / ratio**2 - 1 / _WIDEST**2


class _BrownianPath:
    """Virtual Brownian tree (Li et al. 2020, arXiv:2001.01328, algorithm 3): bridges drawn on the way to the node.

    Each node's normal draw is seeded by a hash of the path's seed and the node's number, so nothing need be stored. The
    draws are torch's on the CPU whatever the source: that gives the path's seed.
    """

    def __init__(self, entropy: int, shape: tuple[int, ...]) -> None:
        self._entropy = entropy
        self._shape = shape
        self._known: dict[int, Tensor] = {}

    def at(self, index: int) -> Tensor:
        """W at node `index` of 0 .. _NODES, float64 `shape`."""
        if index not in self._known:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[index] = self._descend(index)
        return self._known[index]

    def _descend(self, index: int) -> Tensor:
        low, high = 0, _NODES
        at_low = torch.zeros(self._shape, dtype=torch.float64)
        if index == low:
            return at_low
        at_high = self._normal(high) * math.sqrt(_clock(high))
        while index != high:
            middle = (low + high) // 2
            begin, now, end = _clock(low), _clock(middle), _clock(high)
            weight = (now - begin) / (end - begin)
            spread = math.sqrt(weight * (end - now))
            at_middle = at_low + weight * (at_high - at_low) + spread * self._normal(middle)
            if index < middle:
                high, at_high = middle, at_middle
            elif index > middle:
                low, at_low = middle, at_middle
            else:
                return at_middle
        return at_high

    def _normal(self, node: int) -> Tensor:
        digest = hashlib.blake2b(f"{self._entropy}:{node}".encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little"))
        return torch.randn(self._shape, generator=generator, dtype=torch.float64)

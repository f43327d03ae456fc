"""The random numbers of NVIDIA cards, made anywhere: Philox 4x32-10 and Box-Muller.

Philox is the counter-based generator of Salmon, Moraes, Dror and Shaw 2011 (Parallel Random Numbers: As Easy as 1, 2,
3, section 4.3): a keyed bijection of 128-bit counters. On a card, value k of draw n of a seed has the counter
(n, 0, k, 0) and the key (seed mod 2^32, seed div 2^32), and its normal number is made from the first two words.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = npt.NDArray[np.uint32]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, in units of 2^-32
ROUNDS = 10
_UNIT = float(np.float32(2.0**-32))
_TURN = float(np.float32(2.0**-32 * 2 * math.pi))


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox 4x32-10: counters uint32 [4, n], key of two 32-bit words -> random words uint32 [4, n]."""
    words = [word.astype(np.uint64) for word in counter]
    low, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    keys = [int(part) for part in key]
    for _ in range(ROUNDS):
        first, second = words[0] * np.uint64(_MULTIPLIERS[0]), words[2] * np.uint64(_MULTIPLIERS[1])
        words = [
            (second >> low) ^ words[1] ^ np.uint64(keys[0]),
            second & mask,
            (first >> low) ^ words[3] ^ np.uint64(keys[1]),
            first & mask,
        ]
        keys = [(part + step) & 0xFFFFFFFF for part, step in zip(keys, _WEYL, strict=True)]
    return np.stack(words).astype(np.uint32)


def box_muller(first: Words, second: Words) -> npt.NDArray[np.float32]:
    """Standard normal numbers from pairs of words, those with the sine (Box & Muller 1958).

    The words' middles: (w + 1/2) / 2^32 lies inside (0, 1).
    """
    radius = np.sqrt(-2 * np.log(first.astype(np.float64) * _UNIT + _UNIT / 2))
    normal: npt.NDArray[np.float64] = radius * np.sin(second.astype(np.float64) * _TURN + _TURN / 2)
    return normal.astype(np.float32)


class PhiloxStream:
    """The draws of one seed, as a card gives them one after another."""

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
        self._draws = 0

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, CPU float32; each call is the next draw."""
        words = self._words(math.prod(shape))
        return torch.from_numpy(box_muller(words[0], words[1])).reshape(shape)

    def integer(self) -> int:
        """Uniform in [0, 2^63 - 1)."""
        low, high = (int(word) for word in self._words(1)[:2, 0])
        return (low | high << 32) % (2**63 - 1)

    def _words(self, count: int) -> Words:
        counter = np.zeros((4, count), dtype=np.uint32)
        counter[0], counter[2] = self._draws, np.arange(count, dtype=np.uint32)
        self._draws += 1
        return philox(counter, self._key)

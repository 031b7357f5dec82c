"""Randomness that belongs to a sample: every number is a pure function of seed, sample, epoch and purpose. Imports numpy only.

Nothing is drawn from a generator that others draw from too. So which rank, thread or restart asks, and what was asked before, changes no
number; docs/decisions/0022 says why.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """The random numbers of one sample in one epoch, by the name of what they are for.

    The same name always gives the same numbers; a longer answer begins with the shorter one's numbers, but for `normal`, whose count is
    even or odd.
    """

    def __init__(self, seed: int, key: str, epoch: int = 0) -> None:
        """`key` is the sample's; `epoch` counts how often this sample was drawn before."""
        self._basis = f"motionpair/{seed}/{key}/{epoch}"

    def words(self, purpose: str, count: int) -> NDArray[np.uint64]:
        """`count` raw words of Philox 4×64 (Salmon et al., 2011), whose key is a digest. numpy promises them for all versions."""
        digest = hashlib.sha256(f"{self._basis}/{purpose}".encode()).digest()
        return np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)

    def uniform(self, purpose: str, count: int) -> Floats:
        """`count` numbers strictly between 0 and 1: 52 bits, in the middle of their interval (with 53 the last would round to 1)."""
        return np.asarray(((self.words(purpose, count) >> np.uint64(12)) + 0.5) * 2.0**-52, np.float64)

    def chance(self, purpose: str, probability: float) -> bool:
        """True with this probability: always at 1, never at 0."""
        return bool(self.uniform(purpose, 1)[0] < probability)

    def between(self, purpose: str, low: float, high: float) -> float:
        """One number, uniform between two."""
        return float(low + (high - low) * self.uniform(purpose, 1)[0])

    def normal(self, purpose: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Standard normal numbers, by Box and Muller (1958) in float64."""
        count = math.prod(shape)
        u_2N = self.uniform(purpose, 2 * (-(-count // 2))).reshape(2, -1)
        radius, angle = np.sqrt(-2 * np.log(u_2N[0])), 2 * math.pi * u_2N[1]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return both[:count].reshape(shape).astype(np.float32)

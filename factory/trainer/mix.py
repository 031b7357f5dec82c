"""Which sample stands where: the order of the global stream as pure functions of integers. Imports numpy only.

Position k of the stream is a task and the n-th draw of that task; the n-th draw is a pair. No function here has a state.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BadInput

PERIOD_MAX = 1_000_000


class Draw(NamedTuple):
    """What stands at a position."""

    task: str
    n: int
    """how many draws of the task come before it"""


class Mix:
    """An endless sequence of tasks whose counts follow whole weights in every prefix.

    With w_i the weight of task i over the sum of all weights, every prefix of length k has |count_i - w_i k| < 1. The sequence repeats
    after S = sum of the reduced weights, with exact counts.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        """`weights` must be whole numbers of at least 0, not all 0; those of 0 are left out."""
        bad = {task: w for task, w in weights.items() if isinstance(w, bool) or not isinstance(w, int) or w < 0}
        if bad or not any(weights.values()):
            raise BadInput(f"mix weights must be whole numbers of at least 0 and not all 0, got {dict(weights)}")
        common = math.gcd(*weights.values())
        self.weights = {task: w // common for task, w in weights.items() if w}
        self.period = sum(self.weights.values())
        if self.period > PERIOD_MAX:
            raise BadInput(f"the mix {dict(weights)} repeats only after {self.period} samples, at most {PERIOD_MAX}; round its weights")
        self.tasks = tuple(self.weights)
        self._slots = _apportion(tuple(self.weights.values()))
        self._before = _earlier(self._slots)

    def at(self, position: int) -> Draw:
        """The draw at a position (from 0)."""
        turn, slot = divmod(position, self.period)
        task = self.tasks[self._slots[slot]]
        return Draw(task, turn * self.weights[task] + int(self._before[slot]))

    def counts(self, length: int) -> dict[str, int]:
        """How often each task stands in the first `length` positions."""
        turns, rest = divmod(length, self.period)
        extra = np.bincount(self._slots[:rest], minlength=len(self.tasks))
        return {task: turns * self.weights[task] + int(extra[i]) for i, task in enumerate(self.tasks)}


def _apportion(weights: tuple[int, ...]) -> NDArray[np.intp]:
    """One period, by earliest deadline first.

    The j-th item (from 0) of a task with share w = weight / S may stand at slots floor(j / w) to ceil((j + 1) / w) - 1: exactly the slots
    that keep |count - w k| below 1 in every prefix. These are the windows of proportionate-fair scheduling (Baruah, Cohen, Plaxton and
    Varvel, 1996): they can all be met, and for unit jobs with whole windows on one machine, earliest deadline first meets them.
    """
    total = sum(weights)
    waiting = [(0, i, 0) for i in range(len(weights))]  # (first slot, task, item)
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int]] = []  # (last slot, task, item)
    slots = np.empty(total, dtype=np.intp)
    for slot in range(total):
        while waiting and waiting[0][0] <= slot:
            _, task, item = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(item + 1) * total // weights[task]) - 1, task, item))
        _, task, item = heapq.heappop(ready)
        slots[slot] = task
        heapq.heappush(waiting, ((item + 1) * total // weights[task], task, item + 1))
    return slots


def _earlier(slots: NDArray[np.intp]) -> NDArray[np.int64]:
    """For each slot, how many slots before it hold the same task."""
    out = np.empty(len(slots), dtype=np.int64)
    for task in range(int(slots.max()) + 1):
        where = np.flatnonzero(slots == task)
        out[where] = np.arange(len(where))
    return out


def shuffled(seed: int, task: str, epoch: int, count: int) -> NDArray[np.intp]:
    """A permutation of range(count) that follows from its arguments alone.

    Sorting raw Philox words, not `Generator.permutation`: numpy promises the words of a bit generator for ever, a generator's methods not.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{task}/{epoch}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(count)
    return np.argsort(words, kind="stable")


def position_of(cycle: int, rank: int, world_size: int, period: int) -> int:
    """The position that a rank takes in a cycle; in every cycle the ranks take world_size consecutive positions, one each.

    With S the period and d = gcd(world_size, S), rank r takes cycle·W + (r + s) mod W, s = (cycle // (S / d)) mod d. Within S / d cycles a
    rank meets each position mod S of one class mod d once; s then moves it to the next class. So its positions mod S repeat after
    exactly S cycles and each occurs once in them: over any S consecutive cycles every rank sees every task at exactly its share.
    """
    classes = math.gcd(world_size, period)
    shift = cycle // (period // classes) % classes
    return cycle * world_size + (rank + shift) % world_size

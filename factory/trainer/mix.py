"""Which task and which source stand where: an endless, periodic order that keeps its shares everywhere. Imports numpy only.

Position k is a source and the n-th draw of that source. No function here has a state. The argument for the bounds is in
docs/decisions/0021-positions-sources-shapes-and-ranks.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifests.errors import BadInput

PERIOD_MAX = 1_000_000
TABLE_MAX = 4_000_000
"""slots of a period with shapes"""
TRIES = 8
"""orders of equal deadlines that are tried until the sources of each task are within one sample as well"""

Ints = NDArray[np.int64]


class Pattern:
    """An endless order of cells (sources, or sources by shape) that repeats after a period."""

    def __init__(self, cells: NDArray[np.intp], count: int) -> None:
        """`cells` is one period; `count` how many cells there are."""
        self.cells, self.count = cells, count
        self.per_period: Ints = np.bincount(cells, minlength=count).astype(np.int64)
        self._earlier = _earlier(cells, count)

    @property
    def period(self) -> int:
        return len(self.cells)

    def at(self, positions: ArrayLike) -> tuple[NDArray[np.intp], Ints]:
        """The cells at positions (from 0), and how many draws of the same cell come before each."""
        turns, slots = np.divmod(np.asarray(positions, np.int64), self.period)
        cells = self.cells[slots]
        return cells, turns * self.per_period[cells] + self._earlier[slots]

    def counts(self, length: int) -> Ints:
        """How often each cell stands in the first `length` positions."""
        turns, rest = divmod(length, self.period)
        return turns * self.per_period + np.bincount(self.cells[:rest], minlength=self.count)

    def errors(self, cells: Sequence[int]) -> Errors:
        """How far the count of some cells together is ever from their share, in samples: in any prefix, and in any window."""
        hits = np.isin(self.cells, cells)
        ahead = np.concatenate([[0], np.cumsum(hits)]) - hits.mean() * np.arange(self.period + 1)
        return Errors(float(np.abs(ahead).max()), float(ahead.max() - ahead.min()))


class Errors(NamedTuple):
    """The largest difference between a count and its share, in samples."""

    prefix: float
    window: float


class Mix(Pattern):
    """An endless order of sources: shares of tasks, and within each task shares of its sources.

    With w the weight of a task over the sum of all, every prefix of length k has |count - w k| < 1; so every window is within 2 samples.
    The same is reached for the sources of a task, but for rare weights; `errors` tells what holds. The order repeats after as many samples
    as the reduced weights of all sources sum up to, with exact counts.
    """

    def __init__(self, tasks: Mapping[str, int], sources: Mapping[str, Sequence[int]] | None = None) -> None:
        """`tasks` are weights: whole numbers of at least 0, not all 0; tasks of 0 are left out. `sources` are weights within a task, one a
        source, at least 1; a task without has one source. Raises BadInput for others."""
        within = {task: tuple((sources or {}).get(task, (1,))) for task in tasks}
        _check(tasks, within)
        self.tasks = tuple(task for task, weight in tasks.items() if weight)
        self.sources = tuple((task, number) for task in self.tasks for number in range(len(within[task])))
        """the cells: task, and the source's number in it"""
        weights = _flat([tasks[task] for task in self.tasks], [within[task] for task in self.tasks])
        self.groups = tuple(tuple(i for i, (t, _) in enumerate(self.sources) if t == task) for task in self.tasks)
        """cells by task"""
        self.weights = {task: sum(weights[i] for i in group) for task, group in zip(self.tasks, self.groups, strict=True)}
        common = math.gcd(*self.weights.values())
        self.task_period = sum(self.weights.values()) // common
        """samples after which the shares of tasks are exact"""
        if sum(weights) > PERIOD_MAX:
            given = {**tasks} if sources is None else {task: within[task] for task in self.tasks}
            raise BadInput(f"the mix {given} repeats only after {sum(weights)} samples, at most {PERIOD_MAX}; round its weights")
        super().__init__(_order(weights, self.groups), len(weights))

    def task_errors(self) -> dict[str, Errors]:
        return {task: self.errors(group) for task, group in zip(self.tasks, self.groups, strict=True)}


def with_shapes(mix: Mix, weights: Sequence[int], block: int) -> Pattern:
    """A mix whose positions have shapes: cell = source · number of shapes + shape.

    `block` positions in a row (0 to block - 1, and so on) have one shape. Blocks that lie alike to the mix's period form a class; each
    class goes through the shapes by `weights` on its own, so no task is locked to a shape and each source has each shape at its share.
    Raises BadInput when the whole repeats after too many samples.
    """
    common = math.gcd(*weights)
    shares = tuple(weight // common for weight in weights)
    classes = mix.period // math.gcd(mix.period, block)
    length = classes * sum(shares) * block
    if length > TABLE_MAX:
        raise BadInput(
            f"the mix with shapes repeats only after {length} samples, at most {TABLE_MAX}; round the weights of tasks or shapes"
        )
    turn = _apportion(shares)
    blocks = np.arange(length // block)
    start = (blocks % classes) * len(turn) // classes  # classes begin at different places of the turn, so that they don't move in step
    shape = np.repeat(turn[(blocks // classes + start) % len(turn)], block)
    sources = np.tile(mix.cells, length // mix.period)
    return Pattern(sources * len(shares) + shape, mix.count * len(shares))


def _check(tasks: Mapping[str, int], within: Mapping[str, Sequence[int]]) -> None:
    def whole(weight: object, least: int) -> bool:
        return isinstance(weight, int) and not isinstance(weight, bool) and weight >= least

    if not any(tasks.values()) or not all(whole(weight, 0) for weight in tasks.values()):
        raise BadInput(f"mix weights must be whole numbers of at least 0 and not all 0, got {dict(tasks)}")
    for task, weights in within.items():
        if not weights or not all(whole(weight, 1) for weight in weights):
            raise BadInput(f"the mix of sources in {task} must be whole numbers of at least 1, got {tuple(weights)}")


def _flat(tasks: Sequence[int], within: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The smallest whole weights of all sources."""
    scale = math.lcm(*(sum(weights) for weights in within))
    flat = [task * weight * (scale // sum(weights)) for task, weights in zip(tasks, within, strict=True) for weight in weights]
    common = math.gcd(*flat)
    return tuple(weight // common for weight in flat)


def _order(weights: Sequence[int], groups: Sequence[Sequence[int]]) -> NDArray[np.intp]:
    """One period: tasks first, then each task's slots among its sources. Of several orders of tasks with equal deadlines the first that
    keeps all sources within one sample, else the best."""
    best: tuple[float, NDArray[np.intp]] | None = None
    for number in range(TRIES):
        turned = [*range(number % len(groups), len(groups)), *range(number % len(groups))]
        slots = np.asarray(turned)[_apportion([sum(weights[i] for i in groups[g]) for g in turned])]
        cells = np.empty(len(slots), np.intp)
        for number_of_group, group in enumerate(groups):
            where = np.flatnonzero(slots == number_of_group)
            cells[where] = np.asarray(group)[_apportion([weights[i] for i in group], len(slots), where)]
        if all(len(group) == 1 for group in groups):
            return cells
        pattern = Pattern(cells, len(weights))
        worst = max(pattern.errors([i]).prefix for i in range(len(weights)))
        if best is None or worst < best[0] - 1e-9:
            best = worst, cells
        if worst < 1 - 1e-9 or number + 1 >= len(groups):
            break
    assert best is not None
    return best[1]


def _apportion(weights: Sequence[int], total: int | None = None, slots: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """One period, by earliest deadline first; or of its `slots` only, as many as the weights.

    The j-th item (from 0) of one with share w = weight / total may stand at slots floor(j / w) to ceil((j + 1) / w) - 1: exactly the slots
    that keep |count - w k| below 1 in every prefix. These are the windows of proportionate-fair scheduling (Baruah, Cohen, Plaxton and
    Varvel, 1996): they can all be met, and for unit jobs with whole windows on one machine, earliest deadline first meets them. Where only
    some slots are free they may not all be met; then the one whose window opens next is taken.
    """
    total = total or sum(weights)
    waiting = [(0, i, 0) for i in range(len(weights))]  # (first slot, which, item)
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int]] = []  # (last slot, which, item)
    free = range(total) if slots is None else slots.tolist()
    out = np.empty(len(free), np.intp)
    for place, slot in enumerate(free):
        while waiting and (waiting[0][0] <= slot or not ready):
            first, which, item = waiting[0]
            if item >= weights[which]:
                heapq.heappop(waiting)  # its items of this period are all placed
                continue
            if first > slot and ready:
                break
            heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(item + 1) * total // weights[which]) - 1, which, item))
        _, which, item = heapq.heappop(ready)
        out[place] = which
        heapq.heappush(waiting, ((item + 1) * total // weights[which], which, item + 1))
    return out


def _earlier(cells: NDArray[np.intp], count: int) -> Ints:
    """For each slot, how many slots before it hold the same cell."""
    order = np.argsort(cells, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))[:-1]])
    out = np.empty(len(cells), np.int64)
    out[order] = np.arange(len(cells)) - starts[cells[order]]
    return out

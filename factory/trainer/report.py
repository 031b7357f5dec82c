"""What the stream has given so far: draws and repeats by task, release and shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from factory.trainer.catalog import Shape
from factory.trainer.permute import mixed, permuted
from factory.trainer.schedule import Schedule


class Replaced(NamedTuple):
    """A sample that could not be read."""

    position: int
    key: str
    by: str
    """key of the pair that was given instead"""
    why: str


class Bucket(NamedTuple):
    """Pairs of one task, release and shape."""

    task: str
    release: str
    """where it lies"""
    shape: str
    pairs: int
    draws: int
    share: float
    """of the task's draws"""
    repeats: float
    """draws by pairs: how often each was given"""


class Report(NamedTuple):
    position: int
    """of the global stream"""
    buckets: tuple[Bucket, ...]
    unused: dict[str, int]
    """task → pairs whose shape is not asked for"""
    replaced_count: int
    """by this rank"""
    replaced: tuple[Replaced, ...]
    """the last ones"""

    def __str__(self) -> str:
        lines = [f"position {self.position}, {self.replaced_count} samples replaced"]
        for b in self.buckets:
            lines.append(
                f"{b.task:<12} {b.shape:<14} {b.draws:>10} draws {100 * b.share:5.1f} %  {b.pairs:>8} pairs × {b.repeats:.2f}  {b.release}"
            )
        lines += [f"{task:<12} {count} pairs of other shapes are left out" for task, count in self.unused.items()]
        return "\n".join(lines)


def report_of(schedule: Schedule, position: int, replaced: Iterable[Replaced], replaced_count: int) -> Report:
    """What the first `position` positions hold."""
    counts = schedule.counts(position)
    draws: dict[tuple[int, Shape], int] = {}
    for number, (cell, count) in enumerate(zip(schedule.cells, counts.tolist(), strict=True)):
        if cell.shape is not None:
            draws[cell.source, cell.shape] = count
        else:
            draws |= {(cell.source, shape): n for shape, n in _by_shape(schedule, number, count).items()}
    by_task: dict[str, int] = {}
    for (source, _), count in draws.items():
        task = schedule.mix.sources[source][0]
        by_task[task] = by_task.get(task, 0) + count
    buckets, unused = [], dict.fromkeys(by_task, 0)
    for (source, shape), count in draws.items():
        shelf, task = schedule.shelves[source], schedule.mix.sources[source][0]
        start, end = shelf.ranges[shape]
        share = count / by_task[task] if by_task[task] else 0.0
        buckets.append(Bucket(task, shelf.catalog.url, str(shape), end - start, count, share, count / (end - start)))
    for source, (task, _) in enumerate(schedule.mix.sources):
        unused[task] += sum(e - s for shape, (s, e) in schedule.shelves[source].ranges.items() if (source, shape) not in draws)
    return Report(position, tuple(buckets), {task: n for task, n in unused.items() if n}, replaced_count, tuple(replaced))


def _by_shape(schedule: Schedule, number: int, draws: int) -> dict[Shape, int]:
    """Draws by shape where a source's pairs come in one order: whole epochs, and what the present one has given."""
    cell = schedule.cells[number]
    epoch, rest = divmod(draws, cell.size)
    pairs = np.sort(permuted(np.arange(rest), cell.size, mixed(schedule.order_key(number), epoch)))
    found = {}
    for shape, (start, end) in schedule.shelves[cell.source].ranges.items():
        found[shape] = epoch * (end - start) + int(np.searchsorted(pairs, end) - np.searchsorted(pairs, start))
    return found

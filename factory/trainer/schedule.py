"""Position → pair, and (rank, step) → position, as pure functions of the releases' digests, a seed and the position.

Nothing is kept but one period of the mix and a range of numbers for each cell (a source, or a source's pairs of one shape), so the memory
for the order does not grow with the data. docs/decisions/0021 has the argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from factory.trainer.catalog import Entry, Shape, Shelf
from factory.trainer.mix import Ints, Mix, Pattern, with_shapes
from factory.trainer.permute import U64, key_of, mixed, permuted
from manifests.errors import BadInput

LOOK = 64
"""places that are looked at together when a pair has to be replaced"""


class Places(NamedTuple):
    """What stands at positions; arrays of one length."""

    source: NDArray[np.intp]
    """number of the source, as in Mix.sources"""
    cell: NDArray[np.intp]
    draw: Ints
    """draws of the same cell before it"""
    epoch: Ints
    """full passes through the cell before it"""
    pair: Ints
    """number on the source's shelf"""
    seed: U64
    """for augmentations; another one whenever the pair comes again"""


@dataclass(frozen=True)
class Cell:
    """Pairs that are drawn together, each once an epoch: those of a source, or those of one shape in it."""

    source: int
    start: int
    """number of the first one on the source's shelf"""
    size: int
    shape: Shape | None
    """None: all shapes"""


class Schedule:
    """The order of the global stream."""

    def __init__(self, mix: Mix, shelves: Sequence[Shelf], seed: int, shapes: Mapping[Shape, int] | None = None, block: int = 1) -> None:
        """`shelves` belong to `mix.sources`. `shapes`: weights of shape buckets; each `block` positions in a row have one shape then. None:
        each source's pairs come in one order, whatever their shape. Raises BadInput when a source has no pairs of a shape."""
        self.mix, self.shelves, self.seed, self.block = mix, tuple(shelves), seed, block
        self.shapes = tuple(shapes) if shapes else ()
        names = [f"{task}/{number}" for task, number in mix.sources]  # not the release: recut shards and a new licence change no order
        self.cells = tuple(cell for i in range(mix.count) for cell in self._cells(i))
        self.pattern: Pattern = with_shapes(mix, list(shapes.values()), block) if shapes else mix
        self._sizes = np.array([cell.size for cell in self.cells], np.int64)
        self._starts = np.array([cell.start for cell in self.cells], np.int64)
        self._of_cell = np.array([cell.source for cell in self.cells], np.intp)
        self._order_keys = np.array([key_of("order", seed, names[c.source], c.shape) for c in self.cells], np.uint64)
        self._seed_keys = np.array([key_of("augment", seed, name) for name in names], np.uint64)
        self._rank_key = key_of("ranks", seed, *names)

    def _cells(self, source: int) -> Iterator[Cell]:
        shelf = self.shelves[source]
        if not self.shapes:
            yield Cell(source, 0, len(shelf), None)
        for shape in self.shapes:
            start, end = shelf.ranges[shape]
            yield Cell(source, start, end - start, shape)

    def at(self, positions: ArrayLike) -> Places:
        """What stands at positions (from 0), many at once."""
        cells, draws = self.pattern.at(np.atleast_1d(np.asarray(positions, np.int64)))
        epochs, places = np.divmod(draws, self._sizes[cells])
        pairs = self._starts[cells] + permuted(places, self._sizes[cells], mixed(self._order_keys[cells], epochs))
        sources = self._of_cell[cells]
        return Places(sources, cells, draws, epochs, pairs, mixed(mixed(self._seed_keys[sources], pairs), epochs))

    def order_key(self, cell: int) -> int:
        """Of a cell's permutations; mixed with an epoch it is that epoch's."""
        return int(self._order_keys[cell])

    def entry(self, source: int, pair: int) -> Entry:
        return self.shelves[source].entries([pair])[0]

    def entries(self, places: Places) -> list[Entry]:
        """The pairs of many places."""
        found: list[Entry | None] = [None] * len(places.source)
        for source in np.unique(places.source).tolist():
            where = np.flatnonzero(places.source == source)
            for number, entry in zip(where.tolist(), self.shelves[source].entries(places.pair[where]), strict=True):
                found[number] = entry
        return [entry for entry in found if entry is not None]

    def after(self, cell: int, draw: int) -> Iterator[int]:
        """The pairs to take instead of one that can't be read: those of its source and shape that follow it in its epoch's order, which
        goes round. Each once; the pair itself is left out."""
        found = self.cells[cell]
        epoch, place = divmod(draw, found.size)
        key = mixed(self.order_key(cell), epoch)
        pair = found.start + int(permuted(place, found.size, key)[0])
        low, high = next(r for r in self.shelves[found.source].ranges.values() if r[0] <= pair < r[1])
        for first in range(1, found.size, LOOK):
            places = (place + np.arange(first, min(first + LOOK, found.size))) % found.size
            pairs = found.start + permuted(places, found.size, key)
            yield from pairs[(low <= pairs) & (pairs < high)].tolist()

    def counts(self, length: int) -> Ints:
        """Draws of each cell in the first `length` positions."""
        return self.pattern.counts(length)

    def unit_of(self, steps: ArrayLike, rank: int, world_size: int, unit: int = 1) -> Ints:
        """Which unit (of `unit` positions in a row) a rank reads at steps, where step s has the units s·W to s·W + W - 1.

        Ranks and offsets in a step are tied by rotations of permutations that are keyed by turn and class: a class holds the steps that lie
        alike to the tasks' period (there are Q), a turn is W·Q steps. In each turn a rank meets, in each class, each offset once: so over a
        turn every rank has every task at exactly its share, in an order that does not go along with the tasks'.
        """
        steps = np.atleast_1d(np.asarray(steps, np.int64))
        if world_size == 1:
            return steps
        classes = self.mix.task_period // math.gcd(self.mix.task_period, world_size * unit)
        turns, inside = np.divmod(steps, world_size * classes)
        visits, kinds = np.divmod(inside, classes)
        keys = mixed(self._rank_key ^ world_size, turns)
        seats = permuted(rank, world_size, keys)
        rotations = permuted(visits, world_size, mixed(keys, kinds))
        units: Ints = steps * world_size + (seats + rotations) % world_size
        return units


def shape_weights(shelves: Sequence[Shelf], mix: Mix, block: int, asked: Mapping[str, int] | None) -> dict[Shape, int] | None:
    """Weights of shape buckets: those asked for, or for blocks of several positions the data's own, averaged over the mix, in hundredths.

    None when each position may have any shape. Raises BadInput when a source lacks a shape, as its positions could not be filled then.
    """
    if asked is None and block == 1:
        return None
    if asked is not None:
        bad = {name: weight for name, weight in asked.items() if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1}
        if bad or not asked:
            raise BadInput(f"weights of shapes must be whole numbers of at least 1, got {dict(asked)}")
        weights = {Shape.parse(name): weight for name, weight in asked.items()}
    else:
        weights = _own_weights(shelves, mix)
    common = [shape for shape in weights if all(shape in shelf.ranges for shelf in shelves)]
    for shelf, (task, _) in zip(shelves, mix.sources, strict=True):
        lacking = [str(shape) for shape in weights if shape not in shelf.ranges]
        if lacking:
            have = ", ".join(map(str, shelf.ranges))
            hint = ",".join(map(str, common)) or "none: use micro_batch=1 or shapes=None, or leave the task out"
            raise BadInput(f"{task} in {shelf.catalog.url} has no pairs of {', '.join(lacking)}, it has {have}; shapes of all: {hint}")
    return dict(sorted(weights.items()))


def _own_weights(shelves: Sequence[Shelf], mix: Mix) -> dict[Shape, int]:
    shares: dict[Shape, float] = {}
    for shelf, draws in zip(shelves, mix.per_period.tolist(), strict=True):
        for shape, (start, end) in shelf.ranges.items():
            shares[shape] = shares.get(shape, 0.0) + draws / mix.period * (end - start) / len(shelf)
    return {shape: max(1, round(100 * share)) for shape, share in sorted(shares.items())}

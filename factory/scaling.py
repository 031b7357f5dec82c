"""How many workers each pool shall have: a pure function of what there is to do, how long it takes and what room there is.

The least time in which all pools can do their work is what counts: a pool with W worker-seconds to do and n workers needs W / n seconds;
the longest of these, made as short as the budget allows, is the **pace** (max-min fair shares: Bertsekas & Gallager, Data Networks, 6.5.2).
Pools get the workers that keep it, a little headroom against the spread of service times, and what room is left goes to those that have
a standing queue all the same.

A pool is made larger only when that saves a share of its time that the noise of the measurement does not explain (the dearer a load is, the
surer that must be), and when it pays back the load of the new workers before the work ends. Workers that are not needed stay until somebody
else needs their room, or most of the pool is idle. So equal input gives equal sizes, sizes that were reached stay, and nothing thrashes
when a load takes minutes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from manifests.recipe import PoolSpec, Recipe

HEADROOM = 1.25
"""times the pace's size that a pool is given where there is room: one that is never waited for works at 80 %"""
SLACK = 0.05
"""share of its time that a pool must save to be made larger, where a load is dear: it is paid back within twenty times as long"""
SLACK_MIN = 0.02
"""the same where workers load at once"""
DEAR_S = 30.0
"""load from which a change for nothing hurts more than half"""
NOISE = 2.0
"""standard errors of the mean service time that are taken for noise"""
STANDING = 2.0
"""calls a worker from which the queue of a pool counts as standing: one runs, one waits"""
SURPLUS = 2.0
"""times what it needs from which an idle pool lets workers go"""
GPU = "GPU"
"""of any type; a worker of a named type asks for both"""
PRIOR_PAIRS = 20.0
"""pairs that what the recipe makes expect of the calls counts like"""
_STEPS = 40
"""halvings of the interval in which the pace is sought"""


@dataclass(frozen=True)
class PoolView:
    """A pool as it stands. All times are seconds of one worker."""

    name: str
    floor: int
    """workers that are kept warm"""
    ceiling: int
    asks: Mapping[str, float]
    """what one worker takes, by kind: see `asks_of`"""
    workers: int
    """there are, those that still load included, those that are leaving not"""
    queued: int = 0
    """calls that run or wait"""
    coming: float = 0.0
    """calls that are still to come, those queued included, as far as that is known (see `Forecast`)"""
    service_s: float = 0.0
    """mean time of a call; 0: not known, then the pool stays at its floor"""
    spread_s: float = 0.0
    """standard deviation of the same"""
    measured: int = 0
    """recent calls from which both come; 0: they are the recipe's"""
    load_s: float = 0.0
    """that a new worker needs until it can work"""

    @property
    def work_s(self) -> float:
        """What there is to do."""
        return max(float(self.queued), self.coming) * self.service_s

    @property
    def noise(self) -> float:
        """What the mean service time may be off by, as a share of it."""
        if not self.measured or not self.service_s:
            return 0.0
        spread = self.spread_s if self.measured > 1 else self.service_s
        return NOISE * spread / math.sqrt(self.measured) / self.service_s

    def time_s(self, workers: int) -> float:
        """Until so many workers have done it."""
        return self.work_s / workers if workers else (math.inf if self.work_s else 0.0)

    def wants(self, time_s: float) -> int:
        """Workers that do it in a time, within the recipe's bounds."""
        needed = self.work_s / time_s if time_s else math.inf
        return self.ceiling if needed >= self.ceiling else max(self.floor, math.ceil(needed - 1e-9))


def targets(pools: Sequence[PoolView], budget: Mapping[str, float]) -> dict[str, int]:
    """How many workers each pool shall have. `budget`: kind → how much there is (`budget_of`).

    The sum never exceeds the budget. Every pool has its floor, as long as the floors fit together; where they do not, because nodes have
    gone, the largest give way first.
    """
    pools = sorted(pools, key=lambda p: p.name)
    ideal = _ideal(pools, budget)
    sizes = {p.name: ideal[p.name] if _too_many(p, ideal[p.name]) else min(p.workers, p.ceiling) for p in pools}
    if not _fits(pools, sizes, budget) or any(sizes[p.name] < min(p.floor, ideal[p.name]) for p in pools):
        return ideal  # a node has gone or come, or nothing has been started
    for pool in sorted(pools, key=lambda p: (-p.time_s(sizes[p.name]), p.name)):
        if pays(pool, sizes[pool.name], ideal[pool.name]):
            _grow(pool, ideal, sizes, pools, budget)
    return sizes


def _too_many(pool: PoolView, needed: int) -> bool:
    """Whether a pool has twice what it needs and no work for half of it: what filled the pools at the beginning may go."""
    return pool.workers > SURPLUS * needed and pool.queued < pool.workers / SURPLUS


def pays(pool: PoolView, workers: int, more: int) -> bool:
    """Whether a larger size saves more time than its load takes; and, the dearer a load is, more than noise explains."""
    if more <= workers:
        return False
    before, after = pool.time_s(workers), pool.time_s(more)
    if math.isinf(before):
        return True
    dear = pool.load_s / (pool.load_s + DEAR_S)
    return before - after > max(SLACK_MIN, dear * (SLACK + pool.noise)) * before and before - after > pool.load_s


def _grow(pool: PoolView, ideal: Mapping[str, int], sizes: dict[str, int], pools: Sequence[PoolView], budget: Mapping[str, float]) -> None:
    """Bring a pool to its ideal size; others that have more than theirs make room, the least pressed first."""
    sizes[pool.name] = ideal[pool.name]
    donors = sorted((p for p in pools if sizes[p.name] > ideal[p.name]), key=lambda p: (p.time_s(sizes[p.name]), p.name))
    for donor in donors:
        lacking = _lacking(pools, sizes, budget)
        share = max((lacking[kind] / asked for kind, asked in donor.asks.items() if asked and lacking[kind] > 1e-9), default=0.0)
        sizes[donor.name] = max(ideal[donor.name], sizes[donor.name] - math.ceil(share - 1e-9))


def _ideal(pools: Sequence[PoolView], budget: Mapping[str, float]) -> dict[str, int]:
    sizes = _floors(pools, budget)
    busy = [p for p in pools if p.work_s > 0 and sizes[p.name] >= p.floor]
    pace_s = _pace(busy, sizes, pools, budget)
    if not pace_s:
        return sizes
    for pool in busy:
        sizes[pool.name] = max(sizes[pool.name], pool.wants(pace_s))
    for pool in sorted(busy, key=lambda p: (-p.time_s(sizes[p.name]), p.name)):
        sizes[pool.name] += _room(pool, pool.wants(pace_s / HEADROOM) - sizes[pool.name], sizes, pools, budget)
    waited_for = [p for p in busy if p.queued >= max(1.0, STANDING * p.workers)]
    while waited_for := [p for p in waited_for if _room(p, 1, sizes, pools, budget)]:
        pace_s = _pace(waited_for, sizes, pools, budget)
        more = {p.name: max(0, p.wants(pace_s) - sizes[p.name]) for p in waited_for}
        if not any(more.values()):  # less is left than one worker for each of them
            more[max(waited_for, key=lambda p: (p.time_s(sizes[p.name]), p.name)).name] = 1
        for name, count in more.items():
            sizes[name] += count
    return sizes


def _pace(busy: Sequence[PoolView], sizes: Mapping[str, int], pools: Sequence[PoolView], budget: Mapping[str, float]) -> float:
    """The least time in which the busy pools can do their work while the others keep their sizes; 0 when there is nothing to do."""
    high = max((p.time_s(max(1, sizes[p.name])) for p in busy), default=0.0)
    low = max((p.time_s(p.ceiling) for p in busy), default=0.0)

    def possible(time_s: float) -> bool:
        return _fits(pools, {**sizes, **{p.name: max(sizes[p.name], p.wants(time_s)) for p in busy}}, budget)

    if possible(low):
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return high


def _floors(pools: Sequence[PoolView], budget: Mapping[str, float]) -> dict[str, int]:
    """Every pool's floor; where they do not fit together, less of the largest that take what is lacking."""
    sizes = {p.name: p.floor for p in pools}
    while not _fits(pools, sizes, budget):
        lacking = {kind for kind, amount in _lacking(pools, sizes, budget).items() if amount > 1e-9}
        takers = [p for p in pools if sizes[p.name] and any(p.asks.get(kind, 0) > 0 for kind in lacking)]
        largest = max(takers, key=lambda p: (sizes[p.name], p.name))
        sizes[largest.name] -= 1
    return sizes


def _used(pools: Sequence[PoolView], sizes: Mapping[str, int]) -> Counter[str]:
    used: Counter[str] = Counter()
    for pool in pools:
        for kind, asked in pool.asks.items():
            used[kind] += asked * sizes[pool.name]  # type: ignore[assignment]
    return used


def _lacking(pools: Sequence[PoolView], sizes: Mapping[str, int], budget: Mapping[str, float]) -> dict[str, float]:
    """Kind → how much more than there is the pools would take; negative where room is left."""
    used = _used(pools, sizes)
    return {kind: used[kind] - budget.get(kind, 0.0) for kind in used}


def _fits(pools: Sequence[PoolView], sizes: Mapping[str, int], budget: Mapping[str, float]) -> bool:
    return all(amount <= 1e-9 for amount in _lacking(pools, sizes, budget).values())


def _room(pool: PoolView, more: int, sizes: Mapping[str, int], pools: Sequence[PoolView], budget: Mapping[str, float]) -> int:
    """How many of so many further workers there is room for."""
    lacking = _lacking(pools, sizes, budget)
    free = min((-lacking[kind] / asked for kind, asked in pool.asks.items() if asked), default=math.inf)
    return max(0, math.floor(min(more, free + 1e-9, pool.ceiling - sizes[pool.name])))


def asks_of(spec: PoolSpec) -> dict[str, float]:
    """What one worker of a pool takes: CPUs, GPUs (of any type, and of its own type by name), GB of memory, the cluster's own resources."""
    asks = {"CPU": spec.cpus, GPU: spec.gpus, "memory_gb": spec.memory_gb or 0.0, **spec.resources}
    if spec.accelerator:
        asks[spec.accelerator] = spec.gpus
    return {kind: amount for kind, amount in asks.items() if amount}


def budget_of(nodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The room on nodes, as Ray tells of their resources; GPUs are counted under their type as well.

    Only the sum counts: that a worker's GPUs must lie on one node is not looked at.
    """
    budget: Counter[str] = Counter()
    for node in nodes:
        for kind, amount in node.items():
            if kind.startswith("accelerator_type:"):
                budget[kind.partition(":")[2]] += node.get(GPU, 0.0)  # type: ignore[assignment]
            elif kind == "memory":
                budget["memory_gb"] += amount / 1e9  # type: ignore[assignment]
            elif not kind.startswith(("node:", "object_store")):
                budget[kind] += amount  # type: ignore[assignment]
    return {"CPU": 0.0, GPU: 0.0, **budget}


class Forecast:
    """How many calls each pool will still get: those of decided jobs, for every accepted pair, times the pairs that are wanting.

    Until jobs are decided the recipe's numbers stand in: a video and a picture for every attempt, and a preference pair's loser. What it
    says nothing of (the steps on CPUs) is learnt.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._prior: dict[str, Counter[str]] = {name: Counter() for name in recipe.slices}
        for name, part in recipe.slices.items():
            for generator in (part.generator, *(() if part.task == "pose" else (part.painter,))):
                self._prior[name][recipe.pool_of(generator)] += 1 / part.acceptance  # type: ignore[assignment]
            self._prior[name][recipe.pool_of(part.generator)] += part.rounds - 1
        self._under_way: dict[str, Counter[str]] = {}
        """rank → calls of a job that is not decided"""
        self._calls: dict[str, Counter[str]] = {name: Counter() for name in recipe.slices}
        self._accepted: Counter[str] = Counter()

    def called(self, rank: str, pool: str, calls: int = 1) -> None:
        """Calls of a job to a pool have ended."""
        self._under_way.setdefault(rank, Counter())[pool] += calls

    def decided(self, rank: str, slice_name: str, accepted: bool) -> None:
        """A job has ended."""
        self._calls[slice_name].update(self._under_way.pop(rank, {}))
        self._accepted[slice_name] += accepted

    def per_pair(self, slice_name: str) -> dict[str, float]:
        """Pool → calls for one accepted pair, those of the rejected jobs included."""
        prior, calls, pairs = self._prior[slice_name], self._calls[slice_name], PRIOR_PAIRS + self._accepted[slice_name]
        return {pool: (PRIOR_PAIRS * prior[pool] + calls[pool]) / pairs for pool in sorted({*prior, *calls})}

    def coming(self, wanting: Mapping[str, int]) -> dict[str, float]:
        """Pool → calls, for the pairs that every slice still wants."""
        out: Counter[str] = Counter()
        for name, pairs in wanting.items():
            for pool, calls in self.per_pair(name).items():
                out[pool] += calls * pairs  # type: ignore[assignment]
        return dict(out)


def view_of(name: str, spec: PoolSpec, workers: int, **measured: float) -> PoolView:
    """A pool of a recipe; `measured` are the fields of PoolView that are known of it."""
    low, high = (int(n) for n in spec.workers)
    known = PoolView(name, low, max(low, high), asks_of(spec), workers, load_s=spec.load_s)
    return replace(known, **measured)  # type: ignore[arg-type]

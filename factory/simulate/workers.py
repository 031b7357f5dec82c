"""Simulated pools: a queue before workers that take time, load before they work, and share GPUs and CPUs with other pools."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from factory.admission import PoolLoad
from factory.members import SLOTS
from factory.pool import REMEMBERED
from factory.scaling import PoolView, asks_of, view_of
from factory.simulate.clock import Timeline
from manifests.recipe import PoolSpec


@dataclass(frozen=True)
class Spent:
    """Worker-seconds of a pool since the beginning."""

    busy_s: float = 0.0
    loading_s: float = 0.0
    there_s: float = 0.0
    """of all workers, whatever they did"""

    def since(self, earlier: Spent) -> Spent:
        """What came after another moment."""
        return Spent(self.busy_s - earlier.busy_s, self.loading_s - earlier.loading_s, self.there_s - earlier.there_s)


class SimulatedPool:
    """Identical workers. Calls go later steps first, then in plan order; a worker that has to go ends its call first."""

    def __init__(self, name: str, spec: PoolSpec, timeline: Timeline, expected_s: float) -> None:
        self.name, self.spec, self.target = name, spec, 0
        self.idle = self.busy = self.loading = 0
        self.asks = asks_of(spec)
        self._timeline, self._expected_s = timeline, expected_s
        self._queue: list[tuple[int, str, int, float, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._given_up = 0
        """workers that load although nobody wants them any more"""
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)
        self._spent, self._counted_s = [0.0, 0.0, 0.0], 0.0
        self.left: Callable[[], None] = lambda: None
        """what to do when a worker has gone"""

    @property
    def workers(self) -> int:
        """That take room."""
        return self.idle + self.busy + self.loading

    @property
    def queued(self) -> int:
        """Calls that run or wait."""
        return self.busy + len(self._queue)

    def call(self, depth: int, rank: str, service_s: float) -> asyncio.Future[None]:
        """Take a worker for so long; the future is done when it has ended."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (-depth, rank, next(self._numbers), service_s, done))
        if self.idle:
            self._count()
            self._serve()
        return done

    def resize(self, target: int) -> None:
        """So many workers are wanted: those that are idle or load go at once if there are more; `start` brings what is lacking."""
        self._count()
        self.target = target
        for state in ("loading", "idle"):
            gone = max(0, min(getattr(self, state), self.workers - target))
            setattr(self, state, getattr(self, state) - gone)
            self._given_up += gone if state == "loading" else 0

    def start(self) -> None:
        """One more worker begins to load."""
        self._count()
        self.loading += 1
        self._timeline.at(self._timeline.now_s + self.spec.load_s, self._loaded)

    def load(self) -> PoolLoad:
        """For the admission."""
        return PoolLoad(max(1, SLOTS * max(self.workers, self.target)), self.queued)

    def view(self, coming: float) -> PoolView:
        """For scaling."""
        took, count = self._took_s, len(self._took_s)
        mean = sum(took) / count if count else self._expected_s
        spread = (sum((t - mean) ** 2 for t in took) / (count - 1)) ** 0.5 if count > 1 else 0.0
        return view_of(
            self.name, self.spec, self.target, queued=self.queued, coming=coming, service_s=mean, spread_s=spread, measured=count
        )

    def spent(self) -> Spent:
        """Up to now."""
        self._count()
        return Spent(*self._spent)

    def _count(self) -> None:
        passed_s, self._counted_s = self._timeline.now_s - self._counted_s, self._timeline.now_s
        if passed_s:
            spent = self._spent
            spent[0] += self.busy * passed_s
            spent[1] += self.loading * passed_s
            spent[2] += (self.idle + self.busy + self.loading) * passed_s

    def _loaded(self) -> None:
        self._count()
        if self._given_up:  # which of several loads is given up makes no difference to how many there are
            self._given_up -= 1
            return
        self.loading -= 1
        self.idle += 1
        self._serve()

    def _serve(self) -> None:
        queue = self._queue
        while self.idle and queue:
            _, _, _, service_s, done = heapq.heappop(queue)
            if done.done():  # nobody waits for it any more
                continue
            self.idle -= 1
            self.busy += 1
            self._timeline.at(self._timeline.now_s + service_s, self._ended, service_s, done)

    def _ended(self, service_s: float, done: asyncio.Future[None]) -> None:
        self._count()
        self._took_s.append(service_s)
        self.busy -= 1
        if not done.done():
            done.set_result(None)
        if self.workers >= self.target:
            self.left()
            return
        self.idle += 1
        self._serve()


class Cluster:
    """All pools, and the room that they share."""

    def __init__(self, pools: Mapping[str, SimulatedPool], budget: Mapping[str, float]) -> None:
        self.pools, self.budget = pools, budget
        for pool in pools.values():
            pool.left = self._fill

    def resize(self, targets: Mapping[str, int]) -> None:
        """Bring the pools towards their target sizes. A worker begins to load when there is room for it."""
        for name, size in targets.items():
            self.pools[name].resize(size)
        self._fill()

    def used(self, kind: str) -> float:
        """How much of a kind all workers take."""
        return sum(pool.asks.get(kind, 0.0) * pool.workers for pool in self.pools.values())

    def _fill(self) -> None:
        for pool in self.pools.values():
            if pool.workers < pool.target:
                free = min(((self.budget[kind] - self.used(kind)) / asked for kind, asked in pool.asks.items()), default=float("inf"))
                for _ in range(int(min(pool.target - pool.workers, max(0.0, free + 1e-9)))):
                    pool.start()

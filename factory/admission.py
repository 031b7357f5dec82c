"""Which jobs are begun, and when: enough that every pool is fed, no more than the pools can use.

A job is always at one pool at most. The slices whose jobs pass through the same pools share a **route**, and a route has as many jobs in
flight as its pools have slots: whichever of its pools is the slowest then always finds work. So what is in flight depends on the pools'
sizes and never on how much is planned. Routes share pools; one whose queue has grown to several times its slots closes all routes that lead
through it until it is shorter, and of the open ones the one that leads to the emptiest pool goes first.

Jobs of a slice are begun in plan order and decided in plan order (`Choice`), so what is chosen depends on neither the order in which jobs
end nor on anything here. The simulation runs this same code.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.brain_pool import BRAIN
from factory.choice import Choice, Decision
from factory.members import SLOTS
from factory.plan import Job
from manifests.recipe import PoolSpec, Recipe

CROWDED = 2.0
"""times its slots that a pool may have to do until no more is sent there: beyond what one route alone can bring"""
PRIOR_JOBS = 20
"""decided jobs that the recipe's assumed acceptance counts like"""


@dataclass(frozen=True)
class PoolLoad:
    """A pool at a moment."""

    slots: int
    """jobs that it can hold usefully: of its workers, of those that are to come, or of a brain's open requests"""
    calls: int = 0
    """that run or wait there"""

    @property
    def fullness(self) -> float:
        """Calls over slots: below 0.5 some worker stands idle. A pool that has lost all its nodes counts as one slot."""
        return self.calls / max(1, self.slots)

    def with_more(self, calls: int) -> PoolLoad:
        """The same when so many more calls have come."""
        return PoolLoad(self.slots, self.calls + calls)


def route_of(recipe: Recipe, name: str) -> frozenset[str]:
    """The pools that a slice's jobs pass through. A pool's `larger` is not among them: it has work only now and then, and its slots would
    have jobs begun that all wait at the others."""
    part = recipe.slices[name]
    painter = set() if part.task == "pose" else {recipe.pool_of(part.painter)}
    brain = {BRAIN} if recipe.agents.brain.model else set()
    return frozenset({"cpu", agents_pool(recipe), recipe.pool_of(part.generator)} | painter | brain)


def agents_pool(recipe: Recipe) -> str:
    """The pool of what is measured and asked about pictures."""
    return "agents" if "agents" in recipe.pools else "cpu"


def empty_loads(recipe: Recipe) -> dict[str, PoolLoad]:
    """Every pool that the recipe's jobs pass through, with the workers it keeps warm and nothing to do."""
    names = sorted(set().union(*(route_of(recipe, name) for name in recipe.slices)) - {BRAIN})
    loads = {name: PoolLoad(SLOTS * int(recipe.pools.get(name, PoolSpec()).workers[0])) for name in names}
    endpoint = recipe.agents.brain.endpoint
    return loads | ({BRAIN: PoolLoad(endpoint.in_flight)} if endpoint else {})


@dataclass
class Line:
    """One slice's jobs: what is begun, what is decided."""

    choice: Choice
    route: frozenset[str]
    following: int = 0
    """place of the next job in the plan"""
    tasks: dict[int, asyncio.Task[Decision]] = field(default_factory=dict)
    """place → the job under way"""

    def __post_init__(self) -> None:
        self._pass_over()

    @property
    def in_flight(self) -> int:
        return len(self.tasks)

    @property
    def name(self) -> str:
        return self.choice.part.name

    @property
    def begun(self) -> float:
        """Jobs begun, as a share of those that the quota will need."""
        return self.following / self.choice.part.attempts

    @property
    def passing(self) -> float:
        """Share of the jobs that give a pair: the recipe's acceptance, which is of attempts, and more and more what was seen since."""
        return (PRIOR_JOBS * self.choice.part.spec.acceptance + self.choice.passed) / (PRIOR_JOBS + self.choice.decided)

    def begin(self) -> int:
        """Place of the next job, which is no longer the next."""
        place = self.following
        self.following += 1
        self._pass_over()
        return place

    def _pass_over(self) -> None:
        """Jobs that an earlier run has decided are not begun."""
        while self.following < len(self.choice.part.jobs) and self.choice.knows(self.following):
            self.following += 1

    @property
    def to_come(self) -> int:
        """Pairs that the quota wants and the rest of the plan may bring."""
        left = len(self.choice.part.jobs) - self.following + self.in_flight
        return max(0, min(self.choice.part.spec.quota - self.choice.likely, left))

    @property
    def wanting(self) -> bool:
        """Whether another job may be needed to meet the quota, as far as those in flight pass as the earlier ones did. Where jobs further
        on in the plan have met it already, those before them still have to be decided: they come first."""
        part = self.choice.part
        if self.choice.full or self.following >= len(part.jobs):
            return False
        needed = (part.spec.quota - self.choice.likely) / self.passing
        return self.in_flight < math.ceil(needed) if needed > 0 else self.following < self.choice.furthest


class Admission:
    """All slices of a plan at work.

    `make` brings a job to its decision and lets through only what has to end the run; `may_begin` says whether more may be begun at all (a
    budget, a stop signal); `loads` tells of the pools; `changed` hears of every line in which jobs were begun or decided.
    """

    def __init__(
        self, choices: Sequence[Choice], routes: Mapping[str, frozenset[str]], make: Callable[[Job], Coroutine[Any, Any, Decision]],
        may_begin: Callable[[], bool], loads: Callable[[], Mapping[str, PoolLoad]], changed: Callable[[Line], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._lines = [Line(choice, routes[choice.part.name]) for choice in choices]
        self._make, self._may_begin, self._loads, self._changed = make, may_begin, loads, changed
        self._ended: deque[tuple[Line, int, asyncio.Task[Decision]]] = deque()
        self._news = asyncio.Event()
        self._in_flight = dict.fromkeys(routes.values(), 0)
        """route → its jobs under way"""
        self._dropped: set[asyncio.Task[Decision]] = set()
        """cancelled because their slice is full"""

    @property
    def in_flight(self) -> int:
        """Jobs under way."""
        return sum(self._in_flight.values())

    @property
    def to_come(self) -> dict[str, int]:
        """Slice → pairs, see `Line.to_come`."""
        return {line.name: line.to_come for line in self._lines}

    def look_again(self) -> None:
        """Pools have changed: more jobs may be begun now. Else that is looked at when a job ends."""
        self._news.set()

    async def run(self) -> list[Choice]:
        """Work until every slice is full, has no job left, or nothing more may be begun. Raises the first error that `make` raises."""
        for line in self._lines:
            self._changed(line)
        try:
            while True:
                self._admit()
                if not self.in_flight:
                    break
                await self._news.wait()
                self._news.clear()
                self._settle()
        finally:
            left = [task for line in self._lines for task in line.tasks.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        for line in self._lines:
            line.choice.close()
        return [line.choice for line in self._lines]

    def _admit(self) -> None:
        """Begin the jobs that there is room for."""
        open_lines = [line for line in self._lines if line.wanting]
        if not open_lines:
            return
        loads = self._loads()
        begun = dict.fromkeys(loads, 0)
        """what this round sends to each pool in the end"""
        grown: dict[str, Line] = {}
        while (line := self._next(open_lines, loads, begun)) is not None and self._may_begin():
            self._begin(line)
            grown[line.name] = line
            for pool in line.route:
                begun[pool] += 1
            if not line.wanting:
                open_lines.remove(line)
        for line in grown.values():
            self._changed(line)

    def _next(self, lines: list[Line], loads: Mapping[str, PoolLoad], begun: Mapping[str, int]) -> Line | None:
        """Of the lines with room the one that leads to the emptiest pool, then the one that has begun the least of its share."""
        best: tuple[float, float] | None = None
        found = None
        for line in lines:
            in_flight = self._in_flight[line.route]
            if in_flight >= max(1, sum(loads[pool].slots for pool in line.route)):
                continue
            if in_flight and any(loads[pool].fullness >= CROWDED for pool in line.route):
                continue
            order = (min(loads[pool].with_more(begun[pool]).fullness for pool in line.route), line.begun)
            if best is None or order < best:
                best, found = order, line
        return found

    def _begin(self, line: Line) -> None:
        place = line.begin()
        task = asyncio.create_task(self._make(line.choice.part.jobs[place]))
        line.tasks[place] = task
        self._in_flight[line.route] += 1

        def ended(done: asyncio.Task[Decision]) -> None:
            self._ended.append((line, place, done))
            self._news.set()

        task.add_done_callback(ended)

    def _settle(self) -> None:
        """Decide what has ended. Of the jobs of a slice that is full the rest is dropped."""
        touched: dict[str, Line] = {}
        while self._ended:
            line, place, task = self._ended.popleft()
            self._in_flight[line.route] -= 1
            del line.tasks[place]
            if task not in self._dropped:
                line.choice.decide(place, task.result())
                touched[line.name] = line
            self._dropped.discard(task)
        for line in touched.values():
            if line.choice.full:
                for task in line.tasks.values():
                    task.cancel()
                self._dropped.update(line.tasks.values())
            self._changed(line)

"""A step that is asked for twice with the same request runs once: ledger and store stand around every call."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from factory.earlier import Earlier
from factory.engine import Engine
from factory.pool import Quarantined
from factory.steps import Charge, Step, key_of
from manifests.errors import Damaged, Rejected
from manifests.ledger import Ledger
from manifests.records import Artifact, Frozen
from manifests.store import Outcome, Store

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A", bound=Frozen)
X = TypeVar("X")
Y = TypeVar("Y")


class Answers(Protocol):
    """What the loop asks its steps of."""

    async def call(self, step: Step[Q, A], request: Q, charge: Charge, pool: str) -> A:
        """The step's answer. Raises Rejected when the step refused its input."""
        ...

    def where(self, artifact: Artifact) -> str:
        """A place that a person can look at."""
        ...


@dataclass
class _Running:
    """A step under way and how many wait for it."""

    task: asyncio.Task[Outcome]
    waiters: int = 0


class Memo:
    """Remembers finished steps, shares running ones, counts both."""

    def __init__(self, store: Store, ledger: Ledger, engine: Engine, earlier: Earlier | None = None) -> None:
        """`earlier`: another folder's run; what it has finished is taken over before a step is run."""
        self._store, self._ledger, self._engine, self._earlier = store, ledger, engine, earlier
        self._running: dict[str, _Running] = {}
        self.ran: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        """taken over from the earlier run"""
        self._seen: set[str] = set()
        """keys that this run has had an answer of"""
        self._there: set[str] = set()
        """those of them whose artifacts need not be looked for again"""
        self._broken: dict[str, Quarantined] = {}
        """steps that failed for good in this run: other jobs that need them are not made to try again"""

    async def call(self, step: Step[Q, A], request: Q, charge: Charge, pool: str) -> A:
        """The step's answer. Raises Rejected when the step refused its input, Quarantined or Transient when it could not be run."""
        key = key_of(step, request)
        outcome = await self._remembered(key)
        if outcome is None:
            outcome = await self._shared(key, step, request, charge, pool)
        elif key not in self._seen:
            self.reused[step.name] += 1
        self._seen.add(key)
        self._there.add(key)
        if outcome.status == "rejected":
            raise Rejected(outcome.message, outcome.reason)
        return step.answer.model_validate(outcome.answer)

    def forget(self) -> None:
        """Files have gone from the store while the run works: look for every outcome's again."""
        self._there.clear()

    async def _remembered(self, key: str) -> Outcome | None:
        """A finished outcome whose artifacts are still there."""
        outcome, found = self._ledger.lookup(key), False
        if outcome is None:
            with contextlib.suppress(Damaged):
                outcome = await self._look(self._store.get_outcome, key)
            found = outcome is not None
        if outcome is None:
            return None
        if found:
            self._ledger.record(outcome)
        if key in self._there:
            return outcome
        there = [await self._look(self._store.has, artifact) for artifact in outcome.artifacts]
        return outcome if all(there) else None

    async def _look(self, look: Callable[[X], Y], what: X) -> Y:
        """Into the store: at once on a disk, on a thread over a network."""
        return look(what) if self._store.local else await asyncio.to_thread(look, what)

    def where(self, artifact: Artifact) -> str:
        """A place that a person can look at."""
        return self._store.where(artifact)

    async def _shared(self, key: str, step: Step[Q, A], request: Q, charge: Charge, pool: str) -> Outcome:
        """Run the step, or join whoever runs it. A caller that gives up takes it along only when nobody else waits for it."""
        self._refuse_broken(key)
        running = self._running.get(key)
        if running is None:
            running = _Running(asyncio.create_task(self._run(key, step, request, charge, pool)))
            self._running[key] = running
        running.waiters += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiters -= 1
            if not running.waiters:
                running.task.cancel()
                if self._running.get(key) is running:
                    del self._running[key]

    def _refuse_broken(self, key: str) -> None:
        """A step that failed for good, in this run or an earlier one, is not tried again until somebody frees it (`motionpair retry`)."""
        if key not in self._broken:
            for known in self._ledger.quarantined(key):
                self._broken[key] = Quarantined(known.step, key, known.strikes, known.details)
        if key in self._broken:
            raise self._broken[key]

    async def _run(self, key: str, step: Step[Q, A], request: Q, charge: Charge, pool: str) -> Outcome:
        taken = await asyncio.to_thread(self._earlier.take, key, self._store, charge) if self._earlier else None
        if taken is not None:
            self._ledger.record(taken)
            self.taken[step.name] += 1
            return taken
        try:
            outcome = await self._engine.run(step, request, key, charge, pool)
        except Quarantined as e:
            self._ledger.quarantine(key, step.name, request.model_dump(mode="json"), e.strikes, e.details)
            self._broken[key] = e
            raise
        self._ledger.record(outcome)
        self.ran[step.name] += 1
        return outcome

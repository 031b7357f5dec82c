"""A step that is asked for twice with the same request runs once: ledger and store stand around every call."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from factory.steps import Step, key_of
from manifests.errors import Damaged, Rejected
from manifests.ledger import Ledger
from manifests.records import Frozen
from manifests.store import Outcome, Store

if TYPE_CHECKING:
    from factory.pool import Engine

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A", bound=Frozen)


class Memo:
    """Remembers finished steps, shares running ones, counts both."""

    def __init__(self, store: Store, ledger: Ledger, engine: Engine) -> None:
        self._store, self._ledger, self._engine = store, ledger, engine
        self._running: dict[str, asyncio.Future[Outcome]] = {}
        self.ran: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self.seen: set[str] = set()
        """keys of this run"""

    async def call(self, step: Step[Q, A], request: Q, rank: str, pool: str) -> A:
        """The step's answer. Raises Rejected when the step refused its input, Quarantined or Transient when it could not be run."""
        key = key_of(step, request)
        outcome = self._remembered(key)
        if outcome is not None:
            if key not in self.seen:
                self.reused[step.name] += 1
        else:
            outcome = await self._run_once(key, step, request, rank, pool)
        self.seen.add(key)
        if outcome.status == "rejected":
            raise Rejected(outcome.message, outcome.reason)
        return step.answer.model_validate(outcome.answer)

    def _remembered(self, key: str) -> Outcome | None:
        """A finished outcome whose artifacts are still there."""
        outcome = self._ledger.lookup(key)
        if outcome is None:
            try:
                outcome = self._store.get_outcome(key)
            except Damaged:
                return None
            if outcome is not None:
                self._ledger.record(outcome)
        whole = outcome is not None and (key in self.seen or all(self._store.has(a) for a in outcome.artifacts))
        return outcome if whole else None

    async def _run_once(self, key: str, step: Step[Q, A], request: Q, rank: str, pool: str) -> Outcome:
        if key in self._running:
            return await asyncio.shield(self._running[key])
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._running[key] = future
        try:
            outcome = await self._engine.run(step, request, key, rank, pool)
            self._ledger.record(outcome)
            self.ran[step.name] += 1
            future.set_result(outcome)
            return outcome
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as e:
            future.set_exception(e)
            future.exception()  # others may or may not wait for it
            raise
        finally:
            del self._running[key]

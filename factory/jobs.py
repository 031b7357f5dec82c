"""From a job to its decision: taken from the ledger when nothing that could change it has changed, made otherwise. Nothing disappears."""

from __future__ import annotations

from collections import Counter

from factory.asked import Asked
from factory.choice import Decision
from factory.engine import Engine
from factory.loop import make_pair
from factory.plan import Job
from factory.pool import Quarantined
from factory.stages import Stages
from manifests.errors import BadRecipe, MotionpairError, NeedsReview, OutOfSpace, Rejected, Transient
from manifests.ledger import JobState, Ledger, State, pack_pair, unpack_pair
from manifests.store import Store

UNMADE: tuple[State, State] = ("quarantined", "undecided")
"""a task that kills its worker or fails for no known reason; a machine that did not get better"""


class Jobs:
    """Decides the jobs of one run and counts how they ended."""

    def __init__(self, stages: Stages, asked: Asked, store: Store, ledger: Ledger, engine: Engine) -> None:
        self._stages, self._asked, self._store, self._ledger, self._engine = stages, asked, store, ledger, engine
        self.rejected: Counter[str] = Counter()
        """by reason"""
        self.unmade: set[str] = set()
        """ids of jobs in a state of `UNMADE`"""

    async def decide(self, job: Job) -> Decision:
        """The job's decision. Raises OutOfSpace and BadRecipe, which end a run."""
        asked = self._asked.of(job)
        decision = self._finished(job, asked)
        if decision is None:
            decision = await self._made(job, asked)
        if decision.state == "rejected":
            self.rejected[decision.reason] += 1
        elif decision.state in UNMADE:
            self.unmade.add(job.id)
        return decision

    def _finished(self, job: Job, asked: str) -> Decision | None:
        """The decision as the ledger has it. On a disk it is looked whether a pair's files are there; asking a remote store for each of
        them would take as long as making some pairs, so there only sealing finds out."""
        known = self._ledger.finished(job.id, asked)
        if known is None:
            return None
        pair = unpack_pair(known.pair) if known.pair else None
        if pair is not None and self._store.local and not all(self._store.has(artifact) for artifact in pair.members().values()):
            return None
        return Decision(known.state, known.reason, known.message, pair)

    async def _made(self, job: Job, asked: str) -> Decision:
        blamed = ""
        try:
            decision = Decision("accepted", pair=await make_pair(job, self._stages))
        except Rejected as e:
            decision = Decision("rejected", e.code, e.message)
        except NeedsReview as e:
            decision = Decision("review", e.code, e.message)
        except (OutOfSpace, BadRecipe):
            raise
        except Quarantined as e:
            decision, blamed = Decision("quarantined", e.code, f"{e.message}\n{e.details}".strip()), e.key
        except Transient as e:
            decision = Decision("undecided", e.code, e.message)
        except MotionpairError as e:
            decision = Decision("quarantined", e.code, e.message)
        state = JobState(
            job=job.id, slice=job.slice, task=job.task, split=job.split, state=decision.state, reason=decision.reason,
            message=decision.message, asked=asked, blamed=blamed, pair=pack_pair(decision.pair) if decision.pair else None,
        )  # fmt: skip
        self._ledger.set_job(state)
        self._engine.forecast.decided(job.rank, job.slice, decision.state == "accepted")
        self._engine.metrics.decided(job.slice, decision.state, decision.reason)
        return decision

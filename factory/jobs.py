"""From a job to its decision: taken from the ledger when nothing that could change it has changed, made otherwise. Nothing disappears."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from factory.asked import Asked
from factory.choice import Choice, Decision
from factory.engine import Engine
from factory.loop import make_pair
from factory.plan import Job
from factory.pool import Quarantined
from factory.stages import Stages
from manifests.errors import BadRecipe, Damaged, MotionpairError, NeedsReview, OutOfSpace, Rejected, Transient
from manifests.ledger import JobState, Ledger, PairSketch, State, pack_pair, sketch_of, sketch_pair, unpack_pair
from manifests.records import Pair
from manifests.store import Store

UNMADE: tuple[State, State] = ("quarantined", "undecided")
"""a task that kills its worker or fails for no known reason; a machine that did not get better"""
BATCH = 256
"""jobs whose sketches are read in one go"""


class Jobs:
    """Decides the jobs of one run and counts how they ended."""

    def __init__(self, stages: Stages, asked: Asked, store: Store, ledger: Ledger, engine: Engine) -> None:
        self._stages, self._asked, self._store, self._ledger, self._engine = stages, asked, store, ledger, engine
        self.rejected: Counter[str] = Counter()
        """by reason"""
        self.unmade: set[str] = set()
        """ids of jobs in a state of `UNMADE`"""

    def take_finished(self, choices: Sequence[Choice]) -> None:
        """Let the choices know of the jobs that the ledger has a decision on, made by what is asked for now: in plan order, until full."""
        self.rejected.clear()
        self.unmade.clear()
        jobs = {job.id: job for choice in choices for job in choice.part.jobs}
        found: dict[str, Decision] = {}
        for job_id, asked, state, reason in self._ledger.finished():
            job = jobs.get(job_id)
            if job is not None and self._asked.of(job) == asked:
                found[job.id] = _plain(state, reason)
        for choice in choices:
            for first in range(0, len(choice.part.jobs), BATCH):
                if choice.full:
                    break
                self._take_some(choice, first, found)

    def _take_some(self, choice: Choice, first: int, found: Mapping[str, Decision]) -> None:
        """The same for a batch of a choice's jobs."""
        some = choice.part.jobs[first : first + BATCH]
        sketches = self._ledger.sketches([job.id for job in some if job.id in found and found[job.id].state == "accepted"])
        for place, job in enumerate(some, start=first):
            decision = found.get(job.id)
            if decision is None or choice.full:
                continue
            if decision.state != "accepted":
                choice.decide(place, self._noted(job, decision))
            elif job.id in sketches:
                choice.decide(place, Decision("accepted", pair=sketches[job.id]))

    def sketch_of(self, job: Job) -> PairSketch:
        """What decides about the place of an accepted job's pair in the release. Raises Damaged when the ledger has lost it."""
        for sketch in self._ledger.sketches([job.id]).values():
            return sketch
        raise _gone(job)

    def _noted(self, job: Job, decision: Decision) -> Decision:
        if decision.state == "rejected":
            self.rejected[decision.reason] += 1
        elif decision.state in UNMADE:
            self.unmade.add(job.id)
        return decision

    def pair_of(self, job: Job) -> Pair:
        """The pair of an accepted job. Raises Damaged when the ledger has lost it."""
        packed = self._ledger.pair_of(job.id)
        if packed is None:
            raise _gone(job)
        return unpack_pair(packed)

    def lost(self, jobs: Iterable[Job]) -> int:
        """Of accepted jobs, how many have lost files of their pairs from the disk; these decisions count no more. Asking a remote store for
        every file would take as long as making some pairs, so there only sealing finds out."""
        if not self._store.local:
            return 0
        lost = [job.id for job in jobs if not all(map(self._store.has, self.pair_of(job).members().values()))]
        self._ledger.remake(*lost)
        return len(lost)

    async def decide(self, job: Job) -> Decision:
        """Make the job's pair, or find why there is none. Raises OutOfSpace and BadRecipe, which end a run."""
        blamed, pair = "", None
        try:
            pair = await make_pair(job, self._stages)
            decision = Decision("accepted", pair=sketch_of(pair))
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
            message=decision.message, asked=self._asked.of(job), blamed=blamed,
            pair=pack_pair(pair) if pair else None, sketch=sketch_pair(pair) if pair else b"",
        )  # fmt: skip
        self._ledger.set_job(state)
        self._engine.forecast.decided(job.rank, job.slice, decision.state == "accepted")
        self._engine.metrics.decided(job.slice, decision.state, decision.reason)
        return self._noted(job, decision)


def _gone(job: Job) -> Damaged:
    return Damaged(f"the ledger was damaged while it was in use: the pair of job {job.id} is gone from it. Run again to make it anew.")


@functools.cache
def _plain(state: State, reason: str) -> Decision:
    return Decision(state, reason)

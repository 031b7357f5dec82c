"""The ledger: see the package."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from manifests.calls import CallRecord, RoleSpend
from manifests.errors import Damaged
from manifests.ledger.file import LedgerFile
from manifests.ledger.rows import (
    MICRO,
    JobCost,
    JobState,
    PairSketch,
    QuarantinedStep,
    SliceCost,
    State,
    StepCost,
    body_row,
    call_row,
    cost_columns,
    outcome_row,
    unpack_sketch,
)
from manifests.records import canonical_json
from manifests.store import Cost, Outcome, Store

_OUTCOME = """INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET step = excluded.step,
    status = excluded.status, reason = excluded.reason, pool = excluded.pool, accelerator = excluded.accelerator,
    micros = excluded.micros, gpu_micros = excluded.gpu_micros, attempts = excluded.attempts, bytes_in = excluded.bytes_in,
    bytes_out = excluded.bytes_out, job = excluded.job, slice = excluded.slice"""
_BODY = "INSERT INTO bodies VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body"
_LOST = "INSERT INTO lost VALUES (NULL, ?, ?, 'lost', ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_CALL = """INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,
    prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens, money_nano = excluded.money_nano
    WHERE calls.state = 'reserved'"""
"""A settled call stays as it is, in whichever order its records come."""
_SPEND = """SELECT role, model, sum(count), sum(iif(state = 'confirmed', 0, count)),
    sum(iif(state = 'confirmed', prompt_tokens, 0)), sum(iif(state = 'confirmed', completion_tokens, 0)),
    sum(iif(state = 'confirmed', money_nano, 0)), sum(iif(state = 'confirmed', 0, money_nano))
    FROM spent WHERE count > 0 GROUP BY 1, 2 ORDER BY 1, 2"""
_STEP_COSTS = """SELECT step, pool, sum(iif(status = 'lost', 0, count)), sum(micros), sum(attempts), accelerator, sum(gpu_micros),
    sum(bytes_in), sum(bytes_out), sum(iif(status = 'lost', count, 0)) FROM totals WHERE count > 0 GROUP BY 1, 2, 6 ORDER BY 1, 2, 6"""
_SLICE_COSTS = """SELECT slice, pool, accelerator, sum(micros), sum(gpu_micros), sum(bytes_in), sum(bytes_out) FROM totals
    WHERE count > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_SUMS = "sum(attempts), sum(micros), sum(gpu_micros), sum(bytes_in), sum(bytes_out)"
_JOB_COSTS = f"""SELECT job, slice, pool, accelerator, sum(steps), {_SUMS} FROM (
    SELECT job, slice, pool, accelerator, 1 AS steps, attempts, micros, gpu_micros, bytes_in, bytes_out FROM outcomes UNION ALL
    SELECT job, slice, pool, accelerator, 0, attempts, micros, gpu_micros, bytes_in, bytes_out FROM lost)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
_JOB_MONEY = """SELECT coalesce(o.job, ''), coalesce(o.slice, ''), count(*), sum(c.prompt_tokens), sum(c.completion_tokens),
    sum(c.money_nano) FROM calls c LEFT JOIN outcomes o USING (key) GROUP BY 1, 2 ORDER BY 1, 2"""
_FINISHED = "SELECT job, asked, state, reason FROM jobs WHERE asked <> '' AND state <> 'undecided'"
_JOB_FIELDS = ("job", "slice", "task", "split", "state", "reason", "message", "asked", "blamed")
_BATCH = 10_000
_PAIR_LEVEL = 1
"""of zlib: boxes of 81 frames become a third, at some ten microseconds a pair"""


class Ledger(LedgerFile):
    """Use as a context manager. One object may be shared by threads; several processes may open the same file.

    With `store`, a file that has to begin anew is filled from it at once; without, it starts empty and `rebuild` fills it.
    """

    def __init__(self, path: str | Path, store: Store | None = None) -> None:
        self._store = store
        super().__init__(Path(path))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refill(self) -> None:
        if self._store is not None:
            self.rebuild(self._store)

    # --- outcomes

    def record(self, *outcomes: Outcome) -> None:
        """Index outcomes, all in one transaction; again is harmless."""
        try:
            with self.transaction():
                self._index(outcomes)
        except Damaged:
            self.renew()
            with self.transaction():
                self._index(outcomes)

    def _index(self, outcomes: Sequence[Outcome]) -> None:
        self.execute_many(_OUTCOME, map(outcome_row, outcomes))
        self.execute_many(_BODY, map(body_row, outcomes))

    def lookup(self, key: str) -> Outcome | None:
        """The outcome of a key, or None."""
        rows = self.execute("SELECT body FROM bodies WHERE key = ?", (key,))
        if not rows:
            return None
        try:
            return Outcome.model_validate_json(rows[0][0])
        except ValidationError:
            with self.transaction():
                self.execute("DELETE FROM outcomes WHERE key = ?", (key,))
                self.execute("DELETE FROM bodies WHERE key = ?", (key,))
            return self._store.get_outcome(key) if self._store else None

    @property
    def filled(self) -> bool:
        """Whether all that the store held when this file was begun is indexed here."""
        return bool(self.execute("SELECT yes FROM filled"))

    def rebuild(self, store: Store) -> int:
        """Make outcomes and calls those of the store, in one transaction; returns how many outcomes. All else stays."""
        with self.transaction():
            for table in ("outcomes", "bodies", "calls", "asking"):
                self.execute(f"DELETE FROM {table}")
            outcomes = store.outcomes()
            while batch := list(islice(outcomes, _BATCH)):
                self._index(batch)
            self.execute_many(_CALL, (call_row(record) for record in store.calls()))
            self.execute("INSERT OR REPLACE INTO filled VALUES (1)")
            return int(self.execute("SELECT coalesce(sum(count), 0) FROM totals WHERE status <> 'lost'")[0][0])

    def lose(self, key: str, step: str, cost: Cost) -> None:
        """Count what a try took that ended without an outcome: its worker died, or did not answer in time."""
        self.execute(_LOST, (key, step, *cost_columns(cost)))

    def counts(self) -> dict[str, dict[str, int]]:
        """step → status → number of outcomes."""
        out: dict[str, dict[str, int]] = {}
        chosen = "SELECT step, status, sum(count) FROM totals WHERE status <> 'lost' AND count > 0 GROUP BY 1, 2 ORDER BY 1, 2"
        for step, status, count in self.execute(chosen):
            out.setdefault(step, {})[status] = count
        return out

    # --- costs

    def costs(self) -> tuple[StepCost, ...]:
        """What was paid, by step, pool and accelerator."""
        return tuple(
            StepCost(
                step=step, pool=pool, calls=calls, seconds=micros / MICRO, attempts=attempts, accelerator=accelerator,
                gpu_seconds=gpu_micros / MICRO, bytes_in=into, bytes_out=out, lost=lost,
            )
            for step, pool, calls, micros, attempts, accelerator, gpu_micros, into, out, lost in self.execute(_STEP_COSTS)
        )  # fmt: skip

    def slice_costs(self) -> tuple[SliceCost, ...]:
        """The same by slice, pool and accelerator."""
        return tuple(
            SliceCost(
                slice=name,
                pool=pool,
                accelerator=accelerator,
                seconds=micros / MICRO,
                gpu_seconds=gpu / MICRO,
                bytes_in=into,
                bytes_out=out,
            )
            for name, pool, accelerator, micros, gpu, into, out in self.execute(_SLICE_COSTS)
        )

    def job_costs(self) -> Iterator[JobCost]:
        """The same by job, pool and accelerator, in this order; reads all outcomes' rows."""
        names = tuple(JobCost.model_fields)
        for row in self.rows(_JOB_COSTS):
            yield JobCost(**dict(zip(names, row, strict=True)))

    def job_money(self) -> Iterator[tuple[str, str, int, int, int, int]]:
        """Job, its slice, and of the requests sent for it: number, tokens in, tokens out, money in billionths, at most. By job."""
        yield from self.rows(_JOB_MONEY)

    def gpu_seconds(self) -> float:
        """Of all steps so far."""
        return int(self.execute("SELECT coalesce(sum(gpu_micros), 0) FROM totals")[0][0]) / MICRO

    # --- calls to language models

    def asking(self, key: str) -> None:
        """Note that a step is about to send requests; should this process die, `catch_up` looks for them."""
        self.execute("INSERT OR IGNORE INTO asking VALUES (?)", (key,))

    def asked(self, key: str, calls: Iterable[CallRecord]) -> None:
        """Index what a step's requests cost, and that it sends no more for now; again is harmless."""
        rows = [call_row(record) for record in calls]
        with self.transaction():
            self.execute_many(_CALL, rows)
            self.execute("DELETE FROM asking WHERE key = ?", (key,))

    def catch_up(self, store: Store) -> int:
        """Index the requests of steps that were asking when an earlier process died; returns of how many steps."""
        keys = [str(row[0]) for row in self.execute("SELECT key FROM asking ORDER BY key")]
        for key in keys:
            self.asked(key, store.calls(key))
        return len(keys)

    def look_at_open(self, store: Store) -> None:
        """Index what the steps that are asking just now have sent so far, at its upper bound until it is settled."""
        for (key,) in self.execute("SELECT key FROM asking ORDER BY key"):
            rows = [call_row(record) for record in store.calls(key)]
            with self.transaction():
                self.execute_many(_CALL, rows)

    def spend(self) -> tuple[RoleSpend, ...]:
        """What was paid for language models, by role and model. A reserved call counts as unconfirmed."""
        return tuple(RoleSpend(**dict(zip(RoleSpend.model_fields, row, strict=True))) for row in self.execute(_SPEND))

    def money_nano(self) -> int:
        """Billionths of a unit of money, at most: confirmed and unconfirmed together."""
        return int(self.execute("SELECT coalesce(sum(money_nano), 0) FROM spent")[0][0])

    # --- jobs

    def set_job(self, *jobs: JobState) -> None:
        """Write where jobs stand, with their pairs; all in one transaction."""
        with self.transaction():
            for j in jobs:
                values = (j.job, j.slice, j.task, j.split, j.state, j.reason, j.message, j.asked, j.blamed)
                self.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                if j.pair is None:
                    self.execute("DELETE FROM pairs WHERE job = ?", (j.job,))
                else:
                    packed = (j.job, j.sketch, zlib.compress(j.pair, _PAIR_LEVEL))
                    self.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", packed)

    def finished(self) -> Iterator[tuple[str, str, State, str]]:
        """All decisions that stand, as job, asked, state and reason: not what is undecided, or has to be made anew in any case. A file that
        turns out to be damaged begins anew, and there are no more."""
        try:
            yield from self.rows(_FINISHED)
        except Damaged:
            self.renew()

    def sketches(self, jobs: Sequence[str]) -> dict[str, PairSketch]:
        """Of those of the jobs that are accepted with a pair."""
        marks = ", ".join("?" * len(jobs))
        rows = self.execute(f"SELECT job, sketch FROM pairs WHERE job IN ({marks}) AND length(sketch) > 0", tuple(jobs))
        return {job: unpack_sketch(sketch) for job, sketch in rows}

    def pair_of(self, job: str) -> bytes | None:
        """The whole pair of an accepted job, for `unpack_pair`."""
        rows = self.execute("SELECT body FROM pairs WHERE job = ?", (job,))
        return zlib.decompress(rows[0][0]) if rows else None

    def doubt(self, digest: str) -> int:
        """Have the jobs made anew whose pairs hold an artifact that was found damaged; returns how many."""
        needle = digest.encode()
        doubted = [job for job, body in self.rows("SELECT job, body FROM pairs") if needle in zlib.decompress(body)]
        self.remake(*doubted)
        return len(doubted)

    def remake(self, *jobs: str) -> None:
        """Have jobs made anew, from their steps, whatever was decided."""
        with self.transaction():
            self.execute_many("UPDATE jobs SET asked = '' WHERE job = ?", [(job,) for job in jobs])

    def jobs(self, state: State | None = None) -> tuple[JobState, ...]:
        """All jobs, or those in one state, by job id; without their pairs."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        return tuple(_job_state(row) for row in self.execute(f"SELECT {', '.join(_JOB_FIELDS)} FROM jobs {where} ORDER BY job", values))

    def job_counts(self) -> dict[str, dict[str, int]]:
        """slice → state → number of jobs."""
        out: dict[str, dict[str, int]] = {}
        for name, state, count in self.execute("SELECT slice, state, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"):
            out.setdefault(name, {})[state] = count
        return out

    # --- quarantine

    def quarantine(self, key: str, step: str, request: dict[str, Any], strikes: Sequence[str], details: str) -> None:
        """Remember that a step failed for good, and how; see QuarantinedStep."""
        values = (key, step, canonical_json(request).decode(), json.dumps(list(strikes), ensure_ascii=False), details)
        self.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", values)

    def quarantined(self, key: str | None = None) -> tuple[QuarantinedStep, ...]:
        """The steps in quarantine, or the one of a key, by step and key."""
        where, values = ("WHERE key = ?", (key,)) if key else ("", ())
        rows = self.execute(f"SELECT key, step, request, strikes, details FROM quarantine {where} ORDER BY step, key", values)
        return tuple(
            QuarantinedStep(key=k, step=step, request=json.loads(request), strikes=tuple(json.loads(strikes)), details=details)
            for k, step, request, strikes, details in rows
        )

    def retry(self, jobs: Iterable[str] | None = None) -> tuple[str, ...]:
        """Forget that jobs are quarantined or undecided, and the quarantine of the steps they are for, so that a run makes them anew.

        Jobs for whose sake a step is set free are set free together with it. None means all, with the steps that no job waits for.
        Returns the jobs' ids.
        """
        with self.transaction():
            wanted = None if jobs is None else set(jobs)
            held = [j for state in ("quarantined", "undecided") for j in self.jobs(state)]
            steps = {j.blamed for j in held if j.blamed and (wanted is None or j.job in wanted)}
            free = sorted(j.job for j in held if wanted is None or j.job in wanted or j.blamed in steps)
            self.execute_many("DELETE FROM jobs WHERE job = ?", [(job,) for job in free])
            if wanted is None:
                self.execute("DELETE FROM quarantine")
            else:
                self.execute_many("DELETE FROM quarantine WHERE key = ?", [(step,) for step in sorted(steps)])
            return tuple(free)

    # --- sources

    def source_digest(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The digest of a file that has not changed since it was remembered, so that it need not be read again."""
        rows = self.execute("SELECT digest FROM sources WHERE path = ? AND size = ? AND mtime_ns = ?", (path, size, mtime_ns))
        return str(rows[0][0]) if rows else None

    def remember_source(self, path: str, size: int, mtime_ns: int, digest: str) -> None:
        self.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", (path, size, mtime_ns, digest))


def _job_state(row: Sequence[Any]) -> JobState:
    return JobState(**dict(zip(_JOB_FIELDS, row, strict=True)))

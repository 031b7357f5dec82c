"""What a dataset cost, from a run's ledger: by slice, by accepted pair, and as a table beside the release.

Every outcome is charged as a whole to the job whose call had it run, and through it to the job's slice; a job that asks for the same step
later has it for nothing. Tries that ended without an outcome are charged in the same way. What belongs to no job (the look at all clips and
pictures) has a row of its own. So nothing is counted twice, nothing is left out, and all rows together are the recorded outcomes' and lost
tries' seconds, exactly.

An accepted pair's *full* cost is its own, an equal share of what its slice paid for everything that was not accepted, and a share, equal
among all accepted pairs, of what belongs to no job or to a slice without a pair. The full costs of all accepted
pairs add up to the whole but for rounding.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests.calls import NANO
from manifests.errors import OutOfSpace
from manifests.ledger import JobCost, Ledger
from manifests.ledger.rows import MICRO

BRAIN = "brain"
"""the pool that asks language models: its seconds are many questions' waiting side by side, not a worker's"""
TAKEN = "taken over"
"""the pool's name for outcomes that were made for another folder and paid for there; no recipe can name a pool so"""
_BATCH = 20_000


@dataclass
class Amounts:
    """Sums of costs, in integers so that they are exact."""

    micros: int = 0
    """of workers, in millionths of a second"""
    asking_micros: int = 0
    """of waiting for a model's server"""
    gpu_micros: dict[str, int] = field(default_factory=dict)
    """by accelerator"""
    bytes_in: int = 0
    bytes_out: int = 0
    steps: int = 0
    attempts: int = 0
    taken: int = 0
    """steps that were taken over from another folder, and cost nothing here"""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money_nano: int = 0

    def add(self, other: Amounts) -> None:
        """Add another sum to this one."""
        for name, value in vars(other).items():
            if name != "gpu_micros":
                setattr(self, name, getattr(self, name) + value)
        for kind, value in other.gpu_micros.items():
            self.gpu_micros[kind] = self.gpu_micros.get(kind, 0) + value

    @property
    def seconds(self) -> float:
        return self.micros / MICRO

    @property
    def gpu_seconds(self) -> float:
        return sum(self.gpu_micros.values()) / MICRO

    @property
    def money(self) -> float:
        return self.money_nano / NANO


def timed(pool: str, accelerator: str, micros: int, gpu_micros: int) -> Amounts:
    """Times of a pool as amounts."""
    gpus = {accelerator: gpu_micros} if gpu_micros else {}
    return Amounts(asking_micros=micros, gpu_micros=gpus) if pool == BRAIN else Amounts(micros=micros, gpu_micros=gpus)


def by_slice(ledger: Ledger) -> dict[str, Amounts]:
    """What each slice's jobs cost so far, rejected and lost tries included; under "" what belongs to no job. Quick on large ledgers."""
    out: dict[str, Amounts] = defaultdict(Amounts)
    for cost in ledger.slice_costs():
        amounts = timed(cost.pool, cost.accelerator, round(cost.seconds * MICRO), round(cost.gpu_seconds * MICRO))
        amounts.bytes_in, amounts.bytes_out = cost.bytes_in, cost.bytes_out
        out[cost.slice].add(amounts)
    for _, name, *called in ledger.job_money():
        out[name].add(_called(called))
    return dict(sorted(out.items()))


def by_job(ledger: Ledger) -> Iterator[tuple[str, str, Amounts]]:
    """Job, its slice, and what it cost; by job and slice, what belongs to none first."""
    times = ((c.job, c.slice, _of_job(c)) for c in ledger.job_costs())
    money = ((job, name, _called(called)) for job, name, *called in ledger.job_money())
    for (job, name), group in itertools.groupby(_merged(times, money), key=lambda entry: entry[:2]):
        total = Amounts()
        for _, _, amounts in group:
            total.add(amounts)
        yield job, name, total


def write_costs(ledger: Ledger, path: Path) -> None:
    """Write the table: a row a job that cost something, and one for what belongs to none. Seconds are exact to a millionth.

    Raises OutOfSpace. The file appears whole.
    """
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}")
    try:
        with pq.ParquetWriter(part, _schema(), compression="zstd") as writer:
            for rows in _batches(_rows(ledger)):
                writer.write_batch(_record_batch(rows))
        os.replace(part, path)
    except OSError as error:
        raise OutOfSpace(f"can't write {path}: {error.strerror or error}. Free some room, then run again.") from error
    finally:
        part.unlink(missing_ok=True)


@dataclass
class _Shares:
    """What an accepted pair carries besides its own cost."""

    accepted: int = 0
    overhead: Amounts = field(default_factory=Amounts)


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    jobs = {job.job: job for job in ledger.jobs()}
    shares: dict[str, _Shares] = defaultdict(_Shares)
    for job in jobs.values():
        shares[job.slice].accepted += job.state == "accepted"
    for job_id, name, amounts in by_job(ledger):
        if job_id not in jobs or jobs[job_id].state != "accepted":
            shares[name].overhead.add(amounts)
    everyone = sum(share.accepted for share in shares.values())
    common = Amounts()
    for share in shares.values():
        if not share.accepted:  # nobody else is there to carry it: indexing, and slices without a pair
            common.add(share.overhead)
    for job_id, name, amounts in by_job(ledger):
        known = jobs.get(job_id)
        accepted = known is not None and known.state == "accepted"
        carried = [(shares[name].overhead, shares[name].accepted), (common, everyone)] if accepted else []
        yield {
            "job": job_id or None, "slice": name or None, "task": known and known.task, "split": known and known.split,
            "state": known and known.state, "reason": known and known.reason, **_columns(amounts), **_full(amounts, carried),
        }  # fmt: skip


def _columns(amounts: Amounts) -> dict[str, Any]:
    return {
        "steps": amounts.steps, "attempts": amounts.attempts, "taken_over": amounts.taken, "worker_seconds": amounts.seconds,
        "asking_seconds": amounts.asking_micros / MICRO, "gpu_seconds": amounts.gpu_seconds,
        "gpu_seconds_by_type": [(kind or "unknown", micros / MICRO) for kind, micros in sorted(amounts.gpu_micros.items())],
        "bytes_in": amounts.bytes_in, "bytes_out": amounts.bytes_out, "requests": amounts.requests,
        "prompt_tokens": amounts.prompt_tokens, "completion_tokens": amounts.completion_tokens, "money": amounts.money,
    }  # fmt: skip


def _full(own: Amounts, carried: list[tuple[Amounts, int]]) -> dict[str, float | None]:
    if not carried:
        return {"full_worker_seconds": None, "full_gpu_seconds": None, "full_money": None}
    return {
        "full_worker_seconds": own.seconds + sum(a.seconds / n for a, n in carried),
        "full_gpu_seconds": own.gpu_seconds + sum(a.gpu_seconds / n for a, n in carried),
        "full_money": own.money + sum(a.money / n for a, n in carried),
    }


def _schema() -> Any:
    import pyarrow as pa

    words = [(name, pa.string()) for name in ("job", "slice", "task", "split", "state", "reason")]
    numbers = [("steps", pa.int64()), ("attempts", pa.int64()), ("taken_over", pa.int64())]
    numbers += [(name, pa.float64()) for name in ("worker_seconds", "asking_seconds", "gpu_seconds")]
    numbers += [("gpu_seconds_by_type", pa.map_(pa.string(), pa.float64()))]
    numbers += [(name, pa.int64()) for name in ("bytes_in", "bytes_out", "requests", "prompt_tokens", "completion_tokens")]
    numbers += [(name, pa.float64()) for name in ("money", "full_worker_seconds", "full_gpu_seconds", "full_money")]
    return pa.schema(words + numbers)


def _record_batch(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    schema = _schema()
    return pa.record_batch([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(itertools.islice(rows, _BATCH)):
        yield batch


def _of_job(cost: JobCost) -> Amounts:
    if cost.pool == TAKEN:
        return Amounts(taken=cost.steps)
    amounts = timed(cost.pool, cost.accelerator, cost.micros, cost.gpu_micros)
    amounts.steps, amounts.attempts, amounts.bytes_in, amounts.bytes_out = cost.steps, cost.attempts, cost.bytes_in, cost.bytes_out
    return amounts


def _called(called: Iterable[int]) -> Amounts:
    requests, prompt, completion, nano = called
    return Amounts(requests=requests, prompt_tokens=prompt, completion_tokens=completion, money_nano=nano)


def _merged(*sorted_entries: Iterable[tuple[str, str, Amounts]]) -> Iterator[tuple[str, str, Amounts]]:
    return heapq.merge(*sorted_entries, key=lambda entry: entry[:2])

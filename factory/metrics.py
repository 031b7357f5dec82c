"""What a run tells of itself through Ray's metrics (Prometheus text on every node's metrics port).

Names begin with `motionpair_`; seconds are seconds. Before Ray stands nothing is told, and a run never waits for its metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manifests.calls import NANO, RoleSpend
from manifests.store import Outcome

SERVICE_S = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1200.0, 3600.0)
"""bounds of the histogram of service times"""


class Metrics:
    """Gauges of the pools; counters of calls, verdicts, faults, jobs and what they took."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._waiting = Gauge("motionpair_pool_waiting", "Calls that no worker has taken.", ("pool",))
        self._busy = Gauge("motionpair_pool_busy", "Workers with a call.", ("pool",))
        self._workers = Gauge("motionpair_pool_workers", "Workers that are to stay.", ("pool",))
        self._service = Histogram("motionpair_service_seconds", "Worker seconds of a call.", list(SERVICE_S), ("step", "pool"))
        self._calls = Counter("motionpair_calls", "Ended calls.", ("step", "pool", "status", "reason"))
        self._gpu_seconds = Counter("motionpair_gpu_seconds", "GPU seconds of ended calls.", ("pool", "accelerator"))
        self._faults = Counter("motionpair_faults", "Strikes, stumbles, moves, and workers that did not start.", ("kind", "of"))
        self._money = Gauge("motionpair_money", "Spent on questions in all runs of the folder, at most.", ("role", "model"))
        self._jobs = Counter("motionpair_jobs", "Decided jobs.", ("slice", "state", "reason"))

    def pool(self, name: str, waiting: int, busy: int, workers: int) -> None:
        """How a pool stands."""
        for gauge, value in ((self._waiting, waiting), (self._busy, busy), (self._workers, workers)):
            gauge.set(value, {"pool": name})

    def called(self, outcome: Outcome) -> None:
        """A call has ended."""
        cost, step = outcome.cost, outcome.step
        self._service.observe(max(cost.seconds, 1e-6), {"step": step, "pool": cost.pool})
        self._calls.inc(1, {"step": step, "pool": cost.pool, "status": outcome.status, "reason": outcome.reason})
        if cost.gpu_seconds:
            self._gpu_seconds.inc(cost.gpu_seconds, {"pool": cost.pool, "accelerator": cost.accelerator})

    def fault(self, kind: str, of: str) -> None:
        """Something went wrong: a step's call, or a pool's start."""
        self._faults.inc(1, {"kind": kind, "of": of})

    def spent(self, spends: Iterable[RoleSpend]) -> None:
        """What the ledger says of questions to models; what is unconfirmed counts in full."""
        for spend in spends:
            self._money.set((spend.money_nano + spend.unconfirmed_nano) / NANO, {"role": spend.role, "model": spend.model})

    def decided(self, slice_name: str, state: str, reason: str) -> None:
        """A job has ended."""
        self._jobs.inc(1, {"slice": slice_name, "state": state, "reason": reason})


class NoMetrics:
    """Before Ray stands."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

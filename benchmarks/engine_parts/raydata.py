"""The same naps through Ray Data's actor pools, each case on a Ray of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from engine_parts.naps import Nap


class Sleeper:
    """Sleeps as long as it is told."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        time.sleep(float(batch["seconds"][0]))
        return {"began_s": [began], "ended_s": [time.monotonic()], "actor": [os.getpid()]}


class Passer:
    """Hands on what it gets, with the time."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "passed_s": [time.monotonic()]}


@contextlib.contextmanager
def _data() -> Iterator[Any]:
    import ray

    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        yield ray.data
    finally:
        ray.shutdown()


def of_lengths(lengths_s: Sequence[float], count: int) -> tuple[list[Nap], float, float]:
    """Naps with `count` actors, when the last of these began its first one (Ray Data starts them itself) and when the last nap ended."""
    with _data() as data:
        rows = data.from_items([{"seconds": s} for s in lengths_s], override_num_blocks=len(lengths_s))
        pool = data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2)
        done = rows.map_batches(Sleeper, batch_size=1, compute=pool, num_cpus=0.01).take_all()
    naps = [Nap(began_s=float(row["began_s"]), ended_s=float(row["ended_s"])) for row in done]
    first: dict[int, float] = {}
    for row, nap in zip(done, naps, strict=True):
        first[int(row["actor"])] = min(first.get(int(row["actor"]), nap.began_s), nap.began_s)
    return naps, max(first.values()), max(n.ended_s for n in naps)


def of_no_length(jobs: int, count: int) -> float:
    """Milliseconds a job through three pools, from the first that came out to the last: starting the actors is not in it."""
    with _data() as data:
        pool = {"batch_size": 1, "compute": data.ActorPoolStrategy(size=count), "num_cpus": 0.01}
        rows = data.from_items([{"number": i} for i in range(jobs)], override_num_blocks=jobs)
        second, third = (type(name, (Passer,), {}) for name in ("Second", "Third"))
        done = rows.map_batches(Passer, **pool).map_batches(second, **pool).map_batches(third, **pool).take_all()
    ends = [float(row["passed_s"]) for row in done]
    return 1000 * (max(ends) - min(ends)) / (jobs - 1)

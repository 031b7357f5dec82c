"""The same naps through Ray Data's actor pools."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from engine_parts.naps import Nap


class Sleeper:
    """Sleeps as long as it is told."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        time.sleep(float(batch["seconds"][0]))
        return {"began_s": [began], "ended_s": [time.monotonic()]}


class Passer:
    """Hands on what it gets."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


def _quiet() -> Any:
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    return ray


def of_lengths(lengths_s: Sequence[float], count: int) -> tuple[list[Nap], float, float]:
    """Naps with `count` actors, when the first began (Ray Data starts its actors itself: that is left out) and when the last ended."""
    ray = _quiet()
    data = ray.data.from_items([{"seconds": s} for s in lengths_s], override_num_blocks=len(lengths_s))
    done = data.map_batches(
        Sleeper, batch_size=1, compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2), num_cpus=0.01
    )
    naps = [Nap(**{k: float(v) for k, v in row.items()}) for row in done.take_all()]
    return naps, min(n.began_s for n in naps), max(n.ended_s for n in naps)


def of_no_length(jobs: int, count: int) -> float:
    """Milliseconds a job through three pools; starting the actors is in it, as it can't be told apart, so many jobs are needed."""
    ray = _quiet()
    pool = {"batch_size": 1, "compute": ray.data.ActorPoolStrategy(size=count), "num_cpus": 0.01}
    data = ray.data.from_items([{"number": i} for i in range(jobs)], override_num_blocks=jobs)
    began = time.monotonic()
    data.map_batches(Passer, **pool).map_batches(type("Second", (Passer,), {}), **pool).map_batches(
        type("Third", (Passer,), {}), **pool
    ).take_all()
    return 1000 * (time.monotonic() - began) / jobs

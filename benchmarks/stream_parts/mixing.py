"""How well an order keeps its shares: ours by arithmetic, of any other by the tasks it drew."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from factory.trainer.stream import Stream
from manifests.release import Release
from stream_parts.made import MIX

SHARES = np.array(list(MIX.values())) / sum(MIX.values())
WINDOWS = (8, 100)
WORLDS = range(1, 65)
STEPS = 5000


def of_draws(tasks: Iterable[str]) -> dict[str, float]:
    """Largest errors: in samples over all prefixes, in percentage points over all windows of 8 and of 100."""
    names = list(MIX)
    return of_numbers(np.array([names.index(task) for task in tasks]))


def of_numbers(drawn: np.ndarray) -> dict[str, float]:
    """The same for numbers of tasks."""
    counts_NT = np.concatenate([np.zeros((1, 3)), np.cumsum(drawn[:, None] == np.arange(3), 0)])
    found = {"prefix_samples": float(np.abs(counts_NT - SHARES * np.arange(len(drawn) + 1)[:, None]).max())}
    for window in WINDOWS:
        shares = (counts_NT[window:] - counts_NT[:-window]) / window
        found[f"any_{window}_points"] = float(100 * np.abs(shares - SHARES).max())
    ahead = counts_NT - SHARES * np.arange(len(drawn) + 1)[:, None]
    found["window_samples"] = float((ahead.max(0) - ahead.min(0)).max())
    return {name: round(value, 2) for name, value in found.items()}


def ours(release: Release, worlds: Iterable[int] = WORLDS, draws: int = 10**6) -> dict[str, float]:
    """The global stream, and each rank of each world size."""
    with Stream(release) as stream:
        schedule = stream.schedule
        found = of_numbers(schedule.at(np.arange(draws)).source)
        worst = 0.0
        for world_size in worlds:
            for rank in range(world_size):
                sources, _ = schedule.mix.at(schedule.unit_of(np.arange(STEPS), rank, world_size))
                worst = max(worst, float(np.abs(np.bincount(sources, minlength=3) / STEPS - SHARES).max()))
    return {**found, "worst_rank_points_in_5000_steps": round(100 * worst, 3)}

"""Summaries of figures by video: mean, median and a bootstrap interval. The same figures give the same interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVEL = 0.95
_CHUNK = 1 << 22
"""figures drawn at once"""


@dataclass(frozen=True)
class Summary:
    """Of the videos that have a value."""

    mean: float | None
    median: float | None
    n: int
    low: float | None
    """of the interval of the mean; None below two values, and where the figure belongs to a whole set"""
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, median and the percentile bootstrap's 95 % interval of the mean (Efron & Tibshirani 1993, ch. 13) from 2,000 resamples.

    The random numbers depend on the number of values only, so models that were measured on the same videos are resampled alike.
    """
    if not values:
        return Summary(None, None, 0, None, None)
    array = np.asarray(values, np.float64)
    low, high = interval(array) if len(array) > 1 else (None, None)
    return Summary(float(array.mean()), float(np.median(array)), len(array), low, high)


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean of `values` (N,), N ≥ 1."""
    means = resampled_means(values[:, None])[:, 0]
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def resampled_means(values_NK: npt.NDArray[np.float64], draws: int = DRAWS) -> npt.NDArray[np.float64]:
    """(draws, K): means over N rows drawn with replacement; whole rows, so that what belongs together stays together."""
    rng = np.random.default_rng(0)
    count = len(values_NK)
    at_once = max(1, _CHUNK // (count * values_NK.shape[1]))
    out = [
        values_NK[rng.integers(0, count, (min(at_once, draws - first), count))].mean(1) for first in range(0, draws, at_once)
    ]  # fmt: skip
    return np.concatenate(out)

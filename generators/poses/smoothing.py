"""Filters over time, in numpy: gaps, spikes, jitter. The first axis is always time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def fill(values_T: Any, found_T: npt.NDArray[np.bool_]) -> Doubles:
    """Linear interpolation where `found_T` is False; the ends are held. Something must have been found."""
    known = np.flatnonzero(found_T)
    values = np.asarray(values_T, np.float64)
    after = np.clip(np.searchsorted(known, np.arange(len(values))), 0, len(known) - 1)
    right = known[after]
    left = np.where(right > np.arange(len(values)), known[np.maximum(after - 1, 0)], right)
    share = np.clip((np.arange(len(values)) - left) / np.maximum(right - left, 1), 0, 1)
    share = share.reshape((-1,) + (1,) * (values.ndim - 1))
    return np.asarray(values[left] * (1 - share) + values[right] * share)


def median(values_T: Doubles, radius: int) -> Doubles:
    """Running median over 2·radius + 1 frames; the ends are held."""
    if radius < 1:
        return values_T
    padded = np.concatenate([values_T[:1]] * radius + [values_T] + [values_T[-1:]] * radius)
    return np.asarray(np.median(np.stack([padded[i : i + len(values_T)] for i in range(2 * radius + 1)]), axis=0))


def savgol(values_T: Doubles, window: int, degree: int = 2) -> Doubles:
    """Savitzky-Golay: the value at the middle of a least-squares polynomial (Savitzky & Golay 1964); ends are mirrored as points.

    A window that does not fit the number of frames shrinks; with too few frames nothing is changed.
    """
    window = min(window, (len(values_T) - 1) // 2 * 2 + 1)
    if window <= degree:
        return values_T
    half = window // 2
    weights = np.linalg.pinv(np.vander(np.arange(-half, half + 1), degree + 1, increasing=True))[0]
    before, behind = 2 * values_T[:1] - values_T[half:0:-1], 2 * values_T[-1:] - values_T[-2 : -half - 2 : -1]
    padded = np.concatenate([before, values_T, behind])
    return np.asarray(sum(w * padded[i : i + len(values_T)] for i, w in enumerate(weights)))


def smooth(values_T: Doubles, fps: float, seconds: float = 0.3) -> Doubles:
    """Spikes out (median of 3), then Savitzky-Golay of degree 2 over about `seconds`, at least 5 frames."""
    return savgol(median(values_T, 1), max(5, int(seconds * fps) // 2 * 2 + 1))

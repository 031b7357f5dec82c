"""Small numeric helpers that the puppet's modules share: angles, easing and filters along time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""OpenCV's annotations widen every dtype, so layouts and dtypes are said in names and docstrings instead."""


def unit(v: Array) -> Array:
    """`v` (…, 2) at length one; a zero vector stays zero."""
    return np.asarray(v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9))


def rotation(angle_rad: float) -> Array:
    """2×2 matrix that turns by `angle_rad`."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s], [s, c]])


def angle_of(v: Array) -> Array:
    """Direction of `v` (…, 2) in radians."""
    return np.arctan2(v[..., 1], v[..., 0])


def wrapped(angle_rad: Array) -> Array:
    """The same angle in [-π, π)."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi


def smoothstep(x: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, a cubic in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ramp(x: Array | float, low: float, high: float) -> Array:
    """0 at `low`, 1 at `high`, straight in between; `low` may lie above `high`."""
    return np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)


def savitzky_golay(x: Array, window: int, order: int = 2) -> Array:
    """`x` (T, …) smoothed along time by local polynomials (Savitzky and Golay, 1964); ends are point-reflected.

    The window shrinks to what the clip holds; a clip shorter than the polynomial needs comes back unchanged.
    """
    window = min(window, (len(x) - 1) // 2 * 2 + 1)
    if window <= order:
        return x
    half = window // 2
    kernel = np.linalg.pinv(np.vander(np.arange(-half, half + 1), order + 1, increasing=True))[0]
    y = np.concatenate([2 * x[:1] - x[half:0:-1], x, 2 * x[-1:] - x[-2 : -half - 2 : -1]])
    return np.stack([np.tensordot(kernel, y[i : i + window], 1) for i in range(len(x))])


def running_median(x: Array, radius: int) -> Array:
    """Median of `x` (T, …) over 2·radius + 1 frames; the ends are repeated."""
    y = np.concatenate([np.repeat(x[:1], radius, 0), x, np.repeat(x[-1:], radius, 0)])
    return np.asarray(np.median(np.stack([y[i : i + len(x)] for i in range(2 * radius + 1)]), 0))


def sampled(x: Array, at: Array) -> Array:
    """`x` (T, …) interpolated at fractional frame numbers `at` (N,); beyond the ends the end value holds."""
    at = np.clip(at, 0, len(x) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(x) - 1)
    share = (at - low).reshape((-1,) + (1,) * (x.ndim - 1))
    return np.asarray(x[low] * (1 - share) + x[high] * share)

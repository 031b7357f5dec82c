"""How something small is followed through a video, and how its points become steady curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from generators.poses import smoothing
from generators.poses.tracks import Floats

Found = TypeVar("Found")
Doubles = npt.NDArray[np.float64]

LOOK_S = 0.07
"""how often what is lost is looked for"""
GAP_S = 0.1
"""gaps up to this are bridged when little moved meanwhile; in longer ones nothing is known"""
GAP_MOVE = 0.5
"""how far the thing may have moved over a gap, over its own size"""
RUN_S = 0.1
"""what is seen for a shorter time is taken for a mistake"""
SMOOTH_S = 0.2
FREE = 0.05
"""smoothing moves no point by more than this share of the thing's size, so that it does not lag behind fast hands"""


def follow(
    frames: int, every: int, look: Callable[[int], Found | None], again: Callable[[int, Found, int], Found | None]
) -> dict[int, Found]:
    """What was found, by frame. `again(t, found, since)` looks at frame t where it was in the neighbouring frame `since`; where that
    fails, or nothing is known, `look(t)` starts anew, every `every` frames. Then once more backwards, into frames just before something
    was found."""
    found: dict[int, Found] = {}
    for t in range(frames):
        now = again(t, found[t - 1], t - 1) if t - 1 in found else None
        now = look(t) if now is None and t % every == 0 else now
        if now is not None:
            found[t] = now
    for t in range(frames - 2, -1, -1):
        if t not in found and t + 1 in found:
            now = again(t, found[t + 1], t + 1)
            if now is not None:
                found[t] = now
    return found


def steady(points_TNx3: Doubles, belief_T: Doubles, fps: float) -> tuple[Floats, Floats]:
    """Points and beliefs without jitter: short gaps are bridged (believed as the weaker of their ends), what is seen for under 0.1 s of
    a longer video is dropped, each stretch is smoothed by itself. Everything is zero where nothing is seen."""
    seen = _bridged(points_TNx3, belief_T > 0, max(1, round(GAP_S * fps)))
    shortest = round(RUN_S * fps)
    points, belief = np.zeros(points_TNx3.shape, np.float32), np.zeros(len(seen), np.float32)
    for start, stop in runs(seen):
        if stop - start < min(shortest, len(seen)):
            continue
        known = belief_T[start:stop] > 0
        points[start:stop] = _smooth(smoothing.fill(points_TNx3[start:stop], known), fps)
        belief[start:stop] = _weaker(belief_T[start:stop], known)
    return points, belief


def _smooth(points_TNx3: Doubles, fps: float) -> Doubles:
    calm = smoothing.median(points_TNx3, 1)
    shift = smoothing.smooth(points_TNx3, fps, SMOOTH_S) - calm
    most = FREE * np.array([_size(points) for points in calm])[:, None, None]
    length = np.linalg.norm(shift, axis=-1, keepdims=True)
    return np.asarray(calm + shift * np.minimum(1.0, most / np.maximum(length, 1e-9)))


def _size(points_Nx3: Doubles) -> float:
    """Diagonal of the box in the picture."""
    return float(np.linalg.norm(np.ptp(points_Nx3[:, :2], axis=0)))


def runs(seen_T: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, after last) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen_T, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _bridged(points_TNx3: Doubles, seen_T: npt.NDArray[np.bool_], longest: int) -> npt.NDArray[np.bool_]:
    """`seen_T` with the gaps of up to `longest` frames over which the points hardly moved filled."""
    out = seen_T.copy()
    for start, stop in runs(~seen_T):
        if start == 0 or stop == len(seen_T) or stop - start > longest:
            continue
        before, after = points_TNx3[start - 1], points_TNx3[stop]
        moved = float(np.linalg.norm((after - before)[:, :2], axis=1).mean())
        out[start:stop] = moved <= GAP_MOVE * max(_size(before), _size(after))
    return out


def _weaker(belief_T: Doubles, known_T: npt.NDArray[np.bool_]) -> Doubles:
    """The beliefs; in a gap that of its less believed end."""
    out = belief_T.copy()
    for start, stop in runs(~known_T):
        out[start:stop] = min(belief_T[start - 1], belief_T[stop])
    return out

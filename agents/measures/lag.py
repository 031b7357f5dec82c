"""How many frames the synthetic person is behind the real one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.poses.curves import Curves, Doubles, correlation, curves_of
from generators.poses.tracks import People

MOST = 12
"""frames; the farthest lag that is looked for"""
LEAST_SHARED = 0.5
"""of the frames must be left where both overlap"""
LIVELY = 0.2
"""torso lengths per second, root mean square over bones and frames: a slower person can't be told from the tracker's jitter"""
AS_GOOD = 0.03
"""correlation within which two peaks are alike: then the one nearer to no lag is meant, as a walk repeats itself"""


@dataclass(frozen=True)
class Lag:
    """What cross-correlation finds. Correlations are -1 to 1, see `generators.poses.curves.correlation`."""

    frames: int | None
    """positive: the output is late; None where one of them is too still (`LIVELY`) or nothing is seen in both"""
    peak: float
    """correlation at that lag, NaN with it"""
    in_time: float
    """the best correlation at no lag and one frame to either side; `peak - in_time` is what the lag would explain"""
    rival: float
    """the best correlation at another peak, NaN where there is none: near `peak`, the motion repeats itself"""
    slack: int
    """how many lags in a row around the peak are within `AS_GOOD` of it, itself included: many for a motion that is all one slow swing"""


NOTHING = Lag(None, *(3 * (float("nan"),)), 0)


def lag(driver: People, output: People, person: int = 0, track: int = 0, most: int = MOST) -> Lag:
    """Lag of `track` of the output behind `person` of the driver, up to `most` frames either way and as far as half of the frames overlap.

    Both must have the same number of frames; raises ValueError otherwise. Cross-correlation of bone curves, pooled over bones and
    normalised at every lag (Lewis 1995).
    """
    if driver.frames != output.frames:
        raise ValueError(f"{driver.frames} frames against {output.frames}")
    first, second = curves_of(driver, person), curves_of(output, track)
    farthest = min(most, int(driver.frames * (1 - LEAST_SHARED)))
    lags = list(range(-farthest, farthest + 1))
    if min(_speed(first), _speed(second)) < LIVELY:
        return NOTHING
    found = np.array([correlation(first, second, k) for k in lags])
    if np.isnan(found).all():
        return NOTHING
    found = np.where(np.isnan(found), -1.0, found)
    peaks = [i for i in range(len(found)) if found[i] == found[max(0, i - 1) : i + 2].max()]
    top = max(found[i] for i in peaks)
    best = min((i for i in peaks if found[i] >= top - AS_GOOD), key=lambda i: (abs(lags[i]), lags[i]))
    in_time = float(found[max(0, farthest - 1) : farthest + 2].max())
    rival = max((float(found[i]) for i in peaks if i != best), default=float("nan"))
    return Lag(lags[best], float(found[best]), in_time, rival, _width(found, best))


def _width(found_L: Doubles, peak: int) -> int:
    """How many values in a row around the peak are as good."""
    low = high = peak
    while low > 0 and found_L[low - 1] >= found_L[peak] - AS_GOOD:
        low -= 1
    while high < len(found_L) - 1 and found_L[high + 1] >= found_L[peak] - AS_GOOD:
        high += 1
    return high - low + 1


def _speed(curves: Curves) -> float:
    velocities, told = curves.velocities()
    return float(np.sqrt((velocities[told] ** 2).sum(-1).mean())) if told.any() else 0.0

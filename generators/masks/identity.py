"""One identity map per pair: which synthetic person performs which real one."""

from __future__ import annotations

import math

import numpy as np

from generators.poses.association import assign
from generators.poses.curves import correlation, curves_of
from generators.poses.tracks import INDEX, People

JOINTS = [INDEX[n] for n in ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")]
MOTION = 0.5
"""cost of a motion that has nothing to do with the real one's, in frame widths of distance: two people who stand apart are told by their
places even when both walk, two who cross by what they do"""
SIZE = 1.0
"""cost, for a single person, of covering nothing rather than as much as the largest: beside a motion that fits by half, size decides"""
LOST = 1e3


def match_people(real: People, synthetic: People) -> tuple[int, ...]:
    """For each real person the synthetic track that performs it, or -1; every track is used once.

    Both place and motion count. Several people are matched so that the sum of their costs is least: mean distance of head, shoulders and
    hips, in widths and heights of the frame, and half the missing correlation of their motions. A single real person may be performed
    anywhere (animation moves people): there the size of the silhouette stands in for the place. A real person is lost only when there
    are fewer tracks than people.
    """
    if synthetic.count == 0:
        return (-1,) * real.count
    far = (
        [_unlike_size(synthetic)]
        if real.count == 1
        else [[_apart(real, i, synthetic, j) for j in range(synthetic.count)] for i in range(real.count)]
    )
    costs = [[MOTION * _unlike_motion(real, i, synthetic, j) + far[i][j] for j in range(synthetic.count)] for i in range(real.count)]
    return tuple(-1 if j is None else j for j in assign([list(row) for row in costs], skip=LOST))


def _apart(real: People, i: int, synthetic: People, j: int) -> float:
    frames = min(real.frames, synthetic.frames)
    (height, width), (height_b, width_b) = real.size_hw, synthetic.size_hw
    a = real.landmarks_PT33x3[i, :frames][:, JOINTS, :2] / np.array([width, height], np.float64)
    b = synthetic.landmarks_PT33x3[j, :frames][:, JOINTS, :2] / np.array([width_b, height_b], np.float64)
    both = real.present_PT[i, :frames] & synthetic.present_PT[j, :frames]
    gaps_T = np.linalg.norm(a - b, axis=2).mean(1)
    return float(gaps_T[both].mean() if both.any() else gaps_T.mean() + 1.0)


def _unlike_size(synthetic: People) -> list[float]:
    areas = (synthetic.masks_PTHW > 127).mean((1, 2, 3))
    return [SIZE * (1.0 - float(area) / max(float(areas.max()), 1e-9)) for area in areas]


def _unlike_motion(real: People, i: int, synthetic: People, j: int) -> float:
    """0 the same motion, 1 another, 2 its opposite; 1 where nothing moves in both."""
    frames = min(real.frames, synthetic.frames)
    alike = correlation(curves_of(real.window(0, frames), i), curves_of(synthetic.window(0, frames), j))
    return 1.0 if math.isnan(alike) else 1.0 - alike

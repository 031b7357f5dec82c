"""One identity map per pair: which synthetic person performs which real one."""

from __future__ import annotations

import numpy as np

from generators.poses.tracks import INDEX, People

JOINTS = [INDEX[n] for n in ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")]


def match_people(real: People, synthetic: People) -> tuple[int, ...]:
    """For each real person the synthetic track that performs it, or -1; every track is used once.

    A single real person takes the synthetic person with the largest silhouette, wherever it stands (animation moves people). Several
    are matched greedily by the mean distance of head, shoulders and hips, in units of the frame's diagonal.
    """
    if synthetic.count == 0:
        return (-1,) * real.count
    if real.count == 1:
        return (int(np.argmax((synthetic.masks_PTHW > 127).mean((1, 2, 3)))),)
    frames = min(real.frames, synthetic.frames)
    gap = np.zeros((real.count, synthetic.count))
    scale = np.array([real.size_hw[1], real.size_hw[0]], np.float64)
    scale_b = np.array([synthetic.size_hw[1], synthetic.size_hw[0]], np.float64)
    for i in range(real.count):
        for j in range(synthetic.count):
            a = real.landmarks_PT33x3[i, :frames][:, JOINTS, :2] / scale
            b = synthetic.landmarks_PT33x3[j, :frames][:, JOINTS, :2] / scale_b
            gap[i, j] = np.linalg.norm(a - b, axis=2).mean()
    out = [-1] * real.count
    for _ in range(min(gap.shape)):
        i, j = (int(k) for k in np.unravel_index(np.argmin(gap), gap.shape))
        out[i] = j
        gap[i, :] = gap[:, j] = np.inf
    return tuple(out)

"""Does a person's mask cover the person? Joints are the witness: they come from another head of the network than the mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generators.poses.tracks import BODY, INDEX, People

JOINTS = [INDEX[name] for name in BODY]
VISIBLE = 0.5


def joints_on_mask(people: People, person: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per frame, how many of the 13 body joints are visible inside the picture, and how many of those lie on the mask. Shapes (T,)."""
    height, width = people.size_hw
    visible, covered = np.zeros(people.frames, np.int64), np.zeros(people.frames, np.int64)
    for t in np.flatnonzero(people.present_PT[person]):
        xy = np.round(people.landmarks_PT33x3[person, t, JOINTS, :2]).astype(int)
        inside = (people.visibility_PT33[person, t, JOINTS] > VISIBLE) & (xy >= 0).all(1) & (xy < [width, height]).all(1)
        visible[t] = inside.sum()
        covered[t] = (people.masks_PTHW[person, t][xy[inside, 1], xy[inside, 0]] > 127).sum()
    return visible, covered


def mask_joints(people: People, person: int = 0) -> float:
    """Share of visible joints that lie on the mask, over all frames, 0 to 1; 0 when no joint is visible."""
    visible, covered = joints_on_mask(people, person)
    return float(covered.sum() / visible.sum()) if visible.sum() else 0.0

"""Does the synthetic person move like the real one? Directions of limbs, so that proportions and place don't matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generators.poses.tracks import INDEX, People

LIMBS: tuple[tuple[str, str], ...] = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
VISIBLE = 0.5
MIN_LENGTH = 0.25
"""of the torso; a limb that points at the camera has no direction in the picture"""


def limb_errors_deg(a: People, b: People, person_a: int = 0, person_b: int = 0) -> npt.NDArray[np.float64]:
    """Angles between the two people's 2D limb directions, degrees 0 to 180, over all frames and limbs visible in both (flat array).

    Both must have the same number of frames; raises ValueError otherwise.
    """
    if a.frames != b.frames:
        raise ValueError(f"{a.frames} frames against {b.frames}")
    first, second = [INDEX[j] for j, _ in LIMBS], [INDEX[j] for _, j in LIMBS]
    directions, good = [], np.ones((a.frames, len(LIMBS)), bool)
    for people, p in ((a, person_a), (b, person_b)):
        xy = people.landmarks_PT33x3[p, :, :, :2].astype(np.float64)
        vector = xy[:, second] - xy[:, first]
        shoulders = xy[:, [INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(1)
        hips = xy[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1)
        torso = np.linalg.norm(shoulders - hips, axis=1)[:, None] + 1e-6
        length = np.linalg.norm(vector, axis=2)
        seen = people.visibility_PT33[p]
        good &= (length > MIN_LENGTH * torso) & (seen[:, first] > VISIBLE) & (seen[:, second] > VISIBLE) & people.present_PT[p][:, None]
        directions.append(vector / (length[..., None] + 1e-9))
    cosine = np.clip((directions[0] * directions[1]).sum(2), -1, 1)
    angles: npt.NDArray[np.float64] = np.degrees(np.arccos(cosine))[good]
    return angles


def limb_error_deg(a: People, b: People, person_a: int = 0, person_b: int = 0) -> float:
    """Median of `limb_errors_deg`; 180 when no limb is visible in both."""
    errors = limb_errors_deg(a, b, person_a, person_b)
    return float(np.median(errors)) if len(errors) else 180.0

"""The 133 key points of COCO-WholeBody (Jin et al., 2020) as this project's landmarks, hands and face."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generators.poses.figures import FACE_68
from generators.poses.tracks import INDEX

Doubles = npt.NDArray[np.float64]

COUNT = 133
BODY = slice(0, 17)
FACE = slice(23, 91)
"""in the order of iBUG 300-W"""
HANDS = (slice(91, 112), slice(112, 133))
"""left, right; wrist, then four points each of thumb, index, middle, ring and little finger"""
EYES = (39, 42, 36, 45)
"""of the face's points: inner corners of the right and left eye, outer ones"""
LANDMARK_OF: dict[str, int] = {
    "nose": 0, "left_eye": 1, "right_eye": 2, "left_ear": 3, "right_ear": 4, "left_shoulder": 5, "right_shoulder": 6, "left_elbow": 7,
    "right_elbow": 8, "left_wrist": 9, "right_wrist": 10, "left_hip": 11, "right_hip": 12, "left_knee": 13, "right_knee": 14,
    "left_ankle": 15, "right_ankle": 16, "left_foot_index": 17, "left_heel": 19, "right_foot_index": 20, "right_heel": 22,
    "right_eye_outer": 23 + 36, "right_eye_inner": 23 + 39, "left_eye_inner": 23 + 42, "left_eye_outer": 23 + 45, "mouth_right": 23 + 48,
    "mouth_left": 23 + 54, "left_thumb": 91 + 2, "left_index": 91 + 5, "left_pinky": 91 + 17, "right_thumb": 112 + 2,
    "right_index": 112 + 5, "right_pinky": 112 + 17,
}  # fmt: skip
"""which point each of the 33 landmarks is; feet are big toe and heel, hands the first joints of the fingers"""
_ORDER = [LANDMARK_OF[name] for name in INDEX]


def landmarks(points_133x2: Doubles, scores_133: Doubles) -> tuple[Doubles, Doubles]:
    """33×2 and their scores (33)."""
    return points_133x2[_ORDER], scores_133[_ORDER]


def pulled(mesh_468x3: Doubles, face_68x2: Doubles) -> Doubles:
    """A face mesh whose points at the 68 places of iBUG lie exactly there; all others follow by inverse distance (squared)."""
    held = list(FACE_68)
    moved = face_68x2 - mesh_468x3[held, :2]
    apart = ((mesh_468x3[:, None, :2] - mesh_468x3[None, held, :2]) ** 2).sum(axis=-1)
    weight = 1.0 / (apart + 1e-6 * max(float(apart.max()), 1e-9))
    out = mesh_468x3.copy()
    out[:, :2] += weight @ moved / weight.sum(axis=1, keepdims=True)
    out[held, :2] = face_68x2
    return out

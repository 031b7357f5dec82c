"""How far the puppet trusts its own work, and why not further. A picture on sticks has known limits; this says when they are met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.motion import Motion
from generators.videos.puppet.numerics import Array, ramp, wrapped
from generators.videos.puppet.render import Character
from generators.videos.puppet.retarget import Pose
from generators.videos.puppet.skeleton import BONES, HEAD, JOINT, LONG_BONES, NECK, SIDES

TURNED_DEG = 75.0
CHEST_HIDDEN_MOST = 0.25
INVENTED_MOST = 0.25
CAMERA_MOST_PX = 3.0
_OFTEN = 0.1
"""share of frames in which a fault must show before its code is reported"""


@dataclass(frozen=True)
class Trust:
    """Confidence per frame and the codes of what lowers it."""

    per_frame_T: Array
    reasons: tuple[str, ...]


def turned_deg(figure: Figure, motion: Motion) -> Array:
    """How differently driver and picture face the camera (T,), 0 to 180."""
    return np.asarray(np.degrees(np.abs(wrapped(motion.yaw_T - figure.yaw_rad))))


def limb_cover(figure: Figure, motion: Motion) -> Array:
    """Share (T,) of the limb bones visible on the driver that the picture has too."""
    ends = [BONES[b].end for b in LONG_BONES]
    h, w = figure.picture_hw
    inside = (figure.joints_19x2[ends] < np.array([w, h]) * 1.01).all(1)
    have = np.array([b in figure.bones for b in LONG_BONES]) & inside
    shown = motion.visible_T19[:, ends] > 0.5
    return np.where(shown.any(1), (shown & have).sum(1) / np.maximum(1, shown.sum(1)), 1.0)


def _cross(a: Array, b: Array) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def forearms_cross(figure: Figure) -> bool:
    """Whether the forearms cut each other in the picture (then no labelling can tell them apart)."""
    arms = [f"{side}_forearm" for side in SIDES]
    if not set(arms) <= figure.bones:
        return False
    (a, b), (c, d) = ((figure.joints_19x2[JOINT[f"{s}_elbow"]], figure.joints_19x2[JOINT[f"{s}_hand"]]) for s in SIDES)
    return _cross(b - a, c - a) * _cross(b - a, d - a) < 0 and _cross(d - c, a - c) * _cross(d - c, b - c) < 0


def _framed(pose: Pose, motion: Motion, size_hw: tuple[int, int]) -> Array:
    """Share (T,) of head and neck inside the frame, of those that the driver has inside."""
    h, w = size_hw

    def inside(joints: Array) -> Array:
        p = joints[:, [HEAD, NECK]]
        return np.asarray(((p >= 0) & (p < [w, h])).all(2))

    wanted = inside(motion.joints_T19x2)
    return np.where(wanted.any(1), (wanted & inside(pose.joints_T19x2)).sum(1) / np.maximum(1, wanted.sum(1)), 1.0)


def _matte_agreement(character: Character) -> float:
    """Overlap (intersection over union) of the matte, which goes by colour, and the pose model's silhouette."""
    by_colour, by_model = character.alpha_HW > 0.5, character.figure.mask_HW > 127
    return float((by_colour & by_model).sum() / max(1, (by_colour | by_model).sum()))


def trust_in(character: Character, motion: Motion, pose: Pose, size_hw: tuple[int, int], exposed_T: Array, camera_px: float) -> Trust:
    """Judge one character's performance.

    pose: on the driver's frames. size_hw: of the output.
    exposed_T: share of the removed person's area that shows invented background (0 where there is no plate).
    """
    figure, ones = character.figure, np.ones(motion.frames)
    agree = _matte_agreement(character)
    framed = _framed(pose, motion, size_hw)
    turned, cover = turned_deg(figure, motion), limb_cover(figure, motion)
    torso = np.median(motion.visible_T19[:, [JOINT["left_shoulder"], JOINT["right_shoulder"], JOINT["pelvis"]]], 1)
    factors = {  # code: (trust per frame, whether the code is due per frame)
        "person_lost": (motion.present_T, motion.present_T < 0.5),
        "pose_uncertain": (ramp(motion.on_mask_T, 0.5, 0.8) * ramp(torso, 0.3, 0.8), (motion.on_mask_T < 0.65) | (torso < 0.5)),
        "turned_away": (ramp(turned, 90, 40), turned > TURNED_DEG),
        "profile": (1 - 0.3 * figure.in_profile * ones, figure.in_profile * ones > 0),
        "limbs_missing": (ramp(cover, 0.5, 0.9), cover < 0.9),
        "chest_occluded": (ramp(character.chest_hidden * ones, 0.5, 0.15), character.chest_hidden * ones > CHEST_HIDDEN_MOST),
        "arms_crossed": (1 - 0.6 * forearms_cross(figure) * ones, forearms_cross(figure) * ones > 0),
        "out_of_frame": (framed, framed < 1),
        "matte_uncertain": (ramp(agree * ones, 0.55, 0.8), agree * ones < 0.7),
        "head_cropped": (1 - 0.7 * figure.head_cropped * ones, figure.head_cropped * ones > 0),
        "plate_invented": (ramp(exposed_T, 0.6, 0.1), exposed_T > INVENTED_MOST),
        "camera_moves": (1 - 0.4 * (camera_px > CAMERA_MOST_PX) * ones, (camera_px > CAMERA_MOST_PX) * ones > 0),
    }
    per_frame = np.prod([trust for trust, _ in factors.values()], axis=0)
    return Trust(per_frame, tuple(code for code, (_, due) in factors.items() if np.mean(due) > _OFTEN))


def together(trusts: list[Trust]) -> tuple[float, tuple[str, ...], tuple[float, ...]]:
    """Several people's trust as one: the worst of each frame, the mean over frames, all codes in order of first mention."""
    worst = np.clip(np.min([t.per_frame_T for t in trusts], axis=0), 0, 1)
    reasons = tuple(dict.fromkeys(code for t in trusts for code in t.reasons))
    return round(float(worst.mean()), 4), reasons, tuple(round(float(v), 4) for v in worst)

"""Feet and the floor: which foot stands when, and that a standing foot stays where it stands."""

from __future__ import annotations

import numpy as np

from generators.poses.stretches import runs
from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.motion import Motion
from generators.videos.puppet.numerics import Array, ramp, running_median, savitzky_golay
from generators.videos.puppet.skeleton import ANKLES, JOINT, PELVIS, SIDES, TOES

_FIRM = 0.75
"""how surely a foot must stand to be held in its place"""
_PULL_MOST = 0.12
"""torso lengths a foot is moved at most to keep it in place"""
_SEEN = 0.5


def has_feet(figure: Figure, motion: Motion) -> bool:
    """Whether both the picture and the clip show the feet."""
    return {"left_shin", "right_shin"} <= figure.bones and min(np.median(motion.visible_T19, 0)[list(ANKLES)]) >= _SEEN


def planted(motion: Motion, fps: float) -> Array:
    """How firmly each foot (left, right) stands on the ground (T, 2): 0 in the air, 1 standing.

    A foot stands when it is slow and not far above the other one; a foot that pauses in mid-jump does not, because it moved just before
    and will just after.
    """
    feet = (motion.joints_T19x2[:, list(ANKLES)] + motion.joints_T19x2[:, list(TOES)]) / 2
    metres = feet / motion.scale_T[:, None, None]
    speed = np.linalg.norm(np.gradient(metres, axis=0), axis=2) * fps if len(metres) > 1 else np.zeros(metres.shape[:2])
    lift = metres[..., 1].max(1, keepdims=True) - metres[..., 1]
    stands = ramp(speed, 1.8, 0.6) * ramp(lift, 0.30, 0.12)
    return np.clip(savitzky_golay(running_median(stands, max(1, round(0.1 * fps))), max(3, round(0.12 * fps) // 2 * 2 + 1), 1), 0, 1)


def lower_foot(ankles_T2x2: Array, softness_px: float) -> Array:
    """Share (T,) of the left foot in what the body stands on; the lower foot carries it."""
    lower = (ankles_T2x2[:, 0, 1] - ankles_T2x2[:, 1, 1]) / softness_px
    return savitzky_golay(1 / (1 + np.exp(-np.clip(lower, -30, 30))), 5, 1)


def on_the_ground(joints: Array, figure: Figure, motion: Motion, fit: float, home: Figure | None) -> Array:
    """Shift (T, 2) that lets the standing foot move as the driver's does, so that feet neither slide nor float.

    fit: output pixels per driver pixel. home: the picture on whose ground the character stands in the median; None: the driver's ground.
    """
    driver = motion.joints_T19x2[:, list(ANKLES)] * fit
    left = lower_foot(driver, 0.06 * motion.lengths_m["spine"] * fit * float(np.median(motion.scale_T)))[:, None]
    stands = left * driver[:, 0] + (1 - left) * driver[:, 1]
    ours = left * joints[:, ANKLES[0]] + (1 - left) * joints[:, ANKLES[1]]
    shift = savitzky_golay(stands - ours, 7, 1)
    if home is None:
        return shift
    across = home.joints_19x2[PELVIS, 0] - np.median(joints[:, PELVIS, 0] + shift[:, 0])
    down = home.joints_19x2[list(ANKLES), 1].mean() - np.median((ours + shift)[:, 1])
    return np.asarray(shift + np.array([across, down]))


def held_down(joints: Array, standing_T2: Array, torso_px: float) -> Array:
    """The joints (T, 19, 2) with every standing foot held where it stands on average; the knee follows by half."""
    joints = joints.copy()
    for k, side in enumerate(SIDES):
        ankle, toe, knee = ANKLES[k], TOES[k], JOINT[f"{side}_knee"]
        pull = np.zeros((len(joints), 2))
        for start, stop in runs(standing_T2[:, k] > _FIRM):
            pull[start:stop] = joints[start:stop, ankle].mean(0) - joints[start:stop, ankle]
        length = np.linalg.norm(pull, axis=1, keepdims=True) + 1e-9
        pull *= np.minimum(1, _PULL_MOST * torso_px / length) * ramp(standing_T2[:, k], _FIRM, 0.95)[:, None]
        joints[:, ankle] += pull
        joints[:, toe] += pull
        joints[:, knee] += pull / 2
    return joints

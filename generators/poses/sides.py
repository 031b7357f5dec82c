"""Repair of frames in which the landmark model takes a body's front for its back: left and right change places for a few frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generators.poses.blazepose import Body
from generators.poses.tracks import LANDMARKS, Floats

OWN_BELIEF = 0.03
"""price of contradicting the model in one frame, in mean joint travel over body scale"""
PAIRED = tuple(range(11, 17)) + tuple(range(23, 29))
"""shoulders to wrists and hips to ankles"""


def _mirror() -> npt.NDArray[np.int64]:
    """For each landmark, the index of the one on the other side."""

    def other(name: str) -> str:
        if "left" in name:
            return name.replace("left", "right")
        return name.replace("right", "left")

    return np.array([LANDMARKS.index(other(name)) for name in LANDMARKS])


MIRROR = _mirror()


def swaps(landmarks_N33x2: npt.NDArray[np.float64], scales_N: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Per frame whether left and right should change places: the cheapest sequence (Viterbi), where every frame pays for the travel of
    its joints since the last one, and a swapped frame for contradicting the model."""
    pose = landmarks_N33x2[:, PAIRED]
    other = landmarks_N33x2[:, MIRROR][:, PAIRED]
    price = np.array([0.0, OWN_BELIEF])
    total, back = price, []
    for t in range(1, len(pose)):
        same = np.linalg.norm(pose[t] - pose[t - 1], axis=1).mean() / max(scales_N[t], 1.0)
        changed = np.linalg.norm(other[t] - pose[t - 1], axis=1).mean() / max(scales_N[t], 1.0)
        options = total[:, None] + np.array([[same, changed], [changed, same]])
        back.append(np.argmin(options, axis=0))
        total = options.min(axis=0) + price
    state = int(np.argmin(total))
    states = [state]
    for step in reversed(back):
        state = int(step[state])
        states.append(state)
    return np.array(states[::-1], np.bool_)


def repair(bodies: dict[int, Body], landmarks_T33x3: Floats, world_T33x3: Floats, visibility_T33: Floats) -> None:
    """Write the bodies (frame → body, in order) into the arrays, with left and right as the neighbouring frames have them."""
    frames = list(bodies)
    pose = np.stack([bodies[t].landmarks_33x3[:, :2] for t in frames]).astype(np.float64)
    scale = np.array([bodies[t].scale for t in frames])
    for t, swap in zip(frames, swaps(pose, scale), strict=True):
        order = MIRROR if swap else np.arange(33)
        landmarks_T33x3[t] = bodies[t].landmarks_33x3[order]
        world_T33x3[t] = bodies[t].world_33x3[order]
        visibility_T33[t] = bodies[t].visibility_33[order]

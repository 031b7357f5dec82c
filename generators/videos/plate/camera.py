"""How the camera moves, where the clip is cut, and how its exposure drifts: what a plate must know before frames can be compared."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STILL_PX = 1.0
"""background features that move less than this over the clip mean a camera that stands"""
_FEATURES_LEAST = 12
_CUT_LEVELS = 22.0
"""mean change of the background (grey levels, exposure taken out) from frame to frame that is taken for a cut"""
_CUT_OUTSTANDS = 4.0
"""a cut changes so many times more than the frames around it"""
_THUMB = 48
DARK_LEVEL = 14.0
"""mean grey level under which a frame shows nothing"""


@dataclass(frozen=True)
class Camera:
    """The camera's path over one shot."""

    path_T33: Array
    """maps of every frame's pixels to the first frame's"""
    shift_px: float
    """the farthest that a corner moves; 0 where the camera stands, then all maps are identities"""
    lost_T: Array
    """bool: frames whose place could not be found from the one before"""

    @property
    def moves(self) -> bool:
        return self.shift_px > 0


def _features(grey: Array, free_HW: Array, most: int) -> Array | None:
    found = cv2.goodFeaturesToTrack(grey, most, 0.01, 8, mask=free_HW.astype(np.uint8))
    return found if found is not None and len(found) > _FEATURES_LEAST else None


def _step(before: Array, after: Array, points: Array, guess_33: Array) -> Array | None:
    """The similarity (3, 3) that takes `after` back to `before`, near a guess; None when no half of the features agrees on one."""
    start = cv2.perspectiveTransform(points, np.linalg.inv(guess_33)).astype(np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, start, winSize=(21, 21), flags=cv2.OPTFLOW_USE_INITIAL_FLOW)
    use = found.ravel() > 0
    if use.sum() < max(_FEATURES_LEAST, len(points) // 4):
        return None
    step, inliers = cv2.estimateAffinePartial2D(moved[use], points[use], ransacReprojThreshold=1.0)
    if step is None or inliers.mean() <= 0.5:
        return None
    return np.asarray(np.vstack([step, [0, 0, 1]]))


def _stands(greys: list[Array], points: Array | None) -> bool:
    """No median motion of background features between the first and some later frames."""
    if points is None:
        return True
    n = len(greys)
    for i in sorted({n // 6, n // 3, n // 2, 2 * n // 3, 5 * n // 6, n - 1}):
        step = _step(greys[0], greys[i], points, np.eye(3))
        if step is not None:
            p = points[:, 0]
            if np.median(np.linalg.norm(p @ step[:2, :2].T + step[:2, 2] - p, axis=1)) >= _STILL_PX:
                return False
    return True


def camera_of(frames_THWC: Array, person_THW: Array) -> Camera:
    """Follow background features. person_THW: bool, pixels not to look at.

    Every frame is matched with the newest key frame, not with its neighbour, so that errors do not add up; a key frame that can no
    longer be matched is replaced by the frame before.
    """
    n, h, w = person_THW.shape
    greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames_THWC]
    still = Camera(np.tile(np.eye(3), (n, 1, 1)), 0.0, np.zeros(n, bool))
    near = np.ones((15, 15), np.uint8)
    ever = cv2.dilate(np.asarray(person_THW.any(0), np.uint8), near) > 0
    if _stands(greys, _features(greys[0], ~ever, 300)):
        return still
    path, lost = [np.eye(3)], np.zeros(n, bool)
    key = 0
    points = _features(greys[0], cv2.dilate(person_THW[0].astype(np.uint8), near) == 0, 300)
    for i in range(1, n):
        since_key = np.linalg.inv(path[key]) @ path[i - 1]
        step = None if points is None else _step(greys[key], greys[i], points, since_key)
        if step is None and key != i - 1:
            key, since_key = i - 1, np.eye(3)
            points = _features(greys[key], cv2.dilate(person_THW[key].astype(np.uint8), near) == 0, 300)
            step = None if points is None else _step(greys[key], greys[i], points, since_key)
        lost[i] = step is None
        path.append(path[key] @ (since_key if step is None else step))
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]).T
    shift = float(max(np.abs((m @ corners - corners)[:2]).max() for m in path))
    return Camera(np.stack(path), shift, lost) if shift > _STILL_PX else still


def shots(frames_THWC: Array, person_THW: Array) -> list[tuple[int, int]]:
    """First and past-the-last frame of every shot. A frame after a cut shares nothing with the one before, whatever the exposure.

    person_THW: bool, pixels not to look at.
    """
    n, h, w = person_THW.shape
    small = (max(8, round(w * _THUMB / max(h, w))), max(8, round(h * _THUMB / max(h, w))))
    step = max(1, max(h, w) // (4 * _THUMB))
    thumbs = [cv2.resize(f[::step, ::step], small, interpolation=cv2.INTER_AREA).astype(np.float32) for f in frames_THWC]
    people = [cv2.resize(p[::step, ::step].astype(np.uint8) * 255, small, interpolation=cv2.INTER_AREA) > 12 for p in person_THW]
    change, lit = np.zeros(n), 0
    for i in range(1, n):
        if thumbs[i].mean() < DARK_LEVEL:  # a fade to black is no cut, but what comes after it may be another scene
            continue
        free = ~(people[lit] | people[i])
        if thumbs[lit].mean() >= DARK_LEVEL and free.sum() > 0.1 * free.size:
            change[i] = _difference(thumbs[lit][free], thumbs[i][free])
        lit = i
    starts = [0]
    for i in range(1, n):
        around = np.concatenate([change[max(1, i - 4) : i], change[i + 1 : i + 5]])
        if change[i] > max(_CUT_LEVELS, _CUT_OUTSTANDS * (np.median(around) if len(around) else 0.0)):
            starts.append(i)
    return list(itertools.pairwise([*starts, n]))


def _difference(a_NC: Array, b_NC: Array) -> float:
    """Mean difference of two thumbnails' pixels, both brought to a mean of 100 levels."""
    return float(np.abs(a_NC * (100 / max(1.0, float(a_NC.mean()))) - b_NC * (100 / max(1.0, float(b_NC.mean())))).mean())


def light_of(frame_HWC: Array, scene_HWC: Array, use_HW: Array) -> Array:
    """How much brighter a frame is than the scene, per channel (3,): the median ratio over pixels to use (bool); 1 within 2 %."""
    use = use_HW & (scene_HWC.min(2) > 24)
    if use.sum() < 50:
        return np.ones(3)
    gain = np.median(frame_HWC[use] / scene_HWC[use].astype(np.float64), axis=0)
    return np.asarray(np.ones(3) if np.abs(gain - 1).max() < 0.02 else np.clip(gain, 0, 3))


def in_light(image_HWC: Array, light_3: Array) -> Array:
    """A picture (uint8) in a frame's light, as `light_of` gives it."""
    if (light_3 == 1).all():
        return image_HWC
    levels = np.clip(np.round(np.arange(256)[:, None] * light_3), 0, 255).astype(np.uint8)
    return cv2.LUT(image_HWC, levels[None])

"""Pose drawings in the plane, in the colours and order that OpenPose made customary: bodies, hands and faces."""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.figures import LEFT_EAR, LEFT_EYE, NOSE, RIGHT_EAR, RIGHT_EYE, Doubles
from generators.poses.tracks import Bools, Bytes

LIMBS: tuple[tuple[int, int], ...] = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16),
    (0, 15), (15, 17),
)  # fmt: skip
"""pairs of key points, in the order in which they are drawn"""
HEAD_LIMBS = (13, 14, 15, 16)
HEAD_POINTS = (NOSE, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR)
COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170),
    (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""one a key point; limbs use the first 17"""
DIM = 0.6
"""limbs are darker than joints"""
FINGERS: tuple[tuple[int, int], ...] = tuple(
    (0 if k == 1 else finger * 4 + k - 1, finger * 4 + k) for finger in range(5) for k in (1, 2, 3, 4)
)  # fmt: skip
FINGER_COLOURS: tuple[tuple[int, int, int], ...] = tuple(
    (round(255 * r), round(255 * g), round(255 * b)) for r, g, b in (colorsys.hsv_to_rgb(i / 20, 1.0, 1.0) for i in range(20))
)
"""the hue runs once round from the thumb to the little finger"""
KNUCKLE = (0, 0, 255)
FACE = (255, 255, 255)
HAND_SHARE = 0.1
"""largest radius of a knuckle, in lengths of the middle finger's base: small hands stay legible"""
FACE_SHARE = 0.012
"""the same for a face's points, in widths of the face"""
STEPS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
SHIFT = 4
"""cv2 takes whole numbers; this many of their bits are fractions of a pixel"""


def body(canvas_HWC: Bytes, points_19xC: Doubles, drawn_19: Bools, radius: float) -> None:
    """Limbs as dimmed ellipses, then joints as discs in full colour. `radius`: of a joint, and half a limb's width, in pixels."""
    _limbs(canvas_HWC, points_19xC, drawn_19, radius, range(len(LIMBS)))
    _joints(canvas_HWC, points_19xC, drawn_19, radius, range(len(COLOURS)))


def head(canvas_HWC: Bytes, points_19xC: Doubles, drawn_19: Bools, radius: float) -> None:
    """Only the lines between nose, eyes and ears, and those points."""
    _limbs(canvas_HWC, points_19xC, drawn_19, radius, HEAD_LIMBS)
    _joints(canvas_HWC, points_19xC, drawn_19, radius, HEAD_POINTS)


def hand(canvas_HWC: Bytes, points_21x2: Doubles, radius: float) -> None:
    """Fingers as lines, each with its own colours, and blue knuckles; `radius` is the most a knuckle may have."""
    palm = float(np.linalg.norm(points_21x2[9] - points_21x2[0]))
    radius = float(np.clip(HAND_SHARE * palm, 1.0, radius))
    for (a, b), colour in zip(FINGERS, FINGER_COLOURS, strict=True):
        cv2.line(canvas_HWC, _pixel(points_21x2[a]), _pixel(points_21x2[b]), colour, max(1, round(0.6 * radius)), shift=SHIFT)
    for point in points_21x2:
        _disc(canvas_HWC, point, radius, KNUCKLE)


def face(canvas_HWC: Bytes, points_68x2: Doubles, radius: float) -> None:
    """White points; `radius` is the most one may have."""
    across = float(np.linalg.norm(points_68x2[16] - points_68x2[0]) + np.linalg.norm(points_68x2[8] - points_68x2[27]))
    radius = float(np.clip(FACE_SHARE * across, 0.7, radius))
    for point in points_68x2:
        _disc(canvas_HWC, point, radius, FACE)


def _limbs(canvas_HWC: Bytes, points_19xC: Doubles, drawn_19: Bools, radius: float, which: Any) -> None:
    for limb in which:
        a, b = LIMBS[limb]
        if drawn_19[a] and drawn_19[b]:
            outline = _ellipse(points_19xC[a, :2], points_19xC[b, :2], radius)
            cv2.fillConvexPoly(canvas_HWC, outline, [int(c * DIM) for c in COLOURS[limb]], shift=SHIFT)


def _joints(canvas_HWC: Bytes, points_19xC: Doubles, drawn_19: Bools, radius: float, which: Any) -> None:
    for k in which:
        if drawn_19[k]:
            _disc(canvas_HWC, points_19xC[k], radius, COLOURS[k])


def _disc(canvas_HWC: Bytes, point: Doubles, radius: float, colour: tuple[int, int, int]) -> None:
    cv2.circle(canvas_HWC, _pixel(point), round(radius * (1 << SHIFT)), colour, -1, shift=SHIFT)


def _ellipse(a_2: Doubles, b_2: Doubles, radius: float) -> npt.NDArray[np.int32]:
    """The outline of the ellipse whose long axis runs from `a` to `b`."""
    along = (b_2 - a_2) / 2
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-6) * radius
    outline = (a_2 + b_2) / 2 + np.cos(STEPS)[:, None] * along + np.sin(STEPS)[:, None] * across
    return _whole(outline)


def _whole(places: Doubles) -> npt.NDArray[np.int32]:
    # cv2 overflows on coordinates beyond 16 bits of whole pixels; nothing that far out touches the picture.
    return np.round(np.clip(places, -20000, 20000) * (1 << SHIFT)).astype(np.int32)


def _pixel(point: Doubles) -> tuple[int, int]:
    x, y = _whole(point[:2])
    return int(x), int(y)

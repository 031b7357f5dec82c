"""What a body's parts look like: which part is nearest to a pixel, and how much a colour speaks for a part and against what lies behind."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.silhouettes import SURE, body_size
from generators.poses.tracks import Bytes, Floats

Ints = npt.NDArray[np.int32]

HEAD, TORSO, ARM, LEG = range(4)
GROUPS = 4
BONES: tuple[tuple[int, int, int], ...] = (
    (0, 7, HEAD), (0, 8, HEAD), (7, 8, HEAD), (11, 12, TORSO), (11, 23, TORSO), (12, 24, TORSO), (23, 24, TORSO),
    (11, 13, ARM), (13, 15, ARM), (15, 19, ARM), (12, 14, ARM), (14, 16, ARM), (16, 20, ARM),
    (23, 25, LEG), (25, 27, LEG), (27, 31, LEG), (24, 26, LEG), (26, 28, LEG), (28, 32, LEG),
)  # fmt: skip
RADIUS = np.array([0.16, 0.10, 0.075, 0.12], np.float32)
"""how thick the parts are at least, from the bone, in body sizes (a torso is half a metre); clothes make them thicker"""
CORE = 0.5
"""share of the radius that is surely the body, if the bone lies where it is seen"""
OUTSIDE = 0.3
"""farther than this beyond the radius, in body sizes, what the mask doesn't hold is background"""
BINS = 16
RARE = 3e-4
"""share of a histogram that says nothing yet"""


@dataclass(frozen=True)
class Parts:
    """The nearest part at every pixel of a region."""

    group_HW: npt.NDArray[np.uint8]
    beyond_HW: Floats
    """distance from the nearest bone less the part's radius, in body sizes; negative inside"""
    size: float
    """of the body, pixels"""

    @property
    def core(self) -> npt.NDArray[np.bool_]:
        """The middle of arms and legs."""
        return np.asarray((self.group_HW >= ARM) & (self.beyond_HW < (CORE - 1) * RADIUS[self.group_HW]))


def parts_of(landmarks_33x2: Floats, visibility_33: Floats, size_hw: tuple[int, int], step: int = 2) -> Parts | None:
    """Parts of a body in a region whose corner is the landmarks' origin; None when no bone is seen. Found at every `step`-th pixel."""
    size = body_size(landmarks_33x2)
    canvas = np.full((-(-size_hw[0] // step), -(-size_hw[1] // step)), 255, np.uint8)
    groups = np.zeros_like(canvas)
    limit = 4 * max(canvas.shape)
    for a, b, group in BONES:
        if min(visibility_33[a], visibility_33[b]) > SURE:
            ends = [np.clip(np.round(landmarks_33x2[k] / step), -limit, limit).astype(int).tolist() for k in (a, b)]
            cv2.line(canvas, ends[0], ends[1], 0, 1)
            cv2.line(groups, ends[0], ends[1], group, 1)
    if canvas.all():
        return None
    distance, labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    on_bone = canvas == 0
    group_of = np.zeros(int(labels.max()) + 1, np.uint8)
    group_of[labels[on_bone]] = groups[on_bone]
    group = group_of[labels]
    beyond = (distance * np.float32(step / size) - RADIUS[group]).astype(np.float32)
    height, width = size_hw
    large = (canvas.shape[1] * step, canvas.shape[0] * step)
    return Parts(
        cv2.resize(group, large, interpolation=cv2.INTER_NEAREST)[:height, :width],
        cv2.resize(beyond, large, interpolation=cv2.INTER_LINEAR)[:height, :width],
        size,
    )


def bins_of(rgb_HWC: Bytes) -> Ints:
    """The histogram cell of every pixel."""
    cells = (rgb_HWC >> 4).astype(np.int32)
    return np.asarray((cells[..., 0] * BINS + cells[..., 1]) * BINS + cells[..., 2])


class Colours:
    """Colours of one person's parts and of what lies around them, gathered over a clip."""

    def __init__(self) -> None:
        self.inside_GN = np.zeros((GROUPS, BINS**3), np.float64)
        self.outside_GN = np.zeros((GROUPS, BINS**3), np.float64)

    def add(self, bins_HW: Ints, mask_HW: Bytes, parts: Parts, alone_HW: npt.NDArray[np.bool_]) -> None:
        """Take one frame in. What the mask surely holds and the middle of the limbs is inside; what is far from both is outside.
        `alone_HW`: no other person is there."""
        inside = ((mask_HW > 200) | parts.core) & alone_HW
        outside = (mask_HW < 25) & (parts.beyond_HW > 0.06) & (parts.beyond_HW < OUTSIDE)
        cell = parts.group_HW.astype(np.int32) * BINS**3 + bins_HW
        for where, counts in ((inside, self.inside_GN), (outside, self.outside_GN)):
            counts += np.bincount(cell[where], minlength=counts.size).reshape(counts.shape)

    def take(self, other: Colours) -> None:
        self.inside_GN += other.inside_GN
        self.outside_GN += other.outside_GN

    def evidence(self) -> Floats:
        """Log ratio of a colour's share inside and outside, per part, times how well the two can be told apart at all (1 less their
        Bhattacharyya coefficient)."""
        inside, outside = (_shares(c) for c in (self.inside_GN, self.outside_GN))
        apart = 1 - np.sqrt(inside * outside).sum(axis=1, keepdims=True)
        return np.asarray(np.log((inside + RARE) / (outside + RARE)) * apart, np.float32)

    def likelihood(self) -> Floats:
        """Log share of a colour inside, per part."""
        return np.asarray(np.log(_shares(self.inside_GN) + RARE), np.float32)


def _shares(counts_GN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Histograms that sum to one, each colour lending to its neighbours."""
    cube = counts_GN.reshape(GROUPS, BINS, BINS, BINS)
    for axis in (1, 2, 3):
        edge = [(0, 0)] * 4
        edge[axis] = (1, 1)
        padded = np.moveaxis(np.pad(cube, edge, mode="edge"), axis, 0)
        cube = np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, axis)
    flat = cube.reshape(GROUPS, -1)
    return np.asarray(flat / np.maximum(flat.sum(axis=1, keepdims=True), 1.0))

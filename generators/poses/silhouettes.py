"""Care of the landmark model's soft silhouettes: stray spots out, holes filled; and how far pixels are from bones."""

from __future__ import annotations

import cv2
import numpy as np

from generators.poses.tracks import Bytes, Floats

BONES: tuple[tuple[int, int], ...] = (
    (0, 7), (0, 8), (11, 12), (11, 13), (13, 15), (15, 19), (12, 14), (14, 16), (16, 20), (11, 23), (12, 24), (23, 24), (23, 25),
    (25, 27), (27, 31), (24, 26), (26, 28), (28, 32),
)  # fmt: skip
FEET = (27, 28, 29, 30, 31, 32)
HALF = 128
SURE = 0.3
"""visibility from which a joint says where the body is"""
FAINT = 8
"""mask value below which there is nothing"""
REACH = 1e6
COARSE = 144
"""short side of the grid on which distances to bones are computed, at least"""


def body_size(landmarks_33x3: Floats) -> float:
    """A length that hardly changes with the pose, in pixels: the longest of torso, shoulder width × 1.4 and thighs × 1.2."""
    xy = landmarks_33x3[:, :2]
    shoulders, hips = (xy[11] + xy[12]) / 2, (xy[23] + xy[24]) / 2
    lengths = [float(np.linalg.norm(shoulders - hips)), 1.4 * float(np.linalg.norm(xy[11] - xy[12]))]
    lengths += [1.2 * float(np.linalg.norm(xy[h] - xy[k])) for h, k in ((23, 25), (24, 26))]
    return max(*lengths, 1.0)


def cleaned(mask_HW: Bytes, landmarks_33x3: Floats, visibility_33: Floats) -> Bytes:
    """The silhouette without spots that no joint touches and without small holes; soft values are kept."""
    x, y, w, h = cv2.boundingRect((mask_HW >= FAINT).astype(np.uint8))
    if not w:
        return np.zeros_like(mask_HW)
    out = np.zeros_like(mask_HW)
    at = landmarks_33x3 - np.array([x, y, 0], np.float32)
    out[y : y + h, x : x + w] = _cleaned(mask_HW[y : y + h, x : x + w], at, visibility_33)
    return out


def _cleaned(mask_HW: Bytes, landmarks_33x3: Floats, visibility_33: Floats) -> Bytes:
    solid = (mask_HW >= HALF).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count <= 1:
        return np.where(mask_HW >= HALF // 2, mask_HW, 0).astype(np.uint8)
    biggest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    keep = {biggest} | _touched(labels, landmarks_33x3, visibility_33)
    keep = {k for k in keep if k == biggest or stats[k, cv2.CC_STAT_AREA] >= 0.004 * stats[biggest, cv2.CC_STAT_AREA]}
    table = np.zeros(count, np.uint8)
    table[sorted(keep)] = 1
    kept = table[labels]
    # The soft rim reaches a little beyond the half value; farther out belongs to what was dropped.
    near = cv2.dilate(kept, np.ones((5, 5), np.uint8))
    out = np.where(near > 0, mask_HW, 0).astype(np.uint8)
    return _without_holes(out, kept, int((0.06 * body_size(landmarks_33x3)) ** 2) + 4)


def _touched(labels_HW: np.ndarray, landmarks_33x3: Floats, visibility_33: Floats) -> set[int]:
    height, width = labels_HW.shape
    xy = np.round(landmarks_33x3[visibility_33 > SURE, :2]).astype(np.int64)
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    return {int(v) for v in labels_HW[xy[inside, 1], xy[inside, 0]]} - {0}


def _without_holes(mask_HW: Bytes, solid_HW: Bytes, largest: int) -> Bytes:
    """Holes of at most `largest` pixels are filled; larger ones (an arm on the hip) are real."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - solid_HW, connectivity=4)
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        enclosed = x > 0 and y > 0 and x + w < mask_HW.shape[1] and y + h < mask_HW.shape[0]
        if area <= largest and enclosed:
            mask_HW[labels == k] = 255
    return mask_HW


def bone_distance(landmarks_33x3: Floats, visibility_33: Floats, height: int, width: int) -> Floats:
    """Distance of every pixel to the nearest bone, in body sizes. Bones with a hidden end don't count.

    Computed on a coarser grid, because it only ever decides between two people.
    """
    step = max(1, min(height, width) // COARSE)
    canvas = np.full((-(-height // step), -(-width // step)), 255, np.uint8)
    limit = 8 * max(canvas.shape)
    for a, b in BONES:
        if min(visibility_33[a], visibility_33[b]) > SURE:
            ends = [np.clip(np.round(landmarks_33x3[k, :2] / step), -limit, limit).astype(int).tolist() for k in (a, b)]
            cv2.line(canvas, ends[0], ends[1], 0, 1)
    if canvas.all():
        return np.full((height, width), REACH, np.float32)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 3) * (step / body_size(landmarks_33x3))
    return np.asarray(cv2.resize(distance, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def nearest_first(landmarks_P33x3: Floats) -> list[int]:
    """People by their distance from the camera: who stands lowest in the picture is nearest, the usual case of a camera at body height."""
    feet = landmarks_P33x3[:, FEET, 1].max(axis=1)
    return [int(p) for p in np.argsort(-feet, kind="stable")]

"""A pinhole camera, and where in its space the people stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from generators.poses import smoothing
from generators.poses.figures import Doubles, Figures, nearest_first, points_of

FIELD_OF_VIEW_DEG = 55.0
"""over the picture's longer side, as the published 3D pose renderers have it"""
BODY = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
NEAREST_M = 0.3
FARTHEST_M = 200.0
SMOOTH_S = 0.6
"""a body's distance is known only through its size, which jitters more than its place"""
BEHIND_M = 0.1
"""how far behind a nearer person's hips the next one's are, at least"""


@dataclass(frozen=True)
class Camera:
    """Looks along +z with x to the right and y down; the principal point is the picture's centre."""

    focal_px: float
    centre_x: float
    centre_y: float

    @staticmethod
    def of(size_hw: tuple[int, int]) -> Camera:
        """The camera with FIELD_OF_VIEW_DEG over the longer side of a picture of this size."""
        focal = max(size_hw) / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
        return Camera(focal, size_hw[1] / 2, size_hw[0] / 2)

    def project(self, points_Nx3: Doubles) -> Doubles:
        """Metres to pixels; any number of axes before the last."""
        return np.asarray(points_Nx3[..., :2] / points_Nx3[..., 2:] * self.focal_px + np.array([self.centre_x, self.centre_y]))

    def lifted(self, points_Nx2: Doubles, depth_N: Doubles) -> Doubles:
        """The places in space that are seen at these pixels at these depths."""
        flat = (points_Nx2 - np.array([self.centre_x, self.centre_y])) / self.focal_px * depth_N[..., None]
        return np.concatenate([flat, depth_N[..., None]], axis=-1)


@dataclass(frozen=True)
class Placed:
    """Everybody in the camera's space."""

    points_PT19x3: Doubles
    """metres; they project exactly onto the 2D key points"""
    enlarged_PT: Doubles
    """by how much the person was scaled about the camera to stand behind those who are nearer; radii grow by the same"""
    near_first_T: list[list[int]]
    """people per frame, the nearest first"""


def placed(fig: Figures, camera: Camera) -> Placed:
    """Depth from the world landmarks and each person's fitted distance; place from the 2D landmarks at that depth.

    The world landmarks alone miss the 2D ones by some pixels (both are estimates), which would part the limbs from the hands and the
    face that are drawn over them.
    """
    distance = distances(fig, camera)
    for p in range(fig.count):
        distance[p] = _smoothed(distance[p], fig.drawn_PT19[p].any(axis=-1), fig.fps)
    near_first = nearest_first(fig, distance)
    enlarged = _in_order(distance, near_first)
    depth = np.maximum(points_of(fig.world_PT33x3)[..., 2] + distance[..., None], NEAREST_M)
    points = camera.lifted(points_of(fig.landmarks_PT33x3)[..., :2], depth)
    return Placed(points * enlarged[..., None, None], enlarged, near_first)


def distances(fig: Figures, camera: Camera) -> Doubles:
    """P×T: the depth, in metres, at which the world landmarks (hip-centred) project best onto the 2D ones; NaN where nothing fits.

    Least squares over the translation (x, y, z): f·(X + x) = (u - cx)·(Z + z), and the same for y, is linear in it. With the weighted
    means taken out, x and y drop out, and z is a quotient of two sums.
    """
    flat = fig.landmarks_PT33x3[:, :, BODY, :2] - np.array([camera.centre_x, camera.centre_y])
    deep, weight = fig.world_PT33x3[:, :, BODY], fig.weight_PT33[:, :, BODY, None]
    weight = np.where(weight > 0, np.maximum(weight, 0.05), 0.0)
    total = np.maximum(weight.sum(axis=2, keepdims=True), 1e-9)
    residual = flat * deep[..., 2:] - camera.focal_px * deep[..., :2]
    around = flat - (weight * flat).sum(axis=2, keepdims=True) / total
    residual -= (weight * residual).sum(axis=2, keepdims=True) / total
    spread = (weight * around**2).sum(axis=(2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = -(weight * around * residual).sum(axis=(2, 3)) / spread
    return np.asarray(np.where((spread > 1e-6) & (depth > NEAREST_M) & (depth < FARTHEST_M), depth, np.nan))


def _smoothed(distance_T: Doubles, here_T: np.ndarray, fps: float) -> Doubles:
    known = np.isfinite(distance_T) & here_T
    if not known.any():
        return np.full(len(distance_T), 3.0)
    # In the logarithm, because an error of size is an error of proportion.
    logs = smoothing.smooth(smoothing.fill(np.log(np.where(known, distance_T, 1.0)), known), fps, SMOOTH_S)
    return np.asarray(np.exp(logs))


def _in_order(distance_PT: Doubles, near_first_T: list[list[int]]) -> Doubles:
    """Factors that put people behind one another in the order given. Scaling about the camera changes no projection."""
    out = np.ones_like(distance_PT)
    for t, order in enumerate(near_first_T):
        reached = 0.0
        for p in order:
            wanted = max(distance_PT[p, t], reached)
            out[p, t] = wanted / distance_PT[p, t]
            reached = wanted + BEHIND_M
    return out

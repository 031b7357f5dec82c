"""Capsules (cylinders with round ends) seen by a pinhole camera: exact per pixel, with a depth buffer, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.camera import Camera
from generators.poses.figures import Doubles
from generators.poses.tracks import Bytes, Floats

AMBIENT, DIFFUSE, GLOSS = 0.3, 0.7, 0.5
"""Lambert shading by a lamp at the camera, and a highlight (Blinn-Phong, exponent 32)"""
FADE_M = 6.0
"""how far behind the farthest limb of the clip a surface would be black"""
RIM_PX = 1.5
FAR = np.float32(np.inf)


@dataclass(frozen=True)
class Scene:
    """A picture under way: colours and the depth of what is in front."""

    canvas_HWC: Bytes
    depth_HW: Floats
    camera: Camera
    near_m: float
    far_m: float

    @staticmethod
    def empty(size_hw: tuple[int, int], near_m: float, far_m: float) -> Scene:
        """Black; depths between `near_m` and `far_m` are to be expected."""
        return Scene(np.zeros((*size_hw, 3), np.uint8), np.full(size_hw, FAR, np.float32), Camera.of(size_hw), near_m, far_m)

    def add(self, a_3: Doubles, b_3: Doubles, radius_m: float, colour: tuple[float, float, float]) -> None:
        """A capsule from `a` to `b` (metres, in front of the camera), where nothing nearer is. `colour`: 0 to 1 a channel."""
        rows, columns = self._touched(a_3, b_3, radius_m)
        if not len(rows):
            return
        focal = np.float32(self.camera.focal_px)
        x = (columns.astype(np.float32) + np.float32(0.5 - self.camera.centre_x)) / focal
        y = (rows.astype(np.float32) + np.float32(0.5 - self.camera.centre_y)) / focal
        depth, normal_z, facing = intersect(x, y, a_3, b_3, radius_m)
        seen = depth < self.depth_HW[rows, columns]
        rows, columns, depth = rows[seen], columns[seen], depth[seen]
        self.depth_HW[rows, columns] = depth
        self.canvas_HWC[rows, columns] = self._lit(depth, normal_z[seen], facing[seen], np.array(colour, np.float32))

    def _lit(self, depth_N: Floats, normal_z_N: Floats, facing_N: Floats, colour_3: Floats) -> Bytes:
        fade = np.clip(1.0 - (depth_N - np.float32(self.near_m)) / np.float32(self.far_m + FADE_M - self.near_m), 0.0, 1.0)
        light = np.float32(AMBIENT) + np.float32(DIFFUSE) * np.maximum(-normal_z_N, 0.0)
        gloss = np.maximum(facing_N, 0.0)
        for _ in range(5):
            gloss = gloss * gloss
        lit = (light[:, None] * colour_3 + np.float32(GLOSS) * gloss[:, None]) * fade[:, None]
        return np.asarray(np.clip(lit * np.float32(255.0), 0.0, 255.0), np.uint8)

    def _touched(self, a_3: Doubles, b_3: Doubles, radius_m: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and columns of the pixels that the capsule may cover: a little more than the hull of its two round ends."""
        height, width = self.depth_HW.shape
        discs = []
        for end in (a_3, b_3):
            x, y = self.camera.project(end)
            # A sphere off the axis is seen as an ellipse, longer by the secant of its angle.
            stretch = float(np.linalg.norm(end)) / float(end[2])
            reach = self.camera.focal_px * radius_m * stretch / max(float(end[2]) - radius_m, 0.05) + RIM_PX
            discs.append((float(x), float(y), min(reach, 4.0 * max(height, width))))
        turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        # A polygon of 16 corners lies outside its circle when the corners are 1/cos(π/16) away.
        rim = np.stack([np.cos(turns), np.sin(turns)], axis=1) / np.cos(np.pi / 16)
        outline = np.concatenate([np.array([x, y]) + r * rim for x, y, r in discs])
        low = np.clip(np.floor(outline.min(axis=0)), 0, [width, height]).astype(int)
        high = np.clip(np.ceil(outline.max(axis=0)) + 1, 0, [width, height]).astype(int)
        if (high <= low).any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        patch = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        hull = cv2.convexHull(np.clip(outline - low, -20000, 20000).round().astype(np.int32))
        cv2.fillConvexPoly(patch, hull, 1)
        rows, columns = np.nonzero(patch)
        return rows + low[1], columns + low[0]


def intersect(x_N: Floats, y_N: Floats, a_3: Doubles, b_3: Doubles, radius_m: float) -> tuple[Floats, Floats, Floats]:
    """Where the rays (x, y, 1) from the origin first meet a capsule: depth (infinite where they miss), the normal's z there, and the
    cosine between normal and the direction half way between eye and lamp.

    Quadratic equations for the cylinder and for the sphere at the nearer end, after Quilez, "Ray-capsule intersection".
    """
    a, b = a_3.astype(np.float32), b_3.astype(np.float32)
    r = np.float32(radius_m)
    axis = b - a
    axis_sq, axis_a, a_sq = axis @ axis + np.float32(1e-12), axis @ a, a @ a
    ray_sq = x_N * x_N + y_N * y_N + np.float32(1.0)
    axis_ray = axis[0] * x_N + axis[1] * y_N + axis[2]
    ray_a = a[0] * x_N + a[1] * y_N + a[2]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        k2 = np.maximum(axis_sq * ray_sq - axis_ray * axis_ray, np.float32(1e-12))
        k1 = axis_a * axis_ray - axis_sq * ray_a
        k0 = axis_sq * a_sq - axis_a * axis_a - r * r * axis_sq
        depth = (-k1 - np.sqrt(k1 * k1 - k2 * k0)) / k2
        share = np.clip((depth * axis_ray - axis_a) / axis_sq, 0.0, 1.0)
        capped = (share <= 0.0) | (share >= 1.0)
        ends = a + (share > 0.5)[:, None] * axis
        ray_end = ends[:, 0] * x_N + ends[:, 1] * y_N + ends[:, 2]
        ball = ray_end * ray_end - ray_sq * ((ends * ends).sum(axis=1) - r * r)
        depth = np.where(capped, (ray_end - np.sqrt(ball)) / ray_sq, depth)
    depth = np.where(depth > 0, depth, FAR).astype(np.float32)
    safe = np.where(np.isfinite(depth), depth, np.float32(0.0))
    normal = np.stack([safe * x_N, safe * y_N, safe], axis=1) - (a + share[:, None] * axis)
    normal = np.nan_to_num(normal) / r
    eye = np.float32(1.0) / np.sqrt(ray_sq)
    half = np.stack([-x_N * eye, -y_N * eye, -eye - np.float32(1.0)], axis=1)
    facing = (normal * half).sum(axis=1) / np.linalg.norm(half, axis=1)
    return depth, normal[:, 2], facing.astype(np.float32)

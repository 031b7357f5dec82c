"""Triangles seen by a pinhole camera: shaded, with a depth buffer, in numpy.

All triangles of a mesh are drawn at once: every pixel of every triangle's box is tested against its edges, and of those that lie inside
the nearest wins. That is quick for bodies, whose triangles cover a few pixels each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.camera import NEAREST_M, Camera
from generators.poses.capsules import AMBIENT, DIFFUSE, FAR
from generators.poses.tracks import Bytes, Floats

Doubles = npt.NDArray[np.float64]
Triangles = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]

AT_ONCE = 4_000_000
"""pixels of boxes tested at once"""


@dataclass(frozen=True)
class Sheet:
    """A picture under way: colours and the depth of what is in front."""

    canvas_HWC: Bytes
    depth_HW: Floats
    camera: Camera

    @staticmethod
    def empty(size_hw: tuple[int, int], camera: Camera) -> Sheet:
        """Black."""
        return Sheet(np.zeros((*size_hw, 3), np.uint8), np.full(size_hw, FAR, np.float32), camera)

    def add(self, vertices_Vx3: Doubles, faces_Fx3: Triangles, colour: tuple[float, float, float]) -> None:
        """A surface (metres, in the camera's space), where nothing nearer is. `colour`: 0 to 1 a channel.

        Lit by a lamp at the camera (Lambert, smooth over the vertices' normals). Triangles that reach behind the camera are left out.
        """
        faces = faces_Fx3[(vertices_Vx3[:, 2] > NEAREST_M)[faces_Fx3].all(axis=1)]
        if not len(faces):
            return
        normals = vertex_normals(vertices_Vx3, faces)
        ahead = vertices_Vx3 / np.maximum(np.linalg.norm(vertices_Vx3, axis=1, keepdims=True), 1e-9)
        light = AMBIENT + DIFFUSE * np.abs((normals * ahead).sum(axis=1))
        seen = np.full((len(vertices_Vx3), 2), np.nan)
        front = vertices_Vx3[:, 2] > NEAREST_M
        seen[front] = self.camera.project(vertices_Vx3[front])
        for rows, columns, depth, shade in _fragments(seen, vertices_Vx3[:, 2], light, faces, self.depth_HW.shape):
            self._lay(rows, columns, depth, shade, np.array(colour))

    def _lay(self, rows: Indices, columns: Indices, depth: Doubles, shade: Doubles, colour_3: Doubles) -> None:
        seen = depth < self.depth_HW[rows, columns]
        rows, columns, depth, shade = rows[seen], columns[seen], depth[seen], shade[seen]
        # Far ones first: of several values for one place numpy keeps the last.
        order = np.argsort(-depth, kind="stable")
        rows, columns = rows[order], columns[order]
        self.depth_HW[rows, columns] = depth[order].astype(np.float32)
        self.canvas_HWC[rows, columns] = np.clip(shade[order, None] * colour_3 * 255.0, 0, 255).astype(np.uint8)


def vertex_normals(vertices_Vx3: Doubles, faces_Fx3: Triangles) -> Doubles:
    """Unit normals: of the triangles around each vertex, weighted by their areas; zero for a vertex of none."""
    a, b, c = (vertices_Vx3[faces_Fx3[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    out = np.zeros_like(vertices_Vx3)
    for axis in range(3):
        for k in range(3):
            out[:, axis] += np.bincount(faces_Fx3[:, k], area[:, axis], len(out))
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


def _fragments(
    seen_Vx2: Doubles, depth_V: Doubles, light_V: Doubles, faces_Fx3: Triangles, size_hw: tuple[int, ...]
) -> list[tuple[Indices, Indices, Doubles, Doubles]]:
    """Rows, columns, depths and lights of the pixels whose middle lies in a triangle."""
    corners = seen_Vx2[faces_Fx3]
    limit = np.array([size_hw[1], size_hw[0]])
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, limit).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, limit).astype(np.int64)
    span = np.maximum(high - low, 0)
    area = span.prod(axis=1)
    out = []
    kept = np.flatnonzero(area)
    cuts = np.searchsorted(np.cumsum(area[kept]), np.arange(AT_ONCE, int(area.sum()) + AT_ONCE, AT_ONCE))
    for some in np.split(kept, np.unique(np.minimum(cuts, len(kept)))):
        if len(some):
            out.append(_inside(corners[some], 1.0 / depth_V[faces_Fx3[some]], light_V[faces_Fx3[some]], low[some], span[some]))
    return out


def _inside(
    corners_Fx3x2: Doubles, near_Fx3: Doubles, light_Fx3: Doubles, low_Fx2: Indices, span_Fx2: Indices
) -> tuple[Indices, Indices, Doubles, Doubles]:
    """Barycentric coordinates of every pixel of every box; the inverse of depth is linear in the picture."""
    count = span_Fx2.prod(axis=1)
    which = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    columns, rows = low_Fx2[which, 0] + place % span_Fx2[which, 0], low_Fx2[which, 1] + place // span_Fx2[which, 0]
    (ax, ay), (bx, by), (cx, cy) = (corners_Fx3x2[:, k].T for k in range(3))
    whole = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    x, y = columns + 0.5, rows + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        second = ((x - ax[which]) * (cy - ay)[which] - (y - ay[which]) * (cx - ax)[which]) / whole[which]
        third = ((bx - ax)[which] * (y - ay[which]) - (by - ay)[which] * (x - ax[which])) / whole[which]
        weights = np.stack([1.0 - second - third, second, third], axis=1)
        hit = (weights >= -1e-9).all(axis=1)  # a triangle seen edge-on has no area, its weights are no numbers
    which, weights = which[hit], weights[hit]
    depth = 1.0 / (weights * near_Fx3[which]).sum(axis=1)
    return rows[hit], columns[hit], depth, (weights * light_Fx3[which]).sum(axis=1)

"""Draws a posed character: textured triangles, far layers first, premultiplied alpha."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.deform import posed
from generators.videos.puppet.face import Rig
from generators.videos.puppet.layers import Layer
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.retarget import Pose, layer_order

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Character:
    """All that is drawn of one character."""

    figure: Figure
    layers: dict[str, Layer]
    alpha_HW: Array
    """the matte, at the figure's size"""
    rig: Rig | None = None
    """how the head's mesh hangs on the face; None without a face in the picture"""


def _inverse_maps(before_Fx3x2: Array, after_Fx3x2: Array) -> tuple[Array, Array]:
    """Affine maps (F, 6) from output pixels back to the picture, and which triangles are neither flat nor folded over."""
    e1, e2 = after_Fx3x2[:, 1] - after_Fx3x2[:, 0], after_Fx3x2[:, 2] - after_Fx3x2[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    good = area > 1e-2
    divisor = np.where(good, area, 1)[:, None]
    f1, f2 = before_Fx3x2[:, 1] - before_Fx3x2[:, 0], before_Fx3x2[:, 2] - before_Fx3x2[:, 0]
    by_x = (f1 * e2[:, 1:] - f2 * e1[:, 1:]) / divisor
    by_y = (f2 * e1[:, :1] - f1 * e2[:, :1]) / divisor
    offset = before_Fx3x2[:, 0] - by_x * after_Fx3x2[:, 0, :1] - by_y * after_Fx3x2[:, 0, 1:]
    return np.concatenate([by_x, by_y, offset], 1), good


def _draw_layer(canvas_HWx4: Array, layer: Layer, target_Vx2: Array) -> None:
    h, w = canvas_HWx4.shape[:2]
    x0, y0 = np.maximum(np.floor(target_Vx2.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(target_Vx2.max(0)).astype(int) + 1, [w, h])
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    after = target_Vx2[layer.triangles_Fx3]
    maps, good = _inverse_maps(layer.vertices_Vx2[layer.triangles_Fx3] - layer.origin_xy, after)
    nowhere = np.array([[0, 0, 0, 0, -9e3, -9e3]])
    maps = np.concatenate([nowhere, maps]).astype(np.float32)
    which = np.zeros((y1 - y0, x1 - x0), np.int32)
    corners = np.round((after - [x0, y0]) * 2**_SUBPIXEL_BITS).astype(np.int32)
    seen = np.flatnonzero(good)
    for triangle, k in zip(corners[seen], (seen + 1).tolist(), strict=True):
        cv2.fillConvexPoly(which, triangle, k, cv2.LINE_8, _SUBPIXEL_BITS)
    xx, yx, xy, yy, x, y = (column.take(which) for column in np.ascontiguousarray(maps.T))
    across, down = np.arange(x0, x1, dtype=np.float32)[None], np.arange(y0, y1, dtype=np.float32)[:, None]
    xx, xy, yx, yy = (np.multiply(a, b, out=a) for a, b in ((xx, across), (xy, down), (yx, across), (yy, down)))
    from_x, from_y = xx + xy + x, yx + yy + y
    drawn = cv2.remap(layer.texture_HWx4, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    through = cv2.merge([cv2.bitwise_not(cv2.extractChannel(drawn, 3))] * 4)
    under = canvas_HWx4[y0:y1, x0:x1]
    canvas_HWx4[y0:y1, x0:x1] = cv2.add(cv2.multiply(under, through, scale=1 / 255, dtype=cv2.CV_32F), drawn, dtype=cv2.CV_32F)


def draw(canvas_HWx4: Array, character: Character, pose: Pose, t: int) -> None:
    """Put the character over a premultiplied float32 canvas, in place."""
    for name in layer_order(pose, t, tuple(character.layers)):
        layer = character.layers[name]
        _draw_layer(canvas_HWx4, layer, posed(character.figure, pose, t, name, layer))

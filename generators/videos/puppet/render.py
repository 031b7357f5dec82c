"""Draws a posed character: textured triangles, far layers first, premultiplied alpha."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.deform import posed
from generators.videos.puppet.layers import Layer
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.retarget import Pose, layer_order
from generators.videos.puppet.skeleton import ANKLES

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Character:
    """All that is drawn of one character."""

    figure: Figure
    layers: dict[str, Layer]
    alpha_HW: Array
    """the matte, at the figure's size"""
    chest_hidden: float
    """see Parts.chest_hidden"""


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
    for k in np.flatnonzero(good):
        cv2.fillConvexPoly(which, corners[k], int(k + 1), cv2.LINE_8, _SUBPIXEL_BITS)
    m = maps[which]
    x, y = np.arange(x0, x1, dtype=np.float32)[None], np.arange(y0, y1, dtype=np.float32)[:, None]
    from_x, from_y = m[..., 0] * x + m[..., 2] * y + m[..., 4], m[..., 1] * x + m[..., 3] * y + m[..., 5]
    drawn = cv2.remap(layer.texture_HWx4, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    roi = canvas_HWx4[y0:y1, x0:x1]
    roi *= 1 - drawn[..., 3:] / 255
    roi += drawn


def draw(canvas_HWx4: Array, character: Character, pose: Pose, t: int) -> None:
    """Put the character over a premultiplied float32 canvas, in place."""
    for name in layer_order(pose, t, tuple(character.layers)):
        layer = character.layers[name]
        _draw_layer(canvas_HWx4, layer, posed(character.figure, pose, t, name, layer))


def shade(scene_HWC: Array, character: Character, pose: Pose, t: int) -> Array:
    """The scene (float32) with soft contact shadows under the character's feet."""
    if not {"left_shin", "right_shin"} <= character.figure.bones:
        return scene_HWC
    scale = float(pose.scale_T[t])
    dark = np.zeros(scene_HWC.shape[:2], np.float32)
    for ankle in ANKLES:
        x, y = pose.joints_T19x2[t, ankle] + [0, 0.06 * scale]
        one = np.zeros_like(dark)
        axes = (max(1, int(0.22 * scale)), max(1, int(0.06 * scale)))
        cv2.ellipse(one, (int(np.clip(x, -999, 9999)), int(np.clip(y, -999, 9999))), axes, 0, 0, 360, 0.35, -1)
        dark = np.maximum(dark, one)
    return np.asarray(scene_HWC * (1 - cv2.GaussianBlur(dark, (0, 0), max(1.0, 0.04 * scale)))[..., None])


def composed(scene_HWC: Array, canvas_HWx4: Array) -> Array:
    """The canvas over the scene: RGB, uint8."""
    return np.clip(np.round(canvas_HWx4[..., :3] + scene_HWC * (1 - canvas_HWx4[..., 3:] / 255)), 0, 255).astype(np.uint8)


def relit(character: Character, scene_HWC: Array, strength: float) -> Character:
    """The character with its colours moved part of the way from its own surroundings' to the scene's (mean in CIE Lab)."""
    figure = character.figure
    around = figure.mask_HW < 30
    if around.sum() < 500:
        return character

    def mean(image: Array, where: Array) -> Array:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[where].astype(np.float32).mean(0))

    everywhere = np.ones(scene_HWC.shape[:2], bool)
    shift = (mean(scene_HWC, everywhere) - mean(figure.image_HWC, around)) * strength
    shift = np.clip(shift * [1, 0.5, 0.5], [-20, -4, -4], [20, 4, 4]).astype(np.float32)
    layers = {name: _shifted(layer, shift) for name, layer in character.layers.items()}
    return replace(character, layers=layers)


def _shifted(layer: Layer, shift: Array) -> Layer:
    alpha = layer.texture_HWx4[..., 3:] / 255
    rgb = np.clip(layer.texture_HWx4[..., :3] / np.maximum(alpha, 1e-3), 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32) + shift
    moved = cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
    texture = np.dstack([moved * alpha, layer.texture_HWx4[..., 3]]).astype(np.float32)
    return replace(layer, texture_HWx4=texture)

"""Pose renderings in space: every limb a shaded cylinder, with hands and face drawn over them in the plane.

Camera, colours, light and the choice of limbs are those that SCAIL's published pose renderer uses, whose generators expect them; its
versions use radii of 11 to 28 mm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from generators.base import Options
from generators.poses import drawing
from generators.poses.camera import Camera, Placed, placed
from generators.poses.capsules import Scene
from generators.poses.figures import HEAD, LEFT_WRIST, NECK, RIGHT_WRIST, Doubles, Figures, sizes
from generators.poses.rendering import PoseOptions, PoseRenderer, stick_radius
from generators.poses.tracks import Bytes

Colour = tuple[float, float, float]

LIMBS: tuple[tuple[int, int, tuple[int, int, int]], ...] = (
    (NECK, 2, (255, 0, 0)), (2, 3, (255, 85, 0)), (3, 4, (255, 170, 0)), (NECK, 5, (0, 255, 255)), (5, 6, (0, 170, 255)),
    (6, 7, (0, 85, 255)), (NECK, 8, (180, 255, 0)), (8, 9, (0, 255, 0)), (9, 10, (0, 255, 85)), (NECK, 11, (0, 0, 255)),
    (11, 12, (85, 0, 255)), (12, 13, (170, 0, 255)), (NECK, HEAD, (150, 150, 150)),
)  # fmt: skip
"""pairs of key points and colours: warm for the right side, cool for the left, grey for the neck"""
OVERLAY_SLACK_M = 0.25
"""a hand or a face is drawn over what is nearer by less than this: it is thicker than the limb it hangs on"""


class CylinderOptions(PoseOptions):
    """The thickness of lines in the plane is that of hands and face; limbs have a radius in metres."""

    radius_m: float = Field(default=0.0215, gt=0, le=0.2)
    """of every limb"""


class Cylinders(PoseRenderer):
    """Renders the clip's people as cylinders seen through a lens of 55°, with the right ones in front."""

    options_type: ClassVar[type[Options]] = CylinderOptions

    def frames(self, fig: Figures) -> Iterator[Bytes]:
        assert isinstance(self.options, CylinderOptions)
        return render(fig, self.options)


def render(fig: Figures, options: CylinderOptions) -> Iterator[Bytes]:
    """One HWC frame after the other."""
    if not fig.drawn_PT19.any():
        yield from (np.zeros((*fig.size_hw, 3), np.uint8) for _ in range(fig.frames))
        return
    where, radii = placed(fig, Camera.of(fig.size_hw)), [stick_radius(options, fig.size_hw, s) for s in sizes(fig)]
    depths = where.points_PT19x3[fig.drawn_PT19, 2]
    for t in range(fig.frames):
        scene = Scene.empty(fig.size_hw, float(depths.min()), float(depths.max()))
        for p in where.near_first_T[t]:
            _add_person(scene, fig, where, p, t, options.radius_m)
        for p in reversed(where.near_first_T[t]):
            _draw_over(scene, fig, where, p, t, radii[p], options)
        yield scene.canvas_HWC


def _add_person(scene: Scene, fig: Figures, where: Placed, p: int, t: int, radius_m: float) -> None:
    points, drawn = where.points_PT19x3[p, t], fig.drawn_PT19[p, t]
    for a, b, colour in LIMBS:
        if drawn[a] and drawn[b]:
            scene.add(points[a], points[b], radius_m * float(where.enlarged_PT[p, t]), _paint(colour))


def _paint(colour: tuple[int, int, int]) -> Colour:
    """No channel is ever quite dark, so that the light shows the shape of a pure blue limb as well."""
    red, green, blue = (c / 300.0 + 0.15 for c in colour)
    return red, green, blue


def _draw_over(scene: Scene, fig: Figures, where: Placed, p: int, t: int, radius: float, options: CylinderOptions) -> None:
    """Nose, eyes, ears, the face's points and the fingers; somebody nearer hides them."""
    depth, drawn, points = where.points_PT19x3[p, t, :, 2], fig.drawn_PT19[p, t], fig.points_19x3(p, t)[:, :2]
    seen = [k for k in drawing.HEAD_POINTS if drawn[k]]
    if seen:
        _lay_over(scene, points[seen], radius, depth[HEAD], lambda sheet, corner: drawing.head(sheet, points - corner, drawn, radius))
    if options.face and fig.face_drawn_PT[p, t]:
        face = fig.faces_PT68x2[p, t]
        _lay_over(scene, face, radius, depth[HEAD], lambda sheet, corner: drawing.face(sheet, face - corner, radius))
    for side, wrist in enumerate((LEFT_WRIST, RIGHT_WRIST)):
        if options.hands and fig.hand_drawn_PT2[p, t, side]:
            _draw_hand(scene, fig.hands_PT2x21x2[p, t, side], radius, depth[wrist])


def _draw_hand(scene: Scene, hand_21x2: Doubles, radius: float, depth_m: float) -> None:
    _lay_over(scene, hand_21x2, radius, depth_m, lambda sheet, corner: drawing.hand(sheet, hand_21x2 - corner, radius))


def _lay_over(scene: Scene, places_Nx2: Doubles, radius: float, depth_m: float, draw: Callable[[Bytes, Doubles], None]) -> None:
    """Let `draw` paint on an empty sheet around the places (it is told the sheet's corner), and lay it over what is not nearer."""
    height, width = scene.depth_HW.shape
    low = np.clip(np.floor(places_Nx2.min(axis=0) - 2 * radius), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(places_Nx2.max(axis=0) + 2 * radius), 0, [width, height]).astype(int)
    if (high <= low).any():
        return
    sheet = np.zeros((*(high - low)[::-1], 3), np.uint8)
    draw(sheet, low.astype(np.float64))
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    painted = sheet.any(axis=-1) & (scene.depth_HW[part] > depth_m - OVERLAY_SLACK_M)
    scene.canvas_HWC[part][painted] = sheet[painted]

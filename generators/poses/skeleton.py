"""Pose renderings in the plane: every person as a coloured stick figure on black, as OpenPose draws them.

A pose pair's driving masks are read back from the finished rendering's own pixels (`masks_from_rendering`), never from the clip.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from generators.poses import drawing
from generators.poses.camera import Camera, placed
from generators.poses.figures import Figures, figures, sizes
from generators.poses.rendering import PoseOptions, PoseRenderer, stick_radius
from generators.poses.tracks import Bools, Bytes, Floats, People
from manifests.errors import BadInput

NOT_BLACK = 48
"""brightest channel from which a decoded pixel was drawn; what lossy coding adds to black stays below"""
CLOSE, THICK = 0.2, 0.08
"""how far a silhouette closes over gaps, and how far it reaches beyond the sticks, in body sizes"""


class Skeleton(PoseRenderer):
    """Renders the clip's people as stick figures, the nearer over the farther."""

    def frames(self, fig: Figures) -> Iterator[Bytes]:
        assert isinstance(self.options, PoseOptions)
        return render(fig, self.options)


def render(fig: Figures, options: PoseOptions) -> Iterator[Bytes]:
    """One HWC frame after the other."""
    near_first, radii = _near_first(fig), [stick_radius(options, fig.size_hw, s) for s in sizes(fig)]
    for t in range(fig.frames):
        canvas = np.zeros((*fig.size_hw, 3), np.uint8)
        for p in reversed(near_first[t]):
            drawing.body(canvas, fig.points_19x3(p, t), fig.drawn_PT19[p, t], radii[p])
            if options.face and fig.face_drawn_PT[p, t]:
                drawing.face(canvas, fig.faces_PT68x2[p, t], radii[p])
            for side in np.flatnonzero(fig.hand_drawn_PT2[p, t] & options.hands):
                drawing.hand(canvas, fig.hands_PT2x21x2[p, t, side], radii[p])
        yield canvas


def masks_from_rendering(frames_THWC: Bytes, people: People) -> Bools:
    """P×T×H×W silhouettes read from the pixels of a decoded rendering of `people`: they lie where the rendering's pixels lie.

    `people` only says whose pixel it is (the one whose sticks are nearest; the nearer person's if two are as near). No pixel has two
    owners. Raises BadInput when the numbers of frames differ.
    """
    frames, height, width = frames_THWC.shape[:3]
    if frames != people.frames:
        raise BadInput(f"the rendering has {frames} frames, the people were tracked in {people.frames}", "frames_mismatch")
    out = np.zeros((people.count, frames, height, width), np.bool_)
    fig = figures(people, height, width)
    near_first, size = _near_first(fig), sizes(fig)
    for t in range(frames):
        pixels = frames_THWC[t].max(axis=-1) >= NOT_BLACK
        if not near_first[t] or not pixels.any():
            continue
        owner = np.argmin(np.stack([_distance(_sticks(fig, p, t)) for p in near_first[t]]), axis=0)
        free = np.ones((height, width), np.bool_)
        for k, p in enumerate(near_first[t]):
            grown = _grown(pixels & (owner == k), size[p])
            out[p, t] = grown & free & ~(pixels & (owner != k))
            free &= ~out[p, t]
    return out


def _near_first(fig: Figures) -> list[list[int]]:
    return placed(fig, Camera.of(fig.size_hw)).near_first_T


def _sticks(fig: Figures, p: int, t: int) -> Bools:
    canvas = np.zeros((*fig.size_hw, 3), np.uint8)
    drawing.body(canvas, fig.points_19x3(p, t), fig.drawn_PT19[p, t], stick_radius(PoseOptions(), fig.size_hw, 0.0))
    return np.asarray(canvas.any(axis=-1))


def _distance(inside_HW: Bools) -> Floats:
    """Distance of each pixel to the nearest one inside, in pixels."""
    if not inside_HW.any():
        return np.full(inside_HW.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~inside_HW).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _grown(sticks_HW: Bools, size: float) -> Bools:
    """Sticks as a silhouette: closed over `CLOSE` body sizes, `THICK` beyond the sticks, without holes.

    Growing and shrinking are thresholds of distances, so their cost does not depend on the radius. Beyond the picture's edge counts as
    inside when shrinking, so bodies that the edge cuts stay cut there.
    """
    if not sticks_HW.any():
        return sticks_HW
    wide = _distance(sticks_HW) <= CLOSE * size
    if wide.all():
        return wide
    solid = ((_distance(~wide) > (CLOSE - THICK) * size) | sticks_HW).astype(np.uint8)
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(solid, outlines, -1, 1, cv2.FILLED) > 0)

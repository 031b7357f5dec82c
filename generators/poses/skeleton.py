"""Pose renderings: every person as a coloured stick figure on black, in the colours and proportions that OpenPose made customary.

The 18 key points and 17 limbs are those of OpenPose's COCO model (Cao et al., 2019); the neck is the middle of the shoulders. A pose
pair's driving masks are read back from the finished rendering's own pixels (`masks_from_rendering`), never from the clip.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from generators.base import Capabilities, Report, VideoGenerator, VideoRequest
from generators.poses.silhouettes import body_size, nearest_first
from generators.poses.tracks import INDEX, Bools, Bytes, Floats, People
from manifests import media
from manifests.errors import BadInput

POINTS: tuple[tuple[str, ...], ...] = (
    ("nose",), ("left_shoulder", "right_shoulder"), ("right_shoulder",), ("right_elbow",), ("right_wrist",), ("left_shoulder",),
    ("left_elbow",), ("left_wrist",), ("right_hip",), ("right_knee",), ("right_ankle",), ("left_hip",), ("left_knee",), ("left_ankle",),
    ("right_eye",), ("left_eye",), ("right_ear",), ("left_ear",),
)  # fmt: skip
"""OpenPose's key points as means of ours"""
LIMBS: tuple[tuple[int, int], ...] = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16),
    (0, 15), (15, 17),
)  # fmt: skip
COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170),
    (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""one a key point; limbs use the first 17"""
DIM = 0.6
"""limbs are darker than joints"""
STICK = 4.0 / 512.0
"""half a limb's width and a joint's radius, in short sides of the picture"""
SEEN = 0.3
"""visibility from which a key point is drawn"""
NOT_BLACK = 48
"""brightest channel from which a decoded pixel was drawn; what lossy coding adds to black stays below"""
CLOSE, THICK = 0.2, 0.08
"""how far a silhouette closes over gaps, and how far it reaches beyond the sticks, in body sizes"""


class Skeleton(VideoGenerator):
    """Renders the clip's people as stick figures at the pair's geometry. CPU only, the same request gives the same bytes."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"pose"}), people_max=6, deterministic=True)

    def validate(self, request: VideoRequest) -> None:
        """Also raises BadInput when there is nobody to draw, or the people were tracked in another number of frames."""
        super().validate(request)
        if request.clip_people.count == 0:
            raise BadInput("nobody to draw: the clip has no tracked person; leave it out of pose slices", "no_people")
        if request.clip_people.frames != request.geometry.frames:
            raise BadInput(
                f"the people were tracked in {request.clip_people.frames} frames, the pair has {request.geometry.frames}; analyse the span",
                "frames_mismatch",
            )

    def run(self, request: VideoRequest, out: Path) -> Report:
        self.validate(request)
        g, people = request.geometry, request.clip_people
        media.write_video(out, (draw(people, t, g.height, g.width) for t in range(g.frames)), g.fps)
        drawn = (people.present_PT[..., None] & (people.visibility_PT33 > SEEN)).mean(axis=(0, 2))
        absent = bool((~people.present_PT).any())
        return Report(
            confidence=round(float(drawn.mean()), 4),
            reasons=("person_missing_in_some_frames",) if absent else (),
            per_frame=tuple(round(float(v), 4) for v in drawn),
        )


def draw(people: People, t: int, height: int, width: int) -> Bytes:
    """Frame `t` as HWC, everybody who is present, the farthest first. Landmarks are scaled from the size they were found at."""
    canvas = np.zeros((height, width, 3), np.uint8)
    landmarks = _scaled(people, height, width)
    for p in reversed(nearest_first(landmarks[:, t])):
        if people.present_PT[p, t]:
            _draw_one(canvas, landmarks[p, t], people.visibility_PT33[p, t])
    return canvas


def coverage(people: People, height: int, width: int) -> Bools:
    """P×T×H×W: each person's stick figure grown into a silhouette (limbs thick, torso filled); false where absent."""
    out = np.zeros((people.count, people.frames, height, width), np.bool_)
    landmarks = _scaled(people, height, width)
    for p in range(people.count):
        for t in np.flatnonzero(people.present_PT[p]):
            out[p, t] = _grown(_sticks(landmarks[p, t], people.visibility_PT33[p, t], height, width), body_size(landmarks[p, t]))
    return out


def masks_from_rendering(frames_THWC: Bytes, people: People) -> Bools:
    """P×T×H×W silhouettes read from the pixels of a decoded rendering of `people`: they lie where the rendering's pixels lie.

    `people` only says whose pixel it is (the one whose sticks are nearest; the nearer person's if two are as near). No pixel has two
    owners. Raises BadInput when the numbers of frames differ.
    """
    frames, height, width = frames_THWC.shape[:3]
    if frames != people.frames:
        raise BadInput(f"the rendering has {frames} frames, the people were tracked in {people.frames}", "frames_mismatch")
    landmarks = _scaled(people, height, width)
    out = np.zeros((people.count, frames, height, width), np.bool_)
    for t in range(frames):
        here = [p for p in nearest_first(landmarks[:, t]) if people.present_PT[p, t]]
        pixels = frames_THWC[t].max(axis=-1) >= NOT_BLACK
        if not here or not pixels.any():
            continue
        sticks = [_sticks(landmarks[p, t], people.visibility_PT33[p, t], height, width) for p in here]
        owner = np.argmin(np.stack([_distance(s) for s in sticks]), axis=0)
        free = np.ones((height, width), np.bool_)
        for k, p in enumerate(here):
            grown = _grown(pixels & (owner == k), body_size(landmarks[p, t]))
            out[p, t] = grown & free & ~(pixels & (owner != k))
            free &= ~out[p, t]
    return out


def key_points(landmarks_33x3: Floats, visibility_33: Floats) -> tuple[Floats, Floats]:
    """18×2 positions and 18 visibilities; the neck is as visible as the less visible shoulder."""
    index = [[INDEX[name] for name in names] for names in POINTS]
    xy = np.stack([landmarks_33x3[i, :2].mean(axis=0) for i in index])
    return xy.astype(np.float32), np.array([visibility_33[i].min() for i in index], np.float32)


def _scaled(people: People, height: int, width: int) -> Floats:
    tracked_height, tracked_width = people.size_hw
    return people.landmarks_PT33x3 * np.array([width / tracked_width, height / tracked_height, width / tracked_width], np.float32)


def _draw_one(canvas_HWC: Bytes, landmarks_33x3: Floats, visibility_33: Floats) -> None:
    """Limbs as dimmed ellipses, then joints as discs in full colour."""
    height, width = canvas_HWC.shape[:2]
    points, seen = key_points(landmarks_33x3, visibility_33)
    radius = max(2, round(STICK * min(height, width)))
    reach = 4.0 * max(height, width)
    drawn = (seen > SEEN) & (np.abs(points) < reach).all(axis=1)
    for (a, b), colour in zip(LIMBS, COLOURS, strict=False):
        if drawn[a] and drawn[b]:
            cv2.fillConvexPoly(canvas_HWC, _ellipse(points[a], points[b], radius), [int(c * DIM) for c in colour])
    for point, visible, colour in zip(points, drawn, COLOURS, strict=True):
        if visible:
            cv2.circle(canvas_HWC, (round(float(point[0])), round(float(point[1]))), radius, colour, -1)


def _ellipse(a_2: Floats, b_2: Floats, radius: int) -> npt.NDArray[np.int32]:
    """The outline of the ellipse whose long axis runs from `a` to `b`."""
    middle, axis = (a_2 + b_2) / 2, (b_2 - a_2).astype(np.float64)
    length, angle = float(np.linalg.norm(axis)), math.degrees(math.atan2(axis[1], axis[0]))
    size = (max(round(length / 2), 1), radius)
    return np.asarray(cv2.ellipse2Poly((round(float(middle[0])), round(float(middle[1]))), size, round(angle), 0, 360, 5), np.int32)


def _sticks(landmarks_33x3: Floats, visibility_33: Floats, height: int, width: int) -> Bools:
    canvas = np.zeros((height, width, 3), np.uint8)
    _draw_one(canvas, landmarks_33x3, visibility_33)
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

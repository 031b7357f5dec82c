"""A video of one person's face, cut out the way Wan-Animate's preprocessing does, but steady.

There each frame's box is that frame's 68 points alone, so the crop breathes with their noise; here boxes are smoothed over time.
"""

from __future__ import annotations

import cv2
import numpy as np

from generators.poses import smoothing
from generators.poses.figures import FACE_68, SEEN_DETAIL, Doubles
from generators.poses.summary import standing_height
from generators.poses.tracks import Bytes, People
from manifests.errors import BadInput

SIDE_PX = 512
GROWTH = 1.3
"""of the box's area"""
UPWARDS = 0.75
"""share of the added height that goes above: foreheads are outside the 68 points"""
EYES, EARS = (2, 5), (7, 8)
HEIGHT_SHARE, WIDTH_SHARE = 0.092, 0.086
"""the box of the 68 points, in standing heights, where only the body's landmarks are known: brows to chin, and between the cheeks"""
CHIN = 0.4
"""how far, in box heights, the middle of the box lies below the eyes"""
SIZE_S = 0.5
"""the size is steadied over this long before and after"""
SMALLEST_PX = 4.0


def face_boxes(people: People, person: int) -> Doubles:
    """T×4: x0, y0, x1, y1 in pixels of the clip, grown for the crop; may reach beyond the picture.

    From the face mesh where it was read, else from the body's landmarks of the head; frames without the person get the box of those
    before and after. Centres are smoothed over 0.3 s, sizes over a second. Raises BadInput("driver_absent").
    """
    present = people.present_PT[person]
    if not present.any():
        raise BadInput("the person is in no frame of the clip, so there is no face to cut out; choose another one", "driver_absent")
    middle, size = _by_body(people, person)
    seen = _mesh_seen(people, person) & present
    if seen.any():
        mesh_middle, mesh_size = _by_mesh(people, person)
        # Where the mesh is lost the body's estimate goes on from where the mesh was, so that the crop does not jump.
        offset = smoothing.fill(np.where(seen[:, None], (mesh_middle - middle) / size, 0.0), seen)
        ratio = float(np.median((mesh_size / size)[seen]))
        middle = np.where(seen[:, None], mesh_middle, middle + offset * size)
        size = np.where(seen[:, None], mesh_size, size * ratio)
    middle, size = smoothing.fill(middle, present), smoothing.fill(size, present)
    middle = smoothing.smooth(middle, people.fps)
    return _grown(middle, np.maximum(_slow(size, max(1, round(SIZE_S * people.fps))), SMALLEST_PX))


def _slow(size_T2: Doubles, radius: int) -> Doubles:
    """Median, then mean, over the frames within the radius; at the ends over those there are, for one noisy end must not be held."""
    for middle in (np.median, np.mean):
        size_T2 = np.stack([middle(size_T2[max(0, t - radius) : t + radius + 1], axis=0) for t in range(len(size_T2))])
    return size_T2


def _grown(middle_T2: Doubles, size_T2: Doubles) -> Doubles:
    added = size_T2 * (np.sqrt(GROWTH) - 1)
    low, high = middle_T2 - (size_T2 + added) / 2, middle_T2 + (size_T2 + added) / 2
    shift = (UPWARDS - 0.5) * added[:, 1]
    low[:, 1] -= shift
    high[:, 1] -= shift
    return np.concatenate([low, high], axis=1)


def _mesh_seen(people: People, person: int) -> np.ndarray:
    if people.details is None:
        return np.zeros(people.frames, np.bool_)
    return np.asarray(people.details.face_seen_PT[person] >= SEEN_DETAIL)


def _by_mesh(people: People, person: int) -> tuple[Doubles, Doubles]:
    assert people.details is not None
    points = people.details.faces_PT468x3[person][:, list(FACE_68), :2].astype(np.float64)
    low, high = points.min(axis=1), points.max(axis=1)
    return (low + high) / 2, np.maximum(high - low, SMALLEST_PX)


def _by_body(people: People, person: int) -> tuple[Doubles, Doubles]:
    landmarks, world = people.landmarks_PT33x3[person], people.world_PT33x3[person]
    tall = np.array([standing_height(w[None], xy[None]) for w, xy in zip(world, landmarks, strict=True)], np.float64)
    tall = np.maximum(smoothing.fill(np.where(np.isfinite(tall), tall, 0.0), people.present_PT[person] & np.isfinite(tall)), 1.0)
    eyes, ears = (landmarks[:, list(points), :2].astype(np.float64).mean(axis=1) for points in (EYES, EARS))
    size = np.stack([WIDTH_SHARE * tall, HEIGHT_SHARE * tall], axis=1)
    # In profile the eyes lie at the face's rim; the ears pull the middle back onto the head.
    x = (eyes[:, 0] * 2 + ears[:, 0]) / 3
    return np.stack([x, eyes[:, 1] + CHIN * size[:, 1]], axis=1), size


def face_video(frames_THWC: Bytes, boxes_T4: Doubles, side_px: int = SIDE_PX) -> Bytes:
    """T×side×side×3: each frame's box, stretched to a square. What lies beyond the picture repeats its edge.

    Raises ValueError when there is not one box for each frame.
    """
    if len(frames_THWC) != len(boxes_T4):
        raise ValueError(f"{len(boxes_T4)} boxes for {len(frames_THWC)} frames; give one for each")
    out = np.empty((len(frames_THWC), side_px, side_px, 3), np.uint8)
    for t, (x0, y0, x1, y1) in enumerate(boxes_T4):
        scale = np.array([(x1 - x0) / side_px, (y1 - y0) / side_px])
        # cv2 counts from pixel centres, boxes from pixel edges.
        move = np.array([[scale[0], 0, x0 + scale[0] / 2 - 0.5], [0, scale[1], y0 + scale[1] / 2 - 0.5]])
        out[t] = cv2.warpAffine(
            frames_THWC[t], move, (side_px, side_px), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
    return out

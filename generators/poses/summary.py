"""What is known of tracked people, as records: one Person each, and per frame the boxes of hands, faces and text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from generators.poses.tracks import BODY, INDEX, LANDMARKS, Bools, Floats, People
from manifests.records import Box, FrameBoxes, Framing, Person, rounded

Doubles = npt.NDArray[np.float64]

SEEN = 0.5
"""visibility from which a joint counts as seen"""
LEFT_ARM, RIGHT_ARM = (11, 13, 15), (12, 14, 16)
HANDS: tuple[tuple[int, ...], ...] = ((15, 17, 19, 21), (16, 18, 20, 22))
FACE = tuple(range(11))
EARS = (7, 8)
PADDING = 0.15
"""around the points of a hand or a face, over the longer side of their box: fingers and cheeks are wider than their points"""


def describe(people: People) -> tuple[Person, ...]:
    """One record a person, in the order of the arrays. All figures come from the frames in which the person is present."""
    return tuple(_person(people, p) for p in range(people.count))


def boxes(people: People, text: Sequence[tuple[Box, ...]] = ()) -> tuple[FrameBoxes, ...]:
    """Per frame, the boxes of hands and faces that are in the picture and visible, in the order of the people, left hand first.

    Where a hand or a face was read (`people.details`), its box holds all its points and PADDING on every side; else it is estimated from
    the body's landmarks. `text`: boxes of text per frame, see lettering.TextFinder; they are passed on.
    """
    found = (_frame_boxes(people, t) for t in range(people.frames))
    return tuple(at.model_copy(update={"text": lines}) for at, lines in zip(found, text or ((),) * people.frames, strict=True))


def seen_joints(people: People) -> Bools:
    """P×T×33: the landmark is visible and lies inside the picture, and the person is present."""
    height, width = people.size_hw
    xy = people.landmarks_PT33x3[..., :2]
    inside = (xy >= 0).all(axis=-1) & (xy[..., 0] < width) & (xy[..., 1] < height)
    return np.asarray(inside & (people.visibility_PT33 >= SEEN) & people.present_PT[..., None])


def yaw_deg(world_T33x3: Floats) -> Doubles:
    """Body yaw per frame, degrees: 0 faces the camera, +90 faces the picture's right, ±180 turns its back.

    From the mean of the shoulder line and the hip line (right to left), seen from above; shoulders count double because the model
    places them better.
    """
    line = 2 * (world_T33x3[:, 11] - world_T33x3[:, 12]) + (world_T33x3[:, 23] - world_T33x3[:, 24])
    return np.asarray(np.degrees(np.arctan2(line[:, 2].astype(np.float64), line[:, 0].astype(np.float64))))


def wrapped(angle_deg: Doubles) -> Doubles:
    """The same angles between -180 and 180."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)


def median_yaw(yaw_T: Doubles) -> tuple[float, float]:
    """Median direction and the 95th percentile of the distance from it, in degrees; a turn through ±180 is no jump."""
    rad = np.radians(yaw_T)
    middle = float(np.degrees(np.arctan2(np.sin(rad).mean(), np.cos(rad).mean())))
    middle = float(wrapped(np.array([middle + np.median(wrapped(yaw_T - middle))]))[0])
    return middle, float(np.percentile(np.abs(wrapped(yaw_T - middle)), 95))


def arms_crossed(landmarks_T33x3: Floats, visibility_T33: Floats) -> Bools:
    """Per frame: a wrist lies over the chest beyond the body's middle, or the two forearms cross."""
    xy, z = landmarks_T33x3[..., :2].astype(np.float64), landmarks_T33x3[..., 2]
    shoulders, hips = (xy[:, 11] + xy[:, 12]) / 2, (xy[:, 23] + xy[:, 24]) / 2
    down = hips - shoulders
    length_sq = np.maximum((down**2).sum(axis=-1), 1.0)
    across = xy[:, 11] - xy[:, 12]
    half_width = np.maximum(np.linalg.norm(across, axis=-1) / 2, 0.12 * np.sqrt(length_sq))
    out = np.zeros(len(xy), np.bool_)
    for shoulder, elbow, wrist in (LEFT_ARM, RIGHT_ARM):
        seen = visibility_T33[:, [elbow, wrist]].min(axis=1) >= SEEN
        along = ((xy[:, wrist] - shoulders) * down).sum(axis=-1) / length_sq
        own_side = across if shoulder == 11 else -across
        unit = own_side / np.maximum(np.linalg.norm(own_side, axis=-1, keepdims=True), 1e-6)
        beyond = ((xy[:, wrist] - shoulders - along[:, None] * down) * unit).sum(axis=-1) / half_width
        in_front = z[:, wrist] < z[:, [11, 12, 23, 24]].mean(axis=1)
        out |= seen & in_front & (along > 0.1) & (along < 0.9) & (beyond < 0.1) & (beyond > -1.6)
    both = visibility_T33[:, [13, 14, 15, 16]].min(axis=1) >= SEEN
    return np.asarray(out | (both & _cross(xy[:, 13], xy[:, 15], xy[:, 14], xy[:, 16])))


def _cross(a: Doubles, b: Doubles, c: Doubles, d: Doubles) -> Bools:
    """Whether the segments a-b and c-d cut each other, row by row."""

    def side(p: Doubles, q: Doubles, r: Doubles) -> Doubles:
        return np.asarray((q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0]))

    return np.asarray((side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0))


def motion(landmarks_T33x3: Floats, joints: list[int], body_height: float, fps: float) -> float:
    """Motion energy: median over frames of the mean joint speed, in body heights per second. One frame has none."""
    if len(landmarks_T33x3) < 2 or not joints:
        return 0.0
    steps = np.linalg.norm(np.diff(landmarks_T33x3[:, joints, :2].astype(np.float64), axis=0), axis=-1)
    return float(np.median(steps.mean(axis=1)) * fps / max(body_height, 1.0))


def standing_height(world_T33x3: Floats, landmarks_T33x3: Floats) -> float:
    """How tall the whole body would be in the picture, in pixels, also where the picture cuts it.

    1.65 m (an adult's nose above the ground is about that, and errors of scale cancel between people) times the weak-perspective scale
    that maps the model's metres to pixels, least squares over the body joints, median over frames.
    """
    core = [11, 12, 13, 14, 23, 24, 25, 26]
    flat, deep = landmarks_T33x3[:, core, :2].astype(np.float64), world_T33x3[:, core, :2].astype(np.float64)
    flat, deep = flat - flat.mean(axis=1, keepdims=True), deep - deep.mean(axis=1, keepdims=True)
    scale = (flat * deep).sum(axis=(1, 2)) / np.maximum((deep**2).sum(axis=(1, 2)), 1e-9)
    return float(max(np.median(scale) * 1.65, 1.0))


def _person(people: People, p: int) -> Person:
    frames = np.flatnonzero(people.present_PT[p])
    if not len(frames):
        frames = np.arange(people.frames)
    landmarks, world = people.landmarks_PT33x3[p, frames], people.world_PT33x3[p, frames]
    visibility, seen = people.visibility_PT33[p, frames], seen_joints(people)[p, frames]
    share = seen.mean(axis=0)
    box = _body_box(landmarks, seen, people.size_hw)
    yaw, spread = median_yaw(yaw_deg(world))
    tall = standing_height(world, landmarks)
    moving = [INDEX[name] for name in BODY if share[INDEX[name]] > 0.5]
    return Person(
        track=p,
        box=box,
        presence=rounded(float(people.present_PT[p].mean())),
        framing=_framing(share),
        visible_joints=tuple(name for i, name in enumerate(LANDMARKS) if share[i] > 0.5),
        yaw_deg=rounded(yaw),
        yaw_spread_deg=rounded(spread),
        height=rounded(box[3] - box[1]),
        motion=rounded(motion(people.landmarks_PT33x3[p, frames[0] : frames[-1] + 1], moving, tall, people.fps)),
        arms_crossed=bool(arms_crossed(landmarks, visibility).mean() > 0.5),
        confidence=rounded(float(visibility[:, [INDEX[name] for name in BODY[1:]]].mean())),
    )


def _framing(share_33: Doubles) -> Framing:
    """From the joints seen in most frames: an ankle (or its heel and toes) makes it full, a hip half."""
    if max(share_33[INDEX["left_ankle"]], share_33[INDEX["right_ankle"]]) > 0.5:
        return "full"
    return "half" if max(share_33[INDEX["left_hip"]], share_33[INDEX["right_hip"]]) > 0.5 else "close"


def _body_box(landmarks_T33x3: Floats, seen_T33: Bools, size_hw: tuple[int, int]) -> Box:
    """Around the seen joints, median over the frames that show at least three; all landmarks, clipped, if no frame does."""
    found = []
    for xy, seen in zip(landmarks_T33x3[..., :2].astype(np.float64), seen_T33, strict=True):
        if seen.sum() >= 3:
            found.append(np.concatenate([xy[seen].min(axis=0), xy[seen].max(axis=0)]))
    if not found:
        height, width = size_hw
        xy = np.clip(landmarks_T33x3[..., :2].astype(np.float64), 0, [width - 1, height - 1])
        found = [np.concatenate([p.min(axis=0), p.max(axis=0)]) for p in xy]
    x0, y0, x1, y1 = (rounded(v) for v in np.median(found, axis=0))
    return (x0, y0, x1, y1)


def _frame_boxes(people: People, t: int) -> FrameBoxes:
    hands: list[Box] = []
    faces: list[Box] = []
    for p in np.flatnonzero(people.present_PT[:, t]):
        xyz, visibility = people.landmarks_PT33x3[p, t].astype(np.float64), people.visibility_PT33[p, t]
        tall = standing_height(people.world_PT33x3[p, t : t + 1], people.landmarks_PT33x3[p, t : t + 1])
        for side, points in enumerate(HANDS):
            if people.details is not None and people.details.hand_seen_PT2[p, t, side] > 0:
                box = _box_of(people.details.hands_PT2x21x3[p, t, side], people.size_hw)
            else:
                box = _hand_box(xyz[:, :2], visibility, points, tall, people.size_hw)
            hands += [box] if box else []
        if people.details is not None and people.details.face_seen_PT[p, t] > 0:
            box = _box_of(people.details.faces_PT468x3[p, t], people.size_hw)
        else:
            box = _face_box(xyz, visibility, tall, people.size_hw)
        faces += [box] if box else []
    return FrameBoxes(hands=tuple(hands), faces=tuple(faces))


def _box_of(points_Nx3: Floats, size_hw: tuple[int, int]) -> Box | None:
    """Around all points, padded."""
    low, high = points_Nx3[:, :2].min(axis=0).astype(np.float64), points_Nx3[:, :2].max(axis=0).astype(np.float64)
    padding = PADDING * float((high - low).max())
    return _clipped(low - padding, high + padding, size_hw)


def _hand_box(xy_33x2: Doubles, visibility_33: Floats, points: tuple[int, ...], tall: float, size_hw: tuple[int, int]) -> Box | None:
    """A square around the middle of the hand. A hand is 0.108 of the body's height long and a forearm 0.146 (Drillis & Contini 1966);
    the side is the longer of 0.9 forearms (as seen, or half the real one when it is foreshortened) and what holds all points."""
    if visibility_33[list(points)].mean() < SEEN or visibility_33[points[0]] < SEEN:
        return None
    wrist, fingers = xy_33x2[points[0]], xy_33x2[list(points[1:])]
    knuckles = fingers.mean(axis=0)
    middle = knuckles + 0.3 * (knuckles - wrist)
    forearm = max(float(np.linalg.norm(wrist - xy_33x2[points[0] - 2])), 0.5 * 0.146 * tall)
    reach = float(np.abs(np.concatenate([fingers, wrist[None]]) - middle).max())
    return _square(middle, max(0.9 * min(forearm, 0.2 * tall), 2.0 * reach), size_hw)


def _face_box(landmarks_33x3: Doubles, visibility_33: Floats, tall: float, size_hw: tuple[int, int]) -> Box | None:
    """A square around nose, eyes, ears and mouth; none for a head seen from behind, where the model puts a face all the same but
    behind the ears."""
    face, (left, right) = list(FACE), EARS
    behind = landmarks_33x3[FACE[0], 2] - (landmarks_33x3[left, 2] + landmarks_33x3[right, 2]) / 2
    if visibility_33[face].mean() < SEEN or behind > 0.05 * tall:
        return None
    points = landmarks_33x3[face, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    # A head is 0.13 of the body's height (Drillis & Contini 1966); the landmarks span eyes to mouth, about half a face.
    return _square((low + high) / 2, max(1.3 * float((high - low).max()), 0.11 * tall), size_hw)


def _square(middle: Doubles, side: float, size_hw: tuple[int, int]) -> Box | None:
    return _clipped(middle - side / 2, middle + side / 2, size_hw)


def _clipped(low: Doubles, high: Doubles, size_hw: tuple[int, int]) -> Box | None:
    """Clipped to the picture; None when less than a quarter of it is left."""
    height, width = size_hw
    whole = float((high - low).prod())
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    if (high - low).prod() < 0.25 * whole:
        return None
    return (rounded(low[0]), rounded(low[1]), rounded(high[0]), rounded(high[1]))

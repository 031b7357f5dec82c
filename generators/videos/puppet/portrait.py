"""Reads the person of a painted picture, and refuses pictures that a cut-out puppet can't be made of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from generators.poses.blazepose import Body
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from generators.videos.puppet.cutout import Figure, main_person
from generators.videos.puppet.numerics import Array, unit
from generators.videos.puppet.parts import Parts, chest_quad
from generators.videos.puppet.skeleton import HEAD, JOINT, OTHER_SIDE, SHOULDERS, SIDES, body_yaw, joints_of
from manifests.errors import BadInput

CHEST_HIDDEN_MOST = 0.25
"""share of the chest that arms or things may lie over"""
_SQUARES = (1.05, 1.12, 1.2)
"""half the squares that are read, over half the silhouette's larger side"""
_EDGE_PX = 3
_GLANCE_THRESHOLD = 0.35
_SWAPPED = 0.15
"""torso lengths that the hands must lie past each other to count as crossed"""
_FOREARM_LEAST = 0.5
"""torso lengths from the elbow to the knuckles; one that is shorter and meets the picture's edge is cut"""
_SEEN = 0.5
_SHOULDERS = (INDEX["left_shoulder"], INDEX["right_shoulder"])

_Reading = tuple[Array, Array, Array]
"""landmarks (33, 3), world (33, 3), visibility (33,)"""


def read_portrait(tracker: PeopleTracker, reader: DetailReader, image_HWC: Array) -> People:
    """The person to animate of one picture (P = T = 1), with hands and face.

    The pose model has pictures on which a pixel more or less tips it over to another pose, or from a front to a back. So a person who
    is whole in the picture is read several times, in squares of several sizes and in the mirror, and every landmark is the median of
    the readings that agree about the facing. A face that can be seen decides that; else the majority does. Raises BadInput("no_person").
    """
    found = tracker.still(image_HWC)
    first = found.only([main_person(found)])
    readings = [(first.landmarks_PT33x3[0, 0], first.world_PT33x3[0, 0], first.visibility_PT33[0, 0])]
    readings += _further(tracker, image_HWC, first.masks_PTHW[0, 0])
    facing = [r for r in readings if r[1][_SHOULDERS[0], 0] > r[1][_SHOULDERS[1], 0]]
    away = [r for r in readings if r[1][_SHOULDERS[0], 0] <= r[1][_SHOULDERS[1], 0]]
    if facing and away:
        faced = reader.read(image_HWC[None], _median(first, facing))
        if len(facing) > len(away) or (faced.details is not None and faced.details.face_seen_PT[0, 0] > _SEEN):
            return faced
    return reader.read(image_HWC[None], _median(first, away or facing))


def glance(tracker: PeopleTracker, image_HWC: Array) -> tuple[float, ...]:
    """Two quick opinions, one of them from the mirror, about the body yaw (radians) of a picture's person; none where nobody is found.

    Models tell fronts from backs in one of the two at least; beyond that both lie close to what `read_portrait` finds.
    """
    found = tracker.model.detect(image_HWC, _GLANCE_THRESHOLD)
    if not found:
        return ()
    readings = _both_ways(tracker, image_HWC, np.ascontiguousarray(image_HWC[:, ::-1]), found[0].centre, found[0].tip)
    return tuple(float(body_yaw(joints_of(world.astype(float)))) for _, world, _ in readings)


def _further(tracker: PeopleTracker, image_HWC: Array, mask_HW: Array) -> list[_Reading]:
    """The person of a silhouette, read again and again; nothing for one who is not whole in the picture."""
    height, width = mask_HW.shape
    ys, xs = np.nonzero(mask_HW > 127)
    if min(ys.min(), xs.min()) < _EDGE_PX or ys.max() >= height - _EDGE_PX or xs.max() >= width - _EDGE_PX:
        return []
    centre, half = np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2, max(np.ptp(xs), np.ptp(ys)) / 2
    mirrored = np.ascontiguousarray(image_HWC[:, ::-1])
    return [r for share in _SQUARES for r in _both_ways(tracker, image_HWC, mirrored, centre, centre - [0, share * half])]


def _both_ways(tracker: PeopleTracker, image_HWC: Array, mirrored_HWC: Array, centre: Array, tip: Array) -> list[_Reading]:
    """The person about `centre`, whose head is towards `tip`: as they are, and from the mirror."""
    width = image_HWC.shape[1]
    there, back = np.array([width - 1, 0]), np.array([-1, 1])
    body = tracker.model.body(image_HWC, centre, tip)
    reflection = tracker.model.body(mirrored_HWC, there + back * centre, there + back * tip)
    return [_reading(body), _flipped(*_reading(reflection), width)]


def _median(person: People, readings: list[_Reading]) -> People:
    """The median of the better half: of those that lie nearest to the reading which is nearest to most others."""
    at = np.stack([r[0][:, :2] for r in readings])
    apart = np.linalg.norm(at[:, None] - at[None], axis=3).mean(2)
    central = int(np.argmin(np.median(apart, 1)))
    readings = [readings[i] for i in sorted(np.argsort(apart[central], kind="stable")[: len(readings) // 2 + 1])]
    landmarks, world, visibility = (np.median(np.stack(r), 0).astype(np.float32)[None, None] for r in zip(*readings, strict=True))
    return replace(person, landmarks_PT33x3=landmarks, world_PT33x3=world, visibility_PT33=visibility)


def _reading(body: Body) -> _Reading:
    return body.landmarks_33x3, body.world_33x3, body.visibility_33


def _flipped(landmarks_33x3: Array, world_33x3: Array, visibility_33: Array, width: int) -> _Reading:
    """What was read in the mirror, brought back: left is left again."""
    mirror = np.array([-1, 1, 1])
    return landmarks_33x3[OTHER_SIDE] * mirror + [width - 1, 0, 0], world_33x3[OTHER_SIDE] * mirror, visibility_33[OTHER_SIDE]


# ---------------------------------------------------------------------------------------------------------------- refusal


def refuse_unusable(figure: Figure, parts: Parts) -> None:
    """Raise BadInput for a picture whose parts can't be told apart or are not all there.

    Codes: "head_cropped", "arms_crossed", "forearm_cut", "chest_occluded".
    """
    if head_cropped(figure):
        raise BadInput("the picture cuts the character's head; leave room around it", "head_cropped")
    if forearms_cross(figure):
        raise BadInput("the character's forearms cross each other in the picture; paint both arms hanging free", "arms_crossed")
    cut = [side for side in SIDES if _forearm_cut(figure, parts, side)]
    if cut:
        raise BadInput(f"the picture cuts the character's {' and '.join(cut)} forearm; paint both hands inside it", "forearm_cut")
    hidden = chest_hidden(figure, parts)
    if hidden > CHEST_HIDDEN_MOST:
        raise BadInput(
            f"{hidden:.0%} of the character's chest is hidden, {CHEST_HIDDEN_MOST:.0%} may be; paint nothing before the body",
            "chest_occluded",
        )


def head_cropped(figure: Figure) -> bool:
    """Whether the silhouette meets the picture's edge about the head: more of it than a hat's tip."""
    torso, (h, w) = figure.torso_px, figure.picture_hw
    x, y = figure.joints_19x2[HEAD]
    left, right = (int(np.clip(x + side * 0.35 * torso, 0, w)) for side in (-1, 1))
    top, bottom = (int(np.clip(y + down * torso, 0, h)) for down in (-0.4, 0.2))
    mask = figure.mask_HW[:h] > 127
    edges = [mask[:3, left:right].any(0).sum() if top == 0 else 0]
    edges += [mask[top:bottom, :3].any(1).sum() if left == 0 else 0, mask[top:bottom, -3:].any(1).sum() if right == w else 0]
    return bool(max(edges) > 0.12 * torso)


def _cross(a: Array, b: Array) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def forearms_cross(figure: Figure) -> bool:
    """Whether the forearms, to the fingers, cut each other in the picture, or each hand lies on the other's side of a body seen from
    before or behind (then no labelling can tell the arms apart)."""
    if not {f"{side}_forearm" for side in SIDES} <= figure.bones:
        return False
    (a, b), (c, d) = ((figure.joints_19x2[JOINT[f"{s}_elbow"]], figure.joints_19x2[JOINT[f"{s}_hand"]]) for s in SIDES)
    cut = _cross(b - a, c - a) * _cross(b - a, d - a) < 0 and _cross(d - c, a - c) * _cross(d - c, b - c) < 0
    across = unit(figure.joints_19x2[SHOULDERS[0]] - figure.joints_19x2[SHOULDERS[1]])
    swapped = not figure.in_profile and float((b - d) @ across) < -_SWAPPED * figure.torso_px
    return cut or swapped


def _forearm_cut(figure: Figure, parts: Parts, side: str) -> bool:
    """Whether the elbow can be seen and the hand lies beyond the picture's edge.

    Asked for a hand that is not there the pose model bends the arm until it ends inside the picture: then the arm meets the edge and
    is too short.
    """
    h, w = figure.picture_hw
    elbow, wrist, hand = (figure.joints_19x2[JOINT[f"{side}_{joint}"]] for joint in ("elbow", "wrist", "hand"))

    def inside(p: Array) -> bool:
        return bool(0 <= p[0] < w and 0 <= p[1] < h)

    if not inside(elbow) or figure.visible_19[JOINT[f"{side}_elbow"]] <= _SEEN:
        return False
    arm = parts.are(f"{side}_upper_arm", f"{side}_forearm", f"{side}_hand")[:h]
    at_edge = max(arm[:, :3].any(1).sum(), arm[:, -3:].any(1).sum(), arm[-3:].any(0).sum())
    short = np.linalg.norm(hand - elbow) < _FOREARM_LEAST * figure.torso_px
    return not (inside(wrist) and inside(hand)) or bool(short and at_edge > 0.05 * figure.torso_px)


def chest_hidden(figure: Figure, parts: Parts) -> float:
    """Share of the chest that arms lie over or that is not the character at all; 0 in profile, where an arm always does."""
    if figure.in_profile:
        return 0.0
    chest = chest_quad(figure, 0.8, 0.9)
    seen = np.asarray(cv2.morphologyEx((figure.mask_HW > 127).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3)))) > 0
    return max(parts.chest_hidden, float((chest & ~seen).sum() / max(1, chest.sum())))

"""What a pose rendering draws: people at the rendering's size and rate, and which of their key points are seen, steadily over time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from generators.poses import smoothing
from generators.poses.silhouettes import FEET, body_size
from generators.poses.tracks import INDEX, Bools, Details, People

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

POINTS: tuple[tuple[str, ...], ...] = (
    ("nose",), ("left_shoulder", "right_shoulder"), ("right_shoulder",), ("right_elbow",), ("right_wrist",), ("left_shoulder",),
    ("left_elbow",), ("left_wrist",), ("right_hip",), ("right_knee",), ("right_ankle",), ("left_hip",), ("left_knee",), ("left_ankle",),
    ("right_eye",), ("left_eye",), ("right_ear",), ("left_ear",), ("left_ear", "right_ear"),
)  # fmt: skip
"""The 18 key points of OpenPose's COCO model (Cao et al., 2019) as means of ours, and the middle of the head as the 19th"""
NOSE, NECK, RIGHT_WRIST, LEFT_WRIST, RIGHT_HIP, LEFT_HIP = 0, 1, 4, 7, 8, 11
RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR, HEAD = 14, 15, 16, 17, 18

APPEARS, VANISHES = 0.4, 0.25
"""visibility from which a key point is drawn, and below which one that was drawn is not any more"""
BRIEF_S = 0.12
"""gaps up to this long are closed, and what is seen for no longer is not drawn: both would flicker"""
OUTSIDE = 0.25
"""how far beyond the picture's edge a key point may lie, in body sizes; farther out it is a guess"""
FACING_DEG: dict[int, tuple[float, float]] = {
    NOSE: (-100, 100), LEFT_EYE: (-95, 65), RIGHT_EYE: (-65, 95), LEFT_EAR: (-120, 40), RIGHT_EAR: (-40, 120),
}  # fmt: skip
"""head yaws at which a point of the head is on the camera's side (0 faces the camera, +90 the picture's right)"""
FACING_SLACK_DEG = 6.0
SEEN_DETAIL = 0.5
FACE_68: tuple[int, ...] = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405,
    314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""the points of MediaPipe's mesh nearest to the 68 of iBUG 300-W (Sagonas et al., 2013), which OpenPose's face model draws"""


@dataclass(frozen=True)
class Figures:
    """People ready to be drawn. All numbers are finite; pixels are the rendering's."""

    landmarks_PT33x3: Doubles
    """x, y and z in pixels"""
    world_PT33x3: Doubles
    """metres"""
    weight_PT33: Doubles
    """how far a landmark may be trusted; 0 where there is none"""
    drawn_PT19: Bools
    """which of POINTS are drawn; nothing of somebody who is absent"""
    hands_PT2x21x2: Doubles
    hand_drawn_PT2: Bools
    faces_PT68x2: Doubles
    face_drawn_PT: Bools
    size_hw: tuple[int, int]
    fps: float

    @property
    def count(self) -> int:
        return int(self.drawn_PT19.shape[0])

    @property
    def frames(self) -> int:
        return int(self.drawn_PT19.shape[1])

    def points_19x3(self, p: int, t: int) -> Doubles:
        """POINTS of a person in a frame, x, y and z in pixels."""
        return points_of(self.landmarks_PT33x3[p, t])


def figures(people: People, height: int, width: int, fps: float | None = None, frames: int | None = None) -> Figures:
    """The people as they are drawn at this size and rate; without `fps` and `frames`, those they were tracked at.

    What is drawn at an instant i / fps is decided by the tracked frame on display then; places are interpolated between that frame and
    the next. So any rate can be asked for, and time never drifts.
    """
    fps, frames = fps or people.fps, frames or people.frames
    tracked_height, tracked_width = people.size_hw
    landmarks, world, weight = _finite(people)
    drawn = _drawn(landmarks, world, weight, people)
    details = people.details or Details.unseen(people.count, people.frames)
    hands, hand_drawn = _detail(details.hands_PT2x21x3[..., :2], details.hand_seen_PT2, people.fps)
    faces, face_drawn = _detail(details.faces_PT468x3[:, :, list(FACE_68), :2], details.face_seen_PT, people.fps)
    hand_drawn &= drawn[..., [LEFT_WRIST, RIGHT_WRIST]]
    face_drawn &= drawn[..., [LEFT_EYE, RIGHT_EYE]].any(axis=-1)

    low, high, share = _instants(people.frames, people.fps, frames, fps)
    scale = np.array([width / tracked_width, height / tracked_height, width / tracked_width])
    here = people.present_PT
    return Figures(
        _between(landmarks, low, high, share, here) * scale,
        _between(world, low, high, share, here),
        weight[:, low],
        drawn[:, low],
        _between(hands, low, high, share, hand_drawn) * scale[:2],
        hand_drawn[:, low],
        _between(faces, low, high, share, face_drawn) * scale[:2],
        face_drawn[:, low],
        (height, width),
        fps,
    )


def points_of(landmarks_33xC: Doubles) -> Doubles:
    """POINTS as means of the landmarks; any number of axes before the last two."""
    index = [[INDEX[name] for name in names] for names in POINTS]
    return np.stack([landmarks_33xC[..., i, :].mean(axis=-2) for i in index], axis=-2)


def head_yaw_deg(world_T33x3: Doubles) -> Doubles:
    """Where the head looks, per frame: 0 at the camera, +90 at the picture's right, ±180 away from it.

    The mean of two directions seen from above: from the middle of the ears to the nose, and square to the line between the ears.
    """
    left, right, nose = (world_T33x3[:, INDEX[name]] for name in ("left_ear", "right_ear", "nose"))
    ahead = nose - (left + right) / 2
    between = left - right
    towards = [-ahead[:, 2] + 1j * ahead[:, 0], between[:, 0] + 1j * between[:, 2]]
    mean = sum(v / np.maximum(np.abs(v), 1e-9) for v in towards)
    return np.asarray(np.degrees(np.angle(mean)))


def nearest_first(fig: Figures, distance_PT: Doubles) -> list[list[int]]:
    """Per frame, the people who are drawn, the nearest first.

    Who stands lower in the picture is nearer, if everybody's feet are seen; else who is larger (`distance_PT`, any unit). Both are
    smoothed over half a second, so two people do not change places for a frame.
    """
    feet: Bools = np.asarray(fig.drawn_PT19[..., [10, 13]].any(axis=-1))
    here: Bools = np.asarray(fig.drawn_PT19.any(axis=-1))
    standing = here.any(axis=1) & ((feet & here).sum(axis=1) > 0.5 * here.sum(axis=1))
    key = -fig.landmarks_PT33x3[:, :, FEET, 1].max(axis=2) if standing[here.any(axis=1)].all() else distance_PT
    key = np.stack([_mean(k, h, int(0.25 * fig.fps)) for k, h in zip(key, here, strict=True)]) if len(key) else key
    return [[int(p) for p in np.argsort(key[:, t], kind="stable") if here[p, t]] for t in range(fig.frames)]


def sizes(fig: Figures) -> Doubles:
    """Each person's body size in pixels: median over the frames in which anything of them is drawn."""
    out = np.ones(fig.count)
    for p in range(fig.count):
        frames = np.flatnonzero(fig.drawn_PT19[p].any(axis=-1))
        if len(frames):
            out[p] = np.median([body_size(fig.landmarks_PT33x3[p, t].astype(np.float32)) for t in frames])
    return out


def _mean(values_T: Doubles, known_T: Bools, radius: int) -> Doubles:
    """Mean of the known values at most `radius` frames away."""
    kernel = np.ones(2 * radius + 1)
    total = np.convolve(np.where(known_T, values_T, 0.0), kernel)[radius : radius + len(values_T)]
    return np.asarray(total / np.maximum(np.convolve(known_T.astype(float), kernel)[radius : radius + len(values_T)], 1.0))


def _finite(people: People) -> tuple[Doubles, Doubles, Doubles]:
    """Landmarks, world and visibility. What is no number or lies out of all bounds has no visibility, and the place that the frames
    before and after give it (zero, if none does)."""
    landmarks, world = people.landmarks_PT33x3.astype(np.float64), people.world_PT33x3.astype(np.float64)
    good = np.isfinite(landmarks).all(axis=-1) & np.isfinite(world).all(axis=-1) & np.isfinite(people.visibility_PT33)
    with np.errstate(invalid="ignore"):
        good &= (np.abs(landmarks) < 20 * max(people.size_hw)).all(axis=-1) & (np.abs(world) < 10).all(axis=-1)
    weight = np.where(good, people.visibility_PT33.astype(np.float64), 0.0)
    landmarks, world = np.where(good[..., None], landmarks, 0.0), np.where(good[..., None], world, 0.0)
    for p, k in np.argwhere(good.any(axis=1) & ~good.all(axis=1)):
        for values in (landmarks, world):
            values[p, :, k] = smoothing.fill(values[p, :, k], good[p, :, k])
    return landmarks, world, weight


def _drawn(landmarks_PT33x3: Doubles, world_PT33x3: Doubles, weight_PT33: Doubles, people: People) -> Bools:
    """P×T×19: the key point is seen, in or near the picture, on the camera's side of the head, and there for longer than a blink."""
    height, width = people.size_hw
    index = [[INDEX[name] for name in names] for names in POINTS]
    belief = np.stack([weight_PT33[..., i].min(axis=-1) for i in index], axis=-1)
    out = np.zeros(belief.shape, np.bool_)
    brief = round(BRIEF_S * people.fps)
    for p in range(people.count):
        points = points_of(landmarks_PT33x3[p])[..., :2]
        reach = OUTSIDE * np.array([body_size(xyz.astype(np.float32)) for xyz in landmarks_PT33x3[p]])[:, None, None]
        near = ((points >= -reach) & (points <= np.array([width, height]) + reach)).all(axis=-1)
        seen = settled(held(belief[p], APPEARS, VANISHES) & near, brief)
        seen &= _on_camera_side(world_PT33x3[p])
        here = settled(people.present_PT[p][:, None], brief)
        # A head without a trunk, or one stray limb, is a mistake of the tracker rather than a person.
        trunk = seen[:, [NECK, 2, 5, RIGHT_HIP, LEFT_HIP]].any(axis=1, keepdims=True)
        out[p] = seen & here & trunk & (seen[:, :HEAD].sum(axis=1, keepdims=True) >= 3)
    return out


def _on_camera_side(world_T33x3: Doubles) -> Bools:
    """T×19: false for the points of the head that it hides itself; people seen from behind show no face."""
    yaw = smoothing.median(head_yaw_deg(world_T33x3), 0 if len(world_T33x3) < 3 else 1)
    out = np.ones((len(yaw), len(POINTS)), np.bool_)
    for point, (low, high) in FACING_DEG.items():
        margin = np.minimum(yaw - low, high - yaw)
        out[:, point] = held(margin[:, None], FACING_SLACK_DEG, -FACING_SLACK_DEG)[:, 0]
    return out


def _detail(places: Any, seen: Any, fps: float) -> tuple[Doubles, Bools]:
    """Points of hands (P×T×2×21×2) or faces (P×T×68×2), with brief gaps bridged, and where they are drawn."""
    points = np.nan_to_num(places.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    known = np.isfinite(places).all(axis=(-2, -1)) & (np.nan_to_num(seen) > 0)
    drawn = np.zeros(known.shape, np.bool_)
    for part in np.ndindex(*known.shape[:1], *known.shape[2:]):
        one = (part[0], slice(None), *part[1:])
        if known[one].any():
            belief = np.where(known[one], seen[one], 0.0)[:, None]
            drawn[one] = settled(held(belief, SEEN_DETAIL, SEEN_DETAIL / 2), round(BRIEF_S * fps))[:, 0]
            points[one] = smoothing.fill(points[one], known[one])
    return points, drawn


def held(belief_TK: Any, on: float, off: float) -> Bools:
    """A switch with hysteresis for every column: turns on at `on`, off below `off`; starts by the middle of the two."""
    out = np.zeros(np.shape(belief_TK), np.bool_)
    state: Any = np.asarray(belief_TK[0]) >= (on + off) / 2 if len(belief_TK) else None
    for t, belief in enumerate(belief_TK):
        state = np.where(state, belief >= off, belief >= on)
        out[t] = state
    return out


def settled(flags_TK: Bools, brief: int) -> Bools:
    """Gaps of up to `brief` frames closed, then runs of up to `brief` frames taken out. What touches an end of the clip is left."""
    out = flags_TK.copy()
    for k in range(out.shape[1]):
        for value in (False, True):
            edges = np.flatnonzero(np.diff(out[:, k].astype(np.int8))) + 1
            for start, stop in itertools.pairwise(edges):
                if stop - start <= brief and out[start, k] == value:
                    out[start:stop, k] = not value
    return out


def _instants(count: int, fps: float, wanted: int, rate: float) -> tuple[Indices, Indices, Doubles]:
    """For each instant i / rate, the tracked frame on display, the next one, and how far the instant lies between the two."""
    at = np.minimum(np.arange(wanted) * (fps / rate), count - 1)
    # Half a millisecond, as in `media.sample_indices`: an instant on a frame's edge belongs to that frame whatever the rounding.
    low = np.floor(at + 0.0005 * fps).astype(np.int64)
    return low, np.minimum(low + 1, count - 1), np.maximum(at - low, 0.0)


def _between(values: Any, low_T: Indices, high_T: Indices, share_T: Doubles, known_PT: Bools) -> Doubles:
    """Values (P, T, …) at the instants; where the next frame has none, those of the frame on display."""
    both = known_PT[:, low_T] & known_PT[:, high_T]
    share = np.where(both, share_T.reshape((1, -1) + (1,) * (both.ndim - 2)), 0.0)
    share = share.reshape(share.shape + (1,) * (values.ndim - share.ndim))
    return np.asarray(values[:, low_T] * (1 - share) + values[:, high_T] * share)

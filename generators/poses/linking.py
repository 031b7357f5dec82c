"""From what a model of another make sees frame by frame to people with names that hold.

Bodies are brought into the form that the built-in tracker's association knows, so that who is who is decided in one place: by predicted
place and the colours that people wear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators.masks.extractor import MaskExtractor
from generators.poses import association, silhouettes
from generators.poses.association import REENTRY_S, Sighting, Track
from generators.poses.blazepose import CROP_SIDE, Body, crop_of, cut
from generators.poses.people import in_order, least_frames, of_interest, people_of
from generators.poses.tracks import INDEX, Bytes, Floats, People
from manifests.errors import BadOutput

Doubles = npt.NDArray[np.float64]

STATURE_M = 1.65
"""as in `summary.standing_height`"""
LIMB, HEAD = 0.16, 0.34
"""half the thickness of a drawn silhouette's limbs, and its head's radius, in body sizes"""
TORSO = ((23, 24), (11, 12))
"""hips and shoulders"""


@dataclass(frozen=True)
class Look:
    """One person as a model sees them in one frame."""

    landmarks_33x3: Floats
    """x and y in pixels of the picture, z in pixels relative to the hips"""
    world_33x3: Floats
    """metres, hip-centred, x right, y down, z away from the camera"""
    visibility_33: Floats
    score: float
    """0 to 1: the model's belief that somebody is there"""
    silhouette_HW: Bytes | None = None
    """in the picture, 0 to 255; None: drawn along the bones"""
    more: Any = None
    """whatever else the extractor wants to find again, for the people that remain"""


@dataclass(frozen=True)
class LinkedBody(Body):
    """A body that remembers the look it was made of."""

    look: Look | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Linked:
    """People, and the look behind each of them in each frame."""

    people: People
    looks_P: tuple[dict[int, Look], ...]
    """frame → look"""


def linked(frames_THWC: Bytes, looks_T: Sequence[Sequence[Look]], fps: float, most: int, masks: MaskExtractor) -> Linked:
    """Everybody, by first appearance, then left to right; the tallest `most` at most, without bystanders and who is hardly ever seen."""
    tracks: list[Track] = []
    for frame, looks in enumerate(looks_T):
        recent = [t for t in tracks if frame - t.last <= REENTRY_S * fps + 1]
        nearest = sorted(looks, key=lambda look: -look.score)[: 2 * most]  # the association is exact, and exponential in their number
        seen = association.distinct([Sighting.of(body_of(frames_THWC[frame], look)) for look in nearest])
        association.mark_crowded(seen)
        association.match(tracks, recent, seen, frame, fps, 2 * most)
    tracks = association.without_ghosts(association.joined(tracks, fps))
    tracks = of_interest([t for t in tracks if len(t.sightings) >= least_frames(len(frames_THWC), fps)], most)
    tracks.sort(key=in_order)
    people = people_of(tracks, frames_THWC.shape[:3], fps)
    people = replace(people, masks_PTHW=masks.extract(frames_THWC, people))
    return Linked(people, tuple({t: _look(s) for t, s in track.sightings.items()} for track in tracks))


def body_of(rgb_HWC: Bytes, look: Look) -> LinkedBody:
    """The look with the crop, colours and silhouette that the association wants. Raises BadOutput for places that are no numbers."""
    points = (look.landmarks_33x3, look.world_33x3, look.visibility_33)
    if not all(np.isfinite(p).all() for p in points) or np.abs(look.landmarks_33x3).max() > 50 * max(rgb_HWC.shape):
        raise BadOutput("the pose model gave places that are no numbers or far outside the picture; check its weights", "not_finite")
    centre, tip = _axis(look)
    crop = crop_of(centre, tip)
    matrix = crop.matrix()
    if look.silhouette_HW is None:
        inside = drawn(look.landmarks_33x3, look.visibility_33, matrix, (CROP_SIDE, CROP_SIDE))
    else:
        inside = np.asarray(cv2.warpAffine(look.silhouette_HW, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR), np.uint8)
    return LinkedBody(
        look.landmarks_33x3, centre, tip, look.world_33x3, look.visibility_33, look.score, crop, (rgb_HWC.shape[0], rgb_HWC.shape[1]),
        cut(rgb_HWC, crop), inside, look,
    )  # fmt: skip


def _look(sighting: Sighting) -> Look:
    assert isinstance(sighting.body, LinkedBody)
    assert sighting.body.look is not None
    return sighting.body.look


def _axis(look: Look) -> tuple[Doubles, Doubles]:
    """The middle of the hips, and the point half a standing body's height beyond the shoulders: what BlazePose's own crop is made of."""
    hips, shoulders = (look.landmarks_33x3[list(pair), :2].astype(np.float64).mean(axis=0) for pair in TORSO)
    up = shoulders - hips
    long = float(np.linalg.norm(up))
    up = up / long if long > 1e-3 else np.array([0.0, -1.0])
    return hips, hips + up * max(STATURE_M / 2 * pixels_per_metre(look), 4.0)


def pixels_per_metre(look: Look) -> float:
    """The weak-perspective scale that maps the world's joints onto the picture's, by the longer of both bodies' lengths."""
    deep = look.world_33x3.astype(np.float64)
    flat = np.concatenate([deep[:, :2], np.zeros((33, 1))], axis=1)
    return silhouettes.body_size(look.landmarks_33x3) / max(_size_m(flat.astype(np.float32)), 1e-3)


def _size_m(flat_33x3: Floats) -> float:
    """`body_size` of something in metres: that is never below one pixel, so it is asked in millimetres."""
    return silhouettes.body_size(flat_33x3 * np.float32(1000)) / 1000


def drawn(landmarks_33x3: Floats, visibility_33: Floats, matrix_23: Doubles, size_hw: tuple[int, int]) -> Bytes:
    """A rough silhouette along the bones, for models that give none: soft at its edge, in a picture reached by the affine `matrix`."""
    xy = landmarks_33x3[:, :2] @ matrix_23[:, :2].T + matrix_23[:, 2]
    limit = 8 * max(size_hw)
    at = np.clip(np.round(xy), -limit, limit).astype(int)
    size = silhouettes.body_size(np.concatenate([xy, np.zeros((33, 1))], axis=1).astype(np.float32))
    canvas = np.zeros(size_hw, np.uint8)
    seen = visibility_33 > silhouettes.SURE
    for a, b in silhouettes.BONES:
        if seen[a] and seen[b]:
            cv2.line(canvas, at[a].tolist(), at[b].tolist(), 255, max(1, round(2 * LIMB * size)))
    if seen[[11, 12, 23, 24]].all():
        cv2.fillConvexPoly(canvas, at[[11, 12, 24, 23]].astype(np.int32), 255)
    if seen[7] or seen[8] or seen[0]:
        ears = at[[k for k in (7, 8, 0) if seen[k]]].mean(axis=0)
        cv2.circle(canvas, np.round(ears).astype(int).tolist(), max(1, round(HEAD * size)), 255, -1)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), max(0.5, 0.03 * size)), np.uint8)


def fill_face(landmarks_33xC: Doubles) -> None:
    """Put the corners of eyes and mouth, which some models do not give, where a face with these eyes and this nose has them."""
    left, right, nose = (landmarks_33xC[INDEX[name]] for name in ("left_eye", "right_eye", "nose"))
    middle, across = (left + right) / 2, left - right
    for side, eye, sign in (("left", left.copy(), 1.0), ("right", right.copy(), -1.0)):
        landmarks_33xC[INDEX[f"{side}_eye_inner"]] = eye - sign * 0.25 * across
        landmarks_33xC[INDEX[f"{side}_eye_outer"]] = eye + sign * 0.25 * across
        landmarks_33xC[INDEX[f"mouth_{side}"]] = 2 * nose - middle + sign * 0.4 * across

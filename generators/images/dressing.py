"""The torso's cloth in another cloth's colours."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt

from generators.images.composing import from_lab, moments, to_lab
from generators.images.matte import CutOut, Floats, Standing
from generators.poses.tracks import INDEX
from manifests.media import Image

Region = npt.NDArray[np.bool_]

TORSO = tuple(INDEX[j] for j in ("left_shoulder", "right_shoulder", "right_hip", "left_hip"))
ARMS = tuple(tuple(INDEX[f"{side}_{j}"] for j in ("shoulder", "elbow", "wrist")) for side in ("left", "right"))
FACE = tuple(INDEX[j] for j in ("nose", "left_eye", "right_eye", "mouth_left", "mouth_right"))
BARE = 14.0
"""distance in Lab (lightness counting half) below which a torso has the face's colour, so wears nothing"""
STRANGE = 34.0
"""distance in the same measure from all of the chest's colours beyond which a pixel is not of the same cloth"""
LEAST_PX = 50


def torso_of(person: Standing, alpha_HW: Floats, across: float = 1.0, up: float = 0.0, down: float = 0.0) -> Region:
    """The quadrilateral of shoulders and hips inside the character: `across` times as wide, longer at its ends by shares of its length."""
    left, right = person.landmarks_33x2[[TORSO[0], TORSO[3]]].astype(float), person.landmarks_33x2[[TORSO[1], TORSO[2]]].astype(float)
    spine = (left + right) / 2
    least = 0.13 * person.metre_px * across
    half = (left - right) / 2 * across
    if np.linalg.norm(half[0]) < least:
        half = np.array([[least, 0.0], [least, 0.0]])  # in profile both shoulders fall on one line
    axis = spine[1] - spine[0]
    ends = np.array([spine[0] - up * axis, spine[1] + down * axis])
    corners = np.concatenate([ends + half, ends - half])
    filled = np.zeros(alpha_HW.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.round(corners).astype(np.int32)), 1)
    return np.asarray((filled > 0) & (alpha_HW > 0.5))


def cloth_of(image_HWC: Image, where_HW: Region) -> tuple[Floats, Floats]:
    """Mean and spread, in Lab, of a piece of cloth."""
    return moments(to_lab(image_HWC), where_HW)


def dressed(cut: CutOut, cloth_lab: tuple[Floats, Floats]) -> tuple[Image, bool]:
    """The character's upper cloth with another's mean colour and part of its spread; the shading stays. False: nothing to dress."""
    region = upper_cloth(cut)
    if region.sum() < LEAST_PX:
        return cut.image_HWC, False
    lab = to_lab(cut.image_HWC)
    mean, spread = moments(lab, region)
    soft = np.minimum(cv2.GaussianBlur(region.astype(np.float32), (0, 0), max(0.8, 0.004 * cut.person.metre_px)), cut.alpha_HW)
    target, target_spread = cloth_lab
    gain = np.clip(target_spread / spread, 0.6, 1.2).astype(np.float32)
    gain[0] = np.clip(gain[0], 0.85, 1.15)
    new = from_lab((lab - mean) * gain + target).astype(np.float32)
    return np.round(cut.image_HWC * (1 - soft[..., None]) + new * soft[..., None]).astype(np.uint8), True


def upper_cloth(cut: CutOut) -> Region:
    """Pixels of what is worn on the chest: nearer to its colours than to those of face, hair and trousers, joined to it.

    A dress or a coat, whose colours go on below the hips, is taken whole. Empty when the chest has the face's colour: it is bare, or
    too like the skin to be told apart.
    """
    person, alpha = cut.person, cut.alpha_HW
    core = torso_of(person, alpha, 0.75, 0.0, -0.30)
    lab = to_lab(cut.image_HWC) * np.array([0.5, 1, 1], np.float32)
    skin = _around(lab, person, alpha, person.landmarks_33x2[list(FACE)].mean(0)[None], 0.04)
    if core.sum() < LEAST_PX or (skin is not None and _far(np.median(lab[core], 0)[None], skin).min() < BARE):
        return np.zeros_like(core)
    if skin is not None:
        below = torso_of(person, alpha, 0.75, -0.30, -0.30)  # a neckline may leave skin bare, a striped shirt may be as pale as a face
        core &= below | (_far(lab.reshape(-1, 3), skin) >= BARE).reshape(core.shape)
    own, thighs = _palette(lab[core]), _thighs(lab, person, alpha)
    long = thighs is not None and bool(np.median(_far(thighs, own)) < BARE)
    worn_off = (skin, _hair(lab, person, alpha), _bare_arms(lab, person, alpha, own), None if long else thighs)
    others = [p for p in worn_off if p is not None] or [np.full((1, 3), 1e3, np.float32)]
    near = (torso_of(person, alpha, 2.1, 0.22, 2.0 if long else 0.40) | _arms(person, alpha)) & ~_head(person, alpha)
    flat = lab.reshape(-1, 3)
    to_own = _far(flat, own)
    alike = ((to_own < _far(flat, np.concatenate(others))) & (to_own < STRANGE)).reshape(core.shape) & near
    gap = 2 * max(1, round(0.02 * person.metre_px)) + 1
    clean = cv2.medianBlur((alike | core).astype(np.uint8), 5)
    clean = cv2.morphologyEx(clean, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap)))
    _, labels = cv2.connectedComponents(clean * near.astype(np.uint8))
    return np.asarray(np.isin(labels, np.unique(labels[core])) & (labels > 0))


def _head_circle(person: Standing) -> tuple[Floats, float]:
    """Middle of the face and a head's radius (0.11 m), pixels."""
    return np.asarray(person.landmarks_33x2[list(FACE)].mean(0), np.float32), 0.11 * person.metre_px


def _head(person: Standing, alpha_HW: Floats) -> Region:
    middle, radius = _head_circle(person)
    drawn = np.zeros(alpha_HW.shape, np.uint8)
    x, y = np.round(middle).astype(int).tolist()
    cv2.circle(drawn, (x, y), max(1, round(radius)), 1, -1)
    return np.asarray(drawn > 0)


def _hair(lab_HWC: Floats, person: Standing, alpha_HW: Floats) -> Floats | None:
    middle, radius = _head_circle(person)
    return _around(lab_HWC, person, alpha_HW, np.asarray((middle - [0, 1.1 * radius])[None], np.float32), 0.03)


def _palette(lab_N3: Floats, colours: int = 4) -> Floats:
    """A few colours that stand for many (k-means with a fixed seed)."""
    sample = np.ascontiguousarray(lab_N3[:: max(1, len(lab_N3) // 4000)])
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    centres = cv2.kmeans(sample, min(colours, len(sample)), np.zeros((len(sample), 1), np.int32), stop, 1, cv2.KMEANS_PP_CENTERS)[2]
    return np.asarray(centres, np.float32)


def _far(lab_N3: Floats, palette_K3: Floats) -> Floats:
    """Distance of N colours to the nearest of K."""
    return np.asarray(np.min([np.sqrt(((lab_N3 - colour) ** 2).sum(1)) for colour in palette_K3], axis=0), np.float32)


def _around(lab_HWC: Floats, person: Standing, alpha_HW: Floats, points_N2: Floats, radius_m: float) -> Floats | None:
    """The colours around some points of the body; None when they lie outside it."""
    spot = np.zeros(alpha_HW.shape, np.uint8)
    for x, y in np.round(points_N2).astype(int).tolist():
        cv2.circle(spot, (x, y), max(1, round(radius_m * person.metre_px)), 1, -1)
    where = (spot > 0) & (alpha_HW > 0.5)
    return _palette(lab_HWC[where], 3) if where.sum() >= 12 else None


def _thighs(lab_HWC: Floats, person: Standing, alpha_HW: Floats) -> Floats | None:
    hips, knees = (person.landmarks_33x2[[INDEX[f"{side}_{j}"] for side in ("left", "right")]] for j in ("hip", "knee"))
    points = np.concatenate([hips + share * (knees - hips) for share in (0.3, 0.5, 0.7)])
    return _around(lab_HWC, person, alpha_HW, np.asarray(points, np.float32), 0.03)


def _bare_arms(lab_HWC: Floats, person: Standing, alpha_HW: Floats, own_K3: Floats) -> Floats | None:
    """Colours along the arms that are not the chest's."""
    joints = person.landmarks_33x2
    points = [joints[a] + share * (joints[b] - joints[a]) for arm in ARMS for a, b in itertools.pairwise(arm) for share in (0.4, 0.8)]
    found = _around(lab_HWC, person, alpha_HW, np.asarray(points, np.float32), 0.02)
    bare = None if found is None else found[_far(found, own_K3) > BARE]
    return bare if bare is not None and len(bare) else None


def _arms(person: Standing, alpha_HW: Floats) -> Region:
    drawn = np.zeros(alpha_HW.shape, np.uint8)
    for arm in ARMS:
        cv2.polylines(drawn, [np.round(person.landmarks_33x2[list(arm)]).astype(np.int32)], False, 1, max(1, round(0.16 * person.metre_px)))
    return np.asarray((drawn > 0) & (alpha_HW > 0.4))

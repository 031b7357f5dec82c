"""Are hands and faces there, sharp, and built like hands and faces? Points come from `People.details` (generators/poses/details.py);
people without them raise ValueError.

What the networks read always looks somewhat like a hand or a face, because they know nothing else. So a broken hand shows first as one
that is not found, then as one without detail, and only last as an impossible one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from agents.measures.identity import FaceLook
from generators.poses import smoothing
from generators.poses.details import SIZE_S
from generators.poses.faces import REGION as FACE_REGION
from generators.poses.faces import Head
from generators.poses.hands import LEFT, RIGHT, WRIST, Arm
from generators.poses.hands import REGION as HAND_REGION
from generators.poses.networks import Region
from generators.poses.summary import standing_height
from generators.poses.tracks import Bytes, Details, People

Doubles = npt.NDArray[np.float64]
Part = Literal["hands", "face"]

SMALLEST_PX = 16.0
"""hands and faces that are less long say nothing"""
SIDE_PX = 64
"""side of the square about a hand or a face that sharpness is measured in, at most"""
OWN_MIN = 0.1
"""share of that square that the person must cover"""
NOISE = 4.0
"""variance of the grey values, of 255, that is no detail"""
VISIBLE = 0.5
SAMPLED_FRAMES = 16
INSIDE = 127

FINGERS = ((5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
"""index to little finger: knuckle, first joint, second joint, tip"""
FINGER_OF_PALM = (0.5, 1.5)
"""length of a finger's three bones over wrist to knuckle; 0.8 to 1.0 by the bones' lengths in Buryanov & Kotiuk (2010, Proportions of hand
segments). The rest, here and below, is what the network's guess of depth needs: hands of real people are then nine times in ten right."""
BONE_OF_NEXT = (0.6, 3.0)
"""a finger's bone over the next one outwards; 1.1 to 1.8 by the same source"""
BENT_MOST_DEG = 125.0
"""a finger's first and second joint bend 110° and 90° at most (American Academy of Orthopaedic Surgeons 1965)"""

PAIRS = ((33, 263), (133, 362), (70, 300), (61, 291), (234, 454), (172, 397))
"""points of the mesh that mirror each other: outer and inner corners of the eyes, brows, corners of the mouth, ears, jaws"""
DOWNWARDS = ((70, 300), (33, 133, 362, 263), (1,), (13, 14), (152,))
"""brows, eyes, nose tip, mouth, chin: in this order down the face"""
LIKE_YUNET = ((33, 133), (362, 263), (1,), (61,), (291,))
"""the mesh's points for YuNet's five"""


@dataclass(frozen=True)
class DetailScores:
    """Hands, or the face, of one synthetic person. None where nothing can be told."""

    detected: float | None
    """share of the frames that show it in the clip in which the synthetic video shows it too, 0 to 1; None where the clip shows none, or
    where it would be under 16 px in the synthetic video"""
    sharpness: float | None
    """detail over the clip's, see `sharpness`; 1 is as sharp"""
    plausible: float | None
    """share of what was found that is built like a hand or a face, 0 to 1"""


def detail_scores(
    part: Part, clip_THWC: Bytes, clip: People, real: int, frames_THWC: Bytes, output: People, synthetic: int
) -> DetailScores:
    """The scores of the synthetic person `synthetic` of `output` against `real` of `clip`. Both videos are RGB, with equally many frames
    and with details read (see DetailReader); raises ValueError otherwise."""
    if clip.frames != output.frames:
        raise ValueError(f"{clip.frames} frames against {output.frames}")
    mine, theirs = _places(part, output, synthetic), _places(part, clip, real)
    sides = [
        np.median(np.concatenate([p.side_T[p.seen_T] for p in places])) for places in (mine, theirs) if any(p.seen_T.any() for p in places)
    ]
    ratio = None
    if len(sides) == 2:
        side_px = max(8, min(SIDE_PX, int(min(sides))))
        sharp = [
            _sharpness(places, *of, side_px) for places, of in ((mine, (frames_THWC, output, synthetic)), (theirs, (clip_THWC, clip, real)))
        ]
        ratio = sharp[0] / sharp[1] if sharp[0] is not None and sharp[1] else None
    shown = [
        (place.seen_T & found_T, read_T)
        for place, found_T, read_T in zip(mine, _read(part, clip, real), _read(part, output, synthetic), strict=True)
    ]
    count = sum(int(use_T.sum()) for use_T, _ in shown)
    return DetailScores(
        sum(int((use_T & read_T).sum()) for use_T, read_T in shown) / count if count else None,
        ratio,
        hands_plausible(output, synthetic) if part == "hands" else face_plausible(output, synthetic),
    )


def sharpness(part: Part, frames_THWC: Bytes, people: People, person: int = 0, side_px: int = SIDE_PX) -> float | None:
    """How fine the detail is where the body says that the hands or the face are: variance of the Laplacian (Pech-Pacheco et al. 2000) over
    the variance of the grey values, so that dark and pale ones count alike, on the person's own pixels in a square of `side_px`. From 0;
    sharp ones have 0.2 to 2, blurred by 2 px of 40 they have a tenth of it. Median over up to 16 frames.

    Figures compare at one `side_px` only, and a drawn hand has less detail than a real one however well it is made. None where all are
    under 16 px or hidden.
    """
    return _sharpness(_places(part, people, person), frames_THWC, people, person, side_px)


def hands_plausible(people: People, person: int = 0) -> float | None:
    """Share of the hands read, of 16 px or more, whose fingers have the lengths and bends that fingers can have, 0 to 1; None where none
    was read. In three dimensions, as the network guesses the third."""
    details = _details(people)
    hands = details.hands_PT2x21x3[person][details.hand_seen_PT2[person] > 0].astype(np.float64)
    large = [hand for hand in hands if _distance(hand[0], hand[9]) + _distance(hand[9], hand[12]) >= SMALLEST_PX]
    return float(np.mean([_is_hand(hand) for hand in large])) if large else None


def face_plausible(people: People, person: int = 0) -> float | None:
    """Share of the faces read, of 16 px or more, in which brows, eyes, nose, mouth and chin follow each other down the face, 0 to 1; None
    where none was read."""
    return _mean([_in_order(face) for face in _faces(people, person)])


def face_asymmetry(people: People, person: int = 0) -> float | None:
    """How much the face's halves differ: the mesh's mirrored pairs should all point across the face, so the median share of a pair's
    length that doesn't; from 0, up to 0.06 for faces, median over those of 16 px or more. None where none was read."""
    found = [_asymmetry(face) for face in _faces(people, person)]
    return float(np.median(found)) if found else None


def face_disagreement(look: FaceLook, people: People, person: int = 0) -> float | None:
    """How far YuNet and the mesh, which know nothing of each other, are apart on eyes, nose and mouth: mean distance over the mesh's
    height, median over the frames in which both see a face. From 0; up to 0.1 on real faces, to 0.25 on drawn ones. None where no frame
    shows it to both."""
    gaps, details = [], _details(people)
    for t, points_5x2 in zip(look.frames_N, look.points_Nx5x2, strict=True):
        if details.face_seen_PT[person, t] > 0:
            mesh = details.faces_PT468x3[person, t].astype(np.float64)
            own_5x2 = np.stack([mesh[list(points), :2].mean(axis=0) for points in LIKE_YUNET])
            gaps.append(float(np.linalg.norm(points_5x2 - own_5x2, axis=1).mean()) / max(_distance(mesh[10], mesh[152]), 1e-6))
    return float(np.median(gaps)) if gaps else None


@dataclass(frozen=True)
class _Place:
    """Where the body says that one hand or the face is."""

    seen_T: npt.NDArray[np.bool_]
    """not hidden, in the picture, and large enough to say something"""
    side_T: Doubles
    """of its square, pixels"""
    region: Callable[[int], Region]


def _places(part: Part, people: People, person: int) -> list[_Place]:
    """Left and right hand, or the face."""
    landmarks, world = people.landmarks_PT33x3[person], people.world_PT33x3[person]
    tall = np.array([standing_height(w[None], xy[None]) for w, xy in zip(world, landmarks, strict=True)])
    radius = max(1, round(SIZE_S * people.fps)) if people.frames > 1 else 0
    body = (landmarks, people.visibility_PT33[person], people.present_PT[person], smoothing.median(tall, radius))
    if part == "face":
        head = Head.of(*body, people.size_hw)
        return [_Place(head.visible_T & (head.face_T >= SMALLEST_PX), FACE_REGION * head.face_T, head.region)]
    arms = [Arm.of(*body, side, people.size_hw) for side in (LEFT, RIGHT)]
    visible = [arm.visible_T & (people.visibility_PT33[person, :, WRIST[arm.side]] >= VISIBLE) for arm in arms]
    return [
        _Place(seen & (arm.hand_T >= SMALLEST_PX), HAND_REGION * arm.hand_T, arm.region) for seen, arm in zip(visible, arms, strict=True)
    ]


def _read(part: Part, people: People, person: int) -> list[npt.NDArray[np.bool_]]:
    """The frames in which each was read, (T,) each."""
    if part == "face":
        return [_details(people).face_seen_PT[person] > 0]
    return [_details(people).hand_seen_PT2[person, :, side] > 0 for side in (LEFT, RIGHT)]


def _details(people: People) -> Details:
    if people.details is None:
        raise ValueError("hands and faces were not read; give people that DetailReader has read")
    return people.details


def _sharpness(places: list[_Place], frames_THWC: Bytes, people: People, person: int, side_px: int) -> float | None:
    found = []
    for place in places:
        frames = np.flatnonzero(place.seen_T)
        for t in frames[np.unique(np.linspace(0, len(frames) - 1, SAMPLED_FRAMES).astype(int))] if len(frames) else frames:
            found.append(_detail(frames_THWC[t], people.masks_PTHW[person, t], place.region(int(t)), side_px))
    known = [value for value in found if value is not None]
    return float(np.median(known)) if known else None


def _detail(rgb_HWC: Bytes, mask_HW: Bytes, region: Region, side_px: int) -> float | None:
    """Of one frame; None when the person covers less than a tenth of the square."""
    grey = np.asarray(cv2.cvtColor(region.cut(rgb_HWC, side_px), cv2.COLOR_RGB2GRAY), np.float64)
    own = region.cut(np.repeat(mask_HW[..., None], 3, axis=2), side_px)[..., 0] > INSIDE
    own = np.asarray(cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8)), bool)
    if own.mean() < OWN_MIN:
        return None
    return float(cv2.Laplacian(grey, cv2.CV_64F)[own].var() / (grey[own].var() + NOISE))


def _is_hand(points_21x3: Doubles) -> bool:
    for chain in FINGERS:
        bones = [points_21x3[b] - points_21x3[a] for a, b in itertools.pairwise(chain)]
        lengths = [max(float(np.linalg.norm(bone)), 1e-6) for bone in bones]
        palm = max(_distance(points_21x3[0], points_21x3[chain[0]]), 1e-6)
        if not FINGER_OF_PALM[0] <= sum(lengths) / palm <= FINGER_OF_PALM[1]:
            return False
        if any(not BONE_OF_NEXT[0] <= a / b <= BONE_OF_NEXT[1] for a, b in itertools.pairwise(lengths)):
            return False
        if any(_angle_deg(a, b) > BENT_MOST_DEG for a, b in itertools.pairwise(bones)):
            return False
    return True


def _faces(people: People, person: int) -> list[Doubles]:
    """The meshes read that are 16 px high or more, 468×3 each."""
    details = _details(people)
    meshes = details.faces_PT468x3[person][details.face_seen_PT[person] > 0].astype(np.float64)
    return [mesh for mesh in meshes if np.ptp(mesh[:, 1]) >= SMALLEST_PX]


def _in_order(mesh_468x3: Doubles) -> bool:
    down = mesh_468x3[152] - mesh_468x3[10]
    heights = [float(((mesh_468x3[list(points)].mean(axis=0) - mesh_468x3[10]) * down).sum()) for points in DOWNWARDS]
    return all(a < b for a, b in itertools.pairwise(heights))


def _asymmetry(mesh_468x3: Doubles) -> float:
    across = [mesh_468x3[b] - mesh_468x3[a] for a, b in PAIRS]
    units = [line / max(float(np.linalg.norm(line)), 1e-6) for line in across]
    mean = np.mean(units, axis=0)
    mean /= max(float(np.linalg.norm(mean)), 1e-6)
    return float(np.median([np.linalg.norm(unit - float((unit * mean).sum()) * mean) for unit in units]))


def _mean(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _distance(a: Doubles, b: Doubles) -> float:
    return float(np.linalg.norm(a - b))


def _angle_deg(a: Doubles, b: Doubles) -> float:
    return float(np.degrees(np.arccos(np.clip((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9), -1, 1))))

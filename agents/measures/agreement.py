"""Does the synthetic person do what the real one did, joint by joint, with proportions and place taken out?

Each figure has a null: the same output against the motion played backwards (`backwards`). A figure that is no better than its null says
nothing, however good it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agents.measures.motion import limb_errors_deg
from generators.poses.curves import MIDDLES, NECK, PELVIS, VISIBLE, Bools, Doubles, correlation, curves_of
from generators.poses.tracks import INDEX, Details, People
from generators.videos.puppet.numerics import running_median
from generators.videos.puppet.skeleton import OTHER_SIDE, pixels_per_metre

Counts = npt.NDArray[np.int64]

WITHIN = 0.1
"""of the torso's length; the threshold of PCK@0.1"""

TREE: tuple[tuple[str, str], ...] = (
    (PELVIS, NECK), (NECK, "nose"), (NECK, "left_shoulder"), (NECK, "right_shoulder"), (PELVIS, "left_hip"), (PELVIS, "right_hip"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip
"""Bones from the pelvis outwards: start, end. Every start but the pelvis is the end of an earlier bone."""
TORSO: tuple[str, ...] = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
SCORED: tuple[str, ...] = tuple(end for _, end in TREE if end not in (NECK, "left_hip", "right_hip"))
"""The joints that PCK counts. The hips hang next to where prediction and output are laid over each other, so they would be right for
nothing."""


@dataclass(frozen=True)
class Body:
    """One person's joints over the frames, by name. Pixels."""

    xy: dict[str, Doubles]
    """(T, 2) each"""
    seen: dict[str, Bools]
    """(T,) each"""
    scale_T: Doubles
    """pixels per metre"""

    @property
    def torso_px(self) -> float:
        """The torso's length when least foreshortened: the 90th percentile over the frames."""
        return max(1.0, float(np.percentile(np.linalg.norm(self.xy[NECK] - self.xy[PELVIS], axis=1), 90)))


def body_of(people: People, person: int = 0) -> Body:
    """The joints of one person of a video."""
    xy_Tx33x2 = people.landmarks_PT33x3[person, :, :, :2].astype(np.float64)
    seen_Tx33 = (people.visibility_PT33[person] > VISIBLE) & people.present_PT[person][:, None]
    xy, seen = {}, {}
    for name in {end for _, end in TREE} | {PELVIS}:
        sources = [INDEX[n] for n in MIDDLES.get(name, (name,))]
        xy[name], seen[name] = xy_Tx33x2[:, sources].mean(1), seen_Tx33[:, sources].all(1)
    scale = running_median(pixels_per_metre(xy_Tx33x2, people.world_PT33x3[person].astype(np.float64)), 3)
    return Body(xy, seen, np.maximum(scale, 1e-3))


def expected(driver: Body, output: Body, symmetric: bool = False) -> Body:
    """Where the output's joints should be: the driver's directions and foreshortening on the output's own proportions.

    Placed so that the middles of the two torsos' corners coincide in every frame; each bone of the driver is scaled by the ratio of the
    two bodies' bone lengths. A bone's length is the 90th percentile over the frames of its length in the picture per metre of body, so
    that a walk towards the camera is no growth.
    `symmetric`: a bone is as long as the longer one of both sides, so that a limb that was lost is expected at its length.
    Both must have the same number of frames; raises ValueError otherwise.
    """
    frames = len(output.scale_T)
    if len(driver.scale_T) != frames:
        raise ValueError(f"{len(driver.scale_T)} frames against {frames}")
    xy, seen = {PELVIS: np.zeros((frames, 2))}, {PELVIS: driver.seen[PELVIS]}
    zoom_T = output.scale_T / driver.scale_T
    for start, end in TREE:
        bone = driver.xy[end] - driver.xy[start]
        ratio = _length(output, start, end, symmetric) / _length(driver, start, end, symmetric)
        xy[end] = xy[start] + bone * (ratio * zoom_T)[:, None]
        seen[end] = driver.seen[end] & seen[start]
    place = np.mean([output.xy[corner] - xy[corner] for corner in TORSO], axis=0)
    return Body({name: points + place for name, points in xy.items()}, seen, output.scale_T)


def _length(body: Body, start: str, end: str, symmetric: bool) -> float:
    if symmetric:
        return max(_length(body, *bone, False) for bone in ((start, end), (_across(start), _across(end))))
    use = body.seen[start] & body.seen[end]
    lengths = np.linalg.norm(body.xy[end] - body.xy[start], axis=1) / body.scale_T
    return max(1e-6, float(np.percentile(lengths[use] if use.any() else lengths, 90)))


def _across(joint: str) -> str:
    """The same joint of the other side."""
    side, _, part = joint.partition("_")
    return f"{'right' if side == 'left' else 'left'}_{part}" if part else joint


def right_joints(wanted: Body, output: Body, within: float = WITHIN) -> tuple[Counts, Counts]:
    """Per frame (T,), how many joints of `SCORED` are seen in both, and how many of those lie within `within` torso lengths of where they
    are wanted."""
    seen = np.stack([wanted.seen[name] & output.seen[name] for name in SCORED])
    gaps = np.stack([np.linalg.norm(wanted.xy[name] - output.xy[name], axis=1) for name in SCORED]) / output.torso_px
    return seen.sum(0), (seen & (gaps <= within)).sum(0)


def pck(wanted: Body, output: Body, frames_T: Bools, within: float = WITHIN) -> float:
    """PCK: share of right joints over the chosen frames, all joints counting alike; NaN when none is seen.
    (Percentage of correct keypoints, normalised by the torso: Yang & Ramanan 2013.)"""
    seen_T, right_T = right_joints(wanted, output, within)
    total = int(seen_T[frames_T].sum())
    return int(right_T[frames_T].sum()) / total if total else float("nan")


def pck_of_frames(wanted: Body, output: Body, frames_T: Bools, within: float = WITHIN) -> Doubles:
    """The PCK of each chosen frame in which any joint is seen (flat array)."""
    seen_T, right_T = right_joints(wanted, output, within)
    use = frames_T & (seen_T > 0)
    return np.asarray(right_T[use] / seen_T[use])


def jitter(body: Body) -> float:
    """Mean size of the third difference over time of the joints of `SCORED`, in torso lengths per frame³; NaN below four frames.

    Differences are taken where the joint is seen in all four frames. (Jerk as a smoothness measure: Flash & Hogan 1985.)"""
    found = []
    for name in SCORED:
        seen = body.seen[name]
        use = seen[:-3] & seen[1:-2] & seen[2:-1] & seen[3:]
        found.append(np.linalg.norm(np.diff(body.xy[name], 3, axis=0), axis=1)[use] / body.torso_px)
    every = np.concatenate(found) if found else np.zeros(0)
    return float(every.mean()) if len(every) else float("nan")


def backwards(people: People) -> People:
    """The same motion played backwards: the null of every agreement figure."""
    flip = (slice(None), slice(None, None, -1))
    details: Details | None = people.details.picked(flip) if people.details is not None else None
    return replace(
        people, landmarks_PT33x3=people.landmarks_PT33x3[flip], world_PT33x3=people.world_PT33x3[flip],
        visibility_PT33=people.visibility_PT33[flip], present_PT=people.present_PT[flip], masks_PTHW=people.masks_PTHW[flip],
        details=details,
    )  # fmt: skip


def mirrored(people: People) -> People:
    """What a mirror shows: reflected in x, left and right exchanged. Hands and faces are left out."""
    width = people.size_hw[1]
    landmarks, world = people.landmarks_PT33x3[:, :, OTHER_SIDE].copy(), people.world_PT33x3[:, :, OTHER_SIDE].copy()
    landmarks[..., 0] = width - 1 - landmarks[..., 0]
    world[..., 0] *= -1
    return replace(
        people, landmarks_PT33x3=landmarks, world_PT33x3=world, visibility_PT33=people.visibility_PT33[:, :, OTHER_SIDE],
        masks_PTHW=people.masks_PTHW[:, :, :, ::-1], details=None,
    )  # fmt: skip


def about_face(people: People, which: Sequence[int]) -> People:
    """The outlines of some of them read as people who face the other way: left and right exchanged, near and far too, for a flat picture
    can't tell the two apart (Lee & Chen 1985). Hands and faces are left out."""
    landmarks, world, visibility = people.landmarks_PT33x3.copy(), people.world_PT33x3.copy(), people.visibility_PT33.copy()
    for p in which:
        landmarks[p], world[p] = (points[p][:, OTHER_SIDE] * np.array([1, 1, -1], np.float32) for points in (landmarks, world))
        visibility[p] = visibility[p][:, OTHER_SIDE]
    return replace(people, landmarks_PT33x3=landmarks, world_PT33x3=world, visibility_PT33=visibility, details=None)


@dataclass(frozen=True)
class Agreement:
    """One output against one motion, over the frames in which both people are found. NaN where no joint or limb can be told."""

    pck10: float
    """share of joints within 0.1 torso lengths of where they are wanted, 0 to 1"""
    pck20: float
    """...within 0.2"""
    limb_deg: float
    """mean angle between limbs in the picture, degrees 0 to 180"""
    joints: int
    """joints counted, of all frames together"""
    frames: int
    """frames with any of them"""


def agreement(driver: People, output: People, person: int = 0, track: int = 0) -> Agreement:
    """How `track` of the output agrees with `person` of the driver; for its null, give the driver `backwards`.

    Both must have the same number of frames; raises ValueError otherwise.
    """
    shown = body_of(output, track)
    wanted = expected(body_of(driver, person), shown)
    use_T = driver.present_PT[person] & output.present_PT[track]
    seen_T = right_joints(wanted, shown)[0] * use_T
    angles = limb_errors_deg(driver, output, person, track)
    return Agreement(
        pck(wanted, shown, use_T, 0.1), pck(wanted, shown, use_T, 0.2), float(angles.mean()) if len(angles) else float("nan"),
        int(seen_T.sum()), int((seen_T > 0).sum()),
    )  # fmt: skip


@dataclass(frozen=True)
class Mirroring:
    """Whether the output performs the driver or the driver's mirror image. Above zero the driver, below zero the mirror image; NaN where it
    can't be told."""

    margin_pck: float
    """PCK@0.2 against the driver less that against its mirror image, -1 to 1"""
    margin_deg: float
    """mean limb error against the mirror image less that against the driver, degrees -180 to 180"""
    margin_motion: float
    """correlation of motion (`generators.poses.curves.correlation`) with the driver less that with its mirror image, -2 to 2: tells where
    the poses themselves are symmetric"""
    apart_deg: float
    """mean limb angle between the driver and its own mirror image: what `margin_deg` is out of. Small for somebody who stands
    symmetrically towards the camera; there only the signs tell"""


def mirroring(driver: People, output: People, person: int = 0, track: int = 0) -> Mirroring:
    """`agreement` and correlation with the driver, less those with the driver's mirror image."""
    image = mirrored(driver)
    own, other = agreement(driver, output, person, track), agreement(image, output, person, track)
    apart = agreement(image, driver, person, person).limb_deg
    curves = curves_of(output, track)
    motion = [correlation(curves_of(people, person), curves) for people in (driver, image)]
    return Mirroring(own.pck20 - other.pck20, other.limb_deg - own.limb_deg, motion[0] - motion[1], apart)

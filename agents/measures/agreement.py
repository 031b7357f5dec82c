"""Does the synthetic person do what the real one did, joint by joint, with proportions and place taken out?

Each figure has a null: the same output against the motion played backwards (`backwards`). A figure that is no better than its null says
nothing, however good it looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from generators.poses.tracks import INDEX, Details, People
from generators.videos.puppet.numerics import running_median
from generators.videos.puppet.skeleton import pixels_per_metre

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

VISIBLE = 0.5
WITHIN = 0.1
"""of the torso's length; the threshold of PCK@0.1"""

PELVIS, NECK = "pelvis", "neck"
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
_MIDDLES = {PELVIS: ("left_hip", "right_hip"), NECK: ("left_shoulder", "right_shoulder")}


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
        sources = [INDEX[n] for n in _MIDDLES.get(name, (name,))]
        xy[name], seen[name] = xy_Tx33x2[:, sources].mean(1), seen_Tx33[:, sources].all(1)
    scale = running_median(pixels_per_metre(xy_Tx33x2, people.world_PT33x3[person].astype(np.float64)), 3)
    return Body(xy, seen, np.maximum(scale, 1e-3))


def expected(driver: Body, output: Body) -> Body:
    """Where the output's joints should be: the driver's directions and foreshortening on the output's own proportions.

    Placed so that the middles of the two torsos' corners coincide in every frame; each bone of the driver is scaled by the ratio of the
    two bodies' bone lengths. A bone's length is the 90th percentile over the frames of its length in the picture per metre of body, so
    that a walk towards the camera is no growth.
    Both must have the same number of frames; raises ValueError otherwise.
    """
    frames = len(output.scale_T)
    if len(driver.scale_T) != frames:
        raise ValueError(f"{len(driver.scale_T)} frames against {frames}")
    xy, seen = {PELVIS: np.zeros((frames, 2))}, {PELVIS: driver.seen[PELVIS]}
    zoom_T = output.scale_T / driver.scale_T
    for start, end in TREE:
        bone = driver.xy[end] - driver.xy[start]
        ratio = _length(output, start, end) / _length(driver, start, end)
        xy[end] = xy[start] + bone * (ratio * zoom_T)[:, None]
        seen[end] = driver.seen[end] & seen[start]
    place = np.mean([output.xy[corner] - xy[corner] for corner in TORSO], axis=0)
    return Body({name: points + place for name, points in xy.items()}, seen, output.scale_T)


def _length(body: Body, start: str, end: str) -> float:
    use = body.seen[start] & body.seen[end]
    lengths = np.linalg.norm(body.xy[end] - body.xy[start], axis=1) / body.scale_T
    return max(1e-6, float(np.percentile(lengths[use] if use.any() else lengths, 90)))


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

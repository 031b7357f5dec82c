"""How a person's bones swing over time, with place and size taken out: what matching, lag and likeness of motion are read from.

A bone is a vector in the picture in torso lengths, so that a limb that turns towards the camera moves too. Two people are compared by the
correlation of such curves: proportions change the size of a curve and not its course.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.tracks import INDEX, People

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

VISIBLE = 0.5
REACH_S = 0.05
"""half the time over which a speed is read: shorter is the tracker's jitter, longer blurs a gesture"""
PELVIS, NECK = "pelvis", "neck"
MIDDLES: dict[str, tuple[str, ...]] = {PELVIS: ("left_hip", "right_hip"), NECK: ("left_shoulder", "right_shoulder")}
BONES: tuple[tuple[str, str], ...] = (
    (PELVIS, NECK), (NECK, "nose"), ("right_shoulder", "left_shoulder"), ("right_hip", "left_hip"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """One person's bones over the frames."""

    bones_TB2: Doubles
    """vectors in the picture, torso lengths"""
    seen_TB: Bools
    """both ends visible, and the person present"""
    fps: float

    @property
    def frames(self) -> int:
        return len(self.bones_TB2)

    @property
    def reach(self) -> int:
        """Half the frames over which a speed is read."""
        return max(1, round(REACH_S * self.fps))

    def velocities(self) -> tuple[Doubles, Bools]:
        """Torso lengths per second (T, B, 2), and where they can be told: the bone is seen at both ends of the time and in its middle.
        The frames at the ends have none."""
        out, seen, r = np.zeros_like(self.bones_TB2), np.zeros_like(self.seen_TB), self.reach
        if self.frames > 2 * r:
            out[r:-r] = (self.bones_TB2[2 * r :] - self.bones_TB2[: -2 * r]) * (self.fps / (2 * r))
            seen[r:-r] = self.seen_TB[2 * r :] & self.seen_TB[: -2 * r] & self.seen_TB[r:-r]
        return out, seen


def curves_of(people: People, person: int = 0) -> Curves:
    """The bones of one person. The unit, the torso's length, is its 90th percentile over the frames in which the person is present: when
    it is least foreshortened."""
    xy_Tx33x2 = people.landmarks_PT33x3[person, :, :, :2].astype(np.float64)
    visible_Tx33 = (people.visibility_PT33[person] > VISIBLE) & people.present_PT[person][:, None]
    at, seen = {}, {}
    for name in {end for bone in BONES for end in bone}:
        sources = [INDEX[n] for n in MIDDLES.get(name, (name,))]
        at[name], seen[name] = xy_Tx33x2[:, sources].mean(1), visible_Tx33[:, sources].all(1)
    torso_T = np.linalg.norm(at[NECK] - at[PELVIS], axis=1)
    found = people.present_PT[person]
    torso = max(1.0, float(np.percentile(torso_T[found] if found.any() else torso_T, 90)))
    bones = np.stack([at[end] - at[start] for start, end in BONES], axis=1) / torso
    return Curves(bones, np.stack([seen[start] & seen[end] for start, end in BONES], axis=1), people.fps)


def correlation(first: Curves, second: Curves, late: int = 0) -> float:
    """How alike two motions are, -1 to 1, when the second is taken to be `late` frames behind the first; NaN where nothing is seen to
    move in both.

    The mean of two pooled correlations, of the bones around their mean over the frames and of the bones' velocities. Pooled: every bone
    and axis counts by how far it moves (the normalised cross-correlation of Lewis 1995, over bones and frames together). The first
    alone drifts with slow swings, the second alone with jitter.
    Both must have the same number of frames; raises ValueError otherwise.
    """
    if first.frames != second.frames:
        raise ValueError(f"{first.frames} frames against {second.frames}")
    a, b = _overlap(first.frames, late)
    both = (first.seen_TB[a] & second.seen_TB[b])[..., None]
    count = np.maximum(both.sum(0), 1)
    swings = [np.where(both, x - (x * both).sum(0) / count, 0.0) for x in (first.bones_TB2[a], second.bones_TB2[b])]
    (speed_a, told_a), (speed_b, told_b) = first.velocities(), second.velocities()
    told = (told_a[a] & told_b[b])[..., None]
    return float(np.mean([_cosine(swings[0], swings[1]), _cosine(np.where(told, speed_a[a], 0.0), np.where(told, speed_b[b], 0.0))]))


def _overlap(frames: int, late: int) -> tuple[slice, slice]:
    """The frames of both that show the same instant."""
    return slice(max(0, -late), frames - max(0, late)), slice(max(0, late), frames - max(0, -late))


def _cosine(a: Doubles, b: Doubles) -> float:
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-9 else float("nan")

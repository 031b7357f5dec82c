"""Does the synthetic person move like the real one? Directions and swings of limbs, so that proportions and place don't matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.curves import VISIBLE, Bools, Curves, Doubles, correlation, curves_of
from generators.poses.tracks import INDEX, People

LIMBS: tuple[tuple[str, str], ...] = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
MIN_LENGTH = 0.25
"""of the torso; a limb that points at the camera has no direction in the picture"""
STILL_SHARE = 0.6
"""of the driver's speed, below which the output may stand still beside it..."""
STILL_GAIN = 0.25
"""...and does if so little of the driver's velocity is found in it; what is left is the tracker's jitter"""
MOVING = 0.3
"""torso lengths per second from which a frame of the driver counts as moving"""
WINDOW_S = 0.25
"""over which the speed of a frame is taken"""


@dataclass(frozen=True)
class Following:
    """How well one person's motion follows another's in time. A level that fits says little about two people who both stand upright;
    what changes, changes with the driver or it doesn't."""

    correlation: float
    """of the bones' swings and velocities, -1 to 1 (`generators.poses.curves.correlation`); NaN where nothing moves in both"""
    null: float
    """the same against the driver's motion played backwards"""
    speed: float
    """of the driver: root mean square over bones and frames, torso lengths per second; 0 when nothing is seen in both"""
    energy_ratio: float
    """the output's speed over the driver's, over the same bones and frames, 0 upwards; 1 is as lively, NaN when the driver doesn't move"""
    still_frames: int
    """longest run of frames in which the driver moves (`MOVING`) and the output stands still (`STILL_SHARE`, `STILL_GAIN`)"""
    moving_frames: int
    """frames in which the driver moves, of those where it can be told"""


def following(driver: People, output: People, person: int = 0, track: int = 0) -> Following:
    """How `track` of the output follows `person` of the driver. Both must have the same number of frames; raises ValueError otherwise."""
    if driver.frames != output.frames:
        raise ValueError(f"{driver.frames} frames against {output.frames}")
    a, b = curves_of(driver, person), curves_of(output, track)
    pace = _pace(a, b)
    energy_a, energy_b = (float(e[pace.told_T].mean()) if pace.told_T.any() else 0.0 for e in (pace.driver_T, pace.output_T))
    moving_T = pace.told_T & (pace.driver_T >= MOVING**2)
    still_T = moving_T & (pace.output_T < STILL_SHARE**2 * pace.driver_T) & (pace.shared_T < STILL_GAIN * pace.driver_T)
    backwards = Curves(a.bones_TB2[::-1], a.seen_TB[::-1], a.fps)
    return Following(
        correlation(a, b), correlation(backwards, b), energy_a**0.5, (energy_b / energy_a) ** 0.5 if energy_a > 1e-9 else float("nan"),
        longest_run(still_T), int(moving_T.sum()),
    )  # fmt: skip


@dataclass(frozen=True)
class _Pace:
    """Mean over the bones seen in both and over `WINDOW_S`, at every frame (T,), (torso lengths per second)²."""

    driver_T: Doubles
    """squared velocity"""
    output_T: Doubles
    shared_T: Doubles
    """product of the two velocities; over `driver_T` it is the gain with which the output follows (least squares)"""
    told_T: Bools


def _pace(a: Curves, b: Curves) -> _Pace:
    """The first and last frames have no velocity of their own: theirs is their neighbours'."""
    (va, seen_a), (vb, seen_b) = a.velocities(), b.velocities()
    both = seen_a & seen_b
    window = np.ones(min(max(1, round(WINDOW_S * a.fps)) // 2 * 2 + 1, a.frames))
    count = np.convolve(both.sum(1).astype(np.float64), window, "same")

    def mean(product_TB: Doubles) -> Doubles:
        return np.asarray(np.convolve((product_TB * both).sum(1), window, "same") / np.maximum(count, 1))

    return _Pace(mean((va**2).sum(2)), mean((vb**2).sum(2)), mean((va * vb).sum(2)), count > 0)


def longest_run(flags_T: Bools) -> int:
    """Length of the longest run of set flags."""
    best = now = 0
    for flag in flags_T.tolist():
        now = now + 1 if flag else 0
        best = max(best, now)
    return best


def limb_errors_deg(a: People, b: People, person_a: int = 0, person_b: int = 0) -> npt.NDArray[np.float64]:
    """Angles between the two people's 2D limb directions, degrees 0 to 180, over all frames and limbs visible in both (flat array).

    Both must have the same number of frames; raises ValueError otherwise.
    """
    if a.frames != b.frames:
        raise ValueError(f"{a.frames} frames against {b.frames}")
    first, second = [INDEX[j] for j, _ in LIMBS], [INDEX[j] for _, j in LIMBS]
    directions, good = [], np.ones((a.frames, len(LIMBS)), bool)
    for people, p in ((a, person_a), (b, person_b)):
        xy = people.landmarks_PT33x3[p, :, :, :2].astype(np.float64)
        vector = xy[:, second] - xy[:, first]
        shoulders = xy[:, [INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(1)
        hips = xy[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1)
        torso = np.linalg.norm(shoulders - hips, axis=1)[:, None] + 1e-6
        length = np.linalg.norm(vector, axis=2)
        seen = people.visibility_PT33[p]
        good &= (length > MIN_LENGTH * torso) & (seen[:, first] > VISIBLE) & (seen[:, second] > VISIBLE) & people.present_PT[p][:, None]
        directions.append(vector / (length[..., None] + 1e-9))
    cosine = np.clip((directions[0] * directions[1]).sum(2), -1, 1)
    angles: npt.NDArray[np.float64] = np.degrees(np.arccos(cosine))[good]
    return angles


def limb_error_deg(a: People, b: People, person_a: int = 0, person_b: int = 0) -> float:
    """Median of `limb_errors_deg`; 180 when no limb is visible in both."""
    errors = limb_errors_deg(a, b, person_a, person_b)
    return float(np.median(errors)) if len(errors) else 180.0

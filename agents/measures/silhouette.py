"""Does a person's mask cover the person, and are all arms and legs there? Joints are the witness: they come from another head of the
network than the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from agents.measures.agreement import Body, body_of, expected
from agents.measures.motion import longest_run
from generators.poses.curves import VISIBLE, Bools
from generators.poses.tracks import BODY, INDEX, Bytes, People

JOINTS = [INDEX[name] for name in BODY]
SOLID = 127

CHAINS: dict[str, tuple[str, str, str]] = {
    f"{side}_{limb}": (f"{side}_{a}", f"{side}_{b}", f"{side}_{c}")
    for side in ("left", "right")
    for limb, (a, b, c) in (("arm", ("shoulder", "elbow", "wrist")), ("leg", ("hip", "knee", "ankle")))
}
TRUNK = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, chain) for name, chain in CHAINS.items()},
    **{name.replace("arm", "forearm").replace("leg", "shank"): (name, chain[1:]) for name, chain in CHAINS.items()},
}
"""What is looked for: whole limbs, and their outer halves, each of which is less than half of a limb when it is gone. Limb and joints."""
RADII = {"arm": 0.09, "forearm": 0.09, "leg": 0.11, "shank": 0.11}
"""half the thickness of a limb's core, torso lengths"""
ROUND_ABOUT = 1.6
"""how much thicker other limbs are taken to be, so that nothing of them counts as this one"""
TRUNK_RADIUS, HEAD_RADIUS = 0.14, 0.25
ROOT = 0.35
"""share of the upper arm or thigh that belongs to the trunk; so much of a forearm or shank is left to the joint above it"""
FREE = 0.25
"""share of a limb's core that must lie clear of the rest of the body to be told from it"""
GONE = 0.5
"""of the driver's cover, below which a limb is missing from a frame"""
SUBPIXEL = 4


@dataclass(frozen=True)
class Limb:
    """An arm or a leg that the driver shows, or its outer half. Medians are over the frames in which it can be told: the driver sees all
    its joints, and in both videos a good part of it should lie clear of trunk, head and other limbs."""

    name: str
    """of `PARTS`: side and kind, e.g. `left_arm`"""
    cover: float
    """median share of its free core, where it should be in the output, that lies on the output's mask, 0 to 1"""
    driver_cover: float
    """the same of the driver on its own mask: what a mask like that shows of such a limb"""
    gap: float
    """median distance of its two outer joints from where they should be, torso lengths; 0 upwards"""
    frames: int
    """in which it can be told"""
    gone_frames: int
    """longest run of those in which its cover is less than half (`GONE`) the driver's"""

    @property
    def shown(self) -> float:
        """Cover over the driver's, at most 1: 0 for a limb that is not there."""
        return min(1.0, self.cover / max(self.driver_cover, 1e-6))


def joints_on_mask(people: People, person: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per frame, how many of the 13 body joints are visible inside the picture, and how many of those lie on the mask. Shapes (T,)."""
    height, width = people.size_hw
    visible, covered = np.zeros(people.frames, np.int64), np.zeros(people.frames, np.int64)
    for t in np.flatnonzero(people.present_PT[person]):
        xy = np.round(people.landmarks_PT33x3[person, t, JOINTS, :2]).astype(int)
        inside = (people.visibility_PT33[person, t, JOINTS] > VISIBLE) & (xy >= 0).all(1) & (xy < [width, height]).all(1)
        visible[t] = inside.sum()
        covered[t] = (people.masks_PTHW[person, t][xy[inside, 1], xy[inside, 0]] > SOLID).sum()
    return visible, covered


def mask_joints(people: People, person: int = 0) -> float:
    """Share of visible joints that lie on the mask, over all frames, 0 to 1; 0 when no joint is visible."""
    visible, covered = joints_on_mask(people, person)
    return float(covered.sum() / visible.sum()) if visible.sum() else 0.0


def limbs(driver: People, output: People, person: int = 0, track: int = 0) -> tuple[Limb, ...]:
    """The parts of limbs that the driver shows, as they are in `track` of the output; those that can't be told in any frame are left out.

    A pose model puts an erased limb where it might be, or folds it onto the body. So each limb is looked for where the driver's
    motion on the output's proportions has it (`agreement.expected`), as a chain of capsules, and only beside the rest of the body.
    Both must have the same number of frames; raises ValueError otherwise.
    """
    real, shown = body_of(driver, person), body_of(output, track)
    wanted = expected(real, shown, symmetric=True)
    told: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PARTS}
    for t in np.flatnonzero(driver.present_PT[person] & output.present_PT[track]):
        visible = [name for name, (_, chain) in PARTS.items() if all(real.seen[joint][t] for joint in chain)]
        own = _covers(real, real.torso_px, int(t), driver.masks_PTHW[person, t], visible)
        found = _covers(wanted, shown.torso_px, int(t), output.masks_PTHW[track, t], list(own))
        for name, cover in found.items():
            gaps = [np.linalg.norm(wanted.xy[joint][t] - shown.xy[joint][t]) for joint in CHAINS[PARTS[name][0]][1:]]
            told[name].append((cover, own[name], float(np.mean(gaps)) / shown.torso_px))
    return tuple(_limb(name, np.array(rows)) for name, rows in told.items() if rows)


def _limb(name: str, rows_Nx3: npt.NDArray[np.float64]) -> Limb:
    cover, own, gap = (float(v) for v in np.median(rows_Nx3, axis=0))
    return Limb(name, cover, own, gap, len(rows_Nx3), longest_run(rows_Nx3[:, 0] < GONE * rows_Nx3[:, 1]))


def _covers(body: Body, torso_px: float, t: int, mask_HW: Bytes, names: list[str]) -> dict[str, float]:
    """Share of the free core of each named limb that lies on the mask."""
    return {name: float((mask_HW[free] > SOLID).mean()) for name, free in free_cores(body, torso_px, t, mask_HW.shape, names).items()}


def free_cores(body: Body, torso_px: float, t: int, size_hw: tuple[int, ...], names: Sequence[str]) -> dict[str, Bools]:
    """The inner part (H, W) of each named part of a limb that lies clear of the rest of the body, for those of which enough does."""
    if not names:
        return {}
    rest = {limb: drawn(body, t, chain, ROUND_ABOUT * RADII[limb.split("_")[1]] * torso_px, size_hw) for limb, chain in CHAINS.items()}
    middle = drawn(body, t, ("neck", "nose"), HEAD_RADIUS * torso_px, size_hw)
    middle |= drawn(body, t, (*TRUNK, TRUNK[0]), TRUNK_RADIUS * torso_px, size_hw)
    cv2.fillConvexPoly(middle, cv2.convexHull(_fixed([body.xy[joint][t] for joint in TRUNK])), 1, cv2.LINE_8, SUBPIXEL)
    out = {}
    for name in names:
        limb, chain = PARTS[name]
        core = drawn(body, t, chain, RADII[name.split("_")[1]] * torso_px, size_hw, ROOT)
        free = (core & ~np.bitwise_or.reduce([middle, *(area for other, area in rest.items() if other != limb)])) > 0
        if free.sum() > FREE * core.sum():
            out[name] = free
    return out


def drawn(body: Body, t: int, joints: tuple[str, ...], radius_px: float, size_hw: tuple[int, ...], skip: float = 0.0) -> Bytes:
    """A chain of capsules, 1 inside; the first `skip` of its first bone is left out."""
    points = [body.xy[joint][t] for joint in joints]
    points[0] = points[0] + skip * (points[1] - points[0])
    out = np.zeros(size_hw, np.uint8)
    cv2.polylines(out, [_fixed(points)], False, 1, max(1, round(2 * radius_px)), cv2.LINE_8, SUBPIXEL)
    return out


def _fixed(points: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.int32]:
    """In OpenCV's fixed-point pixels; far outside points are brought near, where its integers hold."""
    return np.asarray(np.round(np.clip(np.array(points), -4000, 12000) * (1 << SUBPIXEL)), np.int32)

"""How well the characters of a gallery can play a real person: measured for thousands at once, with no brain and no pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from agents.measures import appearance
from generators.poses.tracks import INDEX
from manifests.records import Candidate, Figure

Floats = npt.NDArray[np.float64]
Degrees = TypeVar("Degrees", float, npt.NDArray[np.float64])

FRAMING_RANK = {"close": 0, "half": 1, "full": 2}
YAW_SUITS_DEG = 60.0
"""a character turned further from the person suits less: too much of what the clip shows would have to be invented"""
JOINTS_SUIT = 0.8
"""share of the person's visible joints that a suitable character shows"""
SCALE_SUITS = 0.5
"""a character half as tall as the person, in pixels, would be enlarged twice; smaller ones suit less"""
IDENTITY_MARGIN = 1.5
"""times the smallest allowed identity gap: the index sees a clip small, so what is just far enough there may be too close later"""
SUITS, USABLE, REFUSED = 0, 1, 2
"""tiers: suits by every measure; can be used; the selector would refuse it"""


@dataclass(frozen=True)
class Roster:
    """Character pictures as arrays, in the order they were given."""

    framing_N: npt.NDArray[np.int8]
    yaw_deg_N: Floats
    joints_N: npt.NDArray[np.uint64]
    """visible joints, a bit each"""
    stature_px_N: Floats
    appearance_Nx12: Floats

    @classmethod
    def of(cls, characters: Sequence[Candidate]) -> Roster:
        """Every candidate must be a character."""
        people = [c.person for c in characters if c.person is not None]
        assert len(people) == len(characters), "only characters have a person"
        return cls(
            framing_N=np.array([FRAMING_RANK[p.framing] for p in people], np.int8),
            yaw_deg_N=np.array([p.yaw_deg for p in people], np.float64),
            joints_N=np.array([joint_bits(p.visible_joints) for p in people], np.uint64),
            stature_px_N=np.array([c.stature_px for c in characters], np.float64),
            appearance_Nx12=appearance.table([c.appearance for c in characters]),
        )


@dataclass(frozen=True)
class Fits:
    """How each picture of a roster suits one person."""

    joints_N: Floats
    """share of the person's visible joints that the character shows, 0 to 1"""
    framing_N: npt.NDArray[np.bool_]
    """the character shows at least as much of the body"""
    yaw_gap_deg_N: Floats
    """0 to 180"""
    identity_gap_N: Floats
    """colour difference, see agents/measures/appearance.py; NaN: can't be told"""
    scale_N: Floats
    """pixels of the character per pixel of the person, head to foot; below 1 it would be enlarged; NaN: not known"""


def measure(figure: Figure, roster: Roster) -> Fits:
    """Measure every picture against one person."""
    wanted = np.uint64(joint_bits(figure.visible_joints))
    known = (roster.stature_px_N > 0) & (figure.stature_px > 0)
    return Fits(
        joints_N=np.bitwise_count(roster.joints_N & wanted) / max(1, int(np.bitwise_count(wanted))),
        framing_N=roster.framing_N >= FRAMING_RANK[figure.framing],
        yaw_gap_deg_N=yaw_gap_deg(roster.yaw_deg_N, figure.yaw_deg),
        identity_gap_N=appearance.distances(figure.appearance, roster.appearance_Nx12),
        scale_N=np.where(known, roster.stature_px_N / max(figure.stature_px, 1e-9), np.nan),
    )


def tiers(fits: Fits, identity_gap_min: float, yaw_max_deg: float) -> npt.NDArray[np.uint8]:
    """SUITS, USABLE or REFUSED for every picture, N. What is not known speaks against nobody."""
    with np.errstate(invalid="ignore"):
        poor = (fits.joints_N < JOINTS_SUIT) | ~fits.framing_N | (fits.yaw_gap_deg_N > YAW_SUITS_DEG)
        poor |= (fits.scale_N < SCALE_SUITS) | (fits.identity_gap_N < IDENTITY_MARGIN * identity_gap_min)
        refused = (fits.yaw_gap_deg_N > yaw_max_deg) | (fits.identity_gap_N < identity_gap_min)
    return np.where(refused, REFUSED, np.where(poor, USABLE, SUITS)).astype(np.uint8)


def yaw_gap_deg(a_deg: Degrees, b_deg: float) -> Degrees:
    """Distance of two angles on the circle, 0 to 180."""
    return abs((a_deg - b_deg + 180) % 360 - 180)


def joint_bits(names: Iterable[str]) -> int:
    """Landmarks as a number with a bit for each."""
    return sum(1 << INDEX[name] for name in set(names))

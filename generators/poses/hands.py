"""One hand of one tracked person through a video: the body's wrist says where to look, the hand network what is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.following import LOOK_S, follow
from generators.poses.networks import Hand, HandNet, Region, upwards
from generators.poses.tracks import Bytes, Floats

Doubles = npt.NDArray[np.float64]

LEFT, RIGHT = 0, 1
WRIST, PINKY, INDEX_FINGER = (15, 16), (17, 18), (19, 20)
HAND_OF_HEIGHT = 0.108
"""length of a hand over the height of its body (Drillis & Contini 1966)"""
SMALLEST_PX = 16.0
"""hands shorter than this are not looked at: the network then sees fingers where there are none"""
PRESENT = 0.5
SEEN = 0.3
"""the wrist's visibility from which looking for its hand is worth the time"""
REGION = 1.6
"""side of the first region over the hand's length"""
WRIST_APART = 0.8
"""hand lengths between the hand's own wrist and the body's from which it is somebody else's hand"""
SPAN = (0.25, 1.7)
"""how long and wide a hand may look, over its length"""


@dataclass(frozen=True)
class Arm:
    """What the body model says of one arm, all in pixels."""

    side: int
    """LEFT or RIGHT"""
    wrist_T2: Doubles
    knuckles_T2: Doubles
    """where the middle finger begins"""
    visible_T: npt.NDArray[np.bool_]
    """the wrist can be seen and lies in the picture"""
    hand_T: Doubles
    """how long the hand is in life, at the picture's scale"""

    @staticmethod
    def of(landmarks_T33x3: Floats, visibility_T33: Floats, present_T: npt.NDArray[np.bool_], tall_T: Doubles, side: int,
           size_hw: tuple[int, int]) -> Arm:  # fmt: skip
        """`tall_T`: the standing body's height in pixels, see summary.standing_height."""
        xy = landmarks_T33x3[..., :2].astype(np.float64)
        wrist = xy[:, WRIST[side]]
        inside = (wrist >= 0).all(axis=1) & (wrist[:, 0] < size_hw[1]) & (wrist[:, 1] < size_hw[0])
        seen = present_T & inside & (visibility_T33[:, WRIST[side]] >= SEEN)
        knuckles = (2 * xy[:, INDEX_FINGER[side]] + xy[:, PINKY[side]]) / 3  # the holistic graph's guess at the middle finger
        return Arm(side, wrist, knuckles, np.asarray(seen), HAND_OF_HEIGHT * tall_T)

    def region(self, t: int) -> Region:
        """Around the hand, fingers up."""
        along = self.knuckles_T2[t] - self.wrist_T2[t]
        along /= max(float(np.linalg.norm(along)), 1e-6)
        return Region(self.wrist_T2[t] + 0.5 * self.hand_T[t] * along, REGION * float(self.hand_T[t]), upwards(along))


def hand_through(net: HandNet, frames_THWC: Bytes, arm: Arm, fps: float) -> dict[int, Hand]:
    """The hand in the frames in which it is seen and hangs on its arm."""

    def checked(t: int, region: Region) -> Hand | None:
        hand = net.read(frames_THWC[t], region)
        return hand if hand.presence >= PRESENT and fits(hand, arm, t) else None

    def look(t: int) -> Hand | None:
        if not _worth_looking(arm, t):
            return None
        first = net.read(frames_THWC[t], arm.region(t))
        return checked(t, first.region) if first.presence >= PRESENT / 2 else None

    def again(t: int, hand: Hand, since: int) -> Hand | None:
        if not _worth_looking(arm, t):
            return None
        known = hand.region
        return checked(t, Region(known.centre + arm.wrist_T2[t] - arm.wrist_T2[since], known.side, known.angle_rad))

    return follow(len(frames_THWC), max(1, round(LOOK_S * fps)), look, again)


def fits(hand: Hand, arm: Arm, t: int) -> bool:
    """It begins at the arm's wrist and is about as large as this body's hand."""
    xy, length = hand.points_21x3[:, :2], float(arm.hand_T[t])
    span = float(np.linalg.norm(xy.max(axis=0) - xy.min(axis=0)))
    near = float(np.linalg.norm(xy[0] - arm.wrist_T2[t])) <= WRIST_APART * length
    return near and SPAN[0] * length <= span <= SPAN[1] * length


def apart(hands: tuple[dict[int, Hand], dict[int, Hand]], arms: tuple[Arm, Arm]) -> tuple[dict[int, Hand], dict[int, Hand]]:
    """Both hands of a person without frames in which one of them is really the other one: where both lie on the same spot, the side
    stays that fits better: nearer to its wrist, and of the handedness that the network sees."""
    left, right = dict(hands[LEFT]), dict(hands[RIGHT])
    for t in sorted(left.keys() & right.keys()):
        gap = np.linalg.norm(left[t].points_21x3[:, :2] - right[t].points_21x3[:, :2], axis=1).mean()
        if gap < 0.35 * arms[LEFT].hand_T[t]:
            del (right if _cost(left[t], arms[LEFT], t) <= _cost(right[t], arms[RIGHT], t) else left)[t]
    for own, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        mine = (left, right)[own]
        for t in [t for t, hand in mine.items() if _is_other(hand, arms[own], arms[other], t)]:
            del mine[t]
    return left, right


def _worth_looking(arm: Arm, t: int) -> bool:
    return bool(arm.visible_T[t]) and float(arm.hand_T[t]) >= SMALLEST_PX


def _cost(hand: Hand, arm: Arm, t: int) -> float:
    own = hand.left if arm.side == LEFT else 1 - hand.left
    return float(np.linalg.norm(hand.points_21x3[0, :2] - arm.wrist_T2[t])) / float(arm.hand_T[t]) + 0.5 * (1 - own)


def _is_other(hand: Hand, arm: Arm, other: Arm, t: int) -> bool:
    """It begins nearer to the other wrist, and the network is sure that it is the other hand."""
    own = hand.left if arm.side == LEFT else 1 - hand.left
    mine, theirs = (float(np.linalg.norm(hand.points_21x3[0, :2] - a.wrist_T2[t])) for a in (arm, other))
    return theirs < mine and own < 0.3

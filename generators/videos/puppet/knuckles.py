"""Where hands point: the hand network sees the knuckles, the body model only guesses at them."""

from __future__ import annotations

import numpy as np

from generators.poses.tracks import INDEX, People
from generators.videos.puppet.numerics import Array, savitzky_golay

_SIDES = ("left", "right")
_KNUCKLES = (("index", 5), ("pinky", 17))
"""the body's landmark, and the hand's point that it stands for"""
_FADE_S = 0.2


def landmarks_of(people: People, track: int) -> Array:
    """The person's landmarks (T, 33, 2) in pixels, with the knuckles of the hands where these were read.

    They hang on the body's wrists, and fade over to the body's own guess where a hand comes or goes. Without details: the body's.
    """
    landmarks = people.landmarks_PT33x3[track, ..., :2].astype(float)
    if people.details is None:
        return landmarks
    window = 2 * max(1, round(_FADE_S * people.fps / 2)) + 1
    for side, name in enumerate(_SIDES):
        hand_Tx21x2 = people.details.hands_PT2x21x3[track, :, side, :, :2].astype(float)
        seen = (people.details.hand_seen_PT2[track, :, side] > 0).astype(float)
        share = np.minimum(seen, np.clip(savitzky_golay(seen, window, 1), 0, 1))[:, None]
        wrist = landmarks[:, INDEX[f"{name}_wrist"]]
        for finger, point in _KNUCKLES:
            at = INDEX[f"{name}_{finger}"]
            read = wrist + hand_Tx21x2[:, point] - hand_Tx21x2[:, 0]
            landmarks[:, at] = landmarks[:, at] * (1 - share) + read * share
    return landmarks

"""Is the video technically sound beside the clip it was made from: does it move when the clip moves, is it lit, is it sharp?

Number, size and rate of the frames, and what the decoder says, come from `manifests.media.inspect`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from agents.measures.frames import Bools, Bytes, Floats, checked_alike
from manifests import soundness

FINE_PX, COARSE_PX = 1.0, 3.0
"""Gaussian scales between which a picture's fine structure is told from its coarse one"""
SAMPLED = 9
"""frames that sharpness and contrast are read from"""
PIXELS_LEAST = 200


@dataclass(frozen=True)
class Stillness:
    """Frames that show nothing new. Shares are of the steps between frames, 0 to 1; runs are in steps."""

    share: float
    run: int
    """longest run of still steps"""
    clip_share: float
    held_share: float
    """of the steps in which the clip moves, those in which the video stands; 0 where the clip never moves"""
    held_run: int
    """longest run of steps in which the video stands, of those in which the clip moves"""


@dataclass(frozen=True)
class Darkness:
    """Frames whose mean luma is under 16 of 255: share (0 to 1) and longest run."""

    share: float
    run: int
    clip_share: float


@dataclass(frozen=True)
class Clarity:
    """Sharpness and contrast of a region, and of the clip's; medians over nine frames. NaN where the region is too small."""

    sharpness: float
    """energy of what is finer than 1 px over that between 1 and 3 px (square roots), 0 and up; a clean picture has 0.3 to 1"""
    sharpness_ratio: float
    """over the clip's"""
    contrast: float
    """levels between the 5th and the 95th percentile of luma, 0 to 255"""
    contrast_ratio: float


def stillness(frames_THWC: Bytes, clip_THWC: Bytes) -> Stillness:
    """Where the video stands still, by itself and while the clip moves. Frozen frames with coding noise or grain count as still.

    Raises ValueError when the two differ in frames or size.
    """
    checked_alike(frames_THWC, clip_THWC)
    still, clip_still = still_steps(frames_THWC), still_steps(clip_THWC)
    moving = ~clip_still
    held = still & moving
    return Stillness(
        float(still.sum() / max(1, len(still))), soundness.longest_run(still), float(clip_still.sum() / max(1, len(still))),
        float(held.sum() / max(1, moving.sum())), soundness.longest_run(still[moving]),
    )  # fmt: skip


def still_steps(frames_THWC: Bytes) -> Bools:
    """For each frame but the first, whether it shows the same as the one before (T - 1,)."""
    thumbs = [soundness.thumbnail(frame) for frame in frames_THWC]
    return np.array([soundness.show_the_same(a, b) for a, b in itertools.pairwise(thumbs)], bool)


def darkness(frames_THWC: Bytes, clip_THWC: Bytes) -> Darkness:
    """Black frames. The clip may have its own number of frames."""
    black, clip_black = (np.array([soundness.is_black(soundness.thumbnail(f)) for f in v], bool) for v in (frames_THWC, clip_THWC))
    return Darkness(float(black.mean()), soundness.longest_run(black), float(clip_black.mean()))


def clarity(frames_THWC: Bytes, where_THW: Bools, clip_THWC: Bytes, clip_where_THW: Bools) -> Clarity:
    """Sharpness and contrast of the video's region against the clip's; whole pictures, or the people of each.

    Raises ValueError when masks do not fit their frames.
    """
    checked_alike(frames_THWC, where_THW)
    checked_alike(clip_THWC, clip_where_THW)
    own, real = _clarity(frames_THWC, where_THW), _clarity(clip_THWC, clip_where_THW)
    return Clarity(own[0], own[0] / max(real[0], 1e-3), own[1], own[1] / max(real[1], 1.0))


def _clarity(frames_THWC: Bytes, where_THW: Bools) -> tuple[float, float]:
    found: list[tuple[float, float]] = []
    for t in np.unique(np.linspace(0, len(frames_THWC) - 1, SAMPLED).astype(int)):
        luma, where = _luma(frames_THWC[t]), where_THW[t]
        if np.count_nonzero(where) < PIXELS_LEAST:
            continue
        fine = cv2.GaussianBlur(luma, (0, 0), FINE_PX)
        coarse = cv2.GaussianBlur(luma, (0, 0), COARSE_PX)
        energy = [float(np.mean((a - b)[where] ** 2)) for a, b in ((luma, fine), (fine, coarse))]
        low, high = np.percentile(luma[where], (5, 95))
        found.append((float(np.sqrt(energy[0] / max(energy[1], 1e-3))), float(high - low)))
    if not found:
        return float("nan"), float("nan")
    sharp, contrast = np.median(np.array(found), axis=0)
    return float(sharp), float(contrast)


def _luma(frame_HWC: Bytes) -> Floats:
    return np.asarray(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY), np.float32)

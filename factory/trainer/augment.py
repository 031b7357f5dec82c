"""Driving augmentation: driving video and driving mask are moved and stretched together, so that size and build are read off the reference
and only the motion off the driving video. The target never moves. Imports numpy and OpenCV only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from factory.trainer.draws import Draws
from manifests import masks
from manifests.records import Task

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """How often and how far. Probabilities: SCAIL-2's published figures."""

    end_to_end: float = 0.56
    """probability for a driving video of a person"""
    pose: float = 0.75
    """probability for a pose rendering"""
    replacement: bool = False
    """whether replacement pairs are moved too: their driving scene is to be kept, and the target's would no longer lie where it does.
    Latents that come with an augmented driving video of a replacement pair are used as they come"""
    scale: float = 1.25
    """the size changes by a factor between 1 / this and this"""
    stretch: float = 1.12
    """width over height changes by a factor between 1 / this and this"""
    shift: float = 0.08
    """of the picture's width and height, at most"""


@dataclass(frozen=True)
class Warp:
    """One drawn augmentation, for all frames of a video."""

    scale: float
    stretch: float
    shift: tuple[float, float]
    """of the picture's width and height"""

    def matrix(self, anchor: tuple[float, float], width: int, height: int) -> NDArray[np.float64]:
        """2×3, from source to result in pixels; the anchor (x, y) moves by the shift alone."""
        x, y = anchor
        along, down = self.scale * self.stretch**0.5, self.scale / self.stretch**0.5
        return np.array([[along, 0, x * (1 - along) + self.shift[0] * width], [0, down, y * (1 - down) + self.shift[1] * height]])


def movable(task: str, how: Augmentation) -> bool:
    """Whether pairs of this task are moved at all."""
    return task != "replacement" or how.replacement


def applies(draws: Draws, task: Task, how: Augmentation) -> bool:
    """Whether the augmented driving video is taken in this epoch, where there is one."""
    return draws.chance("augment", how.pose if task == "pose" else how.end_to_end)


def drawn(draws: Draws, how: Augmentation) -> Warp:
    """The sample's warp in this epoch; factors are uniform in their logarithm."""
    scale, stretch, right, down = (float(2 * u - 1) for u in draws.uniform("warp", 4))
    return Warp(how.scale**scale, how.stretch**stretch, (right * how.shift, down * how.shift))


def warped(driving_THWC: Frames, mask_THWC: Frames, task: Task, warp: Warp) -> tuple[Frames, Frames]:
    """Driving video and mask, both moved by the warp about the middle of the people's box.

    What comes in from outside is the video's border repeated (black for a pose rendering) and the mask's background. The mask keeps to its
    palette.
    """
    height, width = driving_THWC.shape[1:3]
    matrix = warp.matrix(_middle(mask_THWC, task), width, height)
    border = cv2.BORDER_CONSTANT if task == "pose" else cv2.BORDER_REPLICATE
    ground = masks.background(task, "driving")
    moved = [cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border) for frame in driving_THWC]
    coloured = [
        cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=ground)
        for frame in mask_THWC
    ]
    return np.asarray(moved, np.uint8), np.asarray(coloured, np.uint8)


def _middle(mask_THWC: Frames, task: Task) -> tuple[float, float]:
    """Of the box around everybody in any frame (x, y); of the picture when nobody is there."""
    people_HW = (mask_THWC != np.array(masks.background(task, "driving"), np.uint8)).any((0, 3))
    if not people_HW.any():
        return mask_THWC.shape[2] / 2, mask_THWC.shape[1] / 2
    rows, columns = np.flatnonzero(people_HW.any(1)), np.flatnonzero(people_HW.any(0))
    return (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2

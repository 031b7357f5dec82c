"""What a replacement paints anew: masks that are white where the model works, and the clip with black there."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from generators.poses.tracks import Bools, Bytes
from manifests.masks import THRESHOLD

DILATE_PX, DILATE_TIMES = 7, 3
"""Wan-Animate's own: a square kernel of 7 pixels, applied three times, which adds 9 pixels all round"""


def silhouettes(masks_PTHW: Bytes) -> Bools:
    """Where any of the people is: T×H×W."""
    return np.asarray((masks_PTHW >= THRESHOLD).any(axis=0))


def to_regenerate(
    inside_THW: Bools, across: int = 1, down: int = 1, dilate_px: int = DILATE_PX, times: int = DILATE_TIMES, keep_THW: Bools | None = None
) -> Bools:
    """True where the model paints: the silhouette, dilated, then filled up to whole blocks of its bounding box.

    The box is cut into `across` × `down` blocks, and each block that the silhouette touches is taken whole (1 × 1: the box itself), so
    that the mask does not give away the outline of whoever is to go. `keep_THW` (other people) is taken out again. Frames without a
    silhouette stay empty.
    """
    if across < 1 or down < 1 or dilate_px < 1 or times < 0:
        raise ValueError(f"blocks {across}×{down}, {dilate_px} px {times} times; all must be at least 1 (times: 0)")
    kernel = np.ones((dilate_px, dilate_px), np.uint8)
    out = np.zeros(inside_THW.shape, np.bool_)
    for t, inside in enumerate(inside_THW):
        if inside.any():
            grown = cv2.dilate(inside.astype(np.uint8), kernel, iterations=times) if times else inside.astype(np.uint8)
            out[t] = _blocked(np.asarray(grown, np.bool_), across, down)
    return out if keep_THW is None else out & ~keep_THW


def _blocked(inside_HW: Bools, across: int, down: int) -> Bools:
    rows, columns = np.flatnonzero(inside_HW.any(axis=1)), np.flatnonzero(inside_HW.any(axis=0))
    y_edges = np.linspace(rows[0], rows[-1] + 1, down + 1).round().astype(int)
    x_edges = np.linspace(columns[0], columns[-1] + 1, across + 1).round().astype(int)
    out = np.zeros_like(inside_HW)
    for y0, y1 in itertools.pairwise(y_edges):
        for x0, x1 in itertools.pairwise(x_edges):
            out[y0:y1, x0:x1] = inside_HW[y0:y1, x0:x1].any()
    return out


def background(frames_THWC: Bytes, regenerate_THW: Bools) -> Bytes:
    """The clip, black where the model paints."""
    out = frames_THWC.copy()
    out[regenerate_THW] = 0
    return out


def as_mask_video(regenerate_THW: Bools) -> Bytes:
    """T×H×W×3: white where the model paints, black where the clip stays."""
    out = np.zeros((*regenerate_THW.shape, 3), np.uint8)
    out[regenerate_THW] = 255
    return out


def first_frame_mask(inside_THW: Bools) -> Bytes:
    """H×W×3 for models that follow one mask: white is the character to replace, in the clip's first frame. Empty when they come later."""
    return np.asarray(as_mask_video(inside_THW[:1])[0], np.uint8)

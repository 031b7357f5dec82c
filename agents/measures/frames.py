"""What the pixel measures share: frames and masks at a reduced size. They look at scenes and light, not at pores."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def reduced(frames_THWC: Bytes, side_px: int) -> Bytes:
    """The frames scaled down by area so that the longest side is at most `side_px`."""
    height, width = frames_THWC.shape[1:3]
    scale = min(1.0, side_px / max(height, width))
    if scale == 1:
        return frames_THWC
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames_THWC])


def reduced_masks(masks_THW: Bools, size_hw: tuple[int, int]) -> Bools:
    """Masks at another size: whatever is touched by a mask belongs to it."""
    if masks_THW.shape[1:] == size_hw:
        return masks_THW
    size = size_hw[1], size_hw[0]
    return np.stack([cv2.resize(m.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 8 for m in masks_THW])


def grown(mask_HW: Bools, radius_px: float) -> Bools:
    """The mask and all within `radius_px` of it."""
    if radius_px <= 0 or not mask_HW.any():
        return mask_HW
    return np.asarray(cv2.distanceTransform((~mask_HW).astype(np.uint8), cv2.DIST_L2, 3) <= radius_px)


def checked_alike(frames_THWC: Bytes, *others: Array) -> None:
    """Raise ValueError unless all have the same number and size of frames."""
    for other in others:
        if other.shape[:3] != frames_THWC.shape[:3]:
            raise ValueError(
                f"got frames of {frames_THWC.shape[:3]} against {other.shape[:3]} (T, H, W); bring both to the pair's geometry"
            )

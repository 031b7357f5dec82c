"""Single pictures as models want them: of one size, turned like another, within an area."""

from __future__ import annotations

from math import sqrt

import cv2
import numpy as np

from manifests.media import Image


def fitted_size(size_hw: tuple[int, int], box_hw: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same proportions inside the box, at least 1×1."""
    scale = min(box_hw[0] / size_hw[0], box_hw[1] / size_hw[1])
    return max(1, min(box_hw[0], round(size_hw[0] * scale))), max(1, min(box_hw[1], round(size_hw[1] * scale)))


def letterboxed(image_HWC: Image, height: int, width: int, fill: int = 0) -> Image:
    """The whole picture, scaled into the middle of height × width, with bars of `fill` where its proportions differ."""
    h, w = fitted_size(image_HWC.shape[:2], (height, width))
    out = np.full((height, width, image_HWC.shape[2]), fill, np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = resized(image_HWC, h, w)
    return out


def framed(image_HWC: Image, height: int, width: int, edges: bool = True) -> Image:
    """The whole picture in the middle of height × width, beyond it its edges repeated, or black.

    What a model paints at this size covers the pair's geometry again when it is scaled and cropped out of the middle, as
    `media.conform` does it: nothing of the picture is lost, and nothing is stretched.
    """
    h, w = fitted_size(image_HWC.shape[:2], (height, width))
    top, left = (height - h) // 2, (width - w) // 2
    border = cv2.BORDER_REPLICATE if edges else cv2.BORDER_CONSTANT
    small = resized(image_HWC, h, w)
    return np.asarray(cv2.copyMakeBorder(small, top, height - h - top, left, width - w - left, border), np.uint8)


def oriented(size_hw: tuple[int, int], like_hw: tuple[int, int]) -> tuple[int, int]:
    """A size turned the way `like_hw` stands: upright, or lying on its side. Squares turn nothing."""
    long, short = max(size_hw), min(size_hw)
    if like_hw[0] == like_hw[1]:
        return size_hw
    return (long, short) if like_hw[0] > like_hw[1] else (short, long)


def within_area(image_HWC: Image, pixels: int, multiple: int = 1) -> Image:
    """The picture scaled down, never up, until it has at most `pixels`; sides are multiples of `multiple` (rounded down)."""
    h, w = image_HWC.shape[:2]
    scale = min(1.0, sqrt(pixels / (h * w)))
    height, width = (max(multiple, int(side * scale + 1e-6) // multiple * multiple) for side in (h, w))
    return resized(image_HWC, height, width)


def resized(image_HWC: Image, height: int, width: int) -> Image:
    """By area when shrinking (no aliasing), cubic when growing."""
    if image_HWC.shape[:2] == (height, width):
        return image_HWC
    shrinks = height <= image_HWC.shape[0] and width <= image_HWC.shape[1]
    return np.asarray(cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8)

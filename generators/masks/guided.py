"""The guided filter with a colour guide: a soft mask that follows the picture's edges (He, Sun & Tang, "Guided Image Filtering", 2013;
the coefficients are found on a small picture and used on a large one as in He & Sun, "Fast Guided Filter", 2015).

Colour planes are separate arrays, because box filters and sums run several times faster over them than over interleaved ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from generators.poses.tracks import Bytes, Floats

PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


COARSE_RADIUS = 4
"""windows at least this large are looked into on a grid of half the size: a quarter of the work"""


def planes(rgb_HWC: Bytes) -> list[Floats]:
    """Red, green and blue, 0 to 1."""
    return [plane * np.float32(1 / 255) for plane in cv2.split(rgb_HWC)]


def coefficients(guide_3HW: Sequence[Floats], mask_HW: Floats, radius: int, epsilon: float) -> list[Floats]:
    """Four planes a, a, a, b: mask ≈ a · colour + b in every window, averaged over the windows that hold a pixel. Values 0 to 1."""
    if radius < COARSE_RADIUS:
        return _coefficients(guide_3HW, mask_HW, radius, epsilon)
    height, width = mask_HW.shape
    *guide, mask = (_resized(plane, -(-height // 2), -(-width // 2)) for plane in (*guide_3HW, mask_HW))
    return [_resized(plane, height, width) for plane in _coefficients(guide, mask, round(radius / 2), epsilon)]


def _resized(plane_HW: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(plane_HW, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _coefficients(guide_3HW: Sequence[Floats], mask_HW: Floats, radius: int, epsilon: float) -> list[Floats]:
    side = (2 * radius + 1, 2 * radius + 1)

    def mean(plane_HW: Floats) -> Floats:
        return np.asarray(cv2.blur(plane_HW, side), np.float32)

    colour, p = [mean(c) for c in guide_3HW], mean(mask_HW)
    right = [mean(guide_3HW[i] * mask_HW) - colour[i] * p for i in range(3)]
    matrix = [mean(guide_3HW[i] * guide_3HW[j]) - colour[i] * colour[j] for i, j in PAIRS]
    for k in (0, 3, 5):
        matrix[k] += np.float32(epsilon)
    a = _solved(matrix, right)
    b = p - a[0] * colour[0] - a[1] * colour[1] - a[2] * colour[2]
    return [mean(plane) for plane in (*a, b)]


def _solved(upper: list[Floats], right: list[Floats]) -> list[Floats]:
    """x of the symmetric 3×3 system at every pixel, by Cramer's rule; `upper` holds the upper triangle."""
    rr, rg, rb, gg, gb, bb = upper
    i_rr, i_rg, i_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    i_gg, i_gb, i_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    scale = 1 / (i_rr * rr + i_rg * rg + i_rb * rb)
    r, g, b = (v * scale for v in right)
    rows = ((i_rr, i_rg, i_rb), (i_rg, i_gg, i_gb), (i_rb, i_gb, i_bb))
    return [np.asarray(x * r + y * g + z * b, np.float32) for x, y, z in rows]


def applied(coefficients_4HW: Sequence[Floats], guide_3HW: Sequence[Floats]) -> Floats:
    """The mask that the coefficients give on a guide of their size."""
    c = coefficients_4HW
    return np.asarray(c[0] * guide_3HW[0] + c[1] * guide_3HW[1] + c[2] * guide_3HW[2] + c[3], np.float32)


def applied_at(coefficients_4HW: Sequence[Floats], rgb_HWC: Bytes, rows_N: np.ndarray, columns_N: np.ndarray, step: int) -> Floats:
    """The mask at some pixels of a picture `step` times as large as the coefficients."""
    x, y = ((n.astype(np.float32) + np.float32(0.5)) / np.float32(step) - np.float32(0.5) for n in (columns_N, rows_N))
    # OpenCV maps at most 32,766 rows, so the points are laid out in lines of 1,024 (the last one filled up).
    x, y = (np.resize(n, (-(-len(n) // 1024), 1024)) for n in (x, y))
    c = [cv2.remap(p, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()[: len(rows_N)] for p in coefficients_4HW]
    colour = rgb_HWC[rows_N, columns_N].astype(np.float32) * np.float32(1 / 255)
    return np.asarray(c[0] * colour[:, 0] + c[1] * colour[:, 1] + c[2] * colour[:, 2] + c[3], np.float32)

"""What goes with people beyond their silhouettes: the things they carry and the shadows they cast, found by comparison with the scene."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from generators.videos.plate.camera import Array

_REACH = 0.16
"""hats, hair and bags are looked for so far around a silhouette, in its heights"""
SHADE_REACH = 0.36
"""shadows so far"""
_CHANGED = 16
"""levels by which what belongs to a person differs from the scene, at least"""
_UNSTEADY = 8
"""so many levels more where the camera moves"""
_SHADE = (4.0, 0.04)
"""a shadow is darker by so many levels and by such a share of the scene, at least"""
_DEEPEST = 0.35
"""no soft shadow leaves less than this share of the light"""
_MOST = 0.8
"""what goes with people, and their shadows, cover less than this share of their grown silhouettes"""
_SMALL_SIDE = 200
"""shadows are looked for, and distances measured, at about so many pixels a side"""
_TINT = 0.10
"""a shadow's channels darken alike to within this share"""


@dataclass(frozen=True)
class Backdrop:
    """The scene as a frame should show it, prepared for comparison with frames."""

    known_HW: Array
    """bool: where it can be compared"""
    soft_HWC: Array
    slack_HW: Array
    """levels that edges may differ by, because nothing lies still to a fraction of a pixel"""
    small_hwC: Array
    """float32, reduced `shrink` times"""
    shrink: int


def backdrop_of(image_HWC: Array, known_HW: Array, steady: bool) -> Backdrop:
    """image_HWC: RGB, uint8; known_HW: bool. steady: the camera stands."""
    shrink = max(1, round(max(known_HW.shape) / _SMALL_SIDE))
    edge = cv2.morphologyEx(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    slack = np.asarray(edge // 3 + np.uint8(_CHANGED + (0 if steady else _UNSTEADY)))
    return Backdrop(known_HW, cv2.blur(image_HWC, (3, 3)), slack, _small(image_HWC, shrink), shrink)


def belongings(frame_HWC: Array, backdrop: Backdrop, core_HW: Array, others_HW: Array, height_px: float) -> Array:
    """Things and shadows beyond the grown silhouettes `core`, none of them of `others` (all H, W, bool)."""
    shrink = backdrop.shrink
    free = backdrop.known_HW & ~core_HW & ~others_HW
    away = cv2.distanceTransform((~_any(core_HW, shrink)).astype(np.uint8), cv2.DIST_L2, 3) * shrink
    thing = np.zeros_like(core_HW)
    at = box_around(core_HW, round(_REACH * height_px) + 6)
    within = _enlarged(away <= _REACH * height_px, shrink, core_HW.shape)
    thing[at] = _things(frame_HWC[at], backdrop.soft_HWC[at], backdrop.slack_HW[at], core_HW[at], free[at] & within[at])
    small_core, small_free = (_sparse(m, shrink) for m in (core_HW | thing, free & ~thing))
    shade = _shade(_small(frame_HWC, shrink), backdrop.small_hwC, small_core, small_free & (away <= SHADE_REACH * height_px))
    out, most = np.zeros_like(core_HW), _MOST * np.count_nonzero(core_HW)
    grown = cv2.dilate(thing[at].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if np.count_nonzero(grown) < most:  # more than that is a scene that changes
        out[at] = grown
    cast = _enlarged(shade, shrink, core_HW.shape) & ~core_HW & ~thing
    if np.count_nonzero(cast) < most:
        out |= cast
    return np.asarray(out & ~others_HW)


def box_around(mask_HW: Array, margin: int) -> tuple[slice, slice]:
    """The bounding box of a mask, grown and cut off at the picture's edge."""
    x, y, w, h = cv2.boundingRect(mask_HW.astype(np.uint8))
    return slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin)


def _small(image_HWC: Array, shrink: int) -> Array:
    """Reduced, softened, float32 and above 0. What does not fill a whole pixel at the lower and right edge is left out."""
    h, w = (max(1, n // shrink) for n in image_HWC.shape[:2])
    small = cv2.resize(image_HWC[: h * shrink, : w * shrink], (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(small, (3, 3)).astype(np.float32) + 1)


def _sparse(mask_HW: Array, shrink: int) -> Array:
    h, w = (max(1, n // shrink) for n in mask_HW.shape)
    return mask_HW[shrink // 2 :: shrink, shrink // 2 :: shrink][:h, :w]


def _any(mask_HW: Array, shrink: int) -> Array:
    h, w = (max(1, n // shrink) for n in mask_HW.shape)
    grown = cv2.dilate(mask_HW.astype(np.uint8), np.ones((shrink, shrink), np.uint8)) > 0
    return grown[shrink // 2 :: shrink, shrink // 2 :: shrink][:h, :w]


def _enlarged(mask_hw: Array, shrink: int, size_hw: tuple[int, ...]) -> Array:
    h, w = mask_hw.shape
    large = cv2.resize(mask_hw.astype(np.uint8), (w * shrink, h * shrink), interpolation=cv2.INTER_NEAREST)
    below, right = size_hw[0] - h * shrink, size_hw[1] - w * shrink
    return np.asarray(cv2.copyMakeBorder(large, 0, below, 0, right, cv2.BORDER_REPLICATE) > 0)


def _touching(spots: Array, core: Array) -> Array:
    """Connected pieces of `spots` that reach the core."""
    _, labels = cv2.connectedComponents((spots | core).astype(np.uint8), connectivity=8)
    keep = np.zeros(int(labels.max()) + 1, bool)
    keep[labels[core]] = True
    keep[0] = False
    found: Array = keep[labels] & spots
    return found


def _things(frame: Array, soft: Array, slack: Array, core: Array, free: Array) -> Array:
    """What differs from the scene and hangs together with the silhouettes (H, W, bool). free: where a comparison means something."""
    r, g, b = cv2.split(cv2.absdiff(cv2.blur(frame, (3, 3)), soft))
    changed = (cv2.max(cv2.max(r, g), b) > slack) & free
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return _touching(closed & free, core)


def _shade(frame: Array, ground: Array, core: Array, free: Array) -> Array:
    """Where the frame is evenly darker than the scene, next to the silhouettes (h, w, bool). At reduced size: shadows are soft."""
    r, g, b = cv2.split(frame / ground)
    mean = (r + g + b) / 3
    alike = cv2.max(cv2.max(r, g), b) - cv2.min(cv2.min(r, g), b) < 2 * _TINT
    level = cv2.cvtColor(ground, cv2.COLOR_RGB2GRAY)
    darker = (level * (1 - mean) > _SHADE[0]) & (mean < 1 - _SHADE[1]) & (mean > _DEEPEST) & alike
    opened = cv2.morphologyEx((darker & free).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return np.asarray(cv2.dilate(_touching(opened, core).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)

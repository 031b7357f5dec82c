"""The rim of a cut-out: how much of each pixel is the character's, and which colour that part has."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from generators.videos.plate import fill_from
from manifests.media import Image

Floats = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]

TELL_APART = 12.0
"""distance in RGB between character and background from which a pixel's colour says more than the outline"""
NOISE = 30.0
"""distance in RGB from the line between both colours from which a pixel is of neither"""
SURE = 0.97


def refined(image_HWC: Image, outline_HW: Floats, reach_px: float) -> tuple[Floats, Floats, float]:
    """Coverage (0 to 1), colour (0 to 255, without the background's share) and how clearly the rim stands off (0 to 1).

    `outline_HW` is a coverage that may be wrong by up to `reach_px`. Inside that band a pixel is taken for a mixture of the nearest
    sure colours of both sides, and its coverage is its place on the line between them (Chuang and others 2001, with one colour a
    side); where the two are alike, the outline decides.
    """
    solid = (outline_HW > 0.5).astype(np.uint8)
    reach = max(1, round(reach_px))
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    inner = cv2.erode(solid, round_) > 0
    wider = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 3, 2 * reach + 3))
    thin = (solid > 0) & (cv2.dilate(inner.astype(np.uint8), wider) == 0)  # fingers have no inside: all of them is all that is known
    outer = cv2.dilate(solid, round_) == 0
    if not inner.any() or not outer.any():
        return outline_HW, image_HWC.astype(np.float32), 1.0
    pixels = image_HWC.astype(np.float32)
    body, behind = _nearby(pixels, inner | thin, reach), _nearby(pixels, outer, reach)
    line = body - behind
    apart_sq = (line * line).sum(2)
    share = np.clip(((pixels - behind) * line).sum(2) / np.maximum(apart_sq, 1e-3), 0, 1)
    off_sq = ((pixels - behind - share[..., None] * line) ** 2).sum(2)
    trust = apart_sq / (apart_sq + TELL_APART**2) * (NOISE**2 / (NOISE**2 + off_sq))
    drawn = cv2.GaussianBlur(outline_HW.astype(np.float32), (0, 0), 0.6)
    band = ~inner & ~outer
    alpha = np.where(band, drawn + (share - drawn) * trust, inner).astype(np.float32)
    clear = float((apart_sq[band] > (2 * TELL_APART) ** 2).mean()) if band.any() else 1.0
    return alpha, unmixed(pixels, alpha, body, behind), clear


def unmixed(pixels_HWC: Floats, alpha_HW: Floats, body_HWC: Floats, behind_HWC: Floats) -> Floats:
    """The character's own colour in mixed pixels: what is left when the background's share is taken out, held near the body's colour."""
    alpha = alpha_HW[..., None]
    left = (pixels_HWC - (1 - alpha) * behind_HWC) / np.maximum(alpha, 0.05)
    most = 24 + 230 * np.clip((alpha - 0.6) / 0.35, 0, 1)
    held = body_HWC + np.clip(left - body_HWC, -most, most)
    # The less of a pixel is the character's, the less can be read from it.
    own = body_HWC + (held - body_HWC) * np.clip((alpha - 0.3) / 0.6, 0, 1)
    return np.where(alpha > SURE, pixels_HWC, np.clip(own, 0, 255)).astype(np.float32)


def spread(image_HWC: Image, alpha_HW: Floats) -> Floats:
    """The colours of a picture that came with its coverage, pulled out over the rim and beyond; nothing of its background is known."""
    sure = cv2.erode((alpha_HW > SURE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not sure.any():
        return image_HWC.astype(np.float32)
    body = _nearby(image_HWC.astype(np.float32), sure, 1)
    keep = np.clip((alpha_HW[..., None] - 0.5) / 0.45, 0, 1)
    return np.asarray(body + (image_HWC - body) * keep, np.float32)


def _nearby(pixels_HWC: Floats, known_HW: Region, reach: int) -> Floats:
    """The known colours around every pixel: their weighted mean, or far from all of them the nearest one."""
    known = known_HW.astype(np.float32)
    weight = cv2.GaussianBlur(known, (0, 0), 1.0 * reach)[..., None]
    mean = cv2.GaussianBlur(pixels_HWC * known[..., None], (0, 0), 1.0 * reach) / np.maximum(weight, 1e-6)
    return np.where(weight > 1e-3, mean, fill_from(pixels_HWC, known_HW)).astype(np.float32)

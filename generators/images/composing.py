"""The light and ground work of a collage: colours that fit, shadows, backgrounds that reach the picture's edge."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from generators.images.matte import FEET, CutOut, Floats
from manifests.media import Image

FLOOR_SHARE = 0.76
"""height in a scene picture at which the floor can be counted on"""
ZOOM_MAX = 2.4
SIDE_LEAST, SIDE_FULL = 6.0, 14.0
"""difference in lightness between a scene's right and left from which light has a side, and how much more makes it certain"""
GREYS = (232, 150, 66)


def to_lab(image_HWC: npt.NDArray[np.uint8] | Floats) -> Floats:
    """CIE Lab (L 0 to 100) of RGB 0 to 255."""
    return np.asarray(cv2.cvtColor(np.asarray(image_HWC, np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def from_lab(lab_HWC: Floats) -> Image:
    """uint8 RGB of CIE Lab."""
    return np.clip(np.round(cv2.cvtColor(lab_HWC, cv2.COLOR_LAB2RGB) * 255), 0, 255).astype(np.uint8)


def moments(lab_HWC: Floats, where_HW: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and spread of the chosen pixels."""
    pixels = lab_HWC[where_HW].astype(np.float64)
    return pixels.mean(0).astype(np.float32), (pixels.std(0) + 1e-3).astype(np.float32)


@dataclass(frozen=True)
class Light:
    """What a picture tells of its light."""

    lightness: float
    """L, 0 to 100: of what is there, drawn towards the bright, because lamps and skies say more than dark things"""
    tint: Floats
    """a and b of the same"""
    spread: float
    """of L"""
    side: float
    """-1: it comes from the left, 1: from the right, 0: can't be told"""


def light_of(image_HWC: Image, where_HW: Floats | None = None) -> Light:
    """Of the pixels weighted by `where_HW` (0 to 1; None: all), by the shades-of-grey norm (Finlayson and Trezzi 2004, p = 6)."""
    small = cv2.resize(image_HWC, (96, 96), interpolation=cv2.INTER_AREA).astype(np.float32)
    weight = np.ones((96, 96), np.float32) if where_HW is None else cv2.resize(where_HW, (96, 96), interpolation=cv2.INTER_AREA)
    share = (weight / max(float(weight.sum()), 1e-6))[..., None]
    norm = ((small**6) * share).sum((0, 1)) ** (1 / 6)
    middle = to_lab(((norm + (small * share).sum((0, 1))) / 2)[None, None])[0, 0]
    lab = to_lab(small)
    mean = float((lab[..., 0] * share[..., 0]).sum())
    spread = float(np.sqrt(((lab[..., 0] - mean) ** 2 * share[..., 0]).sum()))
    upper = lab[:64, :, 0]
    slope = float(upper[:, 64:].mean() - upper[:, :32].mean())
    side = float(np.sign(slope) * np.clip((abs(slope) - SIDE_LEAST) / SIDE_FULL, 0, 1))
    return Light(float(middle[0]), middle[1:], spread, side)


def matched(image_HWC: Image, alpha_HW: Floats, before: Light, after: Light, strength: float) -> Image:
    """The character's colours moved from the light that it was taken in towards the light of the scene, only in part.

    Lightness and tint move by `strength` of the difference (at most 11 of 100, and 9), contrast by 12 % at most. What the light was is
    read half from the character and half from what was around it: a dark coat is no dark room.
    """
    lab = to_lab(image_HWC)
    mean, spread = moments(lab, alpha_HW > 0.5)
    lift = np.clip(strength * (after.lightness - (before.lightness + float(mean[0])) / 2), -11, 11)
    tint = np.clip(strength * (after.tint - before.tint), -9, 9)
    gain = float(np.clip(1 + strength * (after.spread / (0.5 * before.spread + 0.5 * float(spread[0]) + 1) - 1), 0.88, 1.12))
    light = (lab[..., 0] - mean[0]) * gain + mean[0]
    # Black and white stay where they are: light adds little to the one and can't to the other.
    light = light + lift * np.clip(4 * light / 100 * (1 - light / 100), 0.25, 1)
    return from_lab(np.dstack([np.clip(light, 0, 100), lab[..., 1:] + tint]).astype(np.float32))


def scene_window(scene_HWC: Image, height: int, width: int, ground_y: float | None, seed: int) -> Image:
    """The scene cut to the picture's size so that `ground_y` falls on its floor; which part, and whether mirrored, is the seed's."""
    rows, columns = scene_HWC.shape[:2]
    tall = min(float(rows), columns * height / width)
    if ground_y is None:
        top = (rows - tall) / 2
    else:
        below = max(0.02, 1 - ground_y / height)
        tall = max(min(tall, rows * (1 - FLOOR_SHARE) / below), tall / ZOOM_MAX)
        top = min(max(0.0, FLOOR_SHARE * rows - tall * ground_y / height), rows - tall)
    wide = tall * width / height
    rng = np.random.default_rng([seed, 11])
    left = (columns - wide) * float(rng.uniform(0.25, 0.75))
    m = np.array([[width / wide, 0, -left * width / wide], [0, height / tall, -top * height / tall]])
    source = scene_HWC if height >= tall else cv2.GaussianBlur(scene_HWC, (0, 0), 0.45 * tall / height)
    out = np.asarray(cv2.warpAffine(source, m, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return np.ascontiguousarray(out[:, ::-1]) if rng.random() < 0.5 else out


def extended(background_HWC: Image, scale: float, left: float, top: float, height: int, width: int) -> tuple[Image, float]:
    """The character's own background laid under it, its edges continued and blurred; and the share that had to be invented."""
    m = np.array([[scale, 0, left], [0, scale, top]])
    source = background_HWC if scale >= 1 else cv2.GaussianBlur(background_HWC, (0, 0), 0.45 / scale)
    rows, columns = background_HWC.shape[:2]
    pad_x = int(max(left, width - left - columns * scale, 0) / scale) + 2
    wide = cv2.copyMakeBorder(source, 0, 0, pad_x, pad_x, cv2.BORDER_REFLECT_101 if pad_x < columns else cv2.BORDER_REPLICATE)
    shift = m.copy()
    shift[0, 2] -= pad_x * scale
    laid = cv2.warpAffine(wide, shift, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = cv2.warpAffine(np.ones((rows, columns), np.float32), m, (width, height)) > 0.5
    away = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 5)[..., None] / (0.12 * max(height, width))
    out = laid.astype(np.float32)
    for sigma, where in ((0.006, 0.1), (0.02, 0.5), (0.045, 1.0)):
        soft = cv2.GaussianBlur(laid, (0, 0), max(0.8, sigma * max(height, width))).astype(np.float32)
        share = np.clip(away / where, 0, 1)
        out = out * (1 - share) + soft * share
    return np.clip(np.round(out), 0, 255).astype(np.uint8), float(1 - known.mean())


def shaded(scene_HWC: Image, cover_HW: Floats, feet_33x2: Floats, metre_px: float, strength: float, side: float) -> Image:
    """The scene with the figure's shadow: dark under each foot, a soft pool around both, and faintly the figure itself on the floor.

    `cover_HW` is the figure's coverage in the picture; `side` the one that the light comes from.
    """
    height, width = scene_HWC.shape[:2]
    dark = np.zeros((height, width), np.float32)
    pairs = (FEET[:2], FEET[2:])
    spots = [(feet_33x2[list(pair)].mean(0), float(feet_33x2[list(pair), 1].max())) for pair in pairs]
    ground = max(y for _, y in spots)
    for at, low in spots:
        lifted = np.clip(1 - (ground - low) / (0.25 * metre_px), 0, 1)
        dark = np.maximum(dark, lifted * _disc(dark.shape, (float(at[0]), low), 0.14 * metre_px, 0.030 * metre_px, 0.022 * metre_px))
    middle = float(np.mean([at[0] for at, _ in spots])) - 0.10 * side * metre_px
    pool = _disc(dark.shape, (middle, ground - 0.01 * metre_px), 0.36 * metre_px, 0.065 * metre_px, 0.07 * metre_px)
    cast = _cast(cover_HW, ground, metre_px, side)
    shade = 1 - strength * np.clip(0.9 * dark + 0.45 * pool + (0.30 + 0.20 * abs(side)) * cast, 0, 1)
    return np.asarray(np.round(scene_HWC * shade[..., None]), np.uint8)


def _cast(cover_HW: Floats, ground: float, metre_px: float, side: float) -> Floats:
    """The figure laid on the floor, away from the light, softer and fainter the farther it is from the feet."""
    flat, lean = 0.14, 0.55 * side
    # y' = ground - flat (ground - y), x' = x - lean (ground - y)
    m = np.array([[1, lean, -lean * ground], [0, flat, ground * (1 - flat)]])
    height, width = cover_HW.shape
    laid = cv2.warpAffine(cover_HW, m, (width, height), flags=cv2.INTER_AREA, borderValue=0)
    far = np.clip((ground - np.arange(height, dtype=np.float32)[:, None]) / (flat * metre_px), 0, None)
    near = cv2.GaussianBlur(laid, (0, 0), sigmaX=max(0.6, 0.03 * metre_px), sigmaY=max(0.6, 0.012 * metre_px))
    soft = cv2.GaussianBlur(laid, (0, 0), sigmaX=max(0.8, 0.10 * metre_px), sigmaY=max(0.8, 0.03 * metre_px))
    blend = np.clip(far / 0.8, 0, 1)
    return np.asarray((near * (1 - blend) + soft * blend) * np.exp(-far / 0.8), np.float32)


def _disc(shape: tuple[int, ...], centre: tuple[float, float], across: float, deep: float, blur: float) -> Floats:
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    inside = ((xs - centre[0]) / max(across, 1)) ** 2 + ((ys - centre[1]) / max(deep, 1)) ** 2 <= 1
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(0.6, blur)), np.float32)


def neutral(cut: CutOut, height: int, width: int) -> Image:
    """A plain grey that stands off from the character's rim."""
    rim = (cut.alpha_HW > 0.9) & (cv2.erode((cut.alpha_HW > 0.9).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0)
    pixels = cut.image_HWC[rim].astype(np.float32)
    distance = [float(np.percentile(np.linalg.norm(pixels - grey, axis=1), 10)) if len(pixels) else 0.0 for grey in GREYS]
    return np.full((height, width, 3), GREYS[int(np.argmax(distance))], np.uint8)

"""Makes a character's colours, contrast and grain those of the scene it is put into."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.videos.puppet.layers import Layer
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.render import Character

_SHIFT_MOST = np.array([22.0, 6.0, 6.0])
"""Lab levels (8 bit) by which colours may move at most: a character keeps its looks"""
_TINT_SHARE = 0.6
_GRAIN_LEAST, _GRAIN_MOST = 0.8, 6.0
_TILE = 256


@dataclass(frozen=True)
class Look:
    """How a place looks: 8 bit Lab."""

    mean_3: Array
    black: float
    """lightness of its darkest hundredth"""
    white: float


def look_of(image_HWC: Array, where_HW: Array) -> Look | None:
    """The look of some pixels (bool); None when they are too few to tell."""
    pixels = image_HWC[where_HW]
    if len(pixels) < 300:
        return None
    lab = cv2.cvtColor(np.ascontiguousarray(pixels[:: max(1, len(pixels) // 20000)])[None], cv2.COLOR_RGB2LAB)[0].astype(np.float32)
    return Look(lab.mean(0), float(np.percentile(lab[:, 0], 1)), float(np.percentile(lab[:, 0], 99)))


def look_near(frames_THWC: Array, masks_THW: Array) -> Look | None:
    """The look of what surrounds a person, over five frames; masks are soft silhouettes (0 to 255)."""
    there = np.flatnonzero(masks_THW.any((1, 2)))
    pixels, weights = [], []
    for t in there[np.unique(np.linspace(0, len(there) - 1, 5).astype(int))] if len(there) else ():
        x, y, w, h = cv2.boundingRect((masks_THW[t] > 60).astype(np.uint8))
        margin = round(0.3 * max(w, h))
        at = (slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin))
        pixels.append(frames_THWC[t][at].reshape(-1, 3))
        weights.append(masks_THW[t][at].ravel() < 30)
    return look_of(np.concatenate(pixels)[None], np.concatenate(weights)[None]) if pixels else None


def graded(character: Character, scene: Look | None, strength: float) -> Character:
    """The character moved part of the way (0 to 1) from the look of its own picture to the scene's.

    Its mean follows the surroundings' mean (a darker, warmer place makes it darker and warmer), and no part of it stays blacker than
    the scene's black or brighter than its white.
    """
    own = look_of(character.figure.image_HWC, character.figure.mask_HW < 30)
    if scene is None or own is None or strength == 0:
        return character
    wanted = (scene.mean_3 - own.mean_3) * strength * [1, _TINT_SHARE, _TINT_SHARE]
    shift = np.clip(wanted, -_SHIFT_MOST, _SHIFT_MOST)
    low, high = strength * min(scene.black, 60.0), 255 - strength * min(255 - scene.white, 60.0)
    body = look_of(character.figure.image_HWC, character.figure.mask_HW > 200)
    gain = 1.0 if body is None else float(np.clip(1 + shift[0] / max(body.mean_3[0], 40.0), 0.7, 1.4))  # a gain, so that black stays black
    layers = {name: _moved(layer, gain, shift[1:].astype(np.float32), low, high) for name, layer in character.layers.items()}
    return replace(character, layers=layers)


def _moved(layer: Layer, gain: float, tint_2: Array, low: float, high: float) -> Layer:
    alpha = layer.texture_HWx4[..., 3:] / 255
    rgb = np.clip(layer.texture_HWx4[..., :3] / np.maximum(alpha, 1e-3), 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 1:] += tint_2
    lab[..., 0] = low + np.clip(gain * lab[..., 0], 0, 255) * ((high - low) / 255)
    moved = cv2.cvtColor(np.clip(np.round(lab), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
    return replace(layer, texture_HWx4=np.round(np.dstack([moved * alpha, layer.texture_HWx4[..., 3]])).astype(np.uint8))


class Grain:
    """Noise as strong as the clip's, another one in every frame, the same in every run."""

    def __init__(self, level: float, height: int, width: int) -> None:
        self.on = level >= _GRAIN_LEAST
        noise = np.random.default_rng(0).normal(0, min(level, _GRAIN_MOST), (_TILE, _TILE))
        repeats = (-(-(height + _TILE) // _TILE), -(-(width + _TILE) // _TILE))
        self._sheet = np.tile(np.round(noise).astype(np.int16), repeats)
        self._size = height, width

    def at(self, frame: int) -> Array | None:
        """(H, W, int16) for a frame; None where the clip has next to no noise."""
        if not self.on:
            return None
        y, x = (frame * 89) % _TILE, (frame * 151) % _TILE
        return self._sheet[y : y + self._size[0], x : x + self._size[1]]

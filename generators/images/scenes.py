"""Plain places drawn by code: backdrops that a character can stand in."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def scene(seed: int, height: int, width: int) -> Image:
    """A studio, an open field at dusk or a tiled room, uint8 (H, W, 3) RGB; the same seed always gives the same bytes."""
    rng = np.random.default_rng([seed, 3])
    draw = (studio_scene, dusk, room)[seed % 3]
    place = draw(rng, height, width) + rng.normal(0, 1.2, (height, width, 1))
    return np.clip(np.round(place), 0, 255).astype(np.uint8)


def _mix(a: Floats | tuple[float, ...], b: Floats | tuple[float, ...], t: Floats) -> Floats:
    """Colour a where t is 0, b where it is 1; t (H, W) or (H, 1)."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.asarray(first + (second - first) * t[..., None], np.float32)


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Pixel positions from 0 to 1, y (H, 1) and x (1, W)."""
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / height
    x = (np.arange(width, dtype=np.float32) + 0.5)[None] / width
    return y.astype(np.float32), x.astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int, octaves: int = 5) -> Floats:
    """Smooth noise, mean 0, about ±1."""
    total = np.zeros((height, width), np.float32)
    for i in range(octaves):
        cells = rng.normal(0, 1, (3 * 2**i, 4 * 2**i)).astype(np.float32)
        total += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.55**i)
    return total / 1.6


def _vignette(height: int, width: int, strength: float) -> Floats:
    y, x = _grid(height, width)
    return np.asarray(1 - strength * np.clip((x - 0.5) ** 2 + (y - 0.45) ** 2, 0, 0.6) * 2, np.float32)


def studio(rng: np.random.Generator, height: int, width: int, floor: float = 0.8) -> Floats:
    """A paper backdrop rolled over a floor: soft grading, a faint line at `floor` (share of the height)."""
    tint = rng.uniform(-12, 12, 3).astype(np.float32)
    level = float(rng.uniform(120, 190))
    y, x = _grid(height, width)
    wall = level + 26 * (1 - 3 * (x - 0.45) ** 2 - 1.4 * (y - 0.35) ** 2)
    ground = level * 0.80 + 30 * (y - floor) + 10 * (1 - 3 * (x - 0.5) ** 2)
    t = np.clip((y - floor) / 0.05 + 0.5, 0, 1)
    t = t * t * (3 - 2 * t)
    grey = (wall + (ground - wall) * t) * _vignette(height, width, 0.30)
    return np.asarray(grey[..., None] + tint, np.float32)


def studio_scene(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The studio with a coloured paper."""
    hue = rng.uniform(0.86, 1.10, 3).astype(np.float32)
    return np.asarray(studio(rng, height, width, float(rng.uniform(0.66, 0.76))) * hue, np.float32)


def dusk(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A sky at sunset over hills and an open field."""
    y, x = _grid(height, width)
    horizon = float(rng.uniform(0.50, 0.58))
    sun = (float(rng.uniform(0.2, 0.8)), horizon - 0.05)
    high, low = (84.0, 108.0, 158.0), (250.0, 186.0, 126.0)
    sky = _mix(high, low, np.broadcast_to(np.clip(y / horizon, 0, 1) ** 1.6, (height, width)))
    far = np.sqrt((x - sun[0]) ** 2 + (y - sun[1]) ** 2)
    sky += np.exp(-far / 0.10)[..., None] * np.array([70, 50, 20], np.float32)
    sky += (np.clip(_clouds(rng, height, width), 0, 2) * np.clip(1 - y / horizon, 0, 1))[..., None] * np.array([40, 26, 22], np.float32)
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    ground = _mix((142, 126, 84), (84, 96, 54), np.broadcast_to(depth, (height, width)))
    grain = cv2.resize(
        rng.normal(0, 1, (height // 2, max(2, width // 6))).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    ground += (grain * (2 + 9 * depth) + 7 * _clouds(rng, height, width))[..., None]
    for level, tint in ((0.05, (146.0, 118.0, 122.0)), (0.025, (96.0, 92.0, 84.0))):
        ridge = horizon - level * (0.7 + 0.5 * _ridge(rng, width))
        sky = _mix(sky, tint, np.clip((y - ridge[None]) * height + 0.5, 0, 1))
    edge = np.clip((y - horizon) * height / 2 + 0.5, 0, 1)
    return _mix(sky, ground, np.broadcast_to(edge, (height, width))) * _vignette(height, width, 0.2)[..., None]


def _ridge(rng: np.random.Generator, width: int) -> Floats:
    x = np.arange(width, dtype=np.float32) / width
    return np.asarray(sum(np.sin(2 * np.pi * (f * x + rng.uniform())) / f for f in (1.0, 2.3, 5.1, 11.0)) / 1.5, np.float32)


def room(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A wall with skirting and a picture frame, a floor of tiles in perspective."""
    y, x = _grid(height, width)
    base = float(rng.uniform(0.62, 0.70))
    wall_colour = rng.uniform((150, 150, 140), (225, 215, 205)).astype(np.float32)
    floor_colour = rng.uniform((110, 90, 70), (180, 165, 150)).astype(np.float32)
    wall = wall_colour * (1.02 - 0.25 * np.abs(x - 0.4) - 0.12 * np.abs(y - 0.3))[..., None]
    wall += (2.0 * _clouds(rng, height, width))[..., None]
    near = np.maximum((y - base) / (1 - base), 1e-3)
    tile_x, tile_y = (x - 0.5) * (width / height) * 5 / (0.25 + near), 3.2 / (0.25 + near)
    checks = (np.floor(tile_x + 50) + np.floor(tile_y)) % 2
    joint = np.minimum(np.abs(tile_x - np.round(tile_x)), np.abs(tile_y - np.round(tile_y))) * (0.25 + near) < 0.012
    ground = floor_colour * (0.80 + 0.10 * checks + 0.12 * near)[..., None]
    ground = np.where(joint[..., None], ground * 0.72, ground)
    place = np.where((y > base)[..., None], ground, wall)
    skirting = (y > base - 0.028) & (y <= base)
    place = np.where(
        np.broadcast_to(skirting, (height, width))[..., None], np.float32(232) - 40 * ((y - base) / 0.028 + 1)[..., None] ** 6, place
    )
    place = _picture(rng, place, y, x, base)
    soft = cv2.GaussianBlur(place.astype(np.float32), (0, 0), max(0.6, height / 900))
    return np.asarray(soft * _vignette(height, width, 0.25)[..., None], np.float32)


def _picture(rng: np.random.Generator, place: Floats, y: Floats, x: Floats, base: float) -> Floats:
    """Hang a framed colour field on the wall, left or right of the middle."""
    centre = float(rng.choice([0.16, 0.84]))
    across, down = np.abs(x - centre) * place.shape[1] / place.shape[0], np.abs(y - base * 0.42)
    inside, frame = (across < 0.10) & (down < 0.13), (across < 0.112) & (down < 0.142)
    place = np.where(frame[..., None], np.float32(70), place)
    art = rng.uniform(60, 200, 3).astype(np.float32) + (60 * (y - base * 0.42) / 0.1 + 30 * (x - centre) / 0.1)[..., None]
    return np.asarray(np.where(inside[..., None], art, place), np.float32)

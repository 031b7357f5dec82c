"""A small renderer of smooth solids: distance fields, sphere tracing, fixed light. Numpy only, same input → same bytes.

Space is metres, x to the picture's right, y up, z towards the camera; the camera is orthographic and looks along -z. Solids of one
group melt into each other (polynomial smooth minimum), groups meet in a sharp edge. The picture is cut into tiles and a tile only
sees the solids near it, so the cost follows the figure's outline and not the number of its solids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
"""red, green, blue, 0 to 255"""

TILE_PX = 24
BLEND_M = 0.03
"""how far outside its outline a solid still bends its neighbours' surface"""
SHADE_M = 0.08
"""how far outside its outline a solid still keeps light away"""
STEPS = 48
NEAR_M = 0.0006
KEY_LIGHT = np.array([-0.45, 0.62, 0.64], np.float32)
FILL_LIGHT = np.array([0.70, 0.10, 0.55], np.float32)


@dataclass(frozen=True)
class Material:
    """How a surface looks."""

    colour: Colour
    gloss: float = 0.15
    """strength of the highlight"""
    folds: float = 0.0
    """strength of cloth folds (bends the normal, not the shape)"""
    stripe: Colour = (0.0, 0.0, 0.0)
    """second colour of a hooped cloth"""
    stripe_m: float = 0.0
    """width of a hoop; 0: plain"""


@dataclass(frozen=True)
class Solid:
    """A tapered capsule from `a` to `b` when `size` is None; else an ellipsoid (rounding 0) or rounded box around `a`."""

    material: Material
    group: str
    a: Vector
    b: Vector
    radius_a: float = 0.0
    radius_b: float = 0.0
    size: Vector | None = None
    """half axes"""
    turn_33: Vector | None = None
    """columns: the solid's own axes"""
    rounding: float = 0.0
    blend: float = 0.03
    """metres over which the solid melts into its group"""

    def turned(self, rotation_33: Vector) -> Solid:
        """The solid after the whole figure was rotated about the origin."""
        turn = rotation_33 if self.turn_33 is None else rotation_33 @ self.turn_33
        return replace(self, a=rotation_33 @ self.a, b=rotation_33 @ self.b, turn_33=turn)

    def extent(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of a box around the solid, metres."""
        if self.size is None:
            r = max(self.radius_a, self.radius_b)
            low, high = np.minimum(self.a, self.b) - r, np.maximum(self.a, self.b) + r
        else:
            turn = np.eye(3) if self.turn_33 is None else self.turn_33
            half = np.abs(turn) @ self.size
            low, high = self.a - half, self.a + half
        return low, high

    def distance(self, p_N3: Floats) -> Floats:
        """Signed distance (a lower bound of it) of N points, metres."""
        if self.size is None:
            return self._cone(p_N3)
        local = p_N3 - self.a.astype(np.float32)
        if self.turn_33 is not None:
            local = local @ self.turn_33.astype(np.float32)
        return self._box(local) if self.rounding else self._ellipsoid(local)

    def _cone(self, p_N3: Floats) -> Floats:
        axis = (self.b - self.a).astype(np.float32)
        rel = p_N3 - self.a.astype(np.float32)
        t = np.clip(rel @ axis / np.float32(max(float(axis @ axis), 1e-9)), 0, 1)
        off = rel - t[:, None] * axis
        return np.asarray(np.sqrt((off * off).sum(1)) - (self.radius_a + (self.radius_b - self.radius_a) * t), np.float32)

    def _ellipsoid(self, local_N3: Floats) -> Floats:
        assert self.size is not None
        axes = self.size.astype(np.float32)
        q = local_N3 / axes
        k0 = np.sqrt((q * q).sum(1))
        k1 = np.sqrt(((q / axes) ** 2).sum(1)) + np.float32(1e-6)
        return np.asarray(k0 * (k0 - 1) / k1, np.float32)

    def _box(self, local_N3: Floats) -> Floats:
        assert self.size is not None
        q = np.abs(local_N3) - (self.size - self.rounding).astype(np.float32)
        outside = np.sqrt((np.maximum(q, 0) ** 2).sum(1))
        return np.asarray(outside + np.minimum(q.max(1), 0) - np.float32(self.rounding), np.float32)


def capsule(material: Material, group: str, a: Vector, b: Vector, ra: float, rb: float | None = None, blend: float = 0.03) -> Solid:
    """A limb: radius `ra` at `a`, `rb` at `b`."""
    return Solid(material, group, a, b, ra, ra if rb is None else rb, blend=blend)


def ellipsoid(
    material: Material, group: str, at: Vector, size: Sequence[float], turn_33: Vector | None = None, blend: float = 0.03
) -> Solid:
    """An ellipsoid of half axes `size`."""
    return Solid(material, group, at, at, size=np.asarray(size, np.float64), turn_33=turn_33, blend=blend)


def box(material: Material, group: str, at: Vector, size: Sequence[float], rounding: float, turn_33: Vector | None = None) -> Solid:
    """A box of half edges `size` with rounded edges."""
    return Solid(material, group, at, at, size=np.asarray(size, np.float64), turn_33=turn_33, rounding=rounding, blend=0.01)


def rotation(axis: str, degrees: float) -> Vector:
    """Rotation matrix about x, y or z, right-handed."""
    c, s = float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]], "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}
    return np.array(rows[axis], np.float64)


def field(solids: Sequence[Solid], p_N3: Floats) -> Floats:
    """Signed distance of N points to the union, metres."""
    groups: dict[str, Floats] = {}
    for solid in solids:
        d = solid.distance(p_N3)
        groups[solid.group] = _melt(groups[solid.group], d, solid.blend) if solid.group in groups else d
    total = np.full(len(p_N3), 1e3, np.float32)
    for d in groups.values():
        total = np.minimum(total, d)
    return total


def nearest(solids: Sequence[Solid], p_N3: Floats) -> npt.NDArray[np.int64]:
    """Index of the solid that each of N points is nearest to."""
    return np.asarray(np.stack([solid.distance(p_N3) for solid in solids]).argmin(0), np.int64)


def _melt(a: Floats, b: Floats, k: float) -> Floats:
    """Polynomial smooth minimum (Quilez, "Smooth minimum", quadratic form)."""
    h = np.maximum(np.float32(k) - np.abs(a - b), 0) / np.float32(k)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(k / 4), np.float32)


def render(solids: Sequence[Solid], height_px: int, width_px: int, px_per_m: float, foot_px: tuple[float, float]) -> tuple[Floats, Floats]:
    """Colours (H, W, 3; 0 to 255) and coverage (H, W; 0 to 1) of a figure whose origin lies at `foot_px` (x, y). 2 × 2 samples a pixel."""
    h, w, scale = 2 * height_px, 2 * width_px, 2 * px_per_m
    colour_HWC, cover_HW = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.float32)
    low, high = (np.stack(corners) for corners in zip(*(s.extent() for s in solids), strict=True))
    for y0 in range(0, h, 2 * TILE_PX):
        for x0 in range(0, w, 2 * TILE_PX):
            y1, x1 = min(h, y0 + 2 * TILE_PX), min(w, x0 + 2 * TILE_PX)
            left, right = (x0 - 2 * foot_px[0]) / scale, (x1 - 2 * foot_px[0]) / scale
            top, bottom = (2 * foot_px[1] - y0) / scale, (2 * foot_px[1] - y1) / scale
            gap = np.maximum.reduce([low[:, 0] - right, left - high[:, 0], low[:, 1] - top, bottom - high[:, 1]])
            near, shading = gap < BLEND_M, [s for s, g in zip(solids, gap, strict=True) if g < SHADE_M]
            if gap.min() >= 0:
                continue
            ys, xs = np.mgrid[y0:y1, x0:x1]
            p_N2 = np.stack([(xs.ravel() + 0.5 - 2 * foot_px[0]) / scale, (2 * foot_px[1] - ys.ravel() - 0.5) / scale], 1)
            depth = float(high[near, 2].max()), float(low[near, 2].min())
            shape = [s for s, n in zip(solids, near, strict=True) if n]
            colour, cover = _tile(shape, shading, p_N2.astype(np.float32), depth)
            colour_HWC[y0:y1, x0:x1] = colour.reshape(y1 - y0, x1 - x0, 3)
            cover_HW[y0:y1, x0:x1] = cover.reshape(y1 - y0, x1 - x0)
    cover = cover_HW.reshape(height_px, 2, width_px, 2).mean((1, 3))
    paint = (colour_HWC * cover_HW[..., None]).reshape(height_px, 2, width_px, 2, 3).mean((1, 3))
    return paint / np.maximum(cover, 1e-6)[..., None], cover


def _tile(solids: Sequence[Solid], shading: Sequence[Solid], p_N2: Floats, depth: tuple[float, float]) -> tuple[Floats, Floats]:
    p = np.concatenate([p_N2, np.full((len(p_N2), 1), depth[0] + 0.02, np.float32)], 1)
    hit = np.zeros(len(p), np.bool_)
    alive = np.arange(len(p))
    for _ in range(STEPS):
        d = field(solids, p[alive])
        hit[alive[d < NEAR_M]] = True
        p[alive, 2] -= np.maximum(d * np.float32(0.85), np.float32(0.0003))
        alive = alive[(d >= NEAR_M) & (p[alive, 2] > depth[1])]
        if not len(alive):
            break
    colour = np.zeros((len(p), 3), np.float32)
    if hit.any():
        colour[hit] = _shade(solids, shading, p[hit])
    return colour, hit.astype(np.float32)


def _normals(solids: Sequence[Solid], p_N3: Floats) -> Floats:
    total = np.zeros_like(p_N3)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        offset = np.array(corner, np.float32)
        total += offset * field(solids, p_N3 + offset * np.float32(0.0015))[:, None]
    return np.asarray(total / np.maximum(np.sqrt((total * total).sum(1)), np.float32(1e-9))[:, None], np.float32)


def _shade(solids: Sequence[Solid], shading: Sequence[Solid], p_N3: Floats) -> Floats:
    """Two lights, sky and floor light, highlight, occlusion by five samples along the normal (Quilez, "Raymarching primitives")."""
    owner = nearest(solids, p_N3)
    look = [s.material for s in solids]
    base, gloss, folds, stripe, stripe_m = (
        np.array([getattr(m, name) for m in look], np.float32)[owner] for name in ("colour", "gloss", "folds", "stripe", "stripe_m")
    )
    hoop = (stripe_m > 0) & (np.floor(p_N3[:, 1] / np.maximum(stripe_m, 1e-3)) % 2 == 1)
    base = np.where(hoop[:, None], stripe, base)
    n = _normals(solids, p_N3)
    wave = np.sin(p_N3 @ np.array([23.0, 41.0, 17.0], np.float32)) + np.sin(p_N3 @ np.array([-31.0, 19.0, 29.0], np.float32) + 1)
    n = n + (folds * wave)[:, None] * np.array([0.5, 0.6, 0.0], np.float32)
    n /= np.sqrt((n * n).sum(1))[:, None]
    shut = np.zeros(len(p_N3), np.float32)
    for i in range(1, 6):
        step = np.float32(0.014 * i)
        shut += (step - np.minimum(field(shading, p_N3 + n * step), step)) * np.float32(0.62**i)
    open_ = np.clip(1 - 9 * shut, 0.25, 1)
    key, fill = (light / np.linalg.norm(light) for light in (KEY_LIGHT, FILL_LIGHT))
    light = 0.80 * np.maximum(n @ key, 0) * (0.4 + 0.6 * open_) + 0.22 * np.maximum(n @ fill, 0) + open_ * (0.34 + 0.10 * n[:, 1])
    half = key + np.array([0, 0, 1], np.float32)
    shine = gloss * np.maximum(n @ (half / np.linalg.norm(half)), 0) ** 24 * 255
    lit = base * light[:, None] + shine[:, None]
    return np.asarray(255 * (1 - np.exp(-lit / 170)) / (1 - np.exp(-255 / 170)), np.float32)


def soft_disc(height_px: int, width_px: int, centre: tuple[float, float], axes: tuple[float, float], blur_px: float) -> Floats:
    """A blurred ellipse, 0 to 1: contact shadows. `centre` and `axes` in pixels (x, y)."""
    ys, xs = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    inside = ((xs - centre[0]) / axes[0]) ** 2 + ((ys - centre[1]) / axes[1]) ** 2 <= 1
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(0.5, blur_px)), np.float32)

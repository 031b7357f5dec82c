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


class Union:
    """Solids made ready to be measured together: with few points at a time, one call for all of them is what makes it quick."""

    def __init__(self, solids: Sequence[Solid]) -> None:
        self.solids = solids
        kinds = ["cone" if s.size is None else "box" if s.rounding else "ellipsoid" for s in solids]
        self._cones, self._ellipsoids, self._boxes = (
            [i for i, k in enumerate(kinds) if k == kind] for kind in ("cone", "ellipsoid", "box")
        )
        self._at = _columns([s.a for s in solids])
        self._axis = _columns([s.b - s.a if s.size is None else s.size - s.rounding for s in solids])
        self._square = _column([max(float(axis @ axis), 1e-9) for axis in self._axis[:, :, 0].T.copy()])
        self._radius, self._taper = _column([s.radius_a for s in solids]), _column([s.radius_b - s.radius_a for s in solids])
        self._rounding = _column([s.rounding for s in solids])
        self._turn = np.array([np.eye(3) if s.turn_33 is None else s.turn_33.T for s in solids], np.float32)
        self._groups: dict[str, list[int]] = {}
        for i, solid in enumerate(solids):
            self._groups.setdefault(solid.group, []).append(i)

    def distances(self, p_3N: Floats) -> Floats:
        """Signed distance (a lower bound of it) of each solid (rows) to each of N points, metres."""
        out_SN = np.empty((len(self.solids), p_3N.shape[1]), np.float32)
        for members, measure in ((self._cones, self._cone), (self._ellipsoids, self._ellipsoid), (self._boxes, self._box)):
            if members:
                out_SN[members] = measure(members, p_3N)
        return out_SN

    def field(self, p_3N: Floats) -> Floats:
        """Signed distance of N points to the union, metres."""
        d_SN = self.distances(p_3N)
        joined = []
        for first, *others in self._groups.values():
            for i in others:
                _melt(d_SN[first], d_SN[i], self.solids[i].blend)
            joined.append(first)
        return np.asarray(d_SN[joined].min(0), np.float32)

    def _cone(self, members: list[int], p_3N: Floats) -> Floats:
        axis = self._axis[:, members]
        local = p_3N[:, None] - self._at[:, members]
        along = local * axis
        t = _sum(along)
        t /= self._square[members]
        np.minimum(np.maximum(t, 0, out=t), 1, out=t)
        local -= np.multiply(t, axis, out=along)
        d = _length(local)
        t *= self._taper[members]
        t += self._radius[members]
        d -= t
        return d

    def _local(self, members: list[int], p_3N: Floats) -> Floats:
        """Points (3, members, N) along the solids' own axes."""
        return np.stack([self._turn[i] @ (p_3N - self._at[:, i]) for i in members], 1)

    def _ellipsoid(self, members: list[int], p_3N: Floats) -> Floats:
        axes, local = self._axis[:, members], self._local(members, p_3N)
        local /= axes
        k1 = _length(local / axes)
        k1 += np.float32(1e-6)
        k0 = _length(local)
        d = k0 - 1
        d *= k0
        d /= k1
        return d

    def _box(self, members: list[int], p_3N: Floats) -> Floats:
        local = self._local(members, p_3N)
        np.abs(local, out=local)
        local -= self._axis[:, members]
        inside = np.minimum(local.max(0), 0)
        d = _length(np.maximum(local, 0, out=local))
        d += inside
        d -= self._rounding[members]
        return d


def _column(values: Sequence[float]) -> Floats:
    return np.array(values, np.float32)[:, None]


def _columns(vectors: Sequence[Vector]) -> Floats:
    """(3, vectors, 1)."""
    return np.ascontiguousarray(np.array(vectors, np.float32).T[..., None])


def _sum(rows: Floats) -> Floats:
    """The sum of three rows. Added one by one: faster than numpy's own sum, and in the same order on every processor."""
    total: Floats = rows[0] + rows[1]
    total += rows[2]
    return total


def _length(rows: Floats) -> Floats:
    """Lengths of vectors whose coordinates are three rows, which are overwritten."""
    np.multiply(rows, rows, out=rows)
    total = _sum(rows)
    np.sqrt(total, out=total)
    return total


def _melt(a: Floats, b: Floats, k: float) -> None:
    """Polynomial smooth minimum (Quilez, "Smooth minimum", quadratic form), put into `a`; overwrites `b`."""
    h = a - b
    np.minimum(a, b, out=a)
    np.subtract(np.float32(k), np.abs(h, out=h), out=h)
    if h.max(initial=0) <= 0:
        return
    np.maximum(h, 0, out=h)
    h /= np.float32(k)
    np.multiply(h, h, out=b)
    b *= np.float32(k / 4)
    a -= b


def render(solids: Sequence[Solid], height_px: int, width_px: int, px_per_m: float, foot_px: tuple[float, float]) -> tuple[Floats, Floats]:
    """Colours (H, W, 3; 0 to 255) and coverage (H, W; 0 to 1) of a figure whose origin lies at `foot_px` (x, y). 2 × 2 samples a pixel."""
    h, w, scale = 2 * height_px, 2 * width_px, 2 * px_per_m
    paint_HWC, cover_HW = np.zeros((height_px, width_px, 3), np.float32), np.zeros((height_px, width_px), np.float32)
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
            xs, ys = (np.arange(x0, x1) + 0.5 - 2 * foot_px[0]) / scale, (2 * foot_px[1] - np.arange(y0, y1) - 0.5) / scale
            p_2N = np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))]).astype(np.float32)
            depth = float(high[near, 2].max()), float(low[near, 2].min())
            shape = [s for s, n in zip(solids, near, strict=True) if n]
            colour_3N, cover_1N = _tile(Union(shape), Union(shading), p_2N, depth)
            tile = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
            paint_HWC[tile] = _halved(colour_3N, len(ys), len(xs)).transpose(1, 2, 0)
            cover_HW[tile] = _halved(cover_1N, len(ys), len(xs))[0]
    return np.asarray(paint_HWC / np.maximum(cover_HW, 1e-6)[..., None], np.float32), cover_HW


def _halved(samples_CN: Floats, rows: int, columns: int) -> Floats:
    """Means (C, rows / 2, columns / 2) of 2 × 2 samples."""
    s = samples_CN.reshape(-1, rows // 2, 2, columns // 2, 2)
    return np.asarray((s[:, :, 0, :, 0] + s[:, :, 0, :, 1] + s[:, :, 1, :, 0] + s[:, :, 1, :, 1]) / 4, np.float32)


def _tile(shape: Union, shading: Union, p_2N: Floats, depth: tuple[float, float]) -> tuple[Floats, Floats]:
    """Colours (3, N) and coverage (1, N) of N rays."""
    count = p_2N.shape[1]
    z, hit, alive = np.zeros(count, np.float32), np.zeros(count, np.bool_), np.arange(count)
    ray_3N = np.concatenate([p_2N, np.full((1, count), depth[0] + 0.02, np.float32)])
    for _ in range(STEPS):
        d = shape.field(ray_3N)
        met = d < NEAR_M
        ray_3N[2] -= np.maximum(d * np.float32(0.85), np.float32(0.0003))
        hit[alive[met]], z[alive[met]] = True, ray_3N[2, met]
        on = ~met & (ray_3N[2] > depth[1])
        alive, ray_3N = alive[on], np.compress(on, ray_3N, 1)
        if not len(alive):
            break
    colour_3N = np.zeros((3, count), np.float32)
    if hit.any():
        colour_3N[:, hit] = _shade(shape, shading, np.concatenate([p_2N, z[None]])[:, hit])
    return colour_3N, hit[None].astype(np.float32)


def _normals(shape: Union, p_3N: Floats) -> Floats:
    total_3N = np.zeros_like(p_3N)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        offset_31 = np.array(corner, np.float32)[:, None]
        total_3N += offset_31 * shape.field(p_3N + offset_31 * np.float32(0.0015))
    return np.asarray(total_3N / np.maximum(_length(total_3N.copy()), np.float32(1e-9)), np.float32)


def _shade(shape: Union, shading: Union, p_3N: Floats) -> Floats:
    """Two lights, sky and floor light, highlight, occlusion by five samples along the normal (Quilez, "Raymarching primitives")."""
    owner = shape.distances(p_3N).argmin(0)
    look = [s.material for s in shape.solids]
    gloss, folds, stripe_m = (np.array([getattr(m, name) for m in look], np.float32)[owner] for name in ("gloss", "folds", "stripe_m"))
    base_3N, stripe_3N = (np.array([getattr(m, name) for m in look], np.float32).T[:, owner] for name in ("colour", "stripe"))
    hoop = (stripe_m > 0) & (np.floor(p_3N[1] / np.maximum(stripe_m, 1e-3)) % 2 == 1)
    base_3N = np.where(hoop, stripe_3N, base_3N)
    n_3N = _normals(shape, p_3N)
    wave = np.sin(_dot(p_3N, (23.0, 41.0, 17.0))) + np.sin(_dot(p_3N, (-31.0, 19.0, 29.0)) + 1)
    n_3N += folds * wave * np.array([0.5, 0.6, 0.0], np.float32)[:, None]
    n_3N /= _length(n_3N.copy())
    shut = np.zeros(p_3N.shape[1], np.float32)
    for i in range(1, 6):
        step = np.float32(0.014 * i)
        shut += (step - np.minimum(shading.field(p_3N + n_3N * step), step)) * np.float32(0.62**i)
    open_ = np.clip(1 - 9 * shut, 0.25, 1)
    key, fill = (light / np.linalg.norm(light) for light in (KEY_LIGHT, FILL_LIGHT))
    light = 0.80 * np.maximum(_dot(n_3N, key), 0) * (0.4 + 0.6 * open_) + 0.22 * np.maximum(_dot(n_3N, fill), 0)
    light += open_ * (0.34 + 0.10 * n_3N[1])
    half = key + np.array([0, 0, 1], np.float32)
    shine = gloss * np.maximum(_dot(n_3N, half / np.linalg.norm(half)), 0) ** 24 * 255
    return np.asarray(255 * (1 - np.exp(-(base_3N * light + shine) / 170)) / (1 - np.exp(-255 / 170)), np.float32)


def _dot(rows_3N: Floats, vector: Floats | tuple[float, float, float]) -> Floats:
    return _sum(rows_3N * np.asarray(vector, np.float32)[:, None])


def soft_disc(height_px: int, width_px: int, centre: tuple[float, float], axes: tuple[float, float], blur_px: float) -> Floats:
    """A blurred ellipse, 0 to 1: contact shadows. `centre` and `axes` in pixels (x, y)."""
    ys, xs = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    inside = ((xs - centre[0]) / axes[0]) ** 2 + ((ys - centre[1]) / axes[1]) ** 2 <= 1
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(0.5, blur_px)), np.float32)

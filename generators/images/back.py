"""What a figure shows from behind and from nowhere else: hair on the nape, seams and pockets, back plates, heels.

The parts are drawn in the view from behind only; from the front none would show, and the views from the side do without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from generators.images import solids as s
from generators.images.figure import Skeleton, Wardrobe
from generators.images.solids import Material, Solid, Vector

SOLE = Material((46, 44, 44), 0.05)
POCKET = ((0.021, 0.016), (0.066, 0.012), (0.068, 0.050), (0.045, 0.066), (0.023, 0.052), (0.021, 0.016))
"""outline of the left pocket: how far from the seat's middle and below the waist, in statures"""
START_M = 0.4
"""how far behind the body's middle the search for its surface starts"""


def mannequin_back(bones: Skeleton, wear: Wardrobe, body: Sequence[Solid]) -> list[Solid]:
    """What a clothed figure shows from behind, on the body that is already drawn."""
    nape = _nape(bones, wear)
    whole = [*body, *nape]
    return [*nape, *_yoke(bones, wear, whole), *_trousers(bones, wear, whole), *_heels(bones, wear, whole)]


def _nape(bones: Skeleton, wear: Wardrobe) -> list[Solid]:
    """Hair down to the nape, which tells the back of a head from a face, and a collar that closes behind."""
    h, hair = bones.stature, wear.hair
    parts = [s.capsule(wear.top, "top", bones.up(0.828, -0.030), bones.up(0.812, -0.030), 0.036 * h, blend=0.03)]
    if wear.style != "cap":
        parts.append(s.ellipsoid(hair, "hair", bones.face(0, 0.006, -0.030), (0.0485 * h, 0.0500 * h, 0.0400 * h), blend=0.02))
        parts.append(s.ellipsoid(hair, "hair", bones.face(0, -0.034, -0.026), (0.030 * h, 0.026 * h, 0.026 * h), blend=0.02))
    return parts


def _yoke(bones: Skeleton, wear: Wardrobe, body: Sequence[Solid]) -> list[Solid]:
    """The seam across the back. It ends where the sleeves begin to melt into the trunk: there a thread would smear (solids._shade)."""
    h, b = bones.stature, bones.build
    path = [(x * h * b, float(bones.up(0.748 - 1.2 * x * x)[1])) for x in np.linspace(-0.072, 0.072, 21)]
    return _stitched(body, _darker(wear.top), "yoke", path, 0.0022 * h)


def _trousers(bones: Skeleton, wear: Wardrobe, body: Sequence[Solid]) -> list[Solid]:
    """The seam of the seat, two pockets, and the fold behind each knee."""
    h, b = bones.stature, bones.build
    seam, thread, top = _darker(wear.bottom), 0.0026 * h, float(bones.up(0.553)[1])
    parts = _stitched(body, seam, "seat", [(0.0, top - y * h) for y in np.linspace(0.006, 0.072, 15)], thread)
    for name, side in (("left", 1.0), ("right", -1.0)):
        pocket = [(side * x * h * b, top - y * h) for x, y in POCKET]
        parts += _stitched(body, seam, name + "pocket", _dense(pocket), thread)
        knee = bones.at[f"{name}_knee"]
        fold = [(knee[0] + x * h, knee[1] + 0.15 * abs(x) * h) for x in np.linspace(-0.020, 0.020, 7)]
        parts += _stitched(body, _darker(wear.bottom if wear.leg > 0.5 else wear.skin, 0.80), name + "fold", fold, 0.0018 * h)
    return parts


def _heels(bones: Skeleton, wear: Wardrobe, body: Sequence[Solid]) -> list[Solid]:
    """The seam at the back of each shoe and the heel under it."""
    h, parts = bones.stature, list[Solid]()
    for side in ("left", "right"):
        heel, ankle = bones.at[f"{side}_heel"], bones.at[f"{side}_ankle"]
        back = [(float(p[0]), float(p[1])) for p in (ankle - [0, -0.012 * h, 0], heel - [0, 0.008 * h, 0])]
        parts += _stitched(body, _darker(wear.shoes, 0.70), side + "counter", _dense(back, 6), 0.0024 * h)
        parts.append(s.box(SOLE, side + "heel", heel - [0, 0.0185 * h, 0], (0.0245 * h, 0.0075 * h, 0.0220 * h), 0.005 * h))
    return parts


def robot_back(bones: Skeleton, body: Sequence[Solid], trim: Material, joint: Material) -> list[Solid]:
    """A power pack with vents, a spine, a band round the skull, cables down the calves and heel blocks."""
    h, b = bones.stature, bones.build
    parts = [
        s.box(trim, "pack", bones.up(0.752, -0.062 * b), (0.066 * h * b, 0.056 * h, 0.024 * h), 0.014 * h),
        s.box(trim, "seat", bones.up(0.556, -0.052 * b), (0.034 * h * b, 0.024 * h, 0.014 * h), 0.009 * h),
    ]
    parts += [_bar(joint, "vents", bones.up(y, -0.062 * b - 0.022), 0.040 * h * b, 0.0050 * h) for y in (0.728, 0.748, 0.768)]
    parts += [_bar(trim, "spine", bones.up(y, -0.049 * b), 0.020 * h, 0.0085 * h) for y in (0.600, 0.628, 0.656)]
    skull = [(float(x), float(y)) for x, y, _ in (bones.face(x, -0.022, 0) for x in np.linspace(-0.046, 0.046, 17))]
    parts += _stitched(body, trim, "band", skull, 0.0080 * h)
    for side in ("left", "right"):
        knee, ankle, heel = (bones.at[f"{side}_{name}"] for name in ("knee", "ankle", "heel"))
        calf = [(float(p[0]), float(p[1])) for p in (knee + t * (ankle - knee) for t in (0.24, 0.80))]
        parts += _stitched(body, joint, side + "cable", _dense(calf), 0.0070 * h)
        parts.append(s.box(joint, side + "heel", heel - [0, 0.004 * h, 0.014 * h], (0.020 * h, 0.014 * h, 0.016 * h), 0.006 * h))
    return parts


def _bar(material: Material, group: str, middle: Vector, half: float, radius: float) -> Solid:
    """A round bar across the figure."""
    return s.capsule(material, group, middle - [half, 0, 0], middle - [-half, 0, 0], radius)


def _darker(material: Material, shade: float = 0.55) -> Material:
    red, green, blue = (shade * c for c in material.colour)
    return replace(material, colour=(red, green, blue), stripe_m=0.0)


def _dense(path: Sequence[tuple[float, float]], pieces: int = 3) -> list[tuple[float, float]]:
    """The same path with every leg cut into pieces, so that it can follow a curved surface."""
    steps = [(a, b, t / pieces) for a, b in pairwise(path) for t in range(pieces)]
    return [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for a, b, t in steps] + [path[-1]]


def _stitched(body: Sequence[Solid], material: Material, group: str, path: Sequence[tuple[float, float]], radius: float) -> list[Solid]:
    """A thread along a path of (x, y) metres, laid on the body as seen from behind; half of it shows."""
    points = _on_back(body, np.array(path))
    return [s.capsule(material, group, a, b, radius, blend=0.0002) for a, b in pairwise(points)]


def _on_back(body: Sequence[Solid], path_N2: Vector) -> Vector:
    """Points (N, 3) where rays from behind meet the body (sphere tracing); where one misses, at the body's middle."""
    p_3N = np.concatenate([path_N2.T, np.full((1, len(path_N2)), -START_M)]).astype(np.float32)
    union = s.Union(body)
    for _ in range(s.STEPS):
        p_3N[2] = np.minimum(p_3N[2] + np.maximum(union.field(p_3N), 0) * np.float32(0.9), 0)
    return p_3N.T.astype(np.float64)

"""The character's face follows the driver's: mouth, eyes and the head's turn, as shifts of the head layer's vertices.

Both faces are the 468 points of MediaPipe's mesh. The driver's is freed of its rotation (Umeyama 1991), what remains beside the relaxed
face is the expression; it is put onto the picture's mesh at that face's size, and the whole is turned as far out of the picture's plane as
the driver's head is. The turn within the plane is the skeleton's business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.poses import smoothing
from generators.poses.tracks import People
from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.layers import MOUTH, Layer, head_weights
from generators.videos.puppet.numerics import Array, savitzky_golay, smoothstep, unit
from generators.videos.puppet.retarget import Pose

# Points of the mesh, as in MediaPipe's published drawing of it.
_OVAL = (10, 297, 284, 389, 454, 361, 397, 378, 152, 149, 172, 132, 234, 162, 54, 67)
_LIPS_OUT = (61, 39, 0, 269, 291, 405, 17, 181)
_LIPS_IN = (78, 81, 13, 311, 308, 402, 14, 178)
_RIGHT_EYE, _LEFT_EYE = (33, 160, 159, 158, 133, 153, 145, 144), (263, 387, 386, 385, 362, 380, 374, 373)
_LIDS = tuple((eye[i], eye[j]) for eye in (_RIGHT_EYE, _LEFT_EYE) for i, j in ((1, 7), (2, 6), (3, 5)))
"""points of the upper and the lower lid that meet when the eye is shut"""
_LIPS = ((81, 178), (13, 14), (311, 402))
_REST = (70, 105, 107, 300, 334, 336, 9, 168, 197, 4, 98, 327, 2, 50, 280, 205, 425, 18, 200, 151, 117, 346)
_POINTS = (*_OVAL, *_LIPS_OUT, *_LIPS_IN, *_RIGHT_EYE, *_LEFT_EYE, *_REST)
_RIGID = (10, 151, 9, 8, 168, 6, 197, 195, 33, 263, 133, 362, 127, 356, 234, 454, 54, 284, 109, 338)
"""what no expression moves"""
_EARS = (234, 454)

_TURN_MOST = 0.3
"""radians out of the picture's plane; a picture has no other side to show"""
_TURNED = (0.6, 1.0)
"""radians between driver and picture over which an expression ceases to be believed: half of it is hidden"""
_CALM = 40
"""the relaxed face is the median of the frames within this percentile of the least open mouth, of the half with the widest eyes"""
_OPEN = 0.06
"""gap of the lips over the mouth's width from which the picture shows what is between them"""
_FOLD_MOST = 0.004
"""share of the face's area that may fold over itself"""
_SMALLER = (0.8, 0.6, 0.45, 0.3, 0.15, 0.0)
_SIZE_PX = (14.0, 30.0)
"""height of the driver's face between which its expression comes to be believed"""
_FADE_S = 0.2
_DARK = 0.22
"""brightness of the mouth's inside over that of the lips"""


@dataclass(frozen=True)
class Rig:
    """How the head layer hangs on the face mesh."""

    spread_VxK: Array
    """each vertex's share in the shift of each of the K face points; zero rows stay with the skull"""
    points_Kx2: Array
    """the face points in the picture"""
    triangles_Fx3: Array
    """between face points"""


def with_face(figure: Figure, layers: dict[str, Layer]) -> tuple[dict[str, Layer], Rig | None]:
    """The layers with a head whose mesh has the face's points, and a layer for the inside of a mouth that the picture shows shut.

    Without a face in the picture: as they were, and None. Texture and weights of the head stay what they are.
    """
    if figure.face_468x3 is None or "head" not in layers:
        return layers, None
    head, mesh = layers["head"], figure.face_468x3[:, :2].astype(float)
    points, tall = mesh[list(_POINTS)], float(np.linalg.norm(mesh[10] - mesh[152]))
    hull = cv2.convexHull(mesh[list(_OVAL)].astype(np.float32))
    outside = np.array([cv2.pointPolygonTest(hull, (float(x), float(y)), True) for x, y in head.vertices_Vx2])
    skull = head.vertices_Vx2[outside < -0.05 * tall]
    step = float(np.median(np.linalg.norm(np.diff(head.vertices_Vx2[head.triangles_Fx3[:, :2]], axis=1), axis=-1)))
    vertices = np.concatenate([points, skull])
    triangles = _triangles(np.concatenate([_apart(mesh)[list(_POINTS)], skull]), 3 * step, len(points))
    inner = np.isin(triangles, [_POINTS.index(i) for i in _LIPS_IN]).all(1)
    shut = float(np.linalg.norm(mesh[13] - mesh[14])) < _OPEN * float(np.linalg.norm(mesh[78] - mesh[308]))
    out = dict(layers)
    weights = {"head": head_weights(figure, vertices)}
    kept = triangles[~inner] if shut else triangles
    out["head"] = replace(head, vertices_Vx2=vertices, triangles_Fx3=kept, weights=weights)
    if shut and inner.any():
        texture = np.zeros_like(head.texture_HWx4)
        texture[:] = _inside_colour(head, mesh)
        out[MOUTH] = Layer(texture, head.origin_xy, vertices, triangles[inner], weights)
    return out, Rig(_spread(points, skull, 0.6 * tall), points, triangles[(triangles < len(points)).all(1)])


def expressed(figure: Figure, rig: Rig, driver: People, track: int) -> tuple[Array, Array]:
    """Shifts of the head's vertices in the picture's pixels (T, V, 2), and how far the face was seen (T,), 0 to 1.

    Where the driver's face is not seen the shifts fade out; without details they are zero.
    """
    details = driver.details
    seen = np.zeros(driver.frames, bool) if details is None else details.face_seen_PT[track] > 0
    if details is None or figure.face_468x3 is None or not seen.any():
        return np.zeros((driver.frames, len(rig.spread_VxK), 2)), np.zeros(driver.frames)
    mesh_T = smoothing.fill(details.faces_PT468x3[track].astype(float), seen)
    half = max(1, round(_FADE_S * driver.fps / 2))
    share = np.minimum(seen, np.clip(savitzky_golay(seen.astype(float), 2 * half + 1, 1), 0, 1))
    share = share * smoothstep(np.linalg.norm(mesh_T[:, 10] - mesh_T[:, 152], axis=1), *_SIZE_PX)
    shift = _shifts(mesh_T, seen, figure.face_468x3.astype(float))[:, list(_POINTS)] * share[:, None, None]
    return np.asarray(np.einsum("vk,tkc->tvc", rig.spread_VxK, _unfolded(rig, shift))), share


def expressive(pose: Pose, figure: Figure, rig: Rig | None, driver: People, track: int) -> Pose:
    """The pose with the driver's face. Where that is seen, its turn takes the place of the nose's slide over the skull."""
    if rig is None:
        return pose
    shifts, share = expressed(figure, rig, driver, track)
    return replace(pose, face_TxVx2=shifts, nose_Tx2=pose.nose_Tx2 * (1 - share)[:, None])


def _shifts(mesh_Tx468x3: Array, seen_T: Array, picture_468x3: Array) -> Array:
    """Of the picture's points (T, 468, 2)."""
    relaxed, offsets, turns_T = _expressions(mesh_Tx468x3, seen_T)
    size, onto, _ = (x[0] for x in _aligned(relaxed, picture_468x3[None]))
    offsets = _fitted_lids(offsets, relaxed * size, picture_468x3) @ onto.T * size
    body = picture_468x3 - picture_468x3[list(_EARS)].mean(0)
    out = np.zeros_like(offsets)
    for t, turn in enumerate(turns_T):
        vector = _out_of_plane(turn @ onto.T)
        angle = float(np.linalg.norm(vector))
        shown = cv2.Rodrigues(vector * min(1.0, _TURN_MOST / max(angle, 1e-9)))[0]
        out[t] = (body + offsets[t] * (1 - smoothstep(np.array(angle), *_TURNED))) @ shown.T - body
    return _not_crossing(out[..., :2], picture_468x3[:, :2])


def _expressions(mesh_Tx468x3: Array, seen_T: Array) -> tuple[Array, Array, Array]:
    """The relaxed face (468, 3), every frame's difference from it at its size (T, 468, 3), and its rotation (T, 3, 3)."""
    relaxed = mesh_Tx468x3[int(np.flatnonzero(seen_T)[0])]
    for _ in range(2):
        size, turn, middle = _aligned(relaxed, mesh_Tx468x3)
        freed = np.einsum("tij,tni->tnj", turn, mesh_Tx468x3 - middle[:, None]) / size[:, None, None]
        gap = np.linalg.norm(freed[:, 13] - freed[:, 14], axis=1)
        calm = seen_T & (gap <= np.percentile(gap[seen_T], _CALM))
        lids = np.sum([np.linalg.norm(freed[:, u] - freed[:, w], axis=1) for u, w in _LIDS], 0)
        calm &= lids >= np.median(lids[calm])
        relaxed = np.median(freed[calm], 0)
    offsets = freed - relaxed
    offsets[..., 2] = 0  # its depth is mostly noise
    return relaxed, offsets, turn


def _unfolded(rig: Rig, shift_TxKx2: Array) -> Array:
    """The shifts, made smaller in frames in which the face would fold over itself: a skin with holes is worse than a smaller turn."""
    before = _areas(rig.points_Kx2[rig.triangles_Fx3])
    share_T = np.ones(len(shift_TxKx2))
    for smaller in _SMALLER:
        after = _areas((rig.points_Kx2 + share_T[:, None, None] * shift_TxKx2)[:, rig.triangles_Fx3])
        folded = np.maximum(-np.sign(before) * after, 0).sum(1) > _FOLD_MOST * np.abs(before).sum()
        share_T[folded] = smaller
    share_T = np.minimum(share_T, savitzky_golay(share_T, 5, 1))
    return np.asarray(shift_TxKx2 * share_T[:, None, None])


def _areas(corners: Array) -> Array:
    """Twice the signed areas (…) of triangles (…, 3, 2)."""
    a, b = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _aligned(source_468x3: Array, targets_Tx468x3: Array) -> tuple[Array, Array, Array]:
    """Scale (T), rotation (T, 3, 3) and shift (T, 3) that bring the source's rigid points onto the targets' (Umeyama 1991)."""
    rigid = list(_RIGID)
    a, b = source_468x3[rigid], targets_Tx468x3[:, rigid]
    a0, b0 = a.mean(0), b.mean(1)
    a, b = a - a0, b - b0[:, None]
    u, s, vt = np.linalg.svd(np.einsum("tni,nj->tij", b, a))
    sign = np.ones((len(b), 3))
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = (u * sign[:, None]) @ vt
    size = (s * sign).sum(1) / (a**2).sum()
    return size, turn, b0 - size[:, None] * np.einsum("tij,j->ti", turn, a0)


def _out_of_plane(turn_33: Array) -> Array:
    """The rotation without its part in the picture's plane, as a vector: axis times radians (3,)."""
    roll = np.arctan2(turn_33[1, 0] - turn_33[0, 1], turn_33[0, 0] + turn_33[1, 1])
    c, s = np.cos(roll), np.sin(roll)
    return np.asarray(cv2.Rodrigues(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ turn_33)[0][:, 0])


def _fitted_lids(offsets: Array, relaxed_468x3: Array, picture_468x3: Array) -> Array:
    """Offsets whose lids move as far as the picture's eyes are open: shut is shut, however large the eyes are."""
    out = offsets.copy()
    for upper, lower in _LIDS:
        here, there = (float(np.linalg.norm((mesh[upper] - mesh[lower])[:2])) for mesh in (picture_468x3, relaxed_468x3))
        fit = float(np.clip(here / max(there, 1e-3), 0.2, 2.0))
        out[:, [upper, lower]] = offsets[:, [upper, lower]] * fit
    return out


def _not_crossing(shift_Tx468x2: Array, picture_468x2: Array) -> Array:
    """Lids and lips that would pass each other meet halfway."""
    down = unit(picture_468x2[152] - picture_468x2[10])
    out = shift_Tx468x2.copy()
    for upper, lower in (*_LIDS, *_LIPS):
        gap = (picture_468x2[lower] + out[:, lower] - picture_468x2[upper] - out[:, upper]) @ down
        over = np.minimum(gap, 0)[:, None] * down / 2
        out[:, upper], out[:, lower] = out[:, upper] + over, out[:, lower] - over
    return out


def _apart(mesh_468x2: Array) -> Array:
    """The mesh with lips and lids opened a little, so that triangles tell the upper from the lower ones even where they touch."""
    out = mesh_468x2.copy()
    down = unit(mesh_468x2[152] - mesh_468x2[10])
    tall = float(np.linalg.norm(mesh_468x2[152] - mesh_468x2[10]))
    for pairs, gap in ((_LIPS, 0.012), (_LIDS, 0.006)):
        for upper, lower in pairs:
            out[upper], out[lower] = out[upper] - gap * tall * down, out[lower] + gap * tall * down
    return out


def _triangles(points_Nx2: Array, longest: float, face: int) -> Array:
    """Delaunay triangles (F, 3) of one orientation; those of the skull alone no longer than `longest`."""
    low, high = points_Nx2.min(0) - 10, points_Nx2.max(0) + 10
    plane = cv2.Subdiv2D((int(low[0]), int(low[1]), int(high[0] - low[0]) + 2, int(high[1] - low[1]) + 2))
    number: dict[tuple[float, float], int] = {}
    for i, (x, y) in enumerate(points_Nx2.astype(np.float32)):
        if (float(x), float(y)) not in number:
            number[float(x), float(y)] = i
            plane.insert((float(x), float(y)))
    found = []
    for corners in np.asarray(plane.getTriangleList()).reshape(-1, 3, 2).tolist():
        at = [number.get((x, y), -1) for x, y in corners]
        if min(at) < 0:  # a corner of the plane itself
            continue
        a, b, c = (points_Nx2[i] for i in at)
        if min(at) >= face and max(np.linalg.norm(a - b), np.linalg.norm(b - c), np.linalg.norm(c - a)) > longest:
            continue
        found.append(at if _areas(np.stack([a, b, c])) > 0 else at[::-1])
    return np.array(sorted(found), int).reshape(-1, 3)


def _spread(points_Kx2: Array, skull_Sx2: Array, reach: float) -> Array:
    """Rig.spread_VxK: face points move by themselves; skull vertices with the nearest points of the oval, less the farther they are."""
    k, oval = len(points_Kx2), len(_OVAL)
    away = np.linalg.norm(skull_Sx2[:, None] - points_Kx2[None, :oval], axis=-1)
    near = 1 / np.maximum(away, 1e-3) ** 2
    fade = 1 - smoothstep(away.min(1), 0, reach)
    rows = np.zeros((len(skull_Sx2), k))
    rows[:, :oval] = near / near.sum(1, keepdims=True) * fade[:, None]
    return np.concatenate([np.eye(k), rows])


def _inside_colour(head: Layer, mesh_468x2: Array) -> Array:
    """Dark, of the lips' hue; premultiplied, opaque (4,)."""
    h, w = head.texture_HWx4.shape[:2]
    x, y = np.clip(np.round(mesh_468x2[list(_LIPS_OUT)] - head.origin_xy).astype(int), 0, [w - 1, h - 1]).T
    return np.append(np.median(head.texture_HWx4[y, x, :3], 0) * _DARK, 255).round().astype(np.uint8)

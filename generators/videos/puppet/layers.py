"""The character taken apart: one textured, weighted triangle mesh for each layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.videos.plate import box_around, fill_from, soft_fill
from generators.videos.puppet.cutout import Figure, Matte, point
from generators.videos.puppet.numerics import Array, smoothstep, unit
from generators.videos.puppet.parts import Parts
from generators.videos.puppet.skeleton import HEAD, HIPS, LIMBS, NECK, PELVIS, Limb

_VISIBLE = 0.004
_MESH_STEPS = 12
"""squares of the mesh along the torso"""
_MARGIN_PX = 12
"""around what is worked on: more than any filter here reaches"""
MOUTH = "mouth"
"""the layer behind shut lips, see face.py; it moves with the head"""


@dataclass(frozen=True)
class Layer:
    """A sheet of the cut-out. Vertices are in the reference picture's pixels."""

    texture_HWx4: Array
    """premultiplied RGB and alpha, uint8, cropped to `origin_xy`"""
    origin_xy: tuple[int, int]
    vertices_Vx2: Array
    triangles_Fx3: Array
    weights: dict[str, Array]
    """meaning depends on the layer, see deform.py; each (V,)"""


def _disc(figure: Figure, joint: int, radius: float) -> Array:
    """Pixels within `radius` torso lengths of a joint (H, W, bool)."""
    canvas = np.zeros(figure.image_HWC.shape[:2], np.uint8)
    cv2.circle(canvas, point(figure.joints_19x2[joint]), int(radius * figure.torso_px), 1, -1)
    return canvas > 0


def _half_width(figure: Figure, depth_HW: Array, limb: Limb, most: float) -> float:
    """Half of a limb's thickness at its middle joint, in torso lengths: as thick as the lower bone where that begins."""
    h, w = depth_HW.shape
    middle, end = figure.joints_19x2[list(limb.joints[1:3])]
    at = np.clip((middle + np.linspace(0.1, 0.5, 9)[:, None] * (end - middle)).astype(int), 0, [w - 1, h - 1])
    r = max(1, int(0.03 * figure.torso_px))
    across = [depth_HW[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].max() for x, y in at]
    return float(np.clip(np.median(across) / figure.torso_px, 0.03, most))


def _limb_masks(figure: Figure, parts: Parts, depth_HW: Array, limb: Limb) -> dict[str, Array]:
    """Upper and lower piece of a limb with round ends that overlap their neighbours, so that bending opens no gap."""
    upper, lower, last = limb.bones
    root, middle = limb.joints[:2]
    at_root, most = (0.17, 0.11) if limb.is_arm else (0.24, 0.15)
    knob = _disc(figure, middle, _half_width(figure, depth_HW, limb, most))
    masks = {}
    if upper in figure.bones:
        masks[upper] = parts.are(upper) | (_disc(figure, root, at_root) & parts.are("torso")) | (knob & parts.are(lower))
    if lower in figure.bones:
        masks[lower] = parts.are(lower, last) | (knob & parts.are(upper))
    return masks


def _neck(figure: Figure) -> Array:
    canvas = np.zeros(figure.image_HWC.shape[:2], np.uint8)
    neck, head = figure.joints_19x2[NECK], figure.joints_19x2[HEAD]
    cv2.line(canvas, point(neck), point(neck + 0.55 * (head - neck)), 1, max(1, int(0.15 * figure.torso_px)))
    return canvas > 0


def _garment(figure: Figure, parts: Parts, solid_HW: Array) -> Array:
    """Thigh pixels of one garment that joins both legs (a skirt, or a seat): the pelvis' colour, no gap along the midline."""
    h, w = solid_HW.shape
    pelvis, knees = (
        figure.joints_19x2[PELVIS],
        (figure.joints_19x2[LIMBS["left_leg"].joints[1]] + figure.joints_19x2[LIMBS["right_leg"].joints[1]]) / 2,
    )
    down = knees - pelvis
    lab = cv2.cvtColor(cv2.GaussianBlur(figure.image_HWC, (0, 0), 3), cv2.COLOR_RGB2LAB).astype(np.float32)
    line = np.clip((pelvis + np.linspace(0, 1, 40)[:, None] * down).astype(int), 0, [w - 1, h - 1])
    colour = lab[line[0, 1], line[0, 0]]
    same = solid_HW[line[:, 1], line[:, 0]] & (np.linalg.norm(lab[line[:, 1], line[:, 0]] - colour, axis=1) < 45)
    run = 40 if same.all() else int(np.argmin(same))
    reach = run / 40 if run < 38 else 0.2  # unbroken to the knees: legs held together in trousers, so only the seat
    y, x = np.indices((h, w))
    along = ((x - pelvis[0]) * down[0] + (y - pelvis[1]) * down[1]) / (down @ down + 1e-6)
    mask = parts.are("left_thigh", "right_thigh") & (along < reach + 0.12) & (np.linalg.norm(lab - colour, axis=2) < 60)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))
    return cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((9, 9))) > 0


def _mesh(alpha_HW: Array, step: int) -> tuple[Array, Array]:
    """A regular grid over the visible pixels: vertices (V, 2) and triangles (F, 3)."""
    h, w = alpha_HW.shape
    ys, xs = np.nonzero(alpha_HW > _VISIBLE)
    gy, gx = np.arange(ys.min() - step, ys.max() + 2 * step, step), np.arange(xs.min() - step, xs.max() + 2 * step, step)
    count = cv2.integral((alpha_HW > _VISIBLE).astype(np.uint8)).astype(np.int64)
    cy, cx = np.clip(gy, 0, h), np.clip(gx, 0, w)
    cells = (
        count[np.ix_(cy[1:], cx[1:])] - count[np.ix_(cy[:-1], cx[1:])] - count[np.ix_(cy[1:], cx[:-1])] + count[np.ix_(cy[:-1], cx[:-1])]
    )
    row, col = np.nonzero(cells)
    nx = len(gx)
    i = row * nx + col
    faces = np.stack([i, i + 1, i + nx, i + 1, i + nx + 1, i + nx], 1).reshape(-1, 3)
    used, triangles = np.unique(faces, return_inverse=True)
    grid = np.stack(np.meshgrid(gx, gy), -1).reshape(-1, 2).astype(float)
    return grid[used], triangles.reshape(-1, 3)


def _torso_weights(figure: Figure, v: Array, has_lap: bool) -> dict[str, Array]:
    """`spine`: 0 at the pelvis, 1 at the neck; `lap`: how much the thighs pull; `side`: 1 at the left leg."""
    j, torso = figure.joints_19x2, figure.torso_px
    hips = j[HIPS[0]] - j[HIPS[1]]
    along = (v - j[PELVIS]) @ unit(j[NECK] - j[PELVIS]) / torso
    side = (v - j[PELVIS]) @ hips / (hips @ hips + 1e-6)
    return {"spine": smoothstep(along, 0, 1), "lap": smoothstep(-along, 0, 0.6) * has_lap, "side": smoothstep(side, -0.6, 0.6)}


def _limb_weights(figure: Figure, v: Array, limb: Limb) -> dict[str, Array]:
    """How far each vertex has gone over the root, middle and end joint to the bone behind it, and which joint is nearest."""
    a, b, c, d = figure.joints_19x2[list(limb.joints)]
    radii = [r * figure.torso_px for r in ((0.13, 0.10, 0.07) if limb.is_arm else (0.2, 0.14, 0.08))]
    over_middle, over_end = unit(unit(b - a) + unit(c - b)), unit(unit(c - b) + unit(d - c))
    return {
        "root": smoothstep((v - a) @ unit(b - a), -0.6 * radii[0], 1.2 * radii[0]),
        "middle": smoothstep((v - b) @ over_middle, -radii[1], radii[1]),
        "end": smoothstep((v - c) @ over_end, -radii[2], radii[2]),
        "nearest": np.argmin(np.stack([np.linalg.norm(v - p, axis=1) for p in (a, b, c)]), 0),
    }


def head_weights(figure: Figure, v: Array) -> Array:
    """How far vertices (V, 2) follow the head and not the neck (V,), 0 to 1."""
    neck, head = figure.joints_19x2[NECK], figure.joints_19x2[HEAD]
    along = (v - neck) @ unit(head - neck) / (np.linalg.norm(head - neck) + 1e-6)
    return smoothstep(along, 0.05, 0.6)


def _weights(figure: Figure, name: str, v: Array, has_lap: bool) -> dict[str, Array]:
    if name == "torso":
        return _torso_weights(figure, v, has_lap)
    if name == "head":
        return {"head": head_weights(figure, v)}
    return _limb_weights(figure, v, next(limb for limb in LIMBS.values() if name in limb.bones))


def _cropped(texture_HWx4: Array) -> tuple[Array, tuple[int, int]]:
    ys, xs = np.nonzero(texture_HWx4[..., 3] > 0)
    y0, x0 = max(0, int(ys.min()) - 2), max(0, int(xs.min()) - 2)
    return np.ascontiguousarray(texture_HWx4[y0 : ys.max() + 3, x0 : xs.max() + 3]), (x0, y0)


def _masks(figure: Figure, matte: Matte, parts: Parts, garment: Array) -> dict[str, Array]:
    depth = cv2.distanceTransform(matte.solid_HW.astype(np.uint8), cv2.DIST_L2, 5)
    torso = parts.are("torso") | (parts.chest_HW & ~parts.are("head")) | (_neck(figure) & parts.are("head", "torso")) | garment
    masks = {"torso": torso, "head": parts.are("head") | (_disc(figure, NECK, 0.22) & parts.are("torso"))}
    for limb in LIMBS.values():
        masks |= _limb_masks(figure, parts, depth, limb)
    return {name: mask & matte.solid_HW for name, mask in masks.items()}


def layers_of(figure: Figure, matte: Matte, parts: Parts) -> dict[str, Layer]:
    """Take the character apart. Layers with under 30 pixels are left out."""
    y, x = box = box_around(matte.solid_HW, _MARGIN_PX)
    corner = np.array([x.start, y.start])
    near = replace(figure, image_HWC=figure.image_HWC[box], mask_HW=figure.mask_HW[box], joints_19x2=figure.joints_19x2 - corner)
    layers = _layers_near(
        near,
        Matte(matte.alpha_HW[box], matte.solid_HW[box]),
        replace(parts, label_HW=parts.label_HW[box], chest_HW=parts.chest_HW[box]),
    )
    return {
        name: replace(
            layer, origin_xy=(layer.origin_xy[0] + x.start, layer.origin_xy[1] + y.start), vertices_Vx2=layer.vertices_Vx2 + corner
        )
        for name, layer in layers.items()
    }


def _layers_near(figure: Figure, matte: Matte, parts: Parts) -> dict[str, Layer]:
    """As `layers_of`, for a figure cropped to its surroundings."""
    solid = matte.solid_HW
    inner = cv2.erode(solid.astype(np.uint8), np.ones((5, 5))) > 0
    image = np.where(matte.alpha_HW[..., None] > 0.98, figure.image_HWC, fill_from(figure.image_HWC, inner))  # no old scene in edge pixels
    has_lap = {"left_thigh", "right_thigh"} <= figure.bones and not figure.in_profile
    garment = _garment(figure, parts, solid) if has_lap else np.zeros_like(solid)
    masks = _masks(figure, matte, parts, garment)
    body = fill_from(image, parts.are("torso") & inner)
    behind_arms = masks["torso"] & ~parts.are("torso", "head") & ~garment
    behind_head = parts.are("head") & masks["torso"]
    torso = np.where(behind_arms[..., None], soft_fill(body, behind_arms), np.where(behind_head[..., None], body, image))
    step = max(5, int(figure.torso_px / _MESH_STEPS))
    layers = {}
    for name, mask in masks.items():
        if mask.sum() < 30:
            continue
        y, x = box = box_around(mask, _MARGIN_PX)
        alpha = np.maximum(matte.alpha_HW[box], behind_arms[box]) if name == "torso" else matte.alpha_HW[box]
        alpha = alpha * _softened(mask[box], solid[box])
        if not (alpha > _VISIBLE).any():
            continue
        rgb = (torso if name == "torso" else image)[box]
        texture, (left, top) = _cropped(np.round(np.dstack([rgb * alpha[..., None], alpha * 255])).astype(np.uint8))
        corner = np.array([x.start, y.start])
        vertices, triangles = _mesh(alpha, step)
        weights = _weights(figure, name, vertices + corner, has_lap)
        layers[name] = Layer(texture, (left + x.start, top + y.start), vertices + corner, triangles, weights)
    return layers


def _softened(mask_HW: Array, solid_HW: Array) -> Array:
    """How much of each pixel is the layer's (H, W, float32): soft at cuts; at the silhouette the matte is what is soft."""
    near = cv2.dilate(mask_HW.astype(np.uint8), np.ones((7, 7))) > 0
    edge = np.where(solid_HW, cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 1.2), near)
    return np.asarray(edge * near, np.float32)

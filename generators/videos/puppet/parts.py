"""Which body part every pixel of the character belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from generators.videos.puppet.cutout import Figure, point
from generators.videos.puppet.numerics import Array, unit
from generators.videos.puppet.skeleton import ARM_BONES, BONES, HEAD, HIPS, LIMB_BONES, LIMBS, SHOULDERS, Limb

COARSE = 2
"""labels are found at 1/COARSE of the picture's size"""
_EDGE_PRICE = 3.0
_STEPS = ((0, 1, 1.0), (1, 0, 1.0), (0, -1, 1.0), (-1, 0, 1.0), (1, 1, 1.414), (1, -1, 1.414), (-1, 1, 1.414), (-1, -1, 1.414))


@dataclass(frozen=True)
class Parts:
    """Labels of the character's pixels."""

    names: tuple[str, ...]
    """label → part: "none", "torso", "head", then limb bones"""
    label_HW: Array
    """uint8"""
    chest_HW: Array
    """bool: the quadrilateral of shoulders and hips"""
    chest_hidden: float
    """share of the chest that arms lie over; it has to be invented once they move away"""

    def are(self, *names: str) -> Array:
        """Pixels (H, W, bool) of any of these parts."""
        return np.isin(self.label_HW, [self.names.index(n) for n in names if n in self.names])


def chest_quad(figure: Figure, wide: float, tall: float) -> Array:
    """Shoulders and hips, stretched about their middle, as a filled polygon (H, W, bool)."""
    corners = figure.joints_19x2[[*SHOULDERS, *HIPS[::-1]]]
    middle = corners.mean(0)
    canvas = np.zeros(figure.image_HWC.shape[:2], np.uint8)
    cv2.fillConvexPoly(canvas, (middle + (corners - middle) * [wide, tall]).astype(np.int32), 1)
    return canvas > 0


def _bone_seed(figure: Figure, bone: str, torso: Array, torso_depth_m: float) -> Array:
    line = figure.line(bone, 0.45)
    in_front = figure.world_19x3[BONES[bone].end, 2] < torso_depth_m + 0.02
    if bone in ARM_BONES and in_front:
        crosses = (line & torso).mean() > 0.0005
        return figure.line(bone, 0.8) if crosses else line
    if bone in ARM_BONES or bone.endswith("thigh"):
        return line & ~torso
    return line


def _seeds(figure: Figure, names: tuple[str, ...]) -> Array:
    """Pixels whose part is certain (H, W, uint8); nearer limbs are drawn over farther ones."""
    seeds = np.zeros(figure.image_HWC.shape[:2], np.uint8)
    torso = chest_quad(figure, 0.72, 0.95)
    seeds[torso] = names.index("torso")
    cv2.circle(seeds, point(figure.joints_19x2[HEAD]), int(0.16 * figure.torso_px), names.index("head"), -1)
    depth = float(figure.world_19x3[[*SHOULDERS, *HIPS], 2].mean())
    for name in sorted(names[3:], key=lambda bone: -figure.world_19x3[BONES[bone].end, 2]):
        seeds[_bone_seed(figure, name, torso, depth)] = names.index(name)
    return seeds


def _edge_strength(image_HWC: Array) -> Array:
    """Colour gradient (H, W), about 1 at a clear edge."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image_HWC, (0, 0), 1), cv2.COLOR_RGB2LAB).astype(np.float32)
    squares = [cv2.Sobel(lab, cv2.CV_32F, dx, dy) ** 2 for dx, dy in ((1, 0), (0, 1))]
    return np.asarray(np.sqrt((squares[0] + squares[1]).sum(2)) / 60)


def _moved(a: Array, dy: int, dx: int, fill: float) -> Array:
    out = np.full_like(a, fill)
    h, w = a.shape
    out[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)] = a[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
    return out


def _grown(seeds: Array, inside: Array, price: Array, reach: Array) -> Array:
    """Label (H, W) of the nearest seed by geodesic distance; a step costs `price` / `reach`[label]. Relaxed until nothing changes."""
    label = np.where(inside, seeds, 0).astype(np.uint8)
    dist = np.where(label > 0, 0, np.inf).astype(np.float32)
    per_step = (1 / reach).astype(np.float32)
    price = np.where(inside, price, np.inf).astype(np.float32)
    for _ in range(sum(seeds.shape)):
        changed = False
        for dy, dx, length in _STEPS:
            from_label = _moved(label, dy, dx, 0)
            through = _moved(dist, dy, dx, np.inf) + np.float32(length) * per_step[from_label] * price
            better = through < dist
            if better.any():
                dist[better], label[better], changed = through[better], from_label[better], True
        if not changed:
            break
    return label


def _cut_at_joint(figure: Figure, label_HW: Array, names: tuple[str, ...], limb: Limb) -> None:
    """Move the border between a limb's two long bones to the joint, in place: growing along patterned cloth may pass it by far.

    A limb that is bent by more than a right angle stays as it is, because there the line through the joint cuts both bones.
    """
    upper, lower, _ = limb.bones
    if not {upper, lower} <= set(names):
        return
    a, b, c = figure.joints_19x2[list(limb.joints[:3])]
    before, after = unit(b - a), unit(c - b)
    if before @ after < 0:
        return
    y, x = np.indices(label_HW.shape)
    past = (np.stack([x, y], -1) - b) @ (before + after) > 0
    is_upper, is_lower = label_HW == names.index(upper), label_HW == names.index(lower)
    label_HW[is_upper & past] = names.index(lower)
    label_HW[is_lower & ~past] = names.index(upper)


def parts_of(figure: Figure, solid_HW: Array) -> Parts:
    """Label the character's pixels: geodesic distance inside the matte in units of the parts' radii, dear at colour edges."""
    h, w = solid_HW.shape
    small = (w // COARSE, h // COARSE)
    names = ("none", "torso", "head", *(b for b in LIMB_BONES if b in figure.bones))
    inside = cv2.dilate(cv2.resize(solid_HW.astype(np.uint8), small, interpolation=cv2.INTER_AREA), np.ones((3, 3))) > 0
    seeds = cv2.resize(_seeds(figure, names), small, interpolation=cv2.INTER_NEAREST)
    edge = _edge_strength(cv2.resize(figure.image_HWC, small, interpolation=cv2.INTER_AREA))
    radius = {"none": 1.0, "torso": BONES["spine"].radius, "head": BONES["head"].radius, **{b: BONES[b].radius for b in names[3:]}}
    reach = np.array([radius[n] for n in names]) * figure.torso_px / COARSE
    label = _grown(seeds, inside, 1 + _EDGE_PRICE * np.minimum(edge, 2), reach)
    label = cv2.resize(cv2.medianBlur(label, 5), (w, h), interpolation=cv2.INTER_NEAREST)
    for limb in LIMBS.values():
        _cut_at_joint(figure, label, names, limb)
    chest = chest_quad(figure, 1.12, 1.06)
    arms = np.isin(label, [i for i, n in enumerate(names) if n in ARM_BONES])
    label[figure.picture_hw[0] :][arms[figure.picture_hw[0] :]] = 0  # stretched hands would be claws
    return Parts(names, label, chest, float((arms & chest).sum() / max(1, chest.sum())))

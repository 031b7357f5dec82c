"""The character's own picture without the character: where an animation takes place."""

from __future__ import annotations

import cv2
import numpy as np

from generators.videos.plate import MASK_ON, inpaint, soft_fill
from generators.videos.puppet.cutout import Figure, ellipse, point
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.render import Character
from generators.videos.puppet.skeleton import ANKLES, HEAD, LIMBS, TOES

_STANDS_OUT = 14.0
"""grey levels by which something about the head must differ from its backdrop to belong to the character"""
_NEARBY = 0.8
"""torso lengths around the hole that its fill may borrow from: near textures fit, far ones cost time"""


def own_scene(character: Character, image_HWC: Array) -> Array:
    """The picture without the character and the shadow it stands in. The character may be the picture's at another size."""
    figure, alpha_HW = character.figure, character.alpha_HW
    h, w = figure.picture_hw
    hole = ((alpha_HW > 0.03) | (figure.mask_HW > MASK_ON))[:h, :w]
    for limb in LIMBS.values():
        if limb.bones[2] in figure.bones:
            hole = hole | figure.line(limb.bones[2], 1.3)[:h, :w]
    hole = hole | _headgear(figure, figure.image_HWC[:h, :w], hole) | _contact_shadow(figure)
    grown = cv2.dilate(hole.astype(np.uint8), ellipse(max(2, 0.04 * figure.torso_px)))
    hole = cv2.resize(grown, image_HWC.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    ys, xs = np.nonzero(hole)
    margin = int(_NEARBY * figure.torso_px * image_HWC.shape[0] / h)
    part = np.s_[max(0, ys.min() - margin) : ys.max() + margin, max(0, xs.min() - margin) : xs.max() + margin]
    scene = image_HWC.copy()
    scene[part] = inpaint(np.ascontiguousarray(image_HWC[part]), np.ascontiguousarray(hole[part]))
    return scene


def _mark(figure: Figure, centre: Array, wide: float, tall: float) -> Array:
    """An ellipse of these torso lengths (H, W, bool), at the picture's size."""
    mark = np.zeros(figure.picture_hw, np.uint8)
    cv2.ellipse(mark, point(centre), (round(wide * figure.torso_px), round(tall * figure.torso_px)), 0, 0, 360, 1, -1)
    return mark > 0


def _headgear(figure: Figure, image_HWC: Array, hole_HW: Array) -> Array:
    """What stands out from the backdrop about the head and hangs together with it: hats and antennas that no matte follows."""
    near = _mark(figure, figure.joints_19x2[HEAD] - [0, 0.15 * figure.torso_px], 0.5, 0.6)
    backdrop = soft_fill(image_HWC, near | hole_HW).astype(np.float32)
    differs = near & (np.abs(image_HWC - backdrop).mean(2) > _STANDS_OUT)
    body = cv2.dilate(hole_HW.astype(np.uint8), ellipse(2)) > 0
    _, labels = cv2.connectedComponents((differs | (body & near)).astype(np.uint8))
    touching = np.unique(labels[hole_HW & near])
    return np.isin(labels, touching[touching > 0])


def _contact_shadow(figure: Figure) -> Array:
    """The ground about the feet, which the character darkens."""
    shadow = np.zeros(figure.picture_hw, bool)
    for side in range(2):
        ankle, toe = figure.joints_19x2[ANKLES[side]], figure.joints_19x2[TOES[side]]
        if min(figure.visible_19[ANKLES[side]], figure.visible_19[TOES[side]]) > 0.5:
            shadow |= _mark(figure, (ankle + toe) / 2 + [0, 0.10 * figure.torso_px], 0.55, 0.22)
    return shadow

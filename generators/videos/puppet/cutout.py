"""The character as it stands in its picture (Figure), and its matte."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.poses.tracks import INDEX, People
from generators.videos.plate import fill_from
from generators.videos.puppet.knuckles import landmarks_of
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.skeleton import (
    BONES,
    HEAD,
    LIMB_BONES,
    LIMBS,
    NECK,
    PELVIS,
    body_yaw,
    bone_vectors,
    head_roll,
    joints_of,
    pixels_per_metre,
    visibility_of,
)
from manifests.errors import BadInput

TORSO_MIN_PX = 16.0
PROFILE_COS = 0.5
"""a picture turned further than 60° is a profile"""
_CLEAR_OF_BODY = 0.3
"""torso lengths from the spine at which a wrist stands beside the body, even in profile"""
_GRABCUT_SEED = 7


@dataclass(frozen=True)
class Figure:
    """One person in one picture, with what the pose tells of them."""

    image_HWC: Array
    """RGB, uint8; the bottom rows are stretched downwards when `cut_below`"""
    mask_HW: Array
    """soft silhouette, uint8"""
    joints_19x2: Array
    world_19x3: Array
    visible_19: Array
    scale: float
    """pixels per metre"""
    roll_rad: float
    nose_2: Array
    """from the head's centre, metres"""
    yaw_rad: float
    bones: frozenset[str]
    """those that can be seen in the picture"""
    lengths_m: dict[str, float]
    picture_hw: tuple[int, int]
    """size before stretching"""
    cut_below: bool
    """the body leaves the picture through its lower edge"""
    face_468x3: Array | None = None
    """MediaPipe's face mesh in the picture's pixels; None where no face is seen or nobody looked"""

    @property
    def torso_px(self) -> float:
        return float(np.linalg.norm(self.joints_19x2[NECK] - self.joints_19x2[PELVIS]))

    @property
    def in_profile(self) -> bool:
        """Turned so far that one arm and one leg stand before the other."""
        return abs(float(np.cos(self.yaw_rad))) < PROFILE_COS

    def line(self, bone: str, width: float) -> Array:
        """Pixels (H, W, bool) within `width` bone radii of a bone."""
        canvas = np.zeros(self.image_HWC.shape[:2], np.uint8)
        b = BONES[bone]
        thick = max(1, int(2 * width * b.radius * self.torso_px))
        cv2.line(canvas, point(self.joints_19x2[b.start]), point(self.joints_19x2[b.end]), 1, thick)
        return canvas > 0


@dataclass(frozen=True)
class Matte:
    """Where the character is."""

    alpha_HW: Array
    """0 to 1, float32"""
    solid_HW: Array
    """bool"""


def point(p: Array) -> tuple[int, int]:
    """A joint as OpenCV wants it."""
    return round(float(p[0])), round(float(p[1]))


def ellipse(radius_px: float) -> Array:
    """A round structuring element."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(max(1, radius_px)) + 1,) * 2)


def main_person(people: People) -> int:
    """The track to animate in a picture: the largest silhouette, weighted by how well its joints are seen.

    Heads below hips count a tenth: pose models see such people in scenery. Raises BadInput("no_person") when nobody is there.
    """
    sizes = (people.masks_PTHW[:, 0] > 127).sum((1, 2)) * people.present_PT[:, 0] * people.visibility_PT33[:, 0].mean(1)
    joints = joints_of(people.landmarks_PT33x3[:, 0, :, :2].astype(float))
    scores = np.where(joints[:, NECK, 1] < joints[:, PELVIS, 1], sizes, 0.1 * sizes)
    if not len(scores) or scores.max() <= 0:
        raise BadInput("no person was found in the painted picture; paint the character whole and facing the camera", "no_person")
    return int(np.argmax(scores))


def rescaled(image_HWC: Array, people: People, factor: float) -> tuple[Array, People]:
    """A picture and its people at another size."""
    h, w = (max(16, round(v * factor)) for v in image_HWC.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    masks = [[cv2.resize(m, (w, h), interpolation=cv2.INTER_LINEAR) for m in frames] for frames in people.masks_PTHW]
    ratio = np.array([w / image_HWC.shape[1], h / image_HWC.shape[0], factor], np.float32)
    details = people.details and replace(
        people.details, hands_PT2x21x3=people.details.hands_PT2x21x3 * ratio, faces_PT468x3=people.details.faces_PT468x3 * ratio
    )
    return cv2.resize(image_HWC, (w, h), interpolation=how), replace(
        people, landmarks_PT33x3=people.landmarks_PT33x3 * ratio, masks_PTHW=np.array(masks, np.uint8), details=details
    )


def _stretched(image_HWC: Array, mask_HW: Array) -> tuple[Array, Array]:
    """Room below a body that the picture cuts off: its last rows are pulled down (mirroring them would double the hands)."""
    h, w = mask_HW.shape
    more, band = int(0.25 * h), max(2, int(0.03 * h))
    pulled = cv2.resize(image_HWC[-band:], (w, more + band), interpolation=cv2.INTER_CUBIC)
    return np.vstack([image_HWC[:-band], pulled]), cv2.copyMakeBorder(mask_HW, 0, more, 0, 0, cv2.BORDER_REPLICATE)


def _off_spine(joints: Array, joint: int) -> float:
    """Distance of a joint from the spine's line, in torso lengths."""
    up = joints[NECK] - joints[PELVIS]
    off = joints[joint] - joints[PELVIS]
    return abs(float(up[0] * off[1] - up[1] * off[0])) / float(up @ up + 1e-9)


def _bones_seen(joints: Array, visible: Array, hw: tuple[int, int], height: int) -> frozenset[str]:
    h, w = hw
    inside = ((joints > -0.03 * h) & (joints < [w + 0.03 * h, height])).all(1)
    least = np.where(joints[:, 1] > 0.97 * h, 0.15, 0.5)
    for limb in (limb for limb in LIMBS.values() if limb.is_arm):
        if _off_spine(joints, limb.joints[2]) > _CLEAR_OF_BODY:
            arm = list(limb.joints[1:])
            least[arm] = np.minimum(least[arm], 0.35)  # of an arm on the far side models are unsure, though it shows beside the body
    seen = inside & (visible > least)
    bones = {name for name, b in BONES.items() if seen[b.start] and seen[b.end]}
    for limb in LIMBS.values():
        if limb.bones[1] not in bones:
            bones.discard(limb.bones[2])
    return frozenset(bones)


def _lengths_m(joints: Array, world: Array, scale: float) -> dict[str, float]:
    """Picture length, lengthened by what the world pose says of foreshortening (at most to 1/0.6)."""
    lengths = {}
    for bone in BONES:
        v = bone_vectors(world, bone)
        flat = 1.0 if bone in ("head", "spine") else float(np.clip(np.linalg.norm(v[:2]) / (np.linalg.norm(v) + 1e-9), 0.6, 1))
        lengths[bone] = float(np.linalg.norm(bone_vectors(joints, bone))) / scale / flat
    return lengths


def _face(people: People, track: int) -> Array | None:
    seen = people.details is not None and people.details.face_seen_PT[track, 0] > 0
    return people.details.faces_PT468x3[track, 0].astype(float) if people.details is not None and seen else None


def figure_of(image_HWC: Array, people: People, track: int) -> Figure:
    """Read one person of a picture.

    Raises BadInput: "too_small" when the torso is shorter than 16 px, "torso_cropped" when shoulders or hips lie outside.
    """
    h, w = image_HWC.shape[:2]
    landmarks, mask = landmarks_of(people, track)[0], people.masks_PTHW[track, 0]
    world33 = people.world_PT33x3[track, 0].astype(float)
    joints, world, visible = joints_of(landmarks), joints_of(world33), visibility_of(people.visibility_PT33[track, 0].astype(float))
    scale = float(pixels_per_metre(landmarks, world33))
    torso = float(np.linalg.norm(joints[NECK] - joints[PELVIS]))
    if torso < TORSO_MIN_PX or scale <= 1:
        raise BadInput(
            f"the character's torso is {torso:.0f} px long, at least {TORSO_MIN_PX:.0f} are needed; paint it larger", "too_small"
        )
    if not ((joints[[NECK, HEAD]] > 0) & (joints[[NECK, HEAD]] < [w, h])).all():
        raise BadInput("the character's shoulders or head lie outside the picture; paint it whole", "torso_cropped")
    cut = bool((mask[-3:] > 128).mean() > 0.02)
    if cut:
        image_HWC, mask = _stretched(image_HWC, mask)
    return Figure(
        image_HWC=image_HWC,
        mask_HW=mask,
        joints_19x2=joints,
        world_19x3=world,
        visible_19=visible,
        scale=scale,
        roll_rad=float(head_roll(landmarks)),
        nose_2=(landmarks[INDEX["nose"]] - joints[HEAD]) / scale,
        yaw_rad=float(body_yaw(world)),
        bones=_bones_seen(joints, visible, (h, w), image_HWC.shape[0]),
        lengths_m=_lengths_m(joints, world, scale),
        picture_hw=(h, w),
        cut_below=cut,
        face_468x3=_face(people, track),
    )


def _guided_filter(guide: Array, x: Array, radius: int, eps: float) -> Array:
    """Edge-preserving smoothing of `x` by `guide` (He, Sun, Tang, 2010); all (H, W) float32."""

    def box(a: Array) -> Array:
        return cv2.boxFilter(a, -1, (2 * radius + 1, 2 * radius + 1))

    mean_g, mean_x = box(guide), box(x)
    a = (box(guide * x) - mean_g * mean_x) / (box(guide * guide) - mean_g * mean_g + eps)
    return box(a) * guide + box(mean_x - a * mean_g)


def _bands(figure: Figure) -> tuple[Array, Array, Array]:
    """Certain, likely and possible foreground (H, W, bool)."""
    soft, torso = figure.mask_HW, figure.torso_px
    likely = soft > 127
    possible = cv2.dilate(likely.astype(np.uint8), ellipse(0.10 * torso)) > 0
    certain = cv2.erode((soft > 204).astype(np.uint8), ellipse(0.05 * torso)) > 0
    for bone in (b for b in LIMB_BONES if b in figure.bones):
        possible |= figure.line(bone, 1.1)
        certain |= figure.line(bone, 0.25) & (soft > 76)
    return certain, likely, possible


def _grabcut(image_HWC: Array, certain: Array, likely: Array, possible: Array) -> Array:
    """Colour models decide between the bands (Rother, Kolmogorov, Blake, 2004). (H, W, uint8 0/1)

    Every second pixel of every second row teaches the models, which is most of the work; the cut itself is made at full size.
    """
    state = np.full(likely.shape, cv2.GC_BGD, np.uint8)
    state[possible] = cv2.GC_PR_BGD
    state[likely] = cv2.GC_PR_FGD
    state[certain] = cv2.GC_FGD
    sparse = np.ascontiguousarray(state[::2, ::2])
    if (sparse == cv2.GC_BGD).sum() > 125 and (sparse == cv2.GC_FGD).any():
        cv2.setRNGSeed(_GRABCUT_SEED)  # its k-means draws from OpenCV's global generator
        pixels, scene, body = np.ascontiguousarray(image_HWC[..., ::-1]), np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(pixels[::2, ::2]), sparse, (0, 0, 0, 0), scene, body, 3, cv2.GC_INIT_WITH_MASK)
        cv2.grabCut(pixels, state, (0, 0, 0, 0), scene, body, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD), np.uint8)


def _without_slits(figure: Figure, solid: Array, likely: Array) -> Array:
    """Drop gaps between limbs that GrabCut kept: near the background's colour there and far from the body's."""
    lab = cv2.cvtColor(figure.image_HWC, cv2.COLOR_RGB2LAB).astype(np.float32)
    sure = cv2.erode(((figure.mask_HW > 229) & (solid > 0)).astype(np.uint8), ellipse(0.05 * figure.torso_px)) > 0
    for bone in (b for b in LIMB_BONES if b in figure.bones):
        sure |= figure.line(bone, 0.22) & (solid > 0)
    outside = cv2.dilate(np.asarray(solid | likely, np.uint8), ellipse(0.02 * figure.torso_px)) == 0
    if not outside.any() or not sure.any():
        return solid
    to_body = np.linalg.norm(lab - fill_from(lab, sure), axis=2)
    to_scene = np.linalg.norm(lab - fill_from(lab, outside), axis=2)
    return np.where((to_scene < 9) & (to_body > 22) & ~sure, 0, solid).astype(np.uint8)


def _main_pieces(solid: Array, certain: Array) -> Array:
    """The largest connected piece and those that carry a limb's core."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    if count <= 2:
        return solid
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = {1 + int(np.argmax(areas[1:]))} | {int(v) for v in np.unique(labels[certain]) if v and areas[v] > 0.01 * solid.sum()}
    return np.isin(labels, sorted(keep)).astype(np.uint8)


def matte_of(figure: Figure) -> Matte:
    """Cut the character out of its picture. Raises BadInput("no_matte")."""
    y, x = box = _surroundings(figure)
    near = _matte_near(
        replace(figure, image_HWC=figure.image_HWC[box], mask_HW=figure.mask_HW[box], joints_19x2=figure.joints_19x2 - [x.start, y.start])
    )
    alpha, solid = np.zeros(figure.mask_HW.shape, np.float32), np.zeros(figure.mask_HW.shape, bool)
    alpha[box], solid[box] = near.alpha_HW, near.solid_HW
    return Matte(alpha, solid)


def _surroundings(figure: Figure) -> tuple[slice, slice]:
    """The silhouette and the bones that are seen, and an eighth of their height around: enough scene to learn its colours from."""
    h, w = figure.mask_HW.shape
    left, top, wide, tall = cv2.boundingRect((figure.mask_HW > 127).astype(np.uint8))
    ends = [figure.joints_19x2[joint] for name in sorted(figure.bones) for joint in (BONES[name].start, BONES[name].end)]
    corners = np.array([[left, top], [left + wide, top + tall], *ends])
    low, high = corners.min(0), corners.max(0)
    margin = max(8.0, (high[1] - low[1]) / 8) + 0.2 * figure.torso_px
    x0, y0 = np.clip(np.floor(low - margin), 0, [w, h]).astype(int)
    x1, y1 = np.clip(np.ceil(high + margin), 0, [w, h]).astype(int)
    return slice(y0, y1), slice(x0, x1)


def _matte_near(figure: Figure) -> Matte:
    """As `matte_of`, for a figure cropped to its surroundings."""
    certain, likely, possible = _bands(figure)
    solid = _grabcut(figure.image_HWC, certain, likely, possible)
    solid = _main_pieces(_without_slits(figure, solid, likely), certain)
    solid = cv2.morphologyEx(cv2.morphologyEx(solid, cv2.MORPH_CLOSE, ellipse(1)), cv2.MORPH_OPEN, ellipse(1))
    if solid.sum() < 0.2 * likely.sum():
        raise BadInput("the character can't be told from its background by colour; paint it on another one", "no_matte")
    guide = cv2.cvtColor(figure.image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    fine = np.clip(_guided_filter(guide, solid.astype(np.float32), 4, 1e-4), 0, 1)
    band = (cv2.dilate(solid, ellipse(3)) - cv2.erode(solid, ellipse(3))) > 0
    alpha = np.where(band, np.clip((fine - 0.1) / 0.8, 0, 1), solid).astype(np.float32)
    return Matte(alpha, solid > 0)

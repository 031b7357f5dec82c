"""The driver's movement on the character's bones: where every joint goes, in which order the layers lie, how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.ground import has_feet, held_down, on_the_ground, planted
from generators.videos.puppet.layers import MOUTH
from generators.videos.puppet.motion import Motion
from generators.videos.puppet.numerics import Array, angle_of, ramp, sampled, savitzky_golay, unit, wrapped
from generators.videos.puppet.skeleton import (
    ANKLES,
    BONES,
    HEAD,
    JOINT,
    LIMB_BONES,
    LIMBS,
    NECK,
    PELVIS,
    bone_vectors,
)

_NARROWEST = 0.45
"""a picture has no side view: shoulders and hips never look narrower than this share of the picture's"""
_LEAN_MOST = 0.9
"""radians between spine and head"""
_FACE_MOST = 0.06
"""metres that a face may be moved over its skull, each way; farther, and pose models take the head for one seen from behind"""


@dataclass(frozen=True)
class Placement:
    """How the character stands in the output."""

    like_driver: bool
    """True: at the driver's place and size (replacement, several people); False: about its own place in its own picture"""


@dataclass(frozen=True)
class Pose:
    """Targets of one character over all frames, in output pixels."""

    joints_T19x2: Array
    scale_T: Array
    """pixels per metre of the drawn character"""
    ends_T2x2x2: Array
    """how the torso's pelvis end (0) and neck end (1) are stretched: reference picture → output"""
    depth_T19: Array
    """metres behind the torso's middle"""
    turn_T: Array
    """head roll to draw, relative to the picture, radians"""
    nose_Tx2: Array
    """shift of the face over the skull, in reference pixels, before the head is turned"""
    standing_T2: Array
    """how surely the left and the right foot stand on the ground, 0 to 1; 0 where no feet show"""
    face_TxVx2: Array
    """shifts of the head layer's vertices by the face's expression and turn, reference pixels; V is 1 where there is none, see face.py"""

    def at(self, frame_numbers: Array) -> Pose:
        """The same performance at other, fractional instants."""
        return Pose(**{f.name: sampled(getattr(self, f.name), frame_numbers) for f in fields(self)})


def turned_deg(yaw_rad: float, motion: Motion) -> Array:
    """How differently driver and a picture of this yaw face the camera (T,), 0 to 180."""
    return np.asarray(np.degrees(np.abs(wrapped(motion.yaw_T - yaw_rad))))


def drawn_scale(figure: Figure, motion: Motion) -> float:
    """How many output pixels a picture's pixel covers when the character is drawn at the driver's size (median)."""
    return float(np.median(_sizes(figure, motion, Placement(like_driver=True)))) / figure.scale


def _sizes(figure: Figure, motion: Motion, placement: Placement) -> Array:
    """Pixels per metre (T,) at which the character is drawn."""
    if not placement.like_driver:
        relative = motion.scale_T / np.median(motion.scale_T)
        return np.asarray(figure.scale * np.clip(relative, 0.85 if figure.cut_below else 0.5, 1.8))
    shins = ("left_shin", "right_shin")
    visible = np.median(motion.visible_T19, 0)
    legs = all(visible[BONES[b].end] > 0.5 and b in figure.bones for b in shins)
    use = ["spine", "head", "shoulders"] + (["left_thigh", "right_thigh", *shins] if legs else [])
    return np.asarray(motion.scale_T * sum(motion.lengths_m[b] for b in use) / sum(figure.lengths_m[b] for b in use))


def _bone(figure: Figure, motion: Motion, scale_T: Array, bone: str, least: float = 0.0) -> Array:
    """(T, 2): the driver's direction and foreshortening on the character's length."""
    v = bone_vectors(motion.joints_T19x2, bone) / (motion.scale_T * motion.lengths_m[bone])[:, None]
    length = np.clip(np.linalg.norm(v, axis=1), least, 1.08) * figure.lengths_m[bone] * scale_T
    return np.asarray(unit(v) * length[:, None])


def _girdle(figure: Figure, wanted_T2: Array, spine_T2: Array, bone: str, scale_T: Array) -> tuple[Array, Array]:
    """Shoulder or hip line (T, 2) and the torso end's stretch (T, 2, 2)."""
    up = unit(spine_T2)
    across = np.stack([-up[:, 1], up[:, 0]], 1)
    picture_line, picture_spine = bone_vectors(figure.joints_19x2, bone), bone_vectors(figure.joints_19x2, "spine")
    picture_up = unit(picture_spine)
    picture_across = np.array([-picture_up[1], picture_up[0]])
    width = float(picture_line @ picture_across)
    side, full_T = (1.0 if width >= 0 else -1.0), abs(width) * scale_T / figure.scale
    wide = side * np.maximum(side * (wanted_T2 * across).sum(1), _NARROWEST * full_T)
    tilt = np.clip((wanted_T2 * up).sum(1), -0.5 * np.abs(wide), 0.5 * np.abs(wide))
    line = wide[:, None] * across + tilt[:, None] * up
    flat = abs(width) < 0.35 * float(np.linalg.norm(picture_spine))
    if flat:  # a picture in profile: its shoulder line says nothing of its breadth, so stretch along the spine only
        grown = (scale_T / figure.scale)[:, None] * across
        base = np.stack([picture_across, picture_spine], 1)
        target = np.stack([grown, spine_T2], 2)
    else:
        base, target = np.stack([picture_line, picture_spine], 1), np.stack([line, spine_T2], 2)
    return line, np.asarray(target @ np.linalg.inv(base))


def _head(motion_head_T2: Array, spine_T2: Array) -> Array:
    """From the neck to the head (T, 2): the driver's, leaning off the spine no further than a neck can be drawn bent."""
    up = unit(spine_T2)
    across = np.stack([-up[:, 1], up[:, 0]], 1)
    lean = np.clip(np.arctan2((motion_head_T2 * across).sum(1), (motion_head_T2 * up).sum(1)), -_LEAN_MOST, _LEAN_MOST)[:, None]
    return np.asarray(np.linalg.norm(motion_head_T2, axis=1)[:, None] * (np.cos(lean) * up + np.sin(lean) * across))


def _kept_below(joints: Array, figure: Figure, height: int, scale_T: Array) -> Array:
    """Downward shift (T,) that keeps the cut edge of a half-length figure under the frame's lower edge."""
    below = (figure.image_HWC.shape[0] - figure.joints_19x2[PELVIS, 1]) * scale_T / figure.scale
    return np.asarray(np.maximum(0, height + 2 - joints[:, PELVIS, 1] - below))


def _into_frame(joints: Array, figure: Figure, width: int) -> float:
    """One sideways shift for the whole clip that keeps the body inside the picture, as far as it fits; it can't make feet slide."""
    feet = ANKLES if {"left_shin", "right_shin"} <= figure.bones else ()
    body = joints[:, [HEAD, NECK, PELVIS, *feet], 0]
    low, high, margin = float(body.min()), float(body.max()), 0.08 * width
    if high - low > width - 2 * margin:
        return (width - low - high) / 2
    return max(0.0, margin - low) - max(0.0, high - (width - margin))


def _face(figure: Figure, motion: Motion) -> tuple[Array, Array]:
    """Head turn (T,) and the shift of the face (T, 2). A face that can't be seen says nothing, so the head then goes with the spine."""
    shown = ramp(np.abs(wrapped(np.array(figure.yaw_rad))), np.radians(120), np.radians(90))
    seen = ramp(turned_deg(figure.yaw_rad, motion), 100, 70) * shown * ramp(np.abs(wrapped(motion.yaw_T)), np.radians(120), np.radians(90))
    spine = wrapped(angle_of(bone_vectors(motion.joints_T19x2, "spine")) - angle_of(bone_vectors(figure.joints_19x2, "spine")))
    turn = np.clip(seen * wrapped(motion.roll_T - figure.roll_rad) + (1 - seen) * spine, -1.1, 1.1)
    c, s = np.cos(turn), np.sin(turn)
    upright = np.stack([c * motion.nose_Tx2[:, 0] + s * motion.nose_Tx2[:, 1], c * motion.nose_Tx2[:, 1] - s * motion.nose_Tx2[:, 0]], 1)
    return turn, np.clip(upright - figure.nose_2, -_FACE_MOST, _FACE_MOST) * figure.scale * seen[:, None]


def retarget(figure: Figure, motion: Motion, placement: Placement, home: Figure) -> Pose:
    """Put the driver's movement on the character's bones.

    home: the painted picture in whose scene the character stands; `figure` is it, or another view at the same size.
    """
    scale = _sizes(figure, motion, placement)
    fit = float(np.median(scale / motion.scale_T))
    visible = np.median(motion.visible_T19, 0)
    anchor = PELVIS if visible[PELVIS] > 0.6 and "hips" in figure.bones else NECK
    root = motion.joints_T19x2[:, anchor]
    if not placement.like_driver:
        root = home.joints_19x2[anchor] + (root - np.median(root, 0)) * fit
    joints = np.zeros((motion.frames, len(JOINT), 2))
    spine = _bone(figure, motion, scale, "spine", 0.5)
    joints[:, PELVIS] = root - (spine if anchor == NECK else 0)
    joints[:, NECK] = joints[:, PELVIS] + spine
    ends = []
    for bone, centre in (("hips", PELVIS), ("shoulders", NECK)):
        line, stretch = _girdle(figure, _bone(figure, motion, scale, bone), spine, bone, scale)
        ends.append(stretch)
        joints[:, BONES[bone].start], joints[:, BONES[bone].end] = joints[:, centre] - line / 2, joints[:, centre] + line / 2
    joints[:, HEAD] = joints[:, NECK] + _head(_bone(figure, motion, scale, "head", 0.55), spine)
    for bone in LIMB_BONES:
        joints[:, BONES[bone].end] = joints[:, BONES[bone].start] + _bone(figure, motion, scale, bone)
    stands = np.zeros((motion.frames, 2))
    if anchor == PELVIS and has_feet(figure, motion):
        at = None if placement.like_driver else home
        joints += on_the_ground(joints, figure, motion, 1.0 if placement.like_driver else fit, at)[:, None]
        stands = planted(motion, motion.fps)
        joints = held_down(joints, stands, figure.torso_px * float(np.median(scale)) / figure.scale)
    if figure.cut_below and not placement.like_driver:
        joints[..., 1] += _kept_below(joints, figure, home.picture_hw[0], scale)[:, None]
    if not placement.like_driver:
        joints[..., 0] += _into_frame(joints, figure, home.picture_hw[1])
    z = motion.world_T19x3[..., 2]
    depth = savitzky_golay(z - z[:, [PELVIS, NECK]].mean(1, keepdims=True), 9, 1)
    turn, nose = _face(figure, motion)
    return Pose(joints, scale, np.stack(ends, 1), depth, turn, nose, stands, np.zeros((motion.frames, 1, 2)))


def layer_order(pose: Pose, t: int, names: tuple[str, ...]) -> list[str]:
    """Layers from far to near."""
    key = {"torso": 0.0, MOUTH: 0.49, "head": 0.5}
    z = pose.depth_T19[t]
    for limb in LIMBS.values():
        upper, lower, _ = limb.bones
        _, middle, end, tip = limb.joints
        if limb.is_arm:
            depth = 0.4 * z[middle] + 0.6 * z[tip]
            before = depth < 0.10
            key[upper] = (1 if before else -0.5) - 0.1 * depth
            key[lower] = key[upper] + (1 if before else 0.01)
        else:
            depth = 0.5 * (z[middle] + z[end])
            key[upper] = -1 - 0.1 * depth if z[middle] > -0.30 else 0.2
            key[lower] = key[upper] + (-0.001 if depth > 0 else 0.001)
    return sorted(names, key=lambda name: key[name])

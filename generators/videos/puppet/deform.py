"""Bends a character's layers to one frame's pose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.layers import MOUTH, Layer
from generators.videos.puppet.numerics import Array, rotation, smoothstep
from generators.videos.puppet.retarget import Pose
from generators.videos.puppet.skeleton import BONES, HEAD, LIMBS, NECK, PELVIS, Limb

_STIFF_FROM, _STIFF_TO = 0.9, 1.9
"""bend in radians between which a joint changes from smooth skin to two stiff pieces with round ends"""
_BALL_MOST = 0.75
"""radians that a face may be turned; from π/4 on points would overtake each other"""


@dataclass(frozen=True)
class Turn:
    """How a bone goes from the picture to the frame: rotation(angle) @ stretch, about either of its joints."""

    angle: float
    stretch_2x2: Array
    """in the reference picture's axes"""
    along_2: Array
    """the bone's direction in the picture, of length one; zero for what has no ends"""
    excess: float
    """how much more (or, negative, less) it is stretched along than across"""

    def stretched(self, off_Vx2: Array, end: bool) -> Array:
        """Offsets from the bone's start, or from its end, stretched; the round caps past the joint stay round."""
        past = np.maximum((off_Vx2 @ self.along_2) * (1 if end else -1), 0) * (1 if end else -1)
        return np.asarray(off_Vx2 @ self.stretch_2x2.T - self.excess * past[:, None] * self.along_2)


def _ends(figure: Figure, pose: Pose, t: int, bone: str) -> tuple[list[float], list[float]]:
    """The bone's vector in the picture and in the frame. Plain numbers: there are too few of them for arrays to pay."""
    b = BONES[bone]
    j, target = figure.joints_19x2, pose.joints_T19x2[t]
    return (j[b.end] - j[b.start]).tolist(), (target[b.end] - target[b.start]).tolist()


def _turn(before: list[float], after: list[float]) -> float:
    return math.remainder(math.atan2(after[1], after[0]) - math.atan2(before[1], before[0]), math.tau)


def _bone_turn(figure: Figure, pose: Pose, t: int, bone: str) -> Turn:
    before, after = _ends(figure, pose, t, bone)
    size = float(pose.scale_T[t]) / figure.scale
    longer = min(max(math.hypot(*after) / (math.hypot(*before) + 1e-6), 0.1), 1.8 * size)
    direction = math.atan2(before[1], before[0])
    c, s, excess = math.cos(direction), math.sin(direction), longer - size
    stretch = np.array([[size + excess * c * c, excess * c * s], [excess * c * s, size + excess * s * s]])
    return Turn(_turn(before, after), stretch, np.array([c, s]), excess)


def _torso_turn(figure: Figure, pose: Pose, t: int, end: int) -> Turn:
    turn = _turn(*_ends(figure, pose, t, "spine"))
    return Turn(turn, rotation(-turn) @ pose.ends_T2x2x2[t, end], np.zeros(2), 0.0)


def _torso(figure: Figure, pose: Pose, t: int, layer: Layer) -> Array:
    v, j, target = layer.vertices_Vx2, figure.joints_19x2, pose.joints_T19x2[t]
    low, high = ((v - j[k]) @ pose.ends_T2x2x2[t, e].T + target[k] for e, k in enumerate((PELVIS, NECK)))
    share = layer.weights["spine"][:, None]
    out = low * (1 - share) + high * share
    lap = layer.weights["lap"][:, None]
    if not lap.any():
        return np.asarray(out)
    with_leg = []
    for side in ("left", "right"):
        turn = _bone_turn(figure, pose, t, f"{side}_thigh")
        hip = BONES[f"{side}_thigh"].start
        with_leg.append((v - j[hip]) @ (rotation(turn.angle) @ turn.stretch_2x2).T + target[hip])
    left = layer.weights["side"][:, None]
    return np.asarray(out * (1 - lap) + lap * (with_leg[0] * left + with_leg[1] * (1 - left)))


def rolled(off_Vx2: Array, shift_2: Array, radius: float) -> Array:
    """Points of a head's front, turned like a ball of this radius until what was in the middle has moved by `shift_2`.

    The rim stays where it is, for a picture has nothing to show behind it, and no point overtakes another.
    """
    length = float(np.linalg.norm(shift_2))
    if length < 1e-6:
        return off_Vx2
    along = shift_2 / length
    inside = (off_Vx2**2).sum(1) < radius**2
    place = off_Vx2[inside] @ along
    aside = off_Vx2[inside] - place[:, None] * along
    chord = np.sqrt(np.maximum(radius**2 - (aside**2).sum(1), 1e-9))
    angle = np.arcsin(np.clip(place / chord, -1, 1))
    turn = min(float(np.arcsin(min(1.0, length / radius))), _BALL_MOST)
    out = off_Vx2.copy()
    out[inside] = aside + (chord * np.sin(angle + turn * (1 - (2 * angle / np.pi) ** 2)))[:, None] * along
    return np.asarray(out)


def _head(figure: Figure, pose: Pose, t: int, layer: Layer) -> Array:
    v, j, target = layer.vertices_Vx2, figure.joints_19x2, pose.joints_T19x2[t]
    off = v + pose.face_TxVx2[t] - j[HEAD]
    reach = 0.62 * float(np.linalg.norm(j[HEAD] - j[NECK]))
    turned = rolled(off, pose.nose_Tx2[t], reach) @ rotation(float(pose.turn_T[t])).T * (pose.scale_T[t] / figure.scale) + target[HEAD]
    neck = (v - j[NECK]) @ pose.ends_T2x2x2[t, 1].T + target[NECK]
    share = layer.weights["head"][:, None]
    return np.asarray(neck * (1 - share) + turned * share)


def _turns(figure: Figure, pose: Pose, t: int, limb: Limb) -> list[Turn]:
    """Of the torso's end and the limb's three bones; a bone the picture lacks goes with the one before it."""
    turns = [_torso_turn(figure, pose, t, 1 if limb.is_arm else 0)]
    for bone in limb.bones:
        turns.append(_bone_turn(figure, pose, t, bone) if bone in figure.bones else turns[-1])
    return turns


def _stiffer(share: Array, bend: float, upper: bool) -> Array:
    stiff = float(smoothstep(np.array(abs(bend)), _STIFF_FROM, _STIFF_TO))
    return share * (1 - stiff) if upper else 1 - (1 - share) * (1 - stiff)


def _limb(figure: Figure, pose: Pose, t: int, layer: Layer, limb: Limb, upper: bool) -> Array:
    """Each vertex turns about its nearest joint, by an angle blended over that joint."""
    v, turns = layer.vertices_Vx2, _turns(figure, pose, t, limb)
    candidates = []
    for k, (joint, weight) in enumerate(zip(limb.joints[:3], ("root", "middle", "end"), strict=True)):
        before, after = turns[k], turns[k + 1]
        bend = math.remainder(after.angle - before.angle, math.tau)
        share = layer.weights[weight]
        if weight == "middle":
            share = _stiffer(share, bend, upper)
        off = v - figure.joints_19x2[joint]
        y = before.stretched(off, end=True) * (1 - share[:, None]) + after.stretched(off, end=False) * share[:, None]
        angle = before.angle + share * bend
        c, s = np.cos(angle), np.sin(angle)
        candidates.append(np.stack([c * y[:, 0] - s * y[:, 1], s * y[:, 0] + c * y[:, 1]], 1) + pose.joints_T19x2[t, joint])
    return np.asarray(np.stack(candidates)[layer.weights["nearest"], np.arange(len(v))])


def posed(figure: Figure, pose: Pose, t: int, name: str, layer: Layer) -> Array:
    """Where the layer's vertices are in frame `t` (V, 2), output pixels."""
    if name == "torso":
        return _torso(figure, pose, t, layer)
    if name in ("head", MOUTH):
        return _head(figure, pose, t, layer)
    limb = next(limb for limb in LIMBS.values() if name in limb.bones)
    return _limb(figure, pose, t, layer, limb, upper=name == limb.bones[0])

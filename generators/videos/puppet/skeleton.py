"""The puppet's skeleton: 19 joints made of the 33 landmarks, the bones between them, and what can be read off a pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.poses.tracks import INDEX, LANDMARKS
from generators.videos.puppet.numerics import Array

_SOURCES: dict[str, tuple[str, ...]] = {
    "pelvis": ("left_hip", "right_hip"),
    "neck": ("left_shoulder", "right_shoulder"),
    "head": ("left_ear", "right_ear"),
    "left_shoulder": ("left_shoulder",),
    "left_elbow": ("left_elbow",),
    "left_wrist": ("left_wrist",),
    "left_hand": ("left_pinky", "left_index"),
    "right_shoulder": ("right_shoulder",),
    "right_elbow": ("right_elbow",),
    "right_wrist": ("right_wrist",),
    "right_hand": ("right_pinky", "right_index"),
    "left_hip": ("left_hip",),
    "left_knee": ("left_knee",),
    "left_ankle": ("left_ankle",),
    "left_toe": ("left_foot_index",),
    "right_hip": ("right_hip",),
    "right_knee": ("right_knee",),
    "right_ankle": ("right_ankle",),
    "right_toe": ("right_foot_index",),
}
JOINTS: tuple[str, ...] = tuple(_SOURCES)
JOINT: dict[str, int] = {name: i for i, name in enumerate(JOINTS)}
PELVIS, NECK, HEAD = 0, 1, 2
SIDES = ("left", "right")
SHOULDERS = (JOINT["left_shoulder"], JOINT["right_shoulder"])
HIPS = (JOINT["left_hip"], JOINT["right_hip"])
ANKLES = (JOINT["left_ankle"], JOINT["right_ankle"])
TOES = (JOINT["left_toe"], JOINT["right_toe"])


@dataclass(frozen=True)
class Bone:
    """A stretch between two joints."""

    start: int
    end: int
    radius: float
    """half the usual thickness, as a share of the torso's length"""


@dataclass(frozen=True)
class Limb:
    """An arm or a leg: three bones that hang from the torso."""

    bones: tuple[str, str, str]
    joints: tuple[int, int, int, int]
    """shoulder, elbow, wrist, hand, or hip, knee, ankle, toe"""
    anchor: int
    """the torso joint it hangs from: NECK or PELVIS"""
    is_arm: bool


def _limb(side: str, bones: tuple[str, str, str], joints: tuple[str, str, str, str], anchor: int) -> Limb:
    a, b, c = (f"{side}_{bone}" for bone in bones)
    i, j, k, m = (JOINT[f"{side}_{joint}"] for joint in joints)
    return Limb((a, b, c), (i, j, k, m), anchor, anchor == NECK)


LIMBS: dict[str, Limb] = {
    f"{side}_{kind}": _limb(side, bones, joints, anchor)
    for side in SIDES
    for kind, bones, joints, anchor in (
        ("arm", ("upper_arm", "forearm", "hand"), ("shoulder", "elbow", "wrist", "hand"), NECK),
        ("leg", ("thigh", "shin", "foot"), ("hip", "knee", "ankle", "toe"), PELVIS),
    )
}
_RADIUS = {"upper_arm": 0.15, "forearm": 0.12, "hand": 0.14, "thigh": 0.22, "shin": 0.15, "foot": 0.13}
BONES: dict[str, Bone] = {
    "spine": Bone(PELVIS, NECK, 0.34),
    "head": Bone(NECK, HEAD, 0.30),
    "shoulders": Bone(SHOULDERS[1], SHOULDERS[0], 0.2),
    "hips": Bone(HIPS[1], HIPS[0], 0.2),
    **{
        name: Bone(limb.joints[i], limb.joints[i + 1], _RADIUS[name.partition("_")[2]])
        for limb in LIMBS.values()
        for i, name in enumerate(limb.bones)
    },
}
LIMB_BONES: tuple[str, ...] = tuple(name for limb in LIMBS.values() for name in limb.bones)
ARM_BONES: tuple[str, ...] = tuple(name for limb in LIMBS.values() if limb.is_arm for name in limb.bones)
LONG_BONES: tuple[str, ...] = tuple(name for limb in LIMBS.values() for name in limb.bones[:2])
"""Limb bones without hands and feet."""

OTHER_SIDE: list[int] = [
    INDEX.get(name.replace("left", "right") if "left" in name else name.replace("right", "left"), i) for i, name in enumerate(LANDMARKS)
]
"""Landmark → the same landmark of the body's other side."""

_MIX = np.zeros((len(JOINTS), len(INDEX)))
for _i, _sources in enumerate(_SOURCES.values()):
    _MIX[_i, [INDEX[name] for name in _sources]] = 1 / len(_sources)

_RIGID = [INDEX[f"{side}_{part}"] for part in ("shoulder", "elbow", "hip", "knee") for side in SIDES]


def joints_of(landmarks: Array) -> Array:
    """The 19 joints (…, 19, k) of landmarks (…, 33, k)."""
    return np.asarray(np.einsum("jl,...lk->...jk", _MIX, landmarks))


def visibility_of(visibility: Array) -> Array:
    """The joints' visibility (…, 19) from the landmarks' (…, 33)."""
    return np.asarray(visibility @ _MIX.T)


def pixels_per_metre(landmarks: Array, world: Array) -> Array:
    """Scale (…) of the weak-perspective camera between world (…, 33, 3) and picture (…, 33, 2): least squares over the big joints."""
    p, w = landmarks[..., _RIGID, :2], world[..., _RIGID, :2]
    p, w = p - p.mean(-2, keepdims=True), w - w.mean(-2, keepdims=True)
    return np.asarray((p * w).sum((-2, -1)) / ((w * w).sum((-2, -1)) + 1e-9))


def head_roll(landmarks: Array) -> Array:
    """In-plane angle of the head (…) in radians from eyes, ears and mouth; 0 is upright."""
    at = {name: landmarks[..., INDEX[name], :2] for name in ("left_eye", "right_eye", "left_ear", "right_ear", "mouth_left", "mouth_right")}
    across = at["left_eye"] - at["right_eye"] + at["left_ear"] - at["right_ear"] + at["mouth_left"] - at["mouth_right"]
    down = (at["mouth_left"] + at["mouth_right"] - at["left_eye"] - at["right_eye"]) / 2
    axis = across + 3 * np.stack([down[..., 1], -down[..., 0]], -1)  # the eye-to-mouth line still works in profile
    return np.asarray(np.arctan2(axis[..., 1], axis[..., 0]))


def body_yaw(world_19x3: Array) -> Array:
    """Turn of the shoulders about the vertical (…) in radians: 0 faces the camera, ±π/2 in profile, ±π from behind."""
    d = world_19x3[..., SHOULDERS[0], :] - world_19x3[..., SHOULDERS[1], :]
    return np.asarray(np.arctan2(d[..., 2], d[..., 0]))


def bone_vectors(joints: Array, bone: str) -> Array:
    """From the bone's start to its end (…, k), for joints (…, 19, k)."""
    b = BONES[bone]
    return np.asarray(joints[..., b.end, :] - joints[..., b.start, :])

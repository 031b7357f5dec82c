"""What the puppet needs to know of the driving person, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.poses.tracks import INDEX, People
from generators.videos.puppet.knuckles import landmarks_of
from generators.videos.puppet.numerics import Array, running_median, savitzky_golay
from generators.videos.puppet.skeleton import (
    BONES,
    HEAD,
    OTHER_SIDE,
    body_yaw,
    bone_vectors,
    head_roll,
    joints_of,
    pixels_per_metre,
    visibility_of,
)


@dataclass(frozen=True)
class Motion:
    """One person's movement as arrays over frames. Pixels are the clip's."""

    joints_T19x2: Array
    world_T19x3: Array
    """metres, hip-centred, z away from the camera"""
    visible_T19: Array
    scale_T: Array
    """pixels per metre"""
    roll_T: Array
    """head, radians"""
    nose_Tx2: Array
    """from the head's centre, metres in the picture plane"""
    yaw_T: Array
    """body, radians, unwrapped"""
    present_T: Array
    """1 where the person was found"""
    on_mask_T: Array
    """share of the visible joints that lie on the person's silhouette"""
    lengths_m: dict[str, float]
    """true bone lengths"""
    fps: float

    @property
    def frames(self) -> int:
        return len(self.scale_T)


def _window(fps: float) -> int:
    """Frames in 0.18 s, odd."""
    return max(5, int(fps * 0.18) // 2 * 2 + 1)


def _steady(world_T33x3: Array, fps: float) -> Array:
    """World joints (T, 19, 3) without the jitter of the model's depth."""
    return savitzky_golay(running_median(joints_of(world_T33x3), 2), 2 * _window(fps) + 1)


def _lengths_m(joints_T19x2: Array, world_T19x3: Array, scale_T: Array) -> dict[str, float]:
    """A bone is as long as it looks when least foreshortened; the model's own depth often says less than that."""
    lengths = {}
    for bone in BONES:
        solid = np.linalg.norm(bone_vectors(world_T19x3, bone), axis=1)
        flat = np.linalg.norm(bone_vectors(joints_T19x2, bone), axis=1) / scale_T
        lengths[bone] = max(float(np.median(solid)), float(np.percentile(flat, 90)))
    return lengths


def _on_mask(joints_T19x2: Array, visible_T19: Array, masks_THW: Array) -> Array:
    t, h, w = masks_THW.shape
    shares = np.zeros(t)
    for i in range(t):
        p = np.round(joints_T19x2[i]).astype(int)
        use = (visible_T19[i] > 0.5) & (p >= 0).all(1) & (p < [w, h]).all(1)
        if use.any():
            shares[i] = (masks_THW[i, p[use, 1], p[use, 0]] > 60).mean()
    return shares


def motion_of(people: People, track: int, about_face: bool = False) -> Motion:
    """The movement of one person of the clip.

    about_face: read it as that of somebody who faces the other way with the same outline, left and right changed over. Only `yaw_T`
    still tells how the person really stands.
    """
    landmarks = landmarks_of(people, track)
    world = people.world_PT33x3[track].astype(float)
    visibility = people.visibility_PT33[track].astype(float)
    yaw = np.unwrap(body_yaw(_steady(world, people.fps)))
    if about_face:
        landmarks, world, visibility = landmarks[:, OTHER_SIDE], world[:, OTHER_SIDE] * [1, 1, -1], visibility[:, OTHER_SIDE]
    window = _window(people.fps)
    scale = savitzky_golay(running_median(pixels_per_metre(landmarks, world), 3), 4 * window + 1, 1)
    scale = np.maximum(scale, 1.0)
    joints = joints_of(landmarks)
    world_joints = _steady(world, people.fps)
    visible = savitzky_golay(visibility_of(visibility), window)
    return Motion(
        joints_T19x2=joints,
        world_T19x3=world_joints,
        visible_T19=visible,
        scale_T=scale,
        roll_T=savitzky_golay(np.unwrap(head_roll(landmarks)), 2 * window + 1),
        nose_Tx2=(landmarks[:, INDEX["nose"]] - joints[:, HEAD]) / scale[:, None],
        yaw_T=yaw,
        present_T=people.present_PT[track].astype(float),
        on_mask_T=_on_mask(joints, visible, people.masks_PTHW[track]),
        lengths_m=_lengths_m(joints, world_joints, scale),
        fps=people.fps,
    )

"""Figures with known joints in space, seen through the camera that the renderers assume: every length and depth can be checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from generators.base import VideoRequest
from generators.poses.camera import Camera
from generators.poses.tracks import INDEX, Details, People
from manifests.records import Geometry

HEIGHT, WIDTH, FRAMES, FPS = 320, 512, 5, 16.0
FIGURE_M: dict[str, tuple[float, float, float]] = {
    "nose": (0, -0.66, -0.12), "left_eye": (0.04, -0.7, -0.09), "right_eye": (-0.04, -0.7, -0.09), "left_ear": (0.09, -0.67, 0),
    "right_ear": (-0.09, -0.67, 0), "left_shoulder": (0.2, -0.5, 0), "right_shoulder": (-0.2, -0.5, 0), "left_elbow": (0.35, -0.25, 0),
    "right_elbow": (-0.35, -0.25, 0), "left_wrist": (0.4, 0.05, 0), "right_wrist": (-0.4, 0.05, 0), "left_hip": (0.12, 0, 0),
    "right_hip": (-0.12, 0, 0), "left_knee": (0.15, 0.42, 0), "right_knee": (-0.15, 0.42, 0), "left_ankle": (0.16, 0.84, 0),
    "right_ankle": (-0.16, 0.84, 0), "left_heel": (0.16, 0.89, 0), "right_heel": (-0.16, 0.89, 0), "left_foot_index": (0.18, 0.89, -0.1),
    "right_foot_index": (-0.18, 0.89, -0.1),
}  # fmt: skip
"""x right, y down, z away from the camera; the figure faces the camera"""
DISTANCE_M = 5.0
SCALE = Camera.of((HEIGHT, WIDTH)).focal_px / DISTANCE_M
"""pixels per metre at that distance"""


def body(**joints: tuple[float, float, float]) -> np.ndarray:
    """33 joints in metres, hips at the origin; single ones can be put elsewhere."""
    return np.array([{**FIGURE_M, **joints}.get(name, (0.0, 0.0, 0.0)) for name in INDEX])


def turned(world_33x3: np.ndarray, yaw_deg: float) -> np.ndarray:
    """About the vertical axis: +90 looks to the picture's right."""
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    x, y, z = world_33x3.T
    return np.stack([c * x - s * z, y, s * x + c * z], axis=1)


def people_of(*bodies: tuple[np.ndarray, tuple[float, float, float]], frames: int = FRAMES, fps: float = FPS) -> People:
    """People who stand still, each with the place (metres, in the camera's space) of the hips."""
    camera = Camera.of((HEIGHT, WIDTH))
    landmarks, world = np.zeros((2, len(bodies), frames, 33, 3), np.float32)
    for p, (joints, place) in enumerate(bodies):
        world[p] = joints
        landmarks[p, ..., :2] = camera.project(joints + np.array(place))
        landmarks[p, ..., 2] = joints[:, 2] * camera.focal_px / place[2]
    shape = landmarks.shape[:2]
    masks = np.zeros((*shape, HEIGHT, WIDTH), np.uint8)
    return People(landmarks, world, np.ones((*shape, 33), np.float32), np.ones(shape, np.bool_), masks, fps)


def people_at(*centres: tuple[float, float], frames: int = FRAMES, yaw_deg: float = 0.0) -> People:
    """Like `people_of`, all DISTANCE_M away, with their hips at these pixels."""
    places = [((x - WIDTH / 2) / SCALE, (y - HEIGHT / 2) / SCALE, DISTANCE_M) for x, y in centres]
    return people_of(*((turned(body(), yaw_deg), place) for place in places), frames=frames)


def at(people: People, name: str, p: int = 0, t: int = 0) -> tuple[int, int]:
    """Row and column of a landmark."""
    x, y = people.landmarks_PT33x3[p, t, INDEX[name], :2]
    return round(float(y)), round(float(x))


def with_details(people: People) -> People:
    """Both hands spread like fans, hanging from the wrists; the face's mesh is a disc around the nose."""
    details = Details.unseen(people.count, people.frames)
    details.hand_seen_PT2[:] = details.face_seen_PT[:] = 0.9
    for side, name in enumerate(("left_wrist", "right_wrist")):
        wrist = people.landmarks_PT33x3[:, :, INDEX[name], :2]
        details.hands_PT2x21x3[:, :, side, :, :2] = wrist[:, :, None]
        for finger in range(5):
            for joint in range(1, 5):
                fan = np.array([10.0 * (finger - 2), 20.0]) * joint / 4
                details.hands_PT2x21x3[:, :, side, 4 * finger + joint, :2] += fan
    turn = np.linspace(0, 40, 468)
    disc = 0.08 * SCALE * np.sqrt(np.linspace(0, 1, 468))[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    details.faces_PT468x3[..., :2] = people.landmarks_PT33x3[:, :, INDEX["nose"], None, :2] + disc
    return dataclasses.replace(people, details=details)


def request_for(people: People, mode: str = "pose", **changes: object) -> VideoRequest:
    """A pose request at the people's own size and rate."""
    geometry = Geometry(frames=people.frames, height=HEIGHT, width=WIDTH)
    request = VideoRequest(mode, Path("unused.mp4"), people, (), "", geometry, 0)  # type: ignore[arg-type]
    return dataclasses.replace(request, **changes)

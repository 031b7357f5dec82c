"""A synthetic clip, small and quick: one or more blocks that walk to the right, with the arrays that a tracker would have given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from factory.work.making import AnimateRequest
from factory.workbench import Workbench
from generators.base import ImageRequest, VideoRequest
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.records import Geometry

GEOMETRY = Geometry(frames=9, height=96, width=128)
BODY_XY = {
    "nose": (12, 4), "left_shoulder": (20, 14), "right_shoulder": (4, 14), "left_elbow": (22, 24), "right_elbow": (2, 24),
    "left_wrist": (22, 34), "right_wrist": (2, 34), "left_hip": (17, 36), "right_hip": (7, 36), "left_knee": (17, 48),
    "right_knee": (7, 48), "left_ankle": (17, 60), "right_ankle": (7, 60),
}  # fmt: skip
STEP_PX = 4


def walkers(count: int = 1, geometry: Geometry = GEOMETRY, step_px: float = STEP_PX) -> People:
    """`count` people of 24 × 64 px, side by side, all points visible."""
    frames = geometry.frames
    landmarks = np.zeros((count, frames, 33, 3), np.float32)
    masks = np.zeros((count, frames, geometry.height, geometry.width), np.uint8)
    for p in range(count):
        for t in range(frames):
            left, top = 4 + 30 * p + step_px * t, 16
            landmarks[p, t, :, :2] = (left + 12, top + 4)
            for name, (x, y) in BODY_XY.items():
                landmarks[p, t, INDEX[name], :2] = (left + x, top + y)
            masks[p, t, top : top + 64, round(left) : round(left) + 24] = 255
    return People(landmarks, landmarks / 100, np.ones((count, frames, 33), np.float32), np.ones((count, frames), bool), masks, geometry.fps)


def frames_of(people: People) -> np.ndarray:
    """The clip that shows them."""
    inside = people.masks_PTHW.max(axis=0) >= 128
    return np.where(inside[..., None], np.array([220, 80, 60], np.uint8), np.array([50, 90, 120], np.uint8)).astype(np.uint8)


def video_request(folder: Path, **more: Any) -> VideoRequest:
    """One walker to be animated. The files lie in `folder`."""
    people = more.pop("clip_people", None) or walkers()
    geometry = more.get("geometry", GEOMETRY)
    folder.mkdir(parents=True, exist_ok=True)
    media.write_video(folder / "clip.mp4", frames_of(people), geometry.fps)
    media.write_png(folder / "painted.png", frames_of(people)[0])
    fields: dict[str, Any] = {
        "mode": "animation", "clip": folder / "clip.mp4", "clip_people": people, "painted": (folder / "painted.png",) * people.count,
        "prompt": "a robot walks; \"quoted\" $HOME `x` {seed}", "geometry": geometry, "seed": 7,
    }  # fmt: skip
    return VideoRequest(**{**fields, **more})


def image_request(folder: Path, **more: Any) -> ImageRequest:
    """A picture for the walker."""
    folder.mkdir(parents=True, exist_ok=True)
    media.write_png(folder / "character.png", frames_of(walkers())[0])
    fields: dict[str, Any] = {
        "pictures": {"character": folder / "character.png"}, "prompt": "a robot", "negative": "blur", "scale": 1.0, "geometry": GEOMETRY,
        "clip_people": walkers(), "mode": "animation", "seed": 7,
    }  # fmt: skip
    return ImageRequest(**{**fields, **more})


def stored_video_request(bench: Workbench, folder: Path, kind: str, options: dict[str, Any]) -> AnimateRequest:
    """One walker to be animated, as a step is asked for it: clip, people and painted picture lie in the bench's store."""
    source, people = video_request(folder), io.BytesIO()
    source.clip_people.save(people)
    put = bench.store.put
    return AnimateRequest(
        kind=kind, options=options, mode="animation", clip_video=put(source.clip, ".mp4"), clip=put(people.getvalue(), ".npz"),
        driven=(0,), painted=(put(source.painted[0], ".png"),), prompt=source.prompt, geometry=GEOMETRY, seed=7,
    )  # fmt: skip

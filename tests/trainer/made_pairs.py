"""Small pairs made of coloured shapes, in memory: nine frames of 64×96."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from factory.trainer.decode import Sample
from manifests import masks
from manifests.records import Task

FRAMES, HEIGHT, WIDTH = 9, 64, 96


def figure(people: int, shift: int = 0, frames: int = FRAMES) -> np.ndarray:
    """Silhouettes (P, T, H, W): blocks side by side that walk to the right, 2 px a frame."""
    inside_PTHW = np.zeros((people, frames, HEIGHT, WIDTH), bool)
    wide = 48 // people
    for p in range(people):
        for t in range(frames):
            left = 8 + shift + p * (wide + 4) + 2 * t
            inside_PTHW[p, t, 12:56, left : left + wide] = True
    return inside_PTHW


def scene(seed: int, frames: int = FRAMES) -> np.ndarray:
    """A soft, still background."""
    rough = np.random.default_rng(seed).integers(40, 216, (5, 7, 3), np.uint8)
    return np.broadcast_to(cv2.resize(rough, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), (frames, HEIGHT, WIDTH, 3)).copy()


def shown(inside_PTHW: np.ndarray, seed: int) -> np.ndarray:
    """A video of these silhouettes, each in a colour of its own."""
    colours = np.random.default_rng(seed).integers(0, 256, (len(inside_PTHW), 3), np.uint8)
    out_THWC = scene(seed, inside_PTHW.shape[1])
    for person_THW, colour in zip(inside_PTHW, colours, strict=True):
        out_THWC[person_THW] = colour
    return out_THWC


def made(
    task: Task = "animation", people: int = 1, references: int = 1, shift: int = 0, key: str = "0a1b2c3d4e5f67890", **more: Any
) -> Sample:
    """A whole pair; `shift` moves the driving video and its mask to the right, in pixels."""
    inside_PTHW, still_PTHW = figure(people, shift), figure(people, frames=1)
    slots = masks.assign_slots([40.0] * people)
    mask_HWC = masks.paint(still_PTHW, slots, task, "reference")[0]
    pictures = [shown(still_PTHW, 30 + i)[0] for i in range(references)]
    if task == "replacement":
        pictures = [masks.matte(picture, mask_HWC) for picture in pictures]
    boxes = [{"hands": [(10.0, 20.0, 18.0, 28.0)], "faces": [], "text": [(64.0, 0.0, 90.0, 9.0)]} for _ in range(FRAMES)]
    fields: dict[str, Any] = {
        "position": 0, "epoch": 0, "seed": 0, "task": task, "key": key,
        "driving_THWC": shown(inside_PTHW, 1), "target_THWC": shown(figure(people), 2),
        "driving_mask_THWC": masks.paint(inside_PTHW, slots, task, "driving"), "references": tuple(pictures),
        "reference_masks": (mask_HWC,) * references, "caption": "somebody walks to the right",
        "meta": {"task": task, "boxes": boxes, "members": {"driving.mp4": {"sha256": "a"}, "target.mp4": {"sha256": "b"}}},
    }  # fmt: skip
    return Sample(**{**fields, **more})

"""Releases to measure on: real videos for decoding, members of random bytes for reading."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests import masks, media
from manifests.records import MODES, Artifact, FrameBoxes, Geometry, Lineage, Pair, Task
from manifests.release import Release, ReleaseMeta
from manifests.sealing import write_release
from manifests.store import Store

GEOMETRY = Geometry(frames=17, height=288, width=512)
MIX: dict[Task, int] = {"animation": 60, "replacement": 20, "pose": 20}
BLOCK_PAIRS = 6
SHARES = {"driving": 0.25, "target": 0.45, "driving_mask": 0.25, "reference": 0.04, "reference_mask": 0.01}
"""of a sample's bytes"""


def videos(folder: Path, pairs: int) -> Release:
    """Pairs that have the size and make-up of real ones: noise over moving shapes, lossless masks."""
    folder.mkdir(parents=True)
    store = Store(folder / "store")
    made = [(pair(number, store, folder), number // BLOCK_PAIRS) for number in range(pairs)]
    return Release.open(write_release(folder / "release", made, store, ReleaseMeta(name="bench", recipe=sha("recipe"), mix=MIX)))


def random_bytes(folder: Path, pairs: int, sample_bytes: int, shards_per_task: int = 3) -> Release:
    """Pairs that nobody decodes; a shard holds pairs of one task only, so that loaders that mix folders can read the same files."""
    store, rng = Store(folder / "store"), np.random.default_rng(0)
    made = []
    for number in range(pairs):
        task = task_of(number)
        parts = {name: store.put(rng.bytes(int(share * sample_bytes)), ".mp4") for name, share in SHARES.items()}
        block = MODES.index(task) * shards_per_task + number // 5 % shards_per_task
        made.append((of_parts(number, task, parts), block))
    return Release.open(write_release(folder / "release", made, store, ReleaseMeta(name="bench", recipe=sha("recipe"), mix=MIX)))


def task_of(number: int) -> Task:
    """Of five pairs in a row three are animation, one replacement and one pose."""
    return (MODES[0], MODES[0], MODES[1], MODES[0], MODES[2])[number % 5]


def pair(number: int, store: Store, folder: Path) -> Pair:
    task = task_of(number)
    path = folder / "part.mp4"
    videos = []
    for which in range(2):
        media.write_video(path, scene(2 * number + which), GEOMETRY.fps)
        videos.append(store.put(path, ".mp4"))
    inside_PTHW = figure(2 * number)  # the driving video's
    media.write_lossless(path, masks.paint(inside_PTHW, (0,), task, "driving"), GEOMETRY.fps)
    driving_mask = store.put(path, ".mp4")
    reference_mask_HWC = masks.paint(inside_PTHW[:, :1], (0,), task, "reference")[0]
    parts = {
        "driving": videos[0],
        "target": videos[1],
        "driving_mask": driving_mask,
        "reference": store.put(media.encode_png(scene(2 * number + 1)[0]), ".png"),
        "reference_mask": store.put(media.encode_png(reference_mask_HWC), ".png"),
    }
    return of_parts(number, task, parts)


def of_parts(number: int, task: Task, parts: dict[str, Artifact]) -> Pair:
    return Pair(
        key=sha(number)[:24],
        job=sha(number),
        slice=task,
        task=task,
        split="train",
        group=f"scene{number}",
        generator="bench",
        geometry=GEOMETRY,
        driving=parts["driving"],
        target=parts["target"],
        driving_mask=parts["driving_mask"],
        references=(parts["reference"],),
        reference_masks=(parts["reference_mask"],),
        reference_in_target=False,
        slots=1,
        caption=f"Synthetic pair {number}.",
        boxes=(FrameBoxes(hands=((1.0, 2.0, 30.0, 40.0),)),) * GEOMETRY.frames,
        lineage=Lineage(source=sha(f"source{number}"), start_frame=0, crop=(0, 0, GEOMETRY.width, GEOMETRY.height)),
    )


def scene(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """frames_THWC: a soft random backdrop with grain, before it two shapes that move."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (9, 16, 3)).astype(np.uint8)
    backdrop = cv2.resize(coarse, (GEOMETRY.width, GEOMETRY.height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-6, 7, backdrop.shape, np.int16)
    frames_THWC = np.empty((GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width, 3), np.uint8)
    for t, inside_HW in enumerate(figure(seed)[0]):
        frames_THWC[t] = np.clip(backdrop + grain, 0, 255)
        frames_THWC[t][inside_HW] = rng.integers(0, 256, 3)
    return frames_THWC


def figure(seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """masks_PTHW of one "person": a body and a swinging limb."""
    inside_PTHW = np.zeros((1, GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width), np.uint8)
    for t in range(GEOMETRY.frames):
        centre = (160 + (seed * 37) % 190 + t, 150)
        swing = float(np.sin(0.5 * t + seed))
        cv2.ellipse(inside_PTHW[0, t], centre, (38, 110), 0, 0, 360, 1, -1)
        cv2.line(inside_PTHW[0, t], centre, (centre[0] + int(90 * swing), 60 + int(40 * abs(swing))), 1, 18)
    return inside_PTHW.astype(bool)


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()

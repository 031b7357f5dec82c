"""A very small release to test with: real videos of 64×64 pixels and 5 frames, few of them, combined into many pairs."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np

from manifests import masks, media
from manifests.records import TASKS, Artifact, FrameBoxes, Geometry, Lineage, Pair, Task
from manifests.release import LeftOut, ReleaseMeta
from manifests.store import Store

GEOMETRY = Geometry(frames=5, height=64, width=64)


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def video(store: Store, folder: Path, seed: int) -> Artifact:
    """A square that moves over a plain background; both depend on the seed."""
    rng = np.random.default_rng(seed)
    frames_THWC = np.empty((5, 64, 64, 3), np.uint8)
    frames_THWC[:] = rng.integers(0, 256, 3)
    for t in range(5):
        frames_THWC[t, 8 + 4 * t : 30 + 4 * t, 10:40] = rng.integers(0, 256, 3)
    media.write_video(folder / f"{seed}.mp4", frames_THWC, 16.0)
    return store.put(folder / f"{seed}.mp4", ".mp4")


def mask_frames(task: Task, which: masks.Side) -> np.ndarray:
    inside_PTHW = np.zeros((1, 5 if which == "driving" else 1, 64, 64), bool)
    inside_PTHW[:, :, 8:50, 10:40] = True
    return masks.paint(inside_PTHW, (0,), task, which)


def parts(store: Store, folder: Path) -> dict[str, Artifact]:
    """The few files that all pairs are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {f"video{i}": video(store, folder, i) for i in range(4)}
    for task in ("animation", "replacement"):
        media.write_lossless(folder / f"{task}.mp4", mask_frames(task, "driving"), 16.0)
        out[f"driving_mask_{task}"] = store.put(folder / f"{task}.mp4", ".mp4")
        out[f"reference_mask_{task}"] = store.put(media.encode_png(mask_frames(task, "reference")[0]), ".png")
    for i in range(2):
        picture_HWC = np.random.default_rng(90 + i).integers(0, 256, (64, 64, 3), np.uint8)
        out[f"reference{i}"] = store.put(media.encode_png(picture_HWC), ".png")
    return out


def pair(number: int, files: dict[str, Artifact], **more: object) -> Pair:
    """Three of five pairs are animation, the rest replacement and pose; every fifth is for validation."""
    task: Task = (TASKS[0], TASKS[0], TASKS[1], TASKS[0], TASKS[2])[number % 5]
    polarity = "replacement" if task == "replacement" else "animation"
    videos = list(itertools.permutations(range(4), 2))[number % 12]
    references = tuple(files[f"reference{i}"] for i in range(1 + number % 2))
    fields = {
        "key": sha(number)[:20],
        "job": sha(number),
        "slice": f"{task}_slice",
        "task": task,
        "split": "validation" if number // 5 % 5 == 4 else "train",
        "group": f"scene{number // 5}",
        "generator": "tiny",
        "geometry": GEOMETRY,
        "driving": files[f"video{videos[0]}"],
        "target": files[f"video{videos[1]}"],
        "driving_mask": files[f"driving_mask_{polarity}"],
        "references": references,
        "reference_masks": (files[f"reference_mask_{polarity}"],) * len(references),
        "reference_in_target": number % 10 == 0,
        "slots": 1,
        "caption": f"pair {number}: une personne façon “danse”",
        "scores": {"identity": 0.5 + number / 1000},
        "boxes": (FrameBoxes(hands=((1.0, 2.0, 3.0, 4.0),)),) * 5,
        "lineage": Lineage(source=sha(f"source{number}"), start_frame=number, crop=(0, 0, 64, 64)),
        "licence": "cc0",
    }
    return Pair.model_validate({**fields, **more})


def preference(number: int, files: dict[str, Artifact], **more: object) -> Pair:
    """A preference pair; every fifth is for validation."""
    fields = {
        "task": "preference", "slice": "preferences", "target": None, "winner": files["video1"], "loser": files["video2"],
        "driving": files["video0"], "driving_mask": files["driving_mask_animation"], "references": (files["reference0"],),
        "reference_masks": (files["reference_mask_animation"],), "reference_in_target": False,
        "boxes": (FrameBoxes(hands=((8.0, 8.0, 40.0, 46.0),)),) * 5, "loser_boxes": (FrameBoxes(faces=((10.0, 8.0, 40.0, 20.0),)),) * 5,
        "split": "validation" if number % 5 == 4 else "train", "group": f"liked{number % 5}",
        "lineage": Lineage(source=sha(f"source{number}"), start_frame=number, crop=(0, 0, 64, 64), painted=(files["reference0"].digest,)),
    }  # fmt: skip
    return pair(number, files, **{**fields, **more})


def pairs(files: dict[str, Artifact], count: int, block_size: int = 5) -> list[tuple[Pair, int]]:
    return [(pair(i, files), i // block_size) for i in range(count)]


def meta(**more: object) -> ReleaseMeta:
    left_out = (LeftOut(job=sha("lost"), slice="pose_slice", split="train", state="rejected", reason="blurred"),)
    fields = {"name": "tiny", "recipe": sha("recipe"), "mix": {"animation": 60, "replacement": 20, "pose": 20}, "left_out": left_out}
    return ReleaseMeta.model_validate({**fields, **more})

"""What a preference pair promises beside what every pair does; held when a release is sealed, and again by `verify`.

It has no target. Real span, winner and loser are three videos; the winner is what a generator made of the span's poses, the loser what it
made of the winner's. A model learns from the difference in the regions of hands and faces, so both must have some.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import Box

VIDEOS = ("driving.mp4", "winner.mp4", "loser.mp4")
REGIONS = {"winner.mp4": "boxes", "loser.mp4": "loser_boxes"}
"""video → what its regions are called in KEY.json"""
PARTS = ("hands", "faces")
U8 = NDArray[np.uint8]


def record_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(member, what is wrong) by KEY.json alone. Raises KeyError and TypeError for what is no pair's record."""
    members, geometry = record["members"], record["geometry"]
    for i, name in enumerate(VIDEOS):
        for other in VIDEOS[:i]:
            if members[name]["sha256"] == members[other]["sha256"]:
                yield name, f"is the same file as {other}; real span, winner and loser are three videos"
    if members["driving_mask.mp4"]["sha256"] in {members[video]["sha256"] for video in VIDEOS}:
        yield "driving_mask.mp4", "is one of the pair's videos"
    if record["reference_in_target"] or members["reference.png"]["sha256"] not in record["lineage"]["painted"]:
        yield "reference.png", "is not the painted picture whose character winner and loser show"
    if record["slots"] != 1:
        yield "json", f"has {record['slots']} binding slots, a preference pair shows one person"
    for video, name in REGIONS.items():
        frames = record[name]
        if len(frames) != geometry["frames"]:
            yield "json", f"{name} has {len(frames)} frames, {video} has {geometry['frames']}"
        elif not any(frame[part] for frame in frames for part in PARTS):
            yield "json", f"{name} holds no hand and no face, so there is no region to prefer {video.partition('.')[0]} by"
        elif any(not _inside(box, geometry) for frame in frames for part in PARTS for box in frame[part]):
            yield "json", f"{name} holds a box outside {geometry['width']}×{geometry['height']}"


def _inside(box: Sequence[float], geometry: Mapping[str, Any]) -> bool:
    x0, y0, x1, y1 = box
    return bool(0 <= x0 < x1 <= geometry["width"] and 0 <= y0 < y1 <= geometry["height"])


def picture_problems(videos: Mapping[str, U8], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for decoded videos (T, H, W, C), by member; those that could not be decoded are left out."""
    for i, name in enumerate(VIDEOS):
        for other in VIDEOS[:i]:
            if name in videos and other in videos and np.array_equal(videos[name], videos[other]):
                yield name, f"shows the same as {other}"
                return
    shown = [videos[name] for name in REGIONS if name in videos]
    if len(shown) == 2 and shown[0].shape == shown[1].shape and len(record["boxes"]) == len(shown[0]):
        boxes = [(t, *_crop(box)) for t, frame in enumerate(regions(record)) for box in frame]
        if all(np.array_equal(shown[0][box], shown[1][box]) for box in boxes):
            yield "loser.mp4", "shows the same as the winner in every region of hands and faces"


def regions(record: Mapping[str, Any]) -> list[list[Box]]:
    """By frame, the hands and faces of winner and loser."""
    both = zip(*(record[name] for name in REGIONS.values()), strict=False)
    return [[tuple(box) for frame in frames for part in PARTS for box in frame[part]] for frames in both]


def _crop(box: Box) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return slice(int(y0), int(-(-y1 // 1))), slice(int(x0), int(-(-x1 // 1)))

"""What a brain with eyes is shown: contact sheets of bounded size, every picture on them numbered. Frames and pictures are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.summary import boxes
from generators.poses.tracks import People
from manifests.media import contact_sheet

Image = npt.NDArray[np.uint8]
Frames = npt.NDArray[np.uint8]

LONG_SIDE_PX = 1536
"""no exhibit is longer: models scale larger ones down, and bill them by their size"""
CLIP_FRAMES = 8
SIDE_BY_SIDE_FRAMES = 6
CROPS = 4
CROP_MARGIN = 0.3
"""of the box, on every side"""
OUTLINE_RGB = (255, 230, 0)


def clip_sheet(frames_THWC: Frames, people: People | None = None, person: int | None = None) -> Image:
    """Frames spread over a clip, numbered; the one `person` meant is outlined."""
    picked = spread(len(frames_THWC), CLIP_FRAMES)
    shown = [_numbered(_outlined(frames_THWC[t], people, person, t), t) for t in picked]
    return bounded(_sheet(_rows(shown), f"frames of the clip ({', '.join(map(str, picked))})"))


def candidate_sheet(pictures: Sequence[Image], what: str) -> Image:
    """Thumbnails, numbered from 0."""
    return bounded(_sheet(_rows([_numbered(_thumbnail(p), i) for i, p in enumerate(pictures)]), f"{what}, numbered"))


def painting_sheet(painted_HWC: Image, frame_HWC: Image, sources: dict[str, Image]) -> Image:
    """The painted picture beside what it was made of and the frame whose person it replaces."""
    named = {"painted picture": painted_HWC, "frame of the clip": frame_HWC, **sources}
    return bounded(_sheet([list(map(_thumbnail, named.values()))], " | ".join(named), height_px=512))


def performance_sheet(video_THWC: Frames, clip_THWC: Frames) -> Image:
    """The synthetic video above the clip, at the same instants."""
    picked = spread(min(len(video_THWC), len(clip_THWC)), SIDE_BY_SIDE_FRAMES)
    rows = [[_numbered(frames[t], t) for t in picked] for frames in (video_THWC, clip_THWC)]
    return bounded(contact_sheet(rows, ["synthetic video", "the clip that drives it, same instants"], 320))


def detail_sheet(video_THWC: Frames, people: People, clip_THWC: Frames, clip_people: People) -> Image | None:
    """Hands and faces of the synthetic video above those of the clip; None where neither shows any."""
    rows = [_crops(video_THWC, people), _crops(clip_THWC, clip_people)]
    labels = ["hands and faces, synthetic", "hands and faces, clip"]
    kept = [(row, label) for row, label in zip(rows, labels, strict=True) if row]
    return bounded(contact_sheet([r for r, _ in kept], [label for _, label in kept], 192)) if rows[0] else None


def spread(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, the first and the last among them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).astype(int))]


def bounded(image_HWC: Image, long_px: int = LONG_SIDE_PX) -> Image:
    """Scaled down to the longest side allowed."""
    height, width = image_HWC.shape[:2]
    if max(height, width) <= long_px:
        return image_HWC
    zoom = long_px / max(height, width)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    return np.asarray(cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _crops(frames_THWC: Frames, people: People) -> list[Image]:
    """Hands and faces of frames spread over the video."""
    found = []
    every = boxes(people)
    for t in spread(min(len(frames_THWC), len(every)), 2 * CROPS):
        for box in (*every[t].faces[:1], *every[t].hands[:1]):
            found.append(_cropped(frames_THWC[t], box))
    return [crop for crop in found if min(crop.shape[:2]) >= 8][: 2 * CROPS]


def _cropped(frame_HWC: Image, box: tuple[float, float, float, float]) -> Image:
    x0, y0, x1, y1 = box
    margin = CROP_MARGIN * max(x1 - x0, y1 - y0)
    height, width = frame_HWC.shape[:2]
    left, top = int(np.clip(x0 - margin, 0, width - 1)), int(np.clip(y0 - margin, 0, height - 1))
    right, bottom = int(np.clip(x1 + margin, left + 1, width)), int(np.clip(y1 + margin, top + 1, height))
    return frame_HWC[top:bottom, left:right]


def _outlined(frame_HWC: Image, people: People | None, person: int | None, t: int) -> Image:
    if people is None or person is None:
        return frame_HWC
    mask_HW = (people.masks_PTHW[person, t] > 127).astype(np.uint8)
    outlines, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(2, min(frame_HWC.shape[:2]) // 150)
    return np.asarray(cv2.drawContours(frame_HWC.copy(), outlines, -1, OUTLINE_RGB, thickness), np.uint8)


def _thumbnail(image_HWC: Image) -> Image:
    return bounded(image_HWC[..., :3], 512)


def _numbered(image_HWC: Image, number: int) -> Image:
    """The number in a dark box in the upper left corner."""
    out, scale = np.ascontiguousarray(image_HWC[..., :3]).copy(), max(0.5, min(image_HWC.shape[:2]) / 350)
    (width, height), base = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    cv2.rectangle(out, (0, 0), (width + 8, height + base + 6), (0, 0, 0), -1)
    cv2.putText(out, str(number), (4, height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def _rows(pictures: Sequence[Image]) -> list[list[Image]]:
    """Two rows from five pictures on, four from seventeen."""
    count = 1 if len(pictures) < 5 else 2 if len(pictures) < 17 else 4
    each = -(-len(pictures) // count)
    return [list(pictures[i : i + each]) for i in range(0, len(pictures), each)]


def _sheet(rows: list[list[Image]], label: str, height_px: int = 320) -> Image:
    return contact_sheet(rows, [label, *("" for _ in rows[1:])], height_px)

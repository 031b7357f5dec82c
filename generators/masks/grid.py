"""Pictures and masks at the size they are worked on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from generators.poses.tracks import Bytes, Floats, People

WORK_SIDE = 320
"""pictures are worked on at the largest whole fraction whose short side is at least this"""


@dataclass(frozen=True)
class Box:
    """A region on the working grid."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def at(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0


class Grid:
    """The frames at working size: a whole fraction of the picture's."""

    def __init__(self, frames_THWC: Bytes, people: People) -> None:
        self.frames_THWC = frames_THWC
        self.height, self.width = frames_THWC.shape[1:3]
        self.step = max(1, min(self.height, self.width) // WORK_SIDE)
        self.size_hw = (-(-self.height // self.step), -(-self.width // self.step))
        self.small = [np.zeros((0, 0, 3), np.uint8)] * len(frames_THWC)
        self.masks = [[np.zeros((0, 0), np.uint8)] * len(frames_THWC) for _ in range(people.count)]

    def shrink(self, t: int, people: People) -> None:
        """Make frame `t` and its masks small."""
        self.small[t] = self._small(self.frames_THWC[t])
        for p in np.flatnonzero(people.present_PT[:, t]):
            self.masks[p][t] = self._small(people.masks_PTHW[p, t])

    def _small(self, picture: Bytes) -> Bytes:
        if self.step == 1:
            return picture
        below, right = (s * self.step - n for s, n in zip(self.size_hw, (self.height, self.width), strict=True))
        if below or right:
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        return np.asarray(cv2.resize(picture, self.size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)

    def full(self, box: Box) -> tuple[slice, slice]:
        """The box's pixels in the picture."""
        n = self.step
        return slice(box.y0 * n, min(box.y1 * n, self.height)), slice(box.x0 * n, min(box.x1 * n, self.width))

    def box_of(self, mask_HW: Bytes, landmarks_33x2: Floats, visibility_33: Floats) -> Box | None:
        """Around a silhouette and the visible joints, with room for the band; None when nothing of them is in the picture."""
        x, y, w, h = cv2.boundingRect((mask_HW > 8).astype(np.uint8))
        corners = [np.array([[x, y], [x + w, y + h]], np.float32)] if w else []
        corners += [landmarks_33x2[visibility_33 > 0.5]]
        points = np.concatenate(corners)
        if not len(points):
            return None
        room = 6 + 0.06 * float(np.ptp(points, axis=0).max())
        x0, y0 = np.clip(points.min(axis=0) - room, 0, self.size_hw[::-1]).astype(int).tolist()
        x1, y1 = np.clip(points.max(axis=0) + room, 0, self.size_hw[::-1]).astype(int).tolist()
        return Box(y0, y1, x0, x1) if x1 - x0 > 2 and y1 - y0 > 2 else None

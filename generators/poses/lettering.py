"""Where text stands in a video: PP-OCR's detection network (differentiable binarization, Liao et al. 2020) through OpenCV.

Text rarely moves, so only a frame a second is looked at. A text found at the same place in two neighbouring looks moves evenly from one
to the other; one that is found in a single look stands for half the time to the next look on either side.
"""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators import weights
from generators.poses.blazepose import overlap
from generators.poses.tracks import Bytes
from manifests.errors import BadInput
from manifests.records import Box, rounded

Doubles = npt.NDArray[np.float64]

EVERY_S = 1.0
LONG_SIDE = 640
"""pixels of the network's input; larger pictures are shrunk to it"""
MULTIPLE = 32
INK = 0.3
"""probability from which a pixel belongs to the core of a text line"""
LINE = 0.5
"""mean probability over a core from which it is a text line"""
UNCLIP = 1.6
"""PP-OCR's figure: the network marks the lines' cores; a core grows by area × this / circumference"""
SMALLEST_PX = 3.0
"""cores less high than this, in the network's input, are noise"""
SAME = 0.3
"""boxes of two looks that overlap more (intersection over union) are one text"""


class TextFinder:
    """Boxes of text lines. The model is loaded on first use; constructing is cheap."""

    def __init__(self) -> None:
        self._net: Any = None

    def setup(self) -> None:
        """Load the model (fetching it once). Raises what `generators.weights.fetch` raises."""
        if self._net is None:
            self._net = cv2.dnn.readNetFromONNX(str(weights.path_of("text_detection")))

    def find(self, rgb_HWC: Bytes) -> Doubles:
        """Boxes of one picture (N, 4): x0 y0 x1 y1 in pixels, from the top down, then from the left."""
        if rgb_HWC.dtype != np.uint8 or rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3 or min(rgb_HWC.shape) < 1:
            raise BadInput(f"expected RGB uint8 pixels in layout HWC, got {rgb_HWC.dtype} {rgb_HWC.shape}")
        self.setup()
        height, width = rgb_HWC.shape[:2]
        shrink = min(1.0, LONG_SIDE / max(height, width))
        size_wh = tuple(max(MULTIPLE, round(n * shrink / MULTIPLE) * MULTIPLE) for n in (width, height))
        small = cv2.resize(rgb_HWC, size_wh, interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR)
        input_NCHW = (small[..., ::-1].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        self._net.setInput(np.ascontiguousarray(input_NCHW))
        found = _lines(np.asarray(self._net.forward())[0, 0])
        boxes = np.array(found, np.float64).reshape(-1, 4) * np.tile([width / size_wh[0], height / size_wh[1]], 2)
        boxes = np.clip(boxes, 0, [width, height, width, height])
        return np.asarray(boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))])

    def through(self, frames_THWC: Bytes, fps: float) -> tuple[tuple[Box, ...], ...]:
        """The boxes in every frame of a video; it is looked at once a second, and at its first and last frame."""
        count = len(frames_THWC)
        if not count:
            return ()
        looks = np.unique(np.linspace(0, count - 1, max(2, 1 + round((count - 1) / (EVERY_S * fps)))).astype(int))
        return between([(int(t), self.find(frames_THWC[t])) for t in looks], count)


def between(looks: list[tuple[int, Doubles]], count: int) -> tuple[tuple[Box, ...], ...]:
    """The boxes in each of `count` frames, from those at a few: (frame, boxes (N, 4)), ascending, first and last frame among them."""
    frames: list[tuple[Box, ...]] = [_records(looks[0][1])] * count
    for (start, old), (stop, new) in itertools.pairwise(looks):
        pairs = _matched(old, new)
        lost, come = [np.delete(boxes, [p[i] for p in pairs], axis=0) for i, boxes in ((0, old), (1, new))]
        for t in range(start + 1, stop):
            share = (t - start) / (stop - start)
            moving = [old[i] * (1 - share) + new[j] * share for i, j in pairs]
            frames[t] = _records(np.array([*moving, *(lost if share <= 0.5 else come)]).reshape(-1, 4))
        frames[stop] = _records(new)
    return tuple(frames)


def _matched(old_N4: Doubles, new_N4: Doubles) -> list[tuple[int, int]]:
    """Pairs that overlap enough, best overlap first, each box once."""
    scores = [(float(s), i, j) for i, box in enumerate(old_N4) for j, s in enumerate(overlap(box, new_N4)) if s > SAME]
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(scores, key=lambda s: (-s[0], s[1], s[2])):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return sorted(pairs)


def _records(boxes_N4: Doubles) -> tuple[Box, ...]:
    return tuple((rounded(a), rounded(b), rounded(c), rounded(d)) for a, b, c, d in boxes_N4.tolist())


def _lines(probability_HW: npt.NDArray[np.float32]) -> list[Doubles]:
    """Upright boxes around the text lines of the network's answer, in its pixels."""
    cores = (probability_HW > INK).astype(np.uint8)
    contours, _ = cv2.findContours(cores, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        inside = np.zeros_like(cores)
        cv2.drawContours(inside, [contour], -1, 1, cv2.FILLED)
        _, (a, b), _ = rectangle = cv2.minAreaRect(contour)
        if min(a, b) < SMALLEST_PX - 1 or float(probability_HW[inside > 0].mean()) < LINE:
            continue
        grown = max(a * b, 1.0) * UNCLIP / (2 * (a + b))
        corners = cv2.boxPoints(rectangle)
        found.append(np.concatenate([corners.min(axis=0) - grown, corners.max(axis=0) + grown + 1]))
    return found

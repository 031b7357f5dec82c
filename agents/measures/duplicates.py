"""Near-duplicates: the same real clip in another file, the same painted picture twice.

Pictures are compared by perceptual hashes of 64 bits (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010, the DCT hash): the signs of the low frequencies survive another encoding, size or brightness.

A hash of whole frames would call all clips of one camera the same: most of a frame is the background. So a video has two hashes a frame, of
the part where its people are and of what differs from the median frame, and both must agree over the frames that two videos have in common,
wherever these begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.tracks import People
from manifests.records import PicturePrint, VideoPrint

Frames = npt.NDArray[np.uint8]
Greys = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]

SIDE_PX, BASIS = 32, 8
"""a picture is hashed at 32×32 by its lowest 8×8 frequencies"""
SMALL_PX = 192
"""videos are looked at with about this short side"""
PADDING = 0.1
"""around the people's landmarks, over their box"""
SCENE_BITS_MAX = 16
"""of 64: median frames that differ more are of other scenes, whatever moves in them"""
COMPARED_FRAMES = 16
"""of the later video, at most; each is held against one frame of the earlier one"""
COLOUR_CELLS = 8


def dct_hash(grey_HW: npt.NDArray[Any]) -> int:
    """64 bits: which of the lowest 8×8 DCT coefficients lie above their median, row by row. The first, the brightness, counts as below."""
    small = cv2.resize(grey_HW.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:BASIS, :BASIS].ravel()
    above = low > np.median(low[1:])
    above[0] = False
    return int.from_bytes(np.packbits(above).tobytes(), "big")


def video_print(frames_THWC: Frames, people: People) -> VideoPrint:
    """What a video is known by. Costs about a millisecond a frame."""
    greys_THW = np.stack([_small_grey(frame) for frame in frames_THWC])
    median_HW = np.median(greys_THW, axis=0)
    rows, columns = _people_box(people, greys_THW.shape[1:])
    moves = [dct_hash(cv2.GaussianBlur(np.abs(grey - median_HW), (0, 0), 2.0)) for grey in greys_THW]
    return VideoPrint(
        scene=_hex([dct_hash(median_HW)]), looks=_hex([dct_hash(grey[rows, columns]) for grey in greys_THW]), moves=_hex(moves)
    )


def picture_print(image_HWC: Frames) -> PicturePrint:
    """What a picture is known by."""
    small = cv2.resize(image_HWC, (COLOUR_CELLS, COLOUR_CELLS), interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    return PicturePrint(shape=_hex([dct_hash(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY))]), colours=colours.tobytes().hex())


def same_picture(a: PicturePrint, b: PicturePrint, bits_max: float, colour_max: float) -> bool:
    """Whether the hashes differ in at most `bits_max` of 64 bits, and 95 of 100 parts of the picture by at most `colour_max` (CIE76).

    The hash alone would take two characters of one shape, in the same pose before the same scene, for one.
    """
    bits = int(np.bitwise_count(_unhex(a.shape) ^ _unhex(b.shape))[0])
    gap = np.linalg.norm(_lab(a) - _lab(b), axis=1)
    return bits <= bits_max and float(np.percentile(gap, 95)) <= colour_max


class KnownVideos:
    """Prints of videos, numbered from 0 in the order they came; all have the same number of frames."""

    def __init__(self) -> None:
        self._count = 0
        self._known_NxH: Hashes = np.empty((0, 0), np.uint64)
        """a row a video: scene, looks, moves"""

    def add(self, seen: VideoPrint) -> int:
        """The video's number."""
        row = _row(seen)
        if self._count == len(self._known_NxH):
            larger = np.zeros((max(16, 2 * self._count), len(row)), np.uint64)
            larger[: self._count] = self._known_NxH.reshape(-1, len(row))
            self._known_NxH = larger
        self._known_NxH[self._count] = row
        self._count += 1
        return self._count - 1

    def near(self, seen: VideoPrint, bits_max: float) -> list[int]:
        """Numbers of the videos that show the same, at least half of it, ascending.

        They agree at some shift of up to half their length: hashes of both kinds differ in at most `bits_max` of 64 bits on average.
        """
        if not self._count:
            return []
        row = _row(seen)
        among = np.flatnonzero(np.bitwise_count(self._known_NxH[: self._count, 0] ^ row[0]) <= SCENE_BITS_MAX)
        return [int(i) for i in among[_differing_bits(self._known_NxH[among, 1:], row[1:]) <= bits_max]]


def _differing_bits(known_NxH: Hashes, seen_H: Hashes) -> npt.NDArray[np.float64]:
    """Of 64, for the worse of looks and moves at the best shift, N."""
    frames, best_N = len(seen_H) // 2, np.full(len(known_NxH), 64.0)
    for shift in range(-(frames // 2), frames // 2 + 1):
        at = np.arange(max(0, -shift), frames + min(0, -shift))
        at = at[:: -(-len(at) // COMPARED_FRAMES)]
        looks, moves = (np.bitwise_count(known_NxH[:, at + shift + k] ^ seen_H[at + k]).mean(axis=1) for k in (0, frames))
        best_N = np.minimum(best_N, np.maximum(looks, moves))
    return best_N


def _small_grey(frame_HWC: Frames) -> Greys:
    grey = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    scale = SMALL_PX / min(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, (round(grey.shape[1] * scale), round(grey.shape[0] * scale)), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.float32)


def _people_box(people: People, shape_hw: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns around everybody in all frames; everything when nobody is there."""
    xy = people.landmarks_PT33x3[people.present_PT][..., :2].reshape(-1, 2) / people.size_hw[::-1]
    if not len(xy):
        return slice(None), slice(None)
    low, high = xy.min(axis=0), xy.max(axis=0)
    padding = PADDING * (high - low)
    (x0, y0), (x1, y1) = np.clip(low - padding, 0, 1), np.clip(high + padding, 0, 1)
    rows, columns = (slice(int(a * n), max(int(a * n) + 1, int(b * n))) for a, b, n in ((y0, y1, shape_hw[0]), (x0, x1, shape_hw[1])))
    return rows, columns


def _row(seen: VideoPrint) -> Hashes:
    return np.concatenate([_unhex(seen.scene), _unhex(seen.looks), _unhex(seen.moves)])


def _hex(hashes: Sequence[int]) -> str:
    return "".join(f"{h:016x}" for h in hashes)


def _unhex(text: str) -> Hashes:
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)


def _lab(seen: PicturePrint) -> npt.NDArray[np.float64]:
    """CIELAB colours, N×3. OpenCV's bytes scale L by 255/100 and shift a and b by 128."""
    stored = np.frombuffer(bytes.fromhex(seen.colours), np.uint8).reshape(-1, 3).astype(np.float64)
    return (stored - (0, 128, 128)) * (100 / 255, 1, 1)

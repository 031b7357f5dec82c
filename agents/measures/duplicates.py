"""Near-duplicates: the same real clip in another file, the same painted picture twice.

Pictures are compared by perceptual hashes of 64 bits (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010, the DCT hash): the signs of the low frequencies survive another encoding, size or brightness.

A hash of whole frames would call all clips of one camera the same: most of a frame is the background. So a video has two hashes a frame, of
the part where its people are and of what differs from the median frame, and both must agree over the frames that two videos have in common,
wherever these begin.
"""

from __future__ import annotations

import functools
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
CHUNK_VIDEOS = 64
"""that are compared in one go: bounds the memory"""
COLOUR_CELLS = 8
HASH_BYTES = 8


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


def same_picture(a: bytes, b: bytes, bits_max: float, colour_max: float) -> bool:
    """Whether the hashes of two packed prints differ in at most `bits_max` of 64 bits, and 95 of 100 parts of the picture by at most
    `colour_max` (CIE76).

    The hash alone would take two characters of one shape, in the same pose before the same scene, for one.
    """
    bits = (int.from_bytes(a[:HASH_BYTES], "big") ^ int.from_bytes(b[:HASH_BYTES], "big")).bit_count()
    gap = np.linalg.norm(_lab(a) - _lab(b), axis=1)
    return bits <= bits_max and float(np.percentile(gap, 95)) <= colour_max


class KnownVideos:
    """Prints of videos, numbered from 0 in the order they came; all have the same number of frames."""

    def __init__(self) -> None:
        self._count = 0
        self._scenes_N: Hashes = np.empty(0, np.uint64)
        """apart from the others, for all of them are looked through for every video"""
        self._rest_NxH: Hashes = np.empty((0, 0), np.uint64)
        """a row a video: looks, moves"""

    def add(self, shown: bytes) -> int:
        """The number of a video by its packed print."""
        scene, rest_H = _hashes(shown)
        if self._count == len(self._scenes_N):
            room = max(16, self._count + self._count // 4)
            self._scenes_N = _enlarged(self._scenes_N, (room,))
            self._rest_NxH = _enlarged(self._rest_NxH, (room, len(rest_H)))
        self._scenes_N[self._count], self._rest_NxH[self._count] = scene, rest_H
        self._count += 1
        return self._count - 1

    def near(self, shown: bytes, bits_max: float, besides: Sequence[int] = ()) -> list[int]:
        """Numbers of the videos, but for those `besides`, that show the same as a packed print, at least half of it, ascending.

        They agree at some shift of up to half their length: hashes of both kinds differ in at most `bits_max` of 64 bits on average.
        """
        scene, rest_H = _hashes(shown)
        among = np.flatnonzero(np.bitwise_count(self._scenes_N[: self._count] ^ scene) <= SCENE_BITS_MAX)
        among = among[~np.isin(among, besides)] if len(besides) else among
        if not len(among):
            return []
        return [int(i) for i in among[_differing_bits(self._rest_NxH[among], rest_H) <= bits_max]]


def _enlarged(hashes: Hashes, shape: tuple[int, ...]) -> Hashes:
    larger = np.zeros(shape, np.uint64)
    larger[: len(hashes)] = hashes.reshape(-1, *shape[1:])
    return larger


def _differing_bits(known_NxH: Hashes, seen_H: Hashes) -> npt.NDArray[np.float64]:
    """Of 64, for the worse of looks and moves at the best shift, N."""
    frames = len(seen_H) // 2
    earlier_SxC, later_SxC, weights_SxC = _shifts(frames)
    best_N = np.empty(len(known_NxH))
    for first in range(0, len(known_NxH), CHUNK_VIDEOS):
        some = slice(first, first + CHUNK_VIDEOS)
        bits = [np.bitwise_count(known_NxH[some][:, earlier_SxC + k] ^ seen_H[later_SxC + k]) for k in (0, frames)]
        looks_NxS, moves_NxS = (np.einsum("nsc,sc->ns", each, weights_SxC) for each in bits)
        best_N[some] = np.maximum(looks_NxS, moves_NxS).min(axis=1)
    return best_N


@functools.cache
def _shifts(frames: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """For every shift, which frames of the earlier video are held against which of the later one, and what each counts; shifts × frames,
    the unused ones count nothing."""
    shifts = range(-(frames // 2), frames // 2 + 1)
    later, weights = np.zeros((len(shifts), COMPARED_FRAMES), np.intp), np.zeros((len(shifts), COMPARED_FRAMES))
    for row, shift in enumerate(shifts):
        at = np.arange(max(0, -shift), frames + min(0, -shift))
        at = at[:: -(-len(at) // COMPARED_FRAMES)]
        later[row, : len(at)], weights[row, : len(at)] = at, 1 / len(at)
    return np.where(weights > 0, later + np.asarray(shifts)[:, None], 0), later, weights


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


def _hashes(shown: bytes) -> tuple[np.uint64, Hashes]:
    """Of a packed print: scene; looks and moves."""
    hashes = np.frombuffer(shown, ">u8").astype(np.uint64)
    return hashes[0], hashes[1:]


def _hex(hashes: Sequence[int]) -> str:
    return "".join(f"{h:016x}" for h in hashes)


def _lab(seen: bytes) -> npt.NDArray[np.float64]:
    """CIELAB colours of a packed print, N×3. OpenCV's bytes scale L by 255/100 and shift a and b by 128."""
    stored = np.frombuffer(seen, np.uint8, offset=HASH_BYTES).reshape(-1, 3).astype(np.float64)
    return (stored - (0, 128, 128)) * (100 / 255, 1, 1)

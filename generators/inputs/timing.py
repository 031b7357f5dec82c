"""How many frames, at which instants: a clip at a model's own rate, 4n+1 counts, overlapping segments, equal lengths."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from manifests import media
from manifests.errors import BadInput

Scalar = TypeVar("Scalar", bound=np.generic)


def four_n_plus_one(count: int) -> int:
    """The smallest of 1, 5, 9, 13 … that is at least `count`: a video VAE puts four frames into one, after the first."""
    if count < 1:
        raise ValueError(f"expected at least one frame, got {count}")
    return (count + 2) // 4 * 4 + 1


def at_rate(frames_T: npt.NDArray[Scalar], fps: float, wanted_fps: float, count: int) -> npt.NDArray[Scalar]:
    """`count` frames at `wanted_fps`: each is the one on display at its instant. The first axis is time.

    Raises BadInput("too_few_frames") when the frames end more than one wanted frame too early; that one is held.
    """
    have = media.frames_within(len(frames_T) / fps, wanted_fps)
    if have < count - 1:
        raise BadInput(
            f"{len(frames_T)} frames at {fps:g} fps cover {have} at {wanted_fps:g} fps, asked are {count}; give the whole span",
            "too_few_frames",
        )
    return frames_T[media.sample_indices(np.arange(len(frames_T)) / fps, count, wanted_fps)]


@dataclass(frozen=True)
class Segments:
    """A long clip as stretches that a model makes one after the other, each beginning with the last frames of the one before."""

    frames: int
    """asked"""
    length: int
    """frames of each segment, 4n+1"""
    overlap: int
    """frames that a segment takes over from the one before"""

    def __post_init__(self) -> None:
        if self.length % 4 != 1 or not 0 <= self.overlap < self.length:
            raise ValueError(f"segments of {self.length} frames with {self.overlap} in common; allowed is 4n+1, and an overlap below it")
        if self.frames < 1:
            raise ValueError(f"expected at least one frame, got {self.frames}")

    @property
    def count(self) -> int:
        """How many segments cover the frames."""
        return max(1, ceil((self.frames - self.overlap) / (self.length - self.overlap)))

    @property
    def padded(self) -> int:
        """Frames of all segments together: what is made, of which `frames` are kept."""
        return self.overlap + self.count * (self.length - self.overlap)

    def spans(self) -> tuple[tuple[int, int], ...]:
        """First frame and the one after the last, of each segment; the last may reach beyond `frames`, up to `padded`."""
        step = self.length - self.overlap
        return tuple((i * step, i * step + self.length) for i in range(self.count))


def same_length(**videos: Sized) -> int:
    """The common number of frames. Raises BadInput("inputs_mismatch") naming all lengths when they differ or are zero.

    Pipelines repeat what is too short without a word, and the result is wrong from there on.
    """
    lengths = {name: len(video) for name, video in videos.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise BadInput(f"all inputs need the same number of frames, got {lengths}; derive them anew", "inputs_mismatch")
    return next(iter(lengths.values()))

"""Two videos brought to the same instants and, for what is compared pixel by pixel, to the same size. One rule for all metrics.

Time: both are sampled by timestamp at the lower of the two rates, so that no frame of either is counted twice. Their durations may differ
by one frame at that rate; more is refused, unless the common beginning was asked for.
Size: the truth's. A generated video of the same aspect ratio is resized to it; another aspect ratio is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests import media
from manifests.errors import BadInput
from manifests.media import HALF_MS, Frames

ASPECT_TOLERANCE = 0.02
"""relative: sizes are rounded to multiples of 8, 16 or 32"""


@dataclass(frozen=True)
class Aligned:
    """Frame i of both is shown at the same instant."""

    generated_THWC: Frames
    truth_THWC: Frames
    """or the driving video, where there is no truth"""
    fps: float
    notes: tuple[str, ...]
    """what was done to the generated video, in words"""


def align(generated: Path, truth: Path, *, trim: bool = False, same_size: bool = True) -> Aligned:
    """Read both videos. `trim`: compare the common beginning however long the rest is; `same_size`: resize the generated one.

    Raises BadInput as `media.Video` does, other_length, other_shape.
    """
    mine, theirs = media.probe(generated), media.probe(truth)
    fps = min(mine.fps, theirs.fps)
    if not trim and abs(mine.duration_s - theirs.duration_s) > 1 / fps + HALF_MS:
        raise BadInput(
            f"{generated.name} lasts {_time(mine)}, {truth.name} {_time(theirs)}; make them alike, or compare their common beginning "
            "with --trim", "other_length",
        )  # fmt: skip
    notes = []
    if abs(mine.fps - theirs.fps) > 1e-3:
        notes.append(f"compared at {fps:g} fps ({mine.fps:g} against {theirs.fps:g})")
    if same_size and (mine.width, mine.height) != (theirs.width, theirs.height):
        if abs(mine.width * theirs.height / (mine.height * theirs.width) - 1) > ASPECT_TOLERANCE:
            raise BadInput(
                f"{generated.name} is {_size(mine)}, {truth.name} {_size(theirs)}: another aspect ratio; crop it to the truth's frame",
                "other_shape",
            )
        notes.append(f"resized from {_size(mine)}")
    count = max(1, min(media.frames_within(p.duration_s, fps) for p in (mine, theirs)))
    if count < max(media.frames_within(p.duration_s, fps) for p in (mine, theirs)):
        notes.append(f"the first {count} frames")
    made_THWC, true_THWC = (media.read_clip(path, fps, count=count) for path in (generated, truth))
    if same_size and made_THWC.shape != true_THWC.shape:
        made_THWC = np.stack([media.resized(frame, theirs.height, theirs.width) for frame in made_THWC])
    return Aligned(made_THWC, true_THWC, fps, tuple(notes))


def _time(probe: media.Probe) -> str:
    return f"{probe.duration_s:.3f} s ({probe.frames} frames at {probe.fps:g} fps)"


def _size(probe: media.Probe) -> str:
    return f"{probe.width}×{probe.height}"

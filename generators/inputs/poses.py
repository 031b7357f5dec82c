"""Pose videos at a model's own size and rate, drawn by the built-in renderers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from generators.inputs import pictures
from generators.poses import cylinders, skeleton
from generators.poses.alignment import aligned
from generators.poses.cylinders import CylinderOptions
from generators.poses.figures import figures
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import Bytes, People
from manifests import media


def skeleton_video(
    people: People, height: int, width: int, fps: float, frames: int, options: PoseOptions, reference: People | None = None
) -> Bytes:
    """T×H×W×3: everybody as stick figures on black, at exactly this size, rate and number of frames.

    With `reference` (one picture's people, in the same order) the motion is moved onto their places and proportions. Raises BadInput
    ("people_mismatch") as `alignment.aligned`.
    """
    fig = figures(people, height, width, fps, frames)
    if reference is not None:
        fig = aligned(fig, reference)
    return np.stack(list(skeleton.render(fig, options)))


def cylinder_video(
    people: People, height: int, width: int, fps: float, frames: int, options: CylinderOptions, reference: People | None = None
) -> Bytes:
    """T×H×W×3: everybody as shaded cylinders on black, unstretched in the middle of this size, at this rate and number of frames.

    What is asked beyond the end of the clip is the last frame, held. With `reference` as `skeleton_video`.
    """
    h, w = pictures.fitted_size(people.size_hw, (height, width))
    covered = max(1, media.frames_within(people.frames / people.fps, fps))
    fig = figures(people, h, w, fps, min(frames, covered))
    if reference is not None:
        fig = aligned(fig, reference)
    drawn: Iterable[Bytes] = cylinders.render(fig, options)
    shown = np.stack([pictures.framed(frame, height, width, edges=False) for frame in drawn])
    return np.asarray(shown[np.minimum(np.arange(frames), len(shown) - 1)])

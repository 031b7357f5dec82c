"""Pose videos at a model's own size and rate, drawn by the built-in renderers."""

from __future__ import annotations

import numpy as np

from generators.poses import skeleton
from generators.poses.alignment import aligned
from generators.poses.figures import figures
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import Bytes, People


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

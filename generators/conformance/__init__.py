"""The conformance kit: does a generator keep the contract of `generators.base`? It is run on one small sample, with real files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from generators.base import Capabilities, ImageGenerator, VideoGenerator
from generators.conformance.images import ImageKit
from generators.conformance.kit import RULES, Found, Sample
from generators.conformance.videos import VideoKit
from generators.inputs.pictures import letterboxed
from generators.poses.people import PeopleTracker
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

__all__ = ["RULES", "Found", "Sample", "examine", "sample_geometry", "sample_of"]


def examine(create: Callable[[], ImageGenerator | VideoGenerator], sample: Sample, folder: Path) -> list[Found]:
    """All rules on what `create` makes, in the order of RULES. `folder` holds what was made."""
    kit = ImageKit if isinstance(create(), ImageGenerator) else VideoKit
    return kit(create, sample, folder).results()


def sample_geometry(can: Capabilities, frames: int = 17, fps: float = 16.0) -> Geometry:
    """A small geometry that a generator with these capabilities has to be able to make; upright where it may be."""
    step = int(np.lcm(32, can.size_multiple))
    short, long = (step * -(-side // step) for side in (288, 512))
    upright = not can.sizes or any(height >= width for height, width in can.sizes)
    height, width = (long, short) if upright else (short, long)
    counts = [n for n in range(frames, 4, -4) if can.frames_for(Geometry(frames=n, fps=fps, height=height, width=width))]
    return Geometry(frames=max(counts, default=max(5, can.frames_min)), fps=fps, height=height, width=width)


def sample_of(clip: Path, pictures: Sequence[Path], geometry: Geometry, folder: Path) -> Sample:
    """The beginning of a clip at this geometry with everybody in it, and the pictures at its size, as painters make them.

    Raises BadInput when nobody can be seen.
    """
    cut = folder / "sample.mp4"
    media.conform(clip, cut, geometry)
    frames, fps = media.read_frames(cut)
    tracker = PeopleTracker()
    tracker.setup()
    people = tracker.track(frames, fps)
    if not people.count:
        raise BadInput(f"{clip.name}: nobody can be seen in it; give another clip", "no_people")
    fitted = []
    for i, path in enumerate(pictures):
        image = media.read_image(path)
        fitted.append(folder / f"character{i}.png")
        media.write_png(fitted[-1], letterboxed(image, geometry.height, geometry.width, fill=int(image[0, 0].mean())))
    return Sample(cut, people, tuple(fitted), geometry)

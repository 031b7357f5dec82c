"""What the renderers of poses share: their options, what they refuse, and how people become frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from generators.base import Capabilities, Options, Report, VideoGenerator, VideoRequest
from generators.poses.alignment import aligned
from generators.poses.figures import Figures, figures
from generators.poses.tracks import Bytes
from manifests import media
from manifests.errors import BadInput

STICK = 4.0 / 512.0
"""half a limb's width and a joint's radius, in short sides of the picture: the 4 px that are customary at 512"""


class PoseOptions(Options):
    """What is drawn beside the body, and how thick."""

    hands: bool = True
    """fingers, where the tracker read them"""
    face: bool = True
    """the 68 points of a face, where the tracker read it; nose, eyes and ears are part of the body"""
    stick_per_body: float | None = Field(default=None, gt=0, le=0.5)
    """half a limb's width in lengths of the person's torso (0.03 is usual), so that distant people are drawn thinner; without it, 4 px
    at a short side of 512, whoever it is"""


class PoseRenderer(VideoGenerator):
    """Renders the clip's people at the pair's geometry. CPU only, the same request gives the same bytes."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"pose"}), people_max=6, deterministic=True)
    options_type: ClassVar[type[Options]] = PoseOptions

    def validate(self, request: VideoRequest) -> None:
        """Also raises BadInput when there is nobody to draw, the tracked frames end before the span does, or the reference shows another
        number of people."""
        super().validate(request)
        people, reference = request.clip_people, request.reference_people
        if people.count == 0:
            raise BadInput("nobody to draw: the clip has no tracked person; leave it out of pose slices", "no_people")
        if (people.frames - 0.5) / people.fps < request.geometry.duration_s:
            asked = f"{request.geometry.frames} frames at {request.geometry.fps:g} fps"
            raise BadInput(
                f"the people were tracked in {people.frames} frames at {people.fps:g} fps, the pair has {asked}; analyse the span",
                "frames_mismatch",
            )
        if reference is not None and reference.count != people.count:
            raise BadInput(
                f"the reference shows {reference.count} people, the clip {people.count}; give one for each, in the same order",
                "people_mismatch",
            )

    def run(self, request: VideoRequest, out: Path) -> Report:
        self.validate(request)
        g = request.geometry
        fig = figures(request.clip_people, g.height, g.width, g.fps, g.frames)
        if request.reference_people is not None:
            fig = aligned(fig, request.reference_people)
        media.write_video(out, self.frames(fig), g.fps)
        drawn = fig.drawn_PT19[..., :18].mean(axis=(0, 2))
        absent = not fig.drawn_PT19.any(axis=2).all()
        return Report(
            confidence=round(float(drawn.mean()), 4),
            reasons=("person_missing_in_some_frames",) if absent else (),
            per_frame=tuple(round(float(v), 4) for v in drawn),
        )

    @abstractmethod
    def frames(self, fig: Figures) -> Iterator[Bytes]:
        """The rendering, frame by frame: HWC, RGB, black where nobody is."""


def stick_radius(options: PoseOptions, size_hw: tuple[int, int], body_px: float) -> float:
    """Half a limb's width in pixels, at least 1."""
    if options.stick_per_body is not None:
        return max(1.0, options.stick_per_body * body_px)
    return max(2.0, float(round(STICK * min(size_hw))))

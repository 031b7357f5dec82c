"""The one contract of every generator: declared capabilities, then setup → validate → run → verify.

`__init__` is cheap and only keeps the options; `setup` loads weights. `run` writes one file; `verify` inspects that file and never
trusts that `run` came back. The pair's geometry is the caller's business: a video generator may work at its own size and rate, and
its file is resampled by timestamp in one place (`manifests.media.conform`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadAnswer, BadInput
from manifests.records import Frozen, Geometry

Mode = Literal["animation", "replacement", "pose", "image"]


class Capabilities(Frozen):
    """What a generator can do, checked when the plan is made and not at hour six."""

    modes: frozenset[Mode]
    people_max: int = 1
    """how many characters it replaces or animates at once"""
    frame_counts: tuple[int, ...] = ()
    """the only frame counts it can produce; empty: any"""
    fps: float | None = None
    """the rate it writes, whatever came in; None: the request's"""
    size_multiple: int = 1
    gpus: float = 0.0
    views: bool = False
    """video generators: makes use of `VideoRequest.views`"""
    deterministic: bool = False
    """same request, same bytes, within one image and CPU type"""
    roles: frozenset[str] = frozenset()
    """image generators: the reference roles it honours"""


class Options(Frozen):
    """Base of a generator's own options as they stand in the recipe. All of them may change pixels, so all enter the step key."""


@dataclass(frozen=True)
class ImageRequest:
    """Paint one picture of a new character for a person of the clip."""

    pictures: dict[str, Path]
    """role → picture file; "character" is always there"""
    prompt: str
    negative: str
    scale: float
    """asked size of the character relative to the clip's person"""
    geometry: Geometry
    clip_people: People
    """only the person who is to be replaced: framing, scale and place"""
    mode: Mode
    """animation: character in its scene, framed like the clip; replacement: character alone, its own background is of no use"""
    seed: int


@dataclass(frozen=True)
class VideoRequest:
    """Make the painted characters perform the clip's motion."""

    mode: Mode
    clip: Path
    """the real span at the pair's geometry"""
    clip_people: People
    """the driven people only, in the order of `painted`"""
    painted: tuple[Path, ...]
    """one picture a driven person; empty in pose mode"""
    prompt: str
    geometry: Geometry
    seed: int
    reference_people: People | None = None
    """pose renderers: move the poses onto these people (one picture, T = 1; one for each driven person); None: leave them in place"""
    views: tuple[tuple[Path, ...], ...] = ()
    """further pictures of the same characters from other sides, at any size: one tuple for each driven person, or none at all"""
    scene: Path | None = None
    """animation: the painted picture's scene without the character, where the image generator knows it"""
    others: People | None = None
    """people of the clip who are not driven, where known: replacement leaves them in, before or behind the characters"""


def scene_beside(picture: Path) -> Path:
    """Where an image generator leaves the empty scene of a picture."""
    return picture.with_name(f"{picture.stem}.scene.png")


class Report(Frozen):
    """What a generator says of its own work. Data for the checker, never a verdict."""

    confidence: float = Field(default=1.0, ge=0, le=1)
    reasons: tuple[str, ...] = ()
    """codes, such as "turned_away" or "reference_cropped" """
    per_frame: tuple[float, ...] = ()
    """confidence of each of the clip's frames; empty: not judged"""
    stretches: tuple[tuple[int, int], ...] = ()
    """parts of the clip that are worth keeping, as first frame and the one after the last; empty where frames are not judged or none is"""


class Generator(ABC):
    """What all generators share."""

    capabilities: ClassVar[Capabilities]
    options_type: ClassVar[type[Options]] = Options
    weights: ClassVar[tuple[str, ...]] = ()
    """names in generators.weights whose digests enter the step key"""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or type(self).options_type()

    def setup(self) -> None:  # noqa: B027 - most generators have nothing to load
        """Load what is heavy. Called once a worker, before the first `run`."""


class ImageGenerator(Generator):
    """Multi-reference image generators."""

    def validate(self, request: ImageRequest) -> None:
        """Raise BadInput when the request is outside the capabilities."""
        unknown = set(request.pictures) - self.capabilities.roles
        if unknown:
            raise BadInput(f"{type(self).__name__} honours {sorted(self.capabilities.roles)}, not {sorted(unknown)}", "role_unsupported")

    @abstractmethod
    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size to `out`, and, when it is known, the scene without the character to `scene_beside(out)`."""

    def verify(self, request: ImageRequest, out: Path) -> None:
        """Raise BadAnswer unless `out` is a picture of the right size."""
        image = media.read_image(out)
        if image.shape[:2] != (request.geometry.height, request.geometry.width):
            raise BadAnswer(
                f"the picture is {image.shape[1]}×{image.shape[0]}, asked was {request.geometry.width}×{request.geometry.height}"
            )


class VideoGenerator(Generator):
    """Pose-driven video generators, and renderers of poses."""

    def validate(self, request: VideoRequest) -> None:
        """Raise BadInput when the request is outside the capabilities."""
        name, can = type(self).__name__, self.capabilities
        if request.mode not in can.modes:
            raise BadInput(f"{name} makes {sorted(can.modes)}, not {request.mode}", "mode_unsupported")
        if request.mode != "pose" and len(request.painted) != request.clip_people.count:
            raise BadInput(f"{len(request.painted)} pictures for {request.clip_people.count} people", "people_mismatch")
        if request.views and len(request.views) != request.clip_people.count:
            raise BadInput(f"views of {len(request.views)} characters for {request.clip_people.count} people", "people_mismatch")
        if request.clip_people.count > can.people_max:
            raise BadInput(f"{name} drives {can.people_max} people at once, the clip has {request.clip_people.count}", "too_many_people")

    @abstractmethod
    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write an .mp4 to `out`, at the generator's own size and rate."""

    def verify(self, request: VideoRequest, out: Path) -> None:
        """Raise BadAnswer unless `out` is a video that covers the span's whole duration."""
        seen = media.inspect(out)
        if (seen.frames - 0.5) / seen.fps < request.geometry.duration_s:
            raise BadAnswer(f"the video has {seen.frames} frames at {seen.fps:g} fps, the span lasts {request.geometry.duration_s:.3f} s")

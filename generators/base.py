"""The one contract of every generator: declared capabilities, then setup, and for each request prepare → validate → run → verify.

`__init__` is cheap and only keeps the options; `setup` loads weights. `run` writes one file; `verify` inspects that file and never
trusts that `run` came back. A video generator may work at its own rate, and at its own size where it says so: its file is resampled by
timestamp in one place (`manifests.media.conform`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from generators import verifying
from generators.poses.tracks import People
from generators.verifying import EXTRA_FRAMES, Written
from generators.weights import gpu_here
from manifests.calls import CallRecord
from manifests.errors import BadInput
from manifests.records import Frozen, Geometry

Mode = Literal["animation", "replacement", "pose", "image"]


class Capabilities(Frozen):
    """What a generator can do, checked when the plan is made and not at hour six."""

    modes: frozenset[Mode]
    people_max: int = Field(default=1, ge=1)
    """how many characters it replaces or animates at once"""
    frame_counts: tuple[int, ...] = ()
    """the only frame counts it can produce; empty: any"""
    frame_step: int = Field(default=1, ge=1)
    """4: frame counts are 4n+1"""
    frames_min: int = Field(default=1, ge=1)
    """a pair that needs fewer is refused"""
    frames_max: int | None = Field(default=None, ge=1)
    """the longest clip that it makes in one pass; None: any"""
    segments: bool = False
    """longer clips are made in overlapping segments; without, they are refused"""
    fps: float | None = Field(default=None, gt=0)
    """the rate it writes, whatever came in; None: the request's"""
    size_multiple: int = Field(default=1, ge=1)
    sizes: tuple[tuple[int, int], ...] = ()
    """the only sizes (height, width) it makes; empty: the request's. A pair's picture is then scaled and cropped out of it"""
    own_size: bool = False
    """it writes what size it likes"""
    orientation: Literal["clip", "reference"] = "clip"
    """whether upright or lying follows the clip or the painted picture"""
    gpus: float = Field(default=0.0, ge=0)
    inputs: frozenset[str] = frozenset()
    """what it needs beside clip and pictures and is derived from them, by name: "pose", "face", "background", "mask" …"""
    needs: frozenset[str] = frozenset()
    """what of the clip's people it can't do without and only some pose extractors give: "meshes" """
    views: bool = False
    """video generators: makes use of `VideoRequest.views`"""
    deterministic: bool = False
    """same request, same bytes, within one image and CPU type"""
    roles: frozenset[str] = frozenset()
    """image generators: the reference roles it honours"""
    code_licence: str = ""
    weights_licence: str = ""
    accept_licence: bool = False
    """a licence is missing, unclear or restrictive: whoever uses it has to say `accept_licence: true` in the recipe"""

    @model_validator(mode="after")
    def _one_frame_rule(self) -> Capabilities:
        if self.frame_counts and (self.frame_step > 1 or self.frames_max):
            raise ValueError("frame_counts says it all: leave frame_step and frames_max out")
        if self.segments and not (self.frame_counts or self.frames_max):
            raise ValueError("segments are of a longest clip: give frames_max or frame_counts")
        if self.sizes and self.own_size:
            raise ValueError("either sizes or own_size")
        return self

    def rate_of(self, geometry: Geometry) -> float:
        """Frames per second of its file."""
        return self.fps or geometry.fps

    def frames_for(self, geometry: Geometry) -> int | None:
        """How many frames it has to make, at its own rate, to cover a pair; None where it can't make so many."""
        need = frames_covering(geometry, self.rate_of(geometry))
        if need < self.frames_min:
            return None
        if self.frame_counts:
            return min((n for n in self.frame_counts if n >= need), default=need if self.segments else None)
        need += (1 - need) % self.frame_step
        return need if self.frames_max is None or need <= self.frames_max or self.segments else None

    def sizes_for(self, geometry: Geometry) -> frozenset[tuple[int, int]] | None:
        """(height, width) that its file may have; None: any."""
        if self.own_size:
            return None
        return frozenset(self.sizes) or frozenset({(geometry.height, geometry.width)})

    def misfits(self, geometry: Geometry) -> list[str]:
        """Why it can't make a pair of this geometry, a line each, for a sentence that begins with its name."""
        out, rate = [], self.rate_of(geometry)
        if self.frames_for(geometry) is None:
            most = max(self.frame_counts, default=self.frames_max)
            need = frames_covering(geometry, rate)
            limit = f"takes no clip below {self.frames_min}" if need < self.frames_min else f"makes at most {most}"
            out.append(f"{limit} frames at {rate:g} fps; {geometry.frames} at {geometry.fps:g} fps need {need}")
        if not self.sizes and not self.own_size and (geometry.height % self.size_multiple or geometry.width % self.size_multiple):
            out.append(f"makes sizes in multiples of {self.size_multiple}, not {geometry.height}×{geometry.width} (height × width)")
        lying = geometry.width > geometry.height
        if self.sizes and geometry.width != geometry.height and all((w > h) != lying for h, w in self.sizes):
            known = ", ".join(f"{h}×{w}" for h, w in self.sizes)
            out.append(f"makes {known} (height × width), nothing of the orientation of {geometry.height}×{geometry.width}")
        return out


def frames_covering(geometry: Geometry, fps: float) -> int:
    """The fewest frames at this rate that are still on display at the pair's last instant, and half a frame longer."""
    return math.ceil(geometry.duration_s * fps + 0.5 - 1e-6)


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
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """what `prepare` derived, by the names of `Capabilities.inputs`"""


INPUTS = "inputs"
"""the folder beside a generator's file that `prepare` writes to"""


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
    requires: ClassVar[tuple[str, ...]] = ()
    """modules beyond the project's own dependencies that it imports"""
    paid: ClassVar[bool] = False
    """asks a service that may want money for every request, and puts that down"""
    book: Callable[[CallRecord], None] | None = None
    """where it puts that down; None: nowhere"""
    booked_to: str = ""
    """key of the step that asks"""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or type(self).options_type()

    @classmethod
    def capabilities_with(cls, options: Options) -> Capabilities:
        """What it can do with these options; where they change nothing, `capabilities`."""
        return cls.capabilities

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """What of a recipe's options may change pixels: that enters the step key. By default all of them, as they stand there."""
        return options

    @classmethod
    def texts(cls, options: Mapping[str, Any]) -> list[str]:
        """Text files among a recipe's options, which it reads through `shipped`; by default none."""
        return []

    @property
    def can(self) -> Capabilities:
        """What this one can do."""
        return self.capabilities_with(self.options)

    @classmethod
    def missing(cls, options: Options | None = None) -> list[str]:
        """What this machine lacks to run it, a short line each. Without options as far as that can be told."""
        can = cls.capabilities if options is None else cls.capabilities_with(options)
        lacking = [f"no Python package {name}" for name in cls.requires if importlib.util.find_spec(name) is None]
        return lacking + (["no GPU"] if can.gpus and not gpu_here() else [])

    def unsaid(self) -> list[str]:
        """Names of options that a recipe may leave out for a plan but not for a run; by default none."""
        return []

    def setup(self) -> None:  # noqa: B027 - most generators have nothing to load
        """Load what is heavy. Called once a worker, before the first `run`."""


class ImageGenerator(Generator):
    """Multi-reference image generators."""

    def make(self, request: ImageRequest, out: Path) -> Report:
        """The whole life of one request; nothing is left at `out` when it fails. `out` stands in a folder of the call's own."""
        with _whole_or_nothing(out):
            request = self.prepare(request, out.parent / INPUTS)
            self.validate(request)
            report = self.run(request, out)
            self.verify(request, out)
        return report

    def prepare(self, request: ImageRequest, folder: Path) -> ImageRequest:
        """The request with what is derived from it, written into `folder`, which need not be there yet. By default: as it is."""
        return request

    def validate(self, request: ImageRequest) -> None:
        """Raise BadInput when the request is outside the capabilities."""
        unknown = set(request.pictures) - self.can.roles
        if unknown:
            raise BadInput(f"{type(self).__name__} honours {sorted(self.can.roles)}, not {sorted(unknown)}", "role_unsupported")
        _refuse(self, self.can.misfits(request.geometry))

    @abstractmethod
    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size to `out`, and, when it is known, the scene without the character to `scene_beside(out)`."""

    def verify(self, request: ImageRequest, out: Path) -> None:
        """Raise BadOutput unless `out` is a picture of the right size that shows something, and its scene, if there is one, a picture."""
        size = (request.geometry.height, request.geometry.width)
        verifying.check_picture(out, size)
        verifying.check_scene(scene_beside(out), size)


class VideoGenerator(Generator):
    """Pose-driven video generators, and renderers of poses."""

    def make(self, request: VideoRequest, out: Path) -> Report:
        """The whole life of one request; nothing is left at `out` when it fails. `out` stands in a folder of the call's own."""
        with _whole_or_nothing(out):
            request = self.prepare(request, out.parent / INPUTS)
            self.validate(request)
            report = self.run(request, out)
            self.verify(request, out)
        return report

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """The request with what is derived from it, written into `folder`, which need not be there yet. By default: as it is."""
        return request

    def validate(self, request: VideoRequest) -> None:
        """Raise BadInput when the request is outside the capabilities."""
        name, can = type(self).__name__, self.can
        if request.mode not in can.modes:
            raise BadInput(f"{name} makes {sorted(can.modes)}, not {request.mode}", "mode_unsupported")
        if request.mode != "pose" and len(request.painted) != request.clip_people.count:
            raise BadInput(f"{len(request.painted)} pictures for {request.clip_people.count} people", "people_mismatch")
        if request.views and len(request.views) != request.clip_people.count:
            raise BadInput(f"views of {len(request.views)} characters for {request.clip_people.count} people", "people_mismatch")
        if request.clip_people.count > can.people_max:
            raise BadInput(f"{name} drives {can.people_max} people at once, the clip has {request.clip_people.count}", "too_many_people")
        _refuse(self, can.misfits(request.geometry))

    @abstractmethod
    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write an .mp4 to `out`, at the generator's own rate."""

    def expected(self, request: VideoRequest) -> Written:
        """What the file has to be, by the capabilities. With a frame rule it may be cut back to what the pair needs."""
        can, geometry = self.can, request.geometry
        need, made = frames_covering(geometry, can.rate_of(geometry)), can.frames_for(geometry)
        return Written((need, max(made or 0, need + EXTRA_FRAMES)), can.rate_of(geometry), can.sizes_for(geometry))

    def verify(self, request: VideoRequest, out: Path) -> None:
        """Raise BadOutput unless `out` is a whole video as `expected` that shows something and moves where the clip's people move."""
        verifying.check_video(out, self.expected(request), request.geometry, request.clip_people)


@contextlib.contextmanager
def _whole_or_nothing(out: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in (out, scene_beside(out)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def _refuse(generator: Generator, misfits: list[str]) -> None:
    if misfits:
        raise BadInput(f"{type(generator).__name__} {'; '.join(misfits)}", "geometry_unsupported")

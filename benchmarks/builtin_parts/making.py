"""One combination from clip to output, as the factory does it, with the clock beside it."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builtin_parts.combos import FPS, SHORT_SIDE, Combo
from generators.base import ImageRequest, Report, VideoRequest, scene_beside
from generators.images.collage import Collage
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import Bytes, People
from generators.videos.puppet.generator import Puppet
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry, Span

PRESENCE_MIN = 0.6
"""share of the frames in which somebody must be found to be driven"""


@dataclass(frozen=True)
class Made:
    """An output and all that is needed to judge it."""

    combo: Combo
    target_THWC: Bytes
    driven: People
    """the driving people in the target"""
    output_THWC: Bytes
    """as decoded from the written file"""
    alpha_THW: Bytes
    """what the puppet drew, 0 to 255"""
    people: People
    """tracked anew in the output"""
    report: Report
    seconds: dict[str, float]

    @property
    def confident(self) -> npt.NDArray[np.bool_]:
        """Frames (T,) that the puppet itself trusts."""
        return np.asarray(self.report.per_frame) >= 0.5

    @property
    def fps(self) -> float:
        """Frames per second of tracking, reading hands and faces, animating and writing together; the painting is not in it."""
        return len(self.target_THWC) / sum(self.seconds[k] for k in ("track", "details", "animate"))


class Clock:
    """Wall time by name: `with clock("track"): …`."""

    def __init__(self) -> None:
        self._took: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._took.setdefault(name, []).append(time.perf_counter() - began)

    def seconds(self) -> dict[str, float]:
        """The median of each."""
        return {name: statistics.median(took) for name, took in self._took.items()}


class Studio:
    """The built-in generators, loaded once."""

    def __init__(self) -> None:
        self.tracker, self.details, self.collage, self.puppet = PeopleTracker(), DetailReader(threads=2), Collage(), Puppet()
        for part in (self.tracker, self.details, self.collage, self.puppet):
            part.setup()

    def make(self, combo: Combo, rounds: int = 1) -> Made:
        """With the median time of some rounds. Raises BadInput when the clip or a picture can't be used: an answer too."""
        target, geometry = read_target(combo)
        with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder:
            clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
            media.write_video(clip, target, FPS)
            frames, _ = media.read_frames(clip)
            clock = Clock()
            for _ in range(rounds):
                with clock("track"):
                    people = self.tracker.track(frames, FPS)
            chosen = largest(people, len(combo.characters))
            for _ in range(rounds):
                with clock("details"):
                    driven = self.details.read(frames, people.only(chosen))
            with clock("paint"):
                painted = tuple(self._paint(combo, driven, i, geometry, Path(folder)) for i in range(driven.count))
            empty = scene_beside(painted[0])
            others = [p for p in range(people.count) if p not in chosen]
            request = VideoRequest(
                combo.mode, clip, driven, painted, "", geometry, 0, views=tuple(other_views(c) for c in combo.characters),
                scene=empty if empty.exists() else None, others=people.only(others) if others else None,
            )  # fmt: skip
            for _ in range(rounds):
                with clock("animate"):
                    report = self.puppet.run(request, out)
            drawn = self.puppet.perform(request).alpha_NHW  # once more, outside the clock: `run` keeps no coverage
            output = media.read_frames(out)[0][: geometry.frames]
        return Made(combo, frames, driven, output, drawn[: geometry.frames], self.tracker.track(output, FPS), report, clock.seconds())

    def _paint(self, combo: Combo, driven: People, person: int, geometry: Geometry, folder: Path) -> Path:
        pictures = {"character": combo.characters[person], **({"scene": combo.scene} if combo.scene else {})}
        out = folder / f"painted-{person}.png"
        self.collage.run(ImageRequest(pictures, "", "", 1.0, geometry, driven.only([person]), combo.mode, 0), out)
        return out


@dataclass(frozen=True)
class Window:
    """The part of a clip that is used: centred, as large as it may be."""

    left: int
    top: int
    zoom: float
    """output pixels per clip pixel"""
    width: int
    height: int


def window_of(clip: Path) -> Window:
    """At short side 512, the long side being the largest multiple of 32."""
    seen = media.probe(clip)
    zoom = SHORT_SIDE / min(seen.width, seen.height)
    width, height = (round(side * zoom) // 32 * 32 for side in (seen.width, seen.height))
    return Window(int((seen.width - width / zoom) / 2), int((seen.height - height / zoom) / 2), zoom, width, height)


def read_target(combo: Combo) -> tuple[Bytes, Geometry]:
    """The clip's frames_THWC at the benchmark's rate and size."""
    w = window_of(combo.clip)
    geometry = Geometry(frames=combo.frames, fps=FPS, height=w.height, width=w.width)
    crop = (w.left, w.top, int(w.left + w.width / w.zoom), int(w.top + w.height / w.zoom))
    span = Span(source="0" * 64, start_frame=round(combo.start_s * FPS), geometry=geometry, crop=crop)
    return media.read_span(combo.clip, span), geometry


def other_views(picture: Path) -> tuple[Path, ...]:
    """The other pictures of the same character: `NAME@VIEW` of one folder."""
    name, at, _ = picture.stem.rpartition("@")
    return tuple(sorted(p for p in picture.parent.glob(f"{name}@*") if p != picture)) if at else ()


def largest(people: People, count: int) -> list[int]:
    """Tracks of the `count` tallest people who are there most of the time, in the tracker's order."""
    there = [p for p in describe(people) if p.presence >= PRESENCE_MIN]
    if len(there) < count:
        raise BadInput(f"{len(there)} people are seen most of the time, {count} are to be driven", "people_mismatch")
    return sorted(p.track for p in sorted(there, key=lambda p: -p.height)[:count])

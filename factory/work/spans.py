"""Where a clip can be cut: its shots, and in each the spans in which the pose of somebody can be trusted throughout."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from agents.measures import appearance
from generators.poses import stretches
from generators.poses.stretches import Stretch
from generators.poses.summary import describe, standing_height
from generators.poses.tracks import People
from manifests.errors import BadInput
from manifests.recipe import GeometrySpec
from manifests.records import Digest, Figure, Frozen, Geometry, Person, Span, rounded

Frames = npt.NDArray[np.uint8]

CUT_THRESHOLD = 0.35
"""share of the colour histogram that changes hands between two frames, median of four tiles, from which there is a cut"""
PRESENCE_MIN = 0.8
"""share of a span's frames in which somebody must be found to count"""
LOST_BY = {
    "absent": "nobody is seen",
    "joints_hidden": "joints are hidden",
    "joints_off_mask": "joints and mask disagree",
    "upside_down": "the body is upside down",
    "limbs_change_length": "limbs change their lengths",
    "size_jumps": "the body's size jumps",
    "place_jumps": "the body jumps from place to place",
}
"""what the reasons of `generators.poses.stretches` mean"""


class SpanInfo(Frozen):
    """One span of the index, with what the slices' conditions look at."""

    span: Span
    shot: tuple[int, int]
    """first frame and the one after the last, on the geometry's time grid"""
    figures: tuple[Figure, ...] = Field(min_length=1)
    """everybody who is there throughout, the tallest first: the main person"""

    @property
    def people(self) -> int:
        return len(self.figures)

    @property
    def main(self) -> Figure:
        return self.figures[0]


@dataclass
class Findings:
    """What was seen of a clip, for the reason if nothing of it can be used."""

    longest_shot: int = 0
    longest_stretch: int = 0
    anybody: bool = False
    lost: Counter[str] = field(default_factory=Counter)
    """reason → frames of people that it spoilt"""

    def why_no_span(self, geometry: GeometrySpec) -> BadInput:
        needed = f"a span needs {geometry.frames} ({(geometry.frames - 1) / geometry.fps:.2f} s)"
        if not self.longest_shot:
            return BadInput("every frame is black", "black")
        if self.longest_shot < geometry.frames:
            seen = f"the longest shot has {self.longest_shot} frames at {geometry.fps:g} fps"
            return BadInput(f"too few frames: {seen}, {needed}", "too_few_frames")
        if not self.anybody:
            return BadInput("nobody is seen in it", "no_person")
        seen = f"the longest confident stretch has {self.longest_stretch} frames at {geometry.fps:g} fps"
        told = ", ".join(f"{LOST_BY[code]} in {count} frames" for code, count in sorted(self.lost.items(), key=lambda i: (-i[1], i[0]))[:2])
        return BadInput(f"too few frames: {seen}, {needed}; {told or 'the people change places'}", "no_confident_stretch")


def find_shots(frames_THWC: Frames) -> list[tuple[int, int]]:
    """(first, after last) of every shot; black frames and fades to black are in none.

    A cut is a jump of the colour histogram's mass between two frames, total variation 0 to 1.
    """
    edges, last = [0], None
    for i, frame in enumerate(frames_THWC):
        small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
        tiles = [cv2.calcHist([tile], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3).ravel() / tile[..., 0].size
                 for tile in (small[:48, :48], small[:48, 48:], small[48:, :48], small[48:, 48:])]  # fmt: skip
        now = np.stack(tiles)
        if last is not None and np.median(np.abs(now - last).sum(1) / 2) > CUT_THRESHOLD:
            edges.append(i)
        last = now
    lit = stretches.lit(frames_THWC)
    shots = zip(edges, [*edges[1:], len(frames_THWC)], strict=True)
    return [(start + a, start + b) for start, stop in shots for a, b in stretches.runs(lit[start:stop])]


@dataclass(frozen=True)
class Shot:
    """A shot of a clip, looked at."""

    source: Digest
    bounds: tuple[int, int]
    """first frame and the one after the last, on the geometry's time grid"""
    size: tuple[int, int]
    """width, height of the clip, pixels"""
    frames_THWC: Frames
    """of the shot, at the index's size"""
    people: People
    """of these frames"""

    @property
    def scale(self) -> float:
        """Pixels of the clip per indexed pixel."""
        return float(self.size[1] / self.frames_THWC.shape[1])


def spans_of_shot(shot: Shot, spec: GeometrySpec, findings: Findings) -> list[SpanInfo]:
    """The spans of a shot, in order: non-overlapping, each inside a stretch in which somebody's pose is confident.

    Stretches of taller people come first, a stretch is tiled from its start. What was seen goes into `findings`.
    """
    people = shot.people
    heights = [person.height for person in describe(people)]
    found = [s for p in sorted(range(people.count), key=lambda p: (-heights[p], p)) for s in _stretches(people, p, findings)]
    free, out = np.ones(people.frames, np.bool_), []
    for stretch in found:
        start = stretch.start
        while start + spec.frames <= stretch.stop:
            info = _span(shot, spec, stretch, start) if free[start : start + spec.frames].all() else None
            if info is not None:
                out.append(info)
                free[start : start + spec.frames] = False
            start += spec.frames if info is not None else 1
    return sorted(out, key=lambda info: info.span.start_frame)


def _stretches(people: People, track: int, findings: Findings) -> tuple[Stretch, ...]:
    found = stretches.stretches(people, track)
    findings.anybody = True
    findings.longest_stretch = max([findings.longest_stretch, *(s.frames for s in found)])
    findings.lost.update(reason for reason in stretches.confidence(people, track).reasons_T if reason)
    return found


def _span(shot: Shot, spec: GeometrySpec, stretch: Stretch, start: int) -> SpanInfo | None:
    """The span from `start` on; None if the stretch's person is missing too often in it."""
    stop = start + spec.frames
    window = shot.people.window(start, stop)
    seen = [p for p in describe(window) if p.presence >= PRESENCE_MIN]
    if stretch.track not in {p.track for p in seen}:
        return None
    geometry, crop = crop_for(spec, shot.size, seen, shot.scale)
    looks = appearance.describe(shot.frames_THWC[start:stop], window)
    zoom = shot.scale * geometry.height / (crop[3] - crop[1])
    figures = [_figure(window, p, looks[p.track], zoom) for p in sorted(seen, key=lambda p: -p.height)]
    span = Span(source=shot.source, start_frame=shot.bounds[0] + start, geometry=geometry, crop=crop)
    return SpanInfo(span=span, shot=shot.bounds, figures=tuple(figures))


def _figure(people: People, person: Person, look: appearance.Descriptor, zoom: float) -> Figure:
    """`zoom`: pixels of the pair's geometry per indexed pixel."""
    there = people.present_PT[person.track]
    stature = standing_height(people.world_PT33x3[person.track, there], people.landmarks_PT33x3[person.track, there])
    return Figure(
        framing=person.framing, yaw_deg=person.yaw_deg, visible_joints=person.visible_joints, motion=person.motion,
        stature_px=rounded(stature * zoom), appearance=look,
    )  # fmt: skip


def crop_for(spec: GeometrySpec, size: tuple[int, int], people: list[Person], scale: float) -> tuple[Geometry, tuple[int, int, int, int]]:
    """The size whose aspect is nearest the clip's, and the largest window of that aspect, moved over the people. `size`: width, height."""
    width, height = size
    h, w = min(spec.sizes, key=lambda s: abs(np.log(s[1] / s[0] * height / width)))
    zoom = min(width / w, height / h)
    window_w, window_h = min(width, round(w * zoom)), min(height, round(h * zoom))
    x = np.mean([(p.box[0] + p.box[2]) / 2 for p in people]) * scale - window_w / 2
    y = np.mean([(p.box[1] + p.box[3]) / 2 for p in people]) * scale - window_h / 2
    x0, y0 = round(min(max(0.0, float(x)), width - window_w)), round(min(max(0.0, float(y)), height - window_h))
    return Geometry(frames=spec.frames, fps=spec.fps, height=h, width=w), (x0, y0, x0 + window_w, y0 + window_h)

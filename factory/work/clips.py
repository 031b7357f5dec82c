"""Steps that look at real clips and gallery pictures: index, cut, analyse, find the reference."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from agents.measures import appearance
from agents.measures.silhouette import joints_on_mask, mask_joints
from factory.steps import POSE_WEIGHTS, step
from factory.workbench import Workbench
from generators.poses.summary import describe
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput
from manifests.recipe import GeometrySpec
from manifests.records import Analysis, Artifact, Digest, Frozen, Geometry, Person, Span, rounded

Frames = npt.NDArray[np.uint8]

INDEX_SHORT_SIDE = 288
"""pixels; clips are indexed at this size"""
CHUNK_S = 20.0
"""clips are indexed in stretches of this length; no span crosses two"""
CUT_THRESHOLD = 0.35
"""share of the colour histogram that changes hands between two frames, median of four tiles, from which there is a cut"""
PRESENCE_MIN = 0.8
"""share of a span's frames in which somebody must be found to count"""
REFERENCE_TRIES = 12
REFERENCE_JOINTS_MIN = 0.8
"""share of a person's visible joints that must lie on the mask that the pair will show"""
REFERENCE_LOOKS_MAX = 45.0
"""colour difference above which a person in another frame is somebody else"""


class IndexRequest(Frozen):
    source: Digest
    geometry: GeometrySpec
    spans_per_clip: int


class SpanInfo(Frozen):
    """One span of the index, with what the slices' conditions look at."""

    span: Span
    shot: tuple[int, int]
    """first frame and the one after the last, on the geometry's time grid"""
    people: int
    motion: float
    """of the main person, body heights per second"""
    framing: Literal["close", "half", "full"]
    yaw_deg: float
    """median of the main person, away from the camera, 0 to 180"""
    visible_joints: int


class ClipIndex(Frozen):
    """What is known of a clip."""

    source: Digest
    width: int
    height: int
    fps: float
    frames: int
    shots: tuple[tuple[int, int], ...]
    spans: tuple[SpanInfo, ...]


@step(depth=0, weights=POSE_WEIGHTS)
def index_clip(request: IndexRequest, bench: Workbench) -> ClipIndex:
    """Shots, spans and people of a clip. Rejects a clip that can't be used, with the reason."""
    path = bench.clip(request.source)
    probe = media.probe(path)
    grid = request.geometry.fps
    spans: list[SpanInfo] = []
    shots: list[tuple[int, int]] = []
    chunk = round(CHUNK_S * grid)
    total = max(1, media.frames_within(probe.duration_s, grid))
    anybody, longest = False, 0
    for first in range(0, total, chunk):
        frames = media.read_clip(path, grid, short_side=INDEX_SHORT_SIDE, start_s=first / grid, count=min(chunk, total - first))
        for start, stop in find_shots(frames):
            shots.append((first + start, first + stop))
            longest = max(longest, stop - start)
            if stop - start < request.geometry.frames:
                continue
            people = bench.tracker.track(frames[start:stop], grid)
            anybody |= people.count > 0
            scale = probe.height / frames.shape[1]
            spans += spans_of_shot(request, people, shots[-1], (probe.width, probe.height), scale)
    if not spans:
        raise _why_no_span(request.geometry, longest, anybody)
    return ClipIndex(
        source=request.source, width=probe.width, height=probe.height, fps=rounded(probe.fps), frames=probe.frames,
        shots=tuple(shots), spans=tuple(spans[: request.spans_per_clip]),
    )  # fmt: skip


def _why_no_span(geometry: GeometrySpec, longest: int, anybody: bool) -> BadInput:
    if longest < geometry.frames:
        seen, needed = f"the longest shot has {longest} frames at {geometry.fps:g} fps", f"{(geometry.frames - 1) / geometry.fps:.2f} s"
        return BadInput(f"too few frames: {seen}, a span needs {geometry.frames} ({needed})", "too_few_frames")
    if not anybody:
        return BadInput("nobody is seen in it", "no_person")
    return BadInput(f"nobody is seen throughout {geometry.frames} frames", "no_person")


def find_shots(frames_THWC: Frames) -> list[tuple[int, int]]:
    """(first, after last) of every shot: a cut is a jump of the colour histogram's mass between two frames, total variation 0 to 1."""
    if not len(frames_THWC):
        return []
    edges, last = [0], None
    for i, frame in enumerate(frames_THWC):
        small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
        tiles = [cv2.calcHist([tile], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3).ravel() / tile[..., 0].size
                 for tile in (small[:48, :48], small[:48, 48:], small[48:, :48], small[48:, 48:])]  # fmt: skip
        now = np.stack(tiles)
        if last is not None and np.median(np.abs(now - last).sum(1) / 2) > CUT_THRESHOLD:
            edges.append(i)
        last = now
    return list(zip(edges, [*edges[1:], len(frames_THWC)], strict=True))


def spans_of_shot(request: IndexRequest, people: People, shot: tuple[int, int], size: tuple[int, int], scale: float) -> list[SpanInfo]:
    """The non-overlapping spans of a shot in which somebody is seen throughout. `scale`: source pixels per indexed pixel."""
    out = []
    frames = request.geometry.frames
    for start in range(0, people.frames - frames + 1, frames):
        window = people.window(start, start + frames)
        seen = [p for p in describe(window) if p.presence >= PRESENCE_MIN]
        if not seen:
            continue
        main = max(seen, key=lambda p: p.height)
        geometry, crop = crop_for(request.geometry, size, seen, scale)
        out.append(
            SpanInfo(
                span=Span(source=request.source, start_frame=shot[0] + start, geometry=geometry, crop=crop), shot=shot,
                people=len(seen), motion=main.motion, framing=main.framing, yaw_deg=abs(main.yaw_deg),
                visible_joints=len(main.visible_joints),
            )
        )  # fmt: skip
    return out


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


class PictureRequest(Frozen):
    picture: Digest
    role: Literal["character", "clothing", "scene"]


class PictureIndex(Frozen):
    """What is known of a gallery picture."""

    size: tuple[int, int]
    """width, height"""
    person: Person | None
    appearance: tuple[float, ...]


@step(depth=0, weights=POSE_WEIGHTS)
def index_picture(request: PictureRequest, bench: Workbench) -> PictureIndex:
    """The person of a gallery picture. Rejects a character picture without exactly one usable person."""
    image = media.read_image(bench.clip(request.picture))
    size = (image.shape[1], image.shape[0])
    if request.role != "character":
        return PictureIndex(size=size, person=None, appearance=())
    people = bench.tracker.still(image)
    if people.count == 0:
        raise BadInput("the pose model finds nobody in it", "no_person")
    if people.count > 1:
        raise BadInput(f"{people.count} people are in it; a character picture shows one", "several_people")
    person = describe(people)[0]
    if person.arms_crossed:
        raise BadInput("the arms are crossed before the body; parts of it would have to be invented", "arms_crossed")
    return PictureIndex(size=size, person=person, appearance=appearance.describe(image[None], people)[0])


class CutRequest(Frozen):
    span: Span


class Cut(Frozen):
    target: Artifact
    """the real span at the pair's geometry, .mp4"""


@step(depth=1)
def cut(request: CutRequest, bench: Workbench) -> Cut:
    """The real span as a video of its own: resampled by timestamp, cropped, scaled. This is the pair's target."""
    frames = media.read_span(bench.clip(request.span.source), request.span)
    out = bench.folder / "target.mp4"
    media.write_video(out, frames, request.span.geometry.fps)
    return Cut(target=bench.keep(out, ".mp4"))


class AnalyzeRequest(Frozen):
    video: Artifact


@step(depth=2, weights=POSE_WEIGHTS)
def analyze(request: AnalyzeRequest, bench: Workbench) -> Analysis:
    """Everybody in a video: poses, silhouettes, looks."""
    frames, fps = media.read_frames(bench.file(request.video))
    return analysis_of(frames, bench.tracker.track(frames, fps), bench)


def analysis_of(frames_THWC: Frames, people: People, bench: Workbench) -> Analysis:
    """The record of analysed frames; the arrays go into the store."""
    return Analysis(
        frames=len(frames_THWC), height=frames_THWC.shape[1], width=frames_THWC.shape[2], fps=people.fps, people=describe(people),
        arrays=bench.keep_people(people), appearance=appearance.describe(frames_THWC, people),
    )  # fmt: skip


class ReferenceRequest(Frozen):
    span: Span
    shot: tuple[int, int]
    min_gap_s: float
    analysis: Analysis
    """of the span"""
    driven: tuple[int, ...]


class Reference(Frozen):
    """The picture of the real people that the trainer is shown."""

    picture: Artifact
    in_target: bool
    arrays: Artifact
    """People arrays, one person per driven person, in that order"""


@step(depth=2, weights=POSE_WEIGHTS)
def find_reference(request: ReferenceRequest, bench: Workbench) -> Reference:
    """A frame of the same shot at least `min_gap_s` from the span that shows the same people best; else a frame of the span itself."""
    span = request.span
    path = bench.clip(span.source)
    for instants, in_target in ((_outside(request), False), (_inside(span), True)):
        best: tuple[float, Frames, People] | None = None
        for image in media.read_instants(path, span, instants):
            found = bench.tracker.still(image)
            chosen = _same_people(request, image, found)
            if chosen is None:
                continue
            people = found.only(chosen)
            if min(mask_joints(people, p) for p in range(people.count)) < REFERENCE_JOINTS_MIN:
                continue
            score = _reference_score(people)
            if best is None or score > best[0]:
                best = (score, image, people)
        if best:
            _, image, people = best
            return Reference(picture=bench.keep(media.encode_png(image), ".png"), in_target=in_target, arrays=bench.keep_people(people))
    raise BadInput("no frame of the shot shows the people of the span well enough for a reference", "no_reference")


def _outside(request: ReferenceRequest) -> list[int]:
    span, gap = request.span, request.min_gap_s * request.span.geometry.fps
    first, last = span.start_frame, span.start_frame + span.geometry.frames - 1
    far = [t for t in range(*request.shot) if t <= first - gap or t >= last + gap]
    return [far[i] for i in np.unique(np.linspace(0, len(far) - 1, REFERENCE_TRIES).astype(int))] if far else []


def _inside(span: Span) -> list[int]:
    picked = np.unique(np.linspace(0, span.geometry.frames - 1, 5).astype(int))
    return [span.start_frame + int(i) for i in picked]


def _same_people(request: ReferenceRequest, image_HWC: Frames, found: People) -> list[int] | None:
    """For each driven person the found one that looks most alike; None when somebody is missing."""
    looks = appearance.describe(image_HWC[None], found)
    free = list(range(found.count))
    out = []
    for track in request.driven:
        told = {i: appearance.distance(looks[i], request.analysis.appearance[track]) for i in free}
        gaps = {i: 0.0 if gap is None else gap for i, gap in told.items()}
        if not gaps or min(gaps.values()) > REFERENCE_LOOKS_MAX:
            return None
        out.append(min(gaps, key=lambda i: (gaps[i], i)))
        free.remove(out[-1])
    return out


def _reference_score(people: People) -> float:
    """More visible joints that lie on the person's own silhouette, and a smaller turn from the camera, are better."""
    return sum(int(joints_on_mask(people, p.track)[1].sum()) + p.confidence - abs(p.yaw_deg) / 45 for p in describe(people))

"""Steps that look at real clips and gallery pictures: index, cut, analyse, find the reference."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from agents.measures import appearance
from agents.measures.silhouette import joints_on_mask, mask_joints
from factory.steps import DETAIL_READER, TRACKER, step
from factory.work.spans import Findings, Shot, SpanInfo, find_shots, spans_of_shot
from factory.workbench import Workbench
from generators.extractors import Extraction
from generators.poses.summary import describe, standing_height
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput
from manifests.recipe import GeometrySpec
from manifests.records import Analysis, Artifact, Digest, Frozen, Person, Span, rounded

Frames = npt.NDArray[np.uint8]

INDEX_SHORT_SIDE = 288
"""pixels; clips are indexed at this size"""
CHUNK_S = 20.0
"""clips are indexed in stretches of this length; no span crosses two"""
REFERENCE_TRIES = 12
REFERENCE_JOINTS_MIN = 0.8
"""share of a person's visible joints that must lie on the mask that the pair will show"""
REFERENCE_LOOKS_MAX = 45.0
"""colour difference above which a person in another frame is somebody else"""


class IndexRequest(Frozen):
    source: Digest
    geometry: GeometrySpec
    spans_per_clip: int


class ClipIndex(Frozen):
    """What is known of a clip."""

    source: Digest
    width: int
    height: int
    fps: float
    frames: int
    shots: tuple[tuple[int, int], ...]
    spans: tuple[SpanInfo, ...]


@step(depth=0, tools=(TRACKER,))
def index_clip(request: IndexRequest, bench: Workbench) -> ClipIndex:
    """Shots, spans and people of a clip. Rejects a clip that can't be used, with the reason."""
    path = bench.clip(request.source)
    probe = media.probe(path)
    grid = request.geometry.fps
    spans: list[SpanInfo] = []
    shots: list[tuple[int, int]] = []
    chunk = round(CHUNK_S * grid)
    total = max(1, media.frames_within(probe.duration_s, grid))
    findings = Findings()
    for first in range(0, total, chunk):
        frames = media.read_clip(path, grid, short_side=INDEX_SHORT_SIDE, start_s=first / grid, count=min(chunk, total - first))
        for start, stop in find_shots(frames):
            shots.append((first + start, first + stop))
            findings.longest_shot = max(findings.longest_shot, stop - start)
            if stop - start < request.geometry.frames:
                continue
            people = bench.tracker.track(frames[start:stop], grid)
            shot = Shot(request.source, shots[-1], (probe.width, probe.height), frames[start:stop], people)
            spans += spans_of_shot(shot, request.geometry, findings)
    if not spans:
        raise findings.why_no_span(request.geometry)
    return ClipIndex(
        source=request.source, width=probe.width, height=probe.height, fps=rounded(probe.fps), frames=probe.frames,
        shots=tuple(shots), spans=tuple(spans[: request.spans_per_clip]),
    )  # fmt: skip


class PictureRequest(Frozen):
    picture: Digest
    role: Literal["character", "clothing", "scene"]


class PictureIndex(Frozen):
    """What is known of a gallery picture."""

    size: tuple[int, int]
    """width, height"""
    person: Person | None
    appearance: tuple[float, ...] = ()
    stature_px: float = 0.0
    """of the person's whole body, also where the picture cuts it"""


@step(depth=0, tools=(TRACKER,))
def index_picture(request: PictureRequest, bench: Workbench) -> PictureIndex:
    """The person of a gallery picture. Rejects a character picture without exactly one usable person."""
    image = media.read_image(bench.clip(request.picture))
    size = (image.shape[1], image.shape[0])
    if request.role != "character":
        return PictureIndex(size=size, person=None)
    people = bench.tracker.still(image)
    if people.count == 0:
        raise BadInput("the pose model finds nobody in it", "no_person")
    if people.count > 1:
        raise BadInput(f"{people.count} people are in it; a character picture shows one", "several_people")
    person = describe(people)[0]
    if person.arms_crossed:
        raise BadInput("the arms are crossed before the body; parts of it would have to be invented", "arms_crossed")
    stature = rounded(standing_height(people.world_PT33x3[0], people.landmarks_PT33x3[0]))
    return PictureIndex(size=size, person=person, appearance=appearance.describe(image[None], people)[0], stature_px=stature)


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
    extraction: Extraction = Extraction()


@step(depth=2, tools=(TRACKER, DETAIL_READER))
def analyze(request: AnalyzeRequest, bench: Workbench) -> Analysis:
    """Everybody in a video: poses, silhouettes, hands, faces, looks."""
    frames, fps = media.read_frames(bench.file(request.video))
    people = bench.extractor(request.extraction).track(frames, fps)
    return analysis_of(frames, people if people.details is not None else bench.detail_reader.read(frames, people), bench)


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
    extraction: Extraction = Extraction()


class Reference(Frozen):
    """The picture of the real people that the trainer is shown."""

    picture: Artifact
    in_target: bool
    arrays: Artifact
    """People arrays, one person per driven person, in that order"""


@step(depth=2, tools=(TRACKER,))
def find_reference(request: ReferenceRequest, bench: Workbench) -> Reference:
    """A frame of the same shot at least `min_gap_s` from the span that shows the same people best; else a frame of the span itself."""
    span = request.span
    path = bench.clip(span.source)
    for instants, in_target in ((_outside(request), False), (_inside(span), True)):
        best: tuple[float, Frames, People] | None = None
        for image in media.read_instants(path, span, instants):
            found = bench.extractor(request.extraction).still(image)
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

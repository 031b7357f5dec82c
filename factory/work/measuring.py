"""Steps that measure what the Quality Checker judges. They know no threshold: other ones judge the same scores anew."""

from __future__ import annotations

from agents import measuring
from agents.inspected import PaintedPicture, SyntheticVideo
from factory.steps import FACE_READER, SAFETY_NET, TRACKER, step
from factory.workbench import Workbench
from generators.base import Mode, Report
from generators.masks.identity import match_people
from manifests import media
from manifests.records import Analysis, Artifact, Frozen, Geometry

CHECK_TOOLS = (TRACKER, FACE_READER, SAFETY_NET)


class PictureRequest(Frozen):
    picture: Artifact
    target: Artifact
    """the real span"""
    clip: Analysis
    person: int


class PictureScores(Frozen):
    scores: dict[str, float]


@step(depth=5, tools=CHECK_TOOLS)
def measure_picture(request: PictureRequest, bench: Workbench) -> PictureScores:
    """Scores of a painted picture."""
    image = media.read_image(bench.file(request.picture))
    seen = PaintedPicture(
        image_HWC=image, people=bench.tracker.still(image), clip_person=request.clip.people[request.person],
        clip_people=bench.people(request.clip.arrays).only([request.person]), clip_appearance=request.clip.appearance[request.person],
        clip_THWC=media.read_frames(bench.file(request.target))[0],
    )  # fmt: skip
    return PictureScores(scores=measuring.measure_picture(seen, bench.networks))


class VideoRequest(Frozen):
    mode: Mode
    video: Artifact
    driving: Analysis
    """of the synthetic video, made afresh"""
    report: Report
    geometry: Geometry
    target: Artifact
    """the real span"""
    clip: Analysis
    driven: tuple[int, ...]
    painted: tuple[Artifact, ...]
    """the painted picture of each driven person's character"""
    scene: Artifact | None
    """animation: the painted picture without the character, where the painter knows it"""


class VideoScores(Frozen):
    scores: dict[str, float]
    matched: tuple[int, ...]
    """driving track of each driven person; -1 where lost"""


@step(depth=7, tools=CHECK_TOOLS)
def measure_video(request: VideoRequest, bench: Workbench) -> VideoScores:
    """Scores of a synthetic video at the pair's geometry."""
    path = bench.file(request.video)
    everybody, people = bench.people(request.clip.arrays), bench.people(request.driving.arrays)
    real = everybody.only(list(request.driven))
    others = [i for i in range(everybody.count) if i not in request.driven]
    painted = tuple(media.read_image(bench.file(a)) for a in request.painted)
    matched = match_people(real, people)
    seen = SyntheticVideo(
        mode=request.mode, frames_THWC=media.read_frames(path)[0], clip_THWC=media.read_frames(bench.file(request.target))[0],
        people=people, clip_people=real, others=everybody.only(others) if others else None, matched=matched,
        inspection=media.inspect(path), geometry=request.geometry, report=request.report, painted_HWC=painted,
        painted_people=tuple(bench.tracker.still(image) for image in painted),
        scene_HWC=media.read_image(bench.file(request.scene)) if request.scene else None,
    )  # fmt: skip
    return VideoScores(scores=measuring.measure_video(seen, bench.networks), matched=matched)

"""Steps of the Quality Checker's measures, and what the caption is told. No brain is asked here; see factory/work/asking.py."""

from __future__ import annotations

from agents import checker, weaver
from agents.brains.base import Scene
from agents.measures import appearance, identity, safety
from factory.steps import POSE_WEIGHTS, step
from factory.workbench import Workbench
from generators.base import Mode, Report
from generators.masks.identity import match_people
from manifests import media
from manifests.agency import CheckerSpec
from manifests.records import Analysis, Artifact, Frozen, Geometry, Verdict

CHECK_WEIGHTS = (*POSE_WEIGHTS, *identity.WEIGHTS, *safety.WEIGHTS)


class CheckImageRequest(Frozen):
    checker: CheckerSpec
    picture: Artifact
    report: Report
    target: Artifact
    """the real span"""
    clip: Analysis
    person: int
    mode: Mode


class ImageCheck(Frozen):
    verdict: Verdict
    appearance: tuple[float, ...]
    """of the painted character; empty when none was found"""


@step(depth=5, weights=CHECK_WEIGHTS)
def check_image(request: CheckImageRequest, bench: Workbench) -> ImageCheck:
    """Inspect a painted picture."""
    image = media.read_image(bench.file(request.picture))
    people = bench.tracker.still(image)
    seen = checker.PaintedPicture(
        image_HWC=image, people=people, mode=request.mode, report=request.report, clip_person=request.clip.people[request.person],
        clip_people=bench.people(request.clip.arrays).only([request.person]), clip_appearance=request.clip.appearance[request.person],
        clip_THWC=media.read_frames(bench.file(request.target))[0],
    )  # fmt: skip
    looks = appearance.describe(image[None], people)
    return ImageCheck(verdict=checker.check_image(seen, request.checker, bench.networks), appearance=looks[0] if looks else ())


class CheckVideoRequest(Frozen):
    checker: CheckerSpec
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
    painted_appearance: tuple[tuple[float, ...], ...]
    scene: Artifact | None
    """animation: the painted picture without the character, where the painter knows it"""


class VideoCheck(Frozen):
    verdict: Verdict
    matched: tuple[int, ...]
    """driving track of each driven person; -1 where lost"""


MOVES = 0.08
"""body heights per second from which a clip is said to move"""


@step(depth=7, weights=CHECK_WEIGHTS)
def check_video(request: CheckVideoRequest, bench: Workbench) -> VideoCheck:
    """Inspect a synthetic video at the pair's geometry."""
    path = bench.file(request.video)
    everybody, people = bench.people(request.clip.arrays), bench.people(request.driving.arrays)
    real = everybody.only(list(request.driven))
    others = [i for i in range(everybody.count) if i not in request.driven]
    painted = tuple(media.read_image(bench.file(a)) for a in request.painted)
    matched = match_people(real, people)
    seen = checker.SyntheticVideo(
        mode=request.mode, frames_THWC=media.read_frames(path)[0], clip_THWC=media.read_frames(bench.file(request.target))[0],
        people=people, clip_people=real, others=everybody.only(others) if others else None, matched=matched,
        inspection=media.inspect(path), geometry=request.geometry, report=request.report,
        clip_moves=max(request.clip.people[t].motion for t in request.driven) > MOVES,
        painted_HWC=painted, painted_people=tuple(bench.tracker.still(image) for image in painted),
        painted_appearance=request.painted_appearance,
        scene_HWC=media.read_image(bench.file(request.scene)) if request.scene else None,
    )  # fmt: skip
    return VideoCheck(verdict=checker.check_video(seen, request.checker, bench.networks), matched=matched)


class SceneRequest(Frozen):
    target: Artifact
    analysis: Analysis
    """of the target: the real people in the real scene"""


@step(depth=8)
def describe_scene(request: SceneRequest, bench: Workbench) -> Scene:
    """The target video in measured words: what the caption is told."""
    frames, _ = media.read_frames(bench.file(request.target))
    return weaver.scene_of(frames, bench.people(request.analysis.arrays), request.analysis)

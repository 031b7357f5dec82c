"""Steps of the agents: select, weave, check, caption."""

from __future__ import annotations

from agents import checker, selector, weaver
from agents.brains.base import Brain
from agents.brains.builtin import BuiltinBrain
from agents.measures import appearance
from factory.steps import POSE_WEIGHTS, step
from factory.workbench import Workbench
from generators.base import Mode, Report
from generators.masks.identity import match_people
from manifests import media
from manifests.recipe import BrainSpec, CheckerSpec
from manifests.records import Analysis, Artifact, Candidate, Finding, Frozen, Geometry, Prompt, Task, Verdict


def brain_of(spec: BrainSpec) -> Brain:
    """The brain a recipe names."""
    return {"builtin": BuiltinBrain}[spec.kind]()


class SelectStepRequest(Frozen):
    brain: BrainSpec
    ask: selector.SelectRequest


@step(depth=3)
def select(request: SelectStepRequest, bench: Workbench) -> selector.SelectAnswer:
    """Rank the job's shortlist. Rejects when nobody of it can play any driven person."""
    return selector.select(request.ask, brain_of(request.brain))


class WeaveStepRequest(Frozen):
    brain: BrainSpec
    task: Task
    clip: Analysis
    person: int
    character: Candidate
    scene: Candidate | None
    roles: tuple[str, ...]


@step(depth=3)
def weave(request: WeaveStepRequest, bench: Workbench) -> Prompt:
    """The first prompts for one person."""
    brain = brain_of(request.brain)
    return weaver.weave(request.task, request.clip, request.person, request.character, request.scene, request.roles, brain)


class ReviseRequest(Frozen):
    brain: BrainSpec
    prompt: Prompt
    findings: tuple[Finding, ...]


@step(depth=4)
def revise(request: ReviseRequest, bench: Workbench) -> Prompt:
    """The findings go into the next prompt."""
    return weaver.revise(request.prompt, request.findings, brain_of(request.brain))


class CheckImageRequest(Frozen):
    checker: CheckerSpec
    picture: Artifact
    report: Report
    clip: Analysis
    person: int
    mode: Mode


class ImageCheck(Frozen):
    verdict: Verdict
    appearance: tuple[float, ...]
    """of the painted character; empty when none was found"""


@step(depth=5, weights=POSE_WEIGHTS)
def check_image(request: CheckImageRequest, bench: Workbench) -> ImageCheck:
    """Inspect a painted picture."""
    image = media.read_image(bench.file(request.picture))
    people = bench.tracker.still(image)
    seen = checker.PaintedPicture(
        image_HWC=image, people=people, mode=request.mode, report=request.report, clip_person=request.clip.people[request.person],
        clip_people=bench.people(request.clip.arrays).only([request.person]), clip_appearance=request.clip.appearance[request.person],
    )  # fmt: skip
    looks = appearance.describe(image[None], people)
    return ImageCheck(verdict=checker.check_image(seen, request.checker), appearance=looks[0] if looks else ())


class CheckVideoRequest(Frozen):
    checker: CheckerSpec
    video: Artifact
    driving: Analysis
    """of the synthetic video, made afresh"""
    report: Report
    geometry: Geometry
    clip: Analysis
    driven: tuple[int, ...]
    painted_appearance: tuple[tuple[float, ...], ...]


class VideoCheck(Frozen):
    verdict: Verdict
    matched: tuple[int, ...]
    """driving track of each driven person; -1 where lost"""


MOVES = 0.08
"""body heights per second from which a clip is said to move"""


@step(depth=7)
def check_video(request: CheckVideoRequest, bench: Workbench) -> VideoCheck:
    """Inspect a synthetic video at the pair's geometry."""
    path = bench.file(request.video)
    frames, _ = media.read_frames(path)
    people, real = bench.people(request.driving.arrays), bench.people(request.clip.arrays).only(list(request.driven))
    matched = match_people(real, people)
    seen = checker.SyntheticVideo(
        frames_THWC=frames, people=people, inspection=media.inspect(path), geometry=request.geometry, report=request.report,
        clip_people=real, clip_moves=max(request.clip.people[t].motion for t in request.driven) > MOVES,
        painted_appearance=request.painted_appearance, matched=matched,
    )  # fmt: skip
    return VideoCheck(verdict=checker.check_video(seen, request.checker), matched=matched)


class CaptionRequest(Frozen):
    brain: BrainSpec
    target: Artifact
    analysis: Analysis
    """of the target: the real people in the real scene"""


class Caption(Frozen):
    text: str


@step(depth=8)
def caption(request: CaptionRequest, bench: Workbench) -> Caption:
    """Describe the target video."""
    frames, _ = media.read_frames(bench.file(request.target))
    people = bench.people(request.analysis.arrays)
    return Caption(text=weaver.caption(frames, people, request.analysis, brain_of(request.brain)))

"""The step that says in measured words what a caption is about."""

from __future__ import annotations

from agents import weaver
from agents.brains.base import Scene
from factory.steps import step
from factory.workbench import Workbench
from manifests import media
from manifests.records import Analysis, Artifact, Frozen


class SceneRequest(Frozen):
    target: Artifact
    analysis: Analysis
    """of the target: the real people in the real scene"""


@step(depth=8)
def describe_scene(request: SceneRequest, bench: Workbench) -> Scene:
    """The target video in measured words: what the caption is told."""
    frames, _ = media.read_frames(bench.file(request.target))
    return weaver.scene_of(frames, bench.people(request.analysis.arrays), request.analysis)

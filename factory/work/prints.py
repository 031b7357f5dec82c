"""Steps by whose answers duplicates are found when the release is sealed: what a target and a painted picture are known by."""

from __future__ import annotations

from agents.measures import duplicates
from factory.steps import step
from factory.workbench import Workbench
from manifests import media
from manifests.records import Artifact, Frozen, PicturePrint, VideoPrint


class VideoPrintRequest(Frozen):
    video: Artifact
    arrays: Artifact
    """People of the video"""


@step(depth=8)
def print_video(request: VideoPrintRequest, bench: Workbench) -> VideoPrint:
    """What a target is known by."""
    return duplicates.video_print(media.read_frames(bench.file(request.video))[0], bench.people(request.arrays))


class PicturePrintRequest(Frozen):
    picture: Artifact


@step(depth=8)
def print_picture(request: PicturePrintRequest, bench: Workbench) -> PicturePrint:
    """What a painted picture is known by."""
    return duplicates.picture_print(media.read_image(bench.file(request.picture)))

"""Steps that draw what a brain with eyes is shown. The pictures stay in the store, so what was judged can be looked at again."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from agents import exhibits
from factory.steps import step
from factory.workbench import Workbench
from manifests import media
from manifests.errors import BadInput
from manifests.records import Artifact, Digest, Exhibit, Frozen

JPEG_QUALITY = 88


class Shown(Frozen):
    exhibits: tuple[Exhibit, ...]


class ShowClipRequest(Frozen):
    clip: Artifact


@step(depth=3)
def show_clip(request: ShowClipRequest, bench: Workbench) -> Shown:
    """A contact sheet of a clip."""
    return Shown(exhibits=(_exhibit("the video", exhibits.clip_sheet(_frames(request.clip, bench)), bench),))


class ShowCandidatesRequest(Frozen):
    clip: Artifact
    arrays: Artifact
    person: int
    """track in the clip: who is to be replaced"""
    characters: tuple[Digest, ...]
    scenes: tuple[Digest, ...]
    clothing: tuple[Digest, ...]


@step(depth=3)
def show_candidates(request: ShowCandidatesRequest, bench: Workbench) -> Shown:
    """The clip with the person outlined, and the offered pictures of every role."""
    clip = exhibits.clip_sheet(_frames(request.clip, bench), bench.people(request.arrays), request.person)
    shown = [_exhibit("the clip; the person to be replaced is outlined", clip, bench)]
    for what, pictures in (("characters", request.characters), ("scenes", request.scenes), ("clothing", request.clothing)):
        if pictures:
            sheet = exhibits.candidate_sheet([media.read_image(bench.clip(p)) for p in pictures], what)
            shown.append(_exhibit(f"the offered {what}", sheet, bench))
    return Shown(exhibits=tuple(shown))


class ShowSourcesRequest(Frozen):
    clip: Artifact
    arrays: Artifact
    person: int
    pictures: dict[str, Digest]
    """role → gallery picture, in the painter's order"""


@step(depth=3)
def show_sources(request: ShowSourcesRequest, bench: Workbench) -> Shown:
    """The clip with the person outlined, and the pictures that the painter is given."""
    clip = exhibits.clip_sheet(_frames(request.clip, bench), bench.people(request.arrays), request.person)
    shown = [_exhibit("the clip; the person to be replaced is outlined", clip, bench)]
    for i, (role, picture) in enumerate(request.pictures.items()):
        image = exhibits.bounded(media.read_image(bench.clip(picture)), 768)
        shown.append(_exhibit(f"picture {i + 1}: the {role}", image, bench))
    return Shown(exhibits=tuple(shown))


class ShowPaintingRequest(Frozen):
    painted: Artifact
    clip: Artifact
    arrays: Artifact
    person: int
    pictures: dict[str, Digest]


@step(depth=5)
def show_painting(request: ShowPaintingRequest, bench: Workbench) -> Shown:
    """The painted picture beside its sources and the clip's frame in which the person is seen best."""
    frames, people = _frames(request.clip, bench), bench.people(request.arrays).only([request.person])
    best = int(np.argmax(np.where(people.present_PT[0], people.visibility_PT33[0].mean(1), -1)))
    sources = {role: media.read_image(bench.clip(picture)) for role, picture in sorted(request.pictures.items())}
    painted = media.read_image(bench.file(request.painted))
    return Shown(exhibits=(_exhibit("painted picture and sources", exhibits.painting_sheet(painted, frames[best], sources), bench),))


class ShowPerformanceRequest(Frozen):
    video: Artifact
    arrays: Artifact
    """People of the video"""
    matched: tuple[int, ...]
    clip: Artifact
    clip_arrays: Artifact
    driven: tuple[int, ...]
    painted: tuple[Artifact, ...]


@step(depth=7)
def show_performance(request: ShowPerformanceRequest, bench: Workbench) -> Shown:
    """The synthetic video above the clip, the painted pictures, and hands and faces of both."""
    video, clip = _frames(request.video, bench), _frames(request.clip, bench)
    shown = [_exhibit("synthetic video above the clip", exhibits.performance_sheet(video, clip), bench)]
    for i, painted in enumerate(request.painted):
        image = exhibits.bounded(media.read_image(bench.file(painted)), 768)
        shown.append(_exhibit(f"what character {i + 1} was painted like", image, bench))
    people, real = bench.people(request.arrays).only([m for m in request.matched if m >= 0]), bench.people(request.clip_arrays)
    details = exhibits.detail_sheet(video, people, clip, real.only(list(request.driven)))
    if details is not None:
        shown.append(_exhibit("hands and faces", details, bench))
    return Shown(exhibits=tuple(shown))


def _frames(video: Artifact, bench: Workbench) -> npt.NDArray[np.uint8]:
    return media.read_frames(bench.file(video))[0]


def _exhibit(label: str, image_HWC: npt.NDArray[np.uint8], bench: Workbench) -> Exhibit:
    done, data = cv2.imencode(".jpg", image_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise BadInput(f"a picture of {image_HWC.shape} can't be encoded", "bad_picture")
    return Exhibit(label=label, picture=bench.keep(data.tobytes(), ".jpg"))

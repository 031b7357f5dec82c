"""Steps that turn a checked synthetic video and the real clip round into a pair: masks and boxes."""

from __future__ import annotations

from factory.steps import TEXT_FINDER, step
from factory.workbench import Workbench
from generators.masks import slots as slots_
from generators.poses.skeleton import masks_from_rendering
from generators.poses.summary import boxes, describe
from manifests import masks, media
from manifests.errors import Rejected
from manifests.records import Artifact, FrameBoxes, Frozen, Task


class MaskRequest(Frozen):
    """Everything masks are drawn from. The target is not among it, and must never be."""

    task: Task
    driving: Artifact
    """video"""
    driving_arrays: Artifact
    """People of the driving video; for a pose pair the people whose rendering it is"""
    matched: tuple[int, ...]
    """driving track of each person of the reference, in the reference's order"""
    reference: Artifact
    """picture"""
    reference_arrays: Artifact


class Masks(Frozen):
    driving_mask: Artifact
    reference: Artifact
    """as the pair shows it: for replacement matted onto black"""
    reference_mask: Artifact
    slots: int


@step(depth=8)
def draw_masks(request: MaskRequest, bench: Workbench) -> Masks:
    """Colour masks of driving and reference by one identity map. Rejects a video in which somebody was never found ("person_lost"): the
    checker lets one through where a recipe's `presence_min` is 0."""
    if min(request.matched, default=-1) < 0:
        raise Rejected("a character is found in no frame of the synthetic video, so there is no mask to draw", "person_lost")
    order = sorted(request.matched)  # identities are numbered as they appear in the driving video
    driving = bench.people(request.driving_arrays).only(order)
    slots = slots_.assign(describe(driving))
    frames, fps = media.read_frames(bench.file(request.driving))
    rendered = masks_from_rendering(frames, driving) if request.task == "pose" else None
    video = bench.folder / "driving_mask.mp4"
    media.write_lossless(video, slots_.draw_driving_masks(driving, slots, request.task, silhouettes_PTHW=rendered), fps)
    tracks = [request.matched.index(track) for track in order]
    mask = slots_.draw_reference_mask(bench.people(request.reference_arrays), slots, request.task, tracks)
    picture = request.reference
    if request.task == "replacement":
        picture = bench.keep(media.encode_png(masks.matte(media.read_image(bench.file(picture)), mask)), ".png")
    return Masks(
        driving_mask=bench.keep(video, ".mp4"), reference=picture, reference_mask=bench.keep(media.encode_png(mask), ".png"),
        slots=slots.used,
    )  # fmt: skip


class BoxRequest(Frozen):
    target: Artifact
    """video"""
    arrays: Artifact
    """People of the target"""


class Boxes(Frozen):
    frames: tuple[FrameBoxes, ...]


@step(depth=8, tools=(TEXT_FINDER,))
def find_boxes(request: BoxRequest, bench: Workbench) -> Boxes:
    """Boxes of hands, faces and text in every frame of the target, for losses; the only thing a pair takes from the target's poses."""
    frames, fps = media.read_frames(bench.file(request.target))
    return Boxes(frames=boxes(bench.people(request.arrays), bench.text_finder.through(frames, fps)))

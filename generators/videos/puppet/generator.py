"""The built-in video generator: a cut-out of the character, moved like a puppet by the driver's skeleton. CPU only, deterministic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import ClassVar, cast

import cv2
import numpy as np
from pydantic import Field

from generators import base
from generators.base import Capabilities, Report, VideoGenerator, VideoRequest
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from generators.videos.plate import MASK_ON, Plate, clean_plate, inpaint
from generators.videos.puppet.confidence import together, trust_in, turned_deg
from generators.videos.puppet.cutout import ellipse, figure_of, main_person, matte_of, point, rescaled
from generators.videos.puppet.layers import layers_of
from generators.videos.puppet.motion import Motion, motion_of
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.parts import parts_of
from generators.videos.puppet.render import Character, composed, draw, relit, shade
from generators.videos.puppet.retarget import Placement, Pose, drawn_scale, retarget
from generators.videos.puppet.skeleton import ANKLES, HEAD, LIMBS, TOES
from manifests import media
from manifests.errors import BadInput

_ABOUT_FACE_DEG = 105.0
"""median difference in facing from which the driver's left moves the character's right: nothing true can be shown then, but the outline"""


class PuppetOptions(base.Options):
    """What a recipe may set."""

    fps: float | None = Field(default=None, gt=0, le=120)
    """work at this rate instead of the pair's: that many frames of the span's duration are written"""
    shadow: bool = True
    """replacement: a soft contact shadow under the feet"""
    relight: float = Field(default=0.5, ge=0, le=1)
    """replacement: how far the character's colours move towards the scene's"""


@dataclass(frozen=True)
class _Actor:
    character: Character
    motion: Motion
    rehearsed: Pose
    """on the driver's frames, as `motion`"""
    pose: Pose
    """on the output's frames"""
    on_stage: tuple[float, float]
    """first and last driver frame in which the driver is there"""

    def nearness(self, t: int) -> float:
        """Larger is nearer the camera: the lower the feet, the nearer."""
        return float(self.pose.joints_T19x2[t, list(ANKLES), 1].max())


class Puppet(VideoGenerator):
    """Animates painted characters with the clip's motion, in their own scenes or in the clip's."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"animation", "replacement"}), people_max=6, deterministic=True)
    options_type: ClassVar[type[base.Options]] = PuppetOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark")

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()

    def setup(self) -> None:
        """Load the pose model."""
        self._tracker.setup()

    def validate(self, request: VideoRequest) -> None:
        """As the base, and the people must be of the clip: "people_mismatch"."""
        super().validate(request)
        people, geometry = request.clip_people, request.geometry
        got, want = (people.frames, *people.size_hw), (geometry.frames, geometry.height, geometry.width)
        if got != want:
            raise BadInput(
                f"the clip's people are given for T×H×W {got}, the geometry is {want}; track the conformed clip", "people_mismatch"
            )
        if people.count == 0:
            raise BadInput("nobody is to be driven; give at least one person and one picture", "people_mismatch")
        if not people.present_PT.any(1).all():
            raise BadInput("a driven person is in no frame of the clip; choose another one", "driver_absent")

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write the performance to `out`.

        Raises BadInput when a picture can't be used: "no_person", "too_small", "torso_cropped", "no_matte", "picture_size".
        """
        self.validate(request)
        options = cast(PuppetOptions, self.options)
        fps = options.fps or request.geometry.fps
        count = ceil(request.geometry.duration_s * fps - 1e-6) + 1
        at_N = np.clip(np.arange(count) / fps * request.geometry.fps, 0, request.geometry.frames - 1)
        replacing = request.mode == "replacement"
        placement = Placement(like_driver=replacing or request.clip_people.count > 1)
        pictures = [self._picture(path, request) for path in request.painted]
        actors = [_actor(image, people, request.clip_people, i, placement, at_N) for i, (image, people) in enumerate(pictures)]
        plate = _plate_of_clip(request) if replacing else None
        if plate is not None:
            actors = [_relit(actor, plate, options.relight) for actor in actors]
            scenes = plate.frames_THWC[np.round(at_N).astype(int)]
        else:
            empty = _own_scene(actors[0].character, pictures[0][0])
            scenes = np.broadcast_to(empty, (count, *empty.shape))
        exposed_N: list[float] = []
        frames = list(_performance(actors, scenes, at_N, plate, options.shadow, exposed_N))
        exposed_T = np.interp(np.arange(request.geometry.frames), at_N, exposed_N)
        media.write_video(out, np.stack(frames), fps)
        camera = plate.camera_px if plate else 0.0
        confidence, reasons, per_frame = together(
            [trust_in(a.character, a.motion, a.rehearsed, request.clip_people.size_hw, exposed_T, camera) for a in actors]
        )
        return Report(confidence=confidence, reasons=reasons, per_frame=per_frame)

    def _picture(self, path: Path, request: VideoRequest) -> tuple[Array, People]:
        image = media.read_image(path)
        size = (request.geometry.height, request.geometry.width)
        if image.shape[:2] != size:
            raise BadInput(
                f"the picture is {image.shape[1]}×{image.shape[0]}, the geometry {size[1]}×{size[0]}; paint at that size", "picture_size"
            )
        people = self._tracker.still(image)
        return image, people.only([main_person(people)])


def _character(image: Array, people: People) -> Character:
    figure = figure_of(image, people, 0)
    matte = matte_of(figure)
    parts = parts_of(figure, matte.solid_HW)
    return Character(figure, layers_of(figure, matte, parts), matte.alpha_HW, parts.chest_hidden)


def _actor(image: Array, people: People, driver: People, track: int, placement: Placement, at_N: Array) -> _Actor:
    motion, figure = motion_of(driver, track), figure_of(image, people, 0)
    if float(np.median(turned_deg(figure, motion))) > _ABOUT_FACE_DEG:
        motion = motion_of(driver, track, about_face=True)
    if placement.like_driver:  # a picture much larger than what is drawn would alias
        factor = 1.15 * drawn_scale(figure, motion)
        if factor < 0.9:
            image, people = rescaled(image, people, factor)
    character = _character(image, people)
    pose = retarget(character.figure, motion, placement)
    there = np.flatnonzero(driver.present_PT[track])
    return _Actor(character, motion, pose, pose.at(at_N), (float(there[0]), float(there[-1])))


def _relit(actor: _Actor, plate: Plate, strength: float) -> _Actor:
    return replace(actor, character=relit(actor.character, plate.frames_THWC[0], strength))


def _driven_masks(people: People) -> Array:
    """Union of the driven people's silhouettes (T, H, W, uint8); a frame in which one was lost borrows both neighbours' silhouettes."""
    union = np.zeros(people.masks_PTHW.shape[1:], np.uint8)
    for masks, present in zip(people.masks_PTHW, people.present_PT, strict=True):
        there = np.flatnonzero(present)
        for t in range(int(there[0]), int(there[-1]) + 1):
            before, after = there[there <= t][-1], there[there >= t][0]
            union[t] = np.maximum(union[t], np.maximum(masks[before], masks[after]))
    return union


def _plate_of_clip(request: VideoRequest) -> Plate:
    frames, _ = media.read_frames(request.clip)
    if frames.shape[:3] != request.clip_people.masks_PTHW.shape[1:]:
        raise BadInput(f"the clip is T×H×W {frames.shape[:3]}, its people {request.clip_people.masks_PTHW.shape[1:]}", "people_mismatch")
    return clean_plate(frames, _driven_masks(request.clip_people))


def _own_scene(character: Character, image: Array) -> Array:
    """The character's picture (H, W, 3) without the character and the shadow it stands in."""
    figure = character.figure
    hole = (character.alpha_HW > 0.05) | (figure.mask_HW > MASK_ON)
    for limb in LIMBS.values():
        if limb.bones[2] in figure.bones:
            hole |= figure.line(limb.bones[2], 2.0)
    torso = figure.torso_px
    marks = [(HEAD, -0.15, 0.45, 0.5)]  # hats and antennas that no matte follows
    marks += [(j, 0.12, 0.38, 0.16) for j in (*ANKLES, *TOES) if figure.visible_19[j] > 0.5]  # contact shadows
    for joint, down, wide, tall in marks:
        mark = np.zeros(hole.shape, np.uint8)
        at = point(figure.joints_19x2[joint] + [0, down * torso])
        cv2.ellipse(mark, at, (round(wide * torso), round(tall * torso)), 0, 0, 360, 1, -1)
        hole |= mark > 0
    h, w = figure.picture_hw
    grown = cv2.dilate(hole[:h, :w].astype(np.uint8), ellipse(max(3, h // 60)))
    return inpaint(image, cv2.resize(grown, image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0)


def _performance(
    actors: list[_Actor], scenes: Array, at_N: Array, plate: Plate | None, shadow: bool, exposed_N: list[float]
) -> Iterator[Array]:
    """Output frames; appends to `exposed_N` the share of the removed area that shows invented background."""
    for k, at in enumerate(at_N):
        scene = scenes[k].astype(np.float32)
        on_stage = [a for a in actors if a.on_stage[0] - 0.5 <= at <= a.on_stage[1] + 0.5]
        canvas = np.zeros((*scene.shape[:2], 4), np.float32)
        for actor in sorted(on_stage, key=lambda a: a.nearness(k)):
            if plate is not None and shadow:
                scene = shade(scene, actor.character, actor.pose, k)
            draw(canvas, actor.character, actor.pose, k)
        exposed_N.append(plate.exposed(round(float(at)), canvas[..., 3]) if plate is not None else 0.0)
        yield composed(scene, canvas)

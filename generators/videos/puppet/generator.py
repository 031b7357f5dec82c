"""The built-in video generator: a cut-out of the character, moved like a puppet by the driver's skeleton. CPU only, deterministic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from pydantic import Field

from generators import base
from generators.base import Capabilities, Report, VideoGenerator, VideoRequest
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.videos.plate import Plate, clean_plate
from generators.videos.puppet.casting import Picture, View, actor_of
from generators.videos.puppet.confidence import stretches_of, together, trust_in, trust_in_plate
from generators.videos.puppet.grading import Look, look_near
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.portrait import glance, read_portrait
from generators.videos.puppet.retarget import Placement
from generators.videos.puppet.scene import own_scene
from generators.videos.puppet.stage import Stage
from generators.videos.puppet.staging import driven_masks
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry


class PuppetOptions(base.Options):
    """What a recipe may set."""

    fps: float | None = Field(default=None, gt=0, le=120)
    """work at this rate instead of the pair's: that many frames of the span's duration are written"""
    shadow: bool = True
    """a soft contact shadow under the feet"""
    relight: float = Field(default=0.5, ge=0, le=1)
    """replacement: how far the character's colours move towards the scene's"""


@dataclass(frozen=True)
class Performance:
    """What the puppet made, before it becomes a file."""

    frames_NHWC: Array
    alpha_NHW: Array
    """how much of each pixel is a character, 0 to 255"""
    fps: float
    report: Report


class Puppet(VideoGenerator):
    """Animates painted characters with the clip's motion, in their own scenes or in the clip's."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"animation", "replacement"}), people_max=6, views=True, deterministic=True
    )
    options_type: ClassVar[type[base.Options]] = PuppetOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark", "hand_landmark_lite", "face_landmark")

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()
        self._reader = DetailReader()

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """Its rate is an option."""
        return cls.capabilities.model_copy(update={"fps": cast(PuppetOptions, options).fps})

    def setup(self) -> None:
        """Load the models."""
        self._tracker.setup()
        self._reader.setup()

    def validate(self, request: VideoRequest) -> None:
        """As the base, and the people must be of the clip: "people_mismatch"."""
        super().validate(request)
        people, geometry = request.clip_people, request.geometry
        got, want = (people.frames, *people.size_hw), (geometry.frames, geometry.height, geometry.width)
        if got != want:
            raise BadInput(
                f"the clip's people are given for T×H×W {got}, the geometry is {want}; track the conformed clip", "people_mismatch"
            )
        if request.others is not None and request.others.masks_PTHW.shape[1:] != people.masks_PTHW.shape[1:]:
            raise BadInput(
                f"the other people are given for T×H×W {request.others.masks_PTHW.shape[1:]}, the driven ones for {got}", "people_mismatch"
            )
        if people.count == 0:
            raise BadInput("nobody is to be driven; give at least one person and one picture", "people_mismatch")
        if not people.present_PT.any(1).all():
            raise BadInput("a driven person is in no frame of the clip; choose another one", "driver_absent")

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write the performance to `out`, each frame as it is drawn. Raises as `perform`."""
        stage = self.staged(request)
        media.write_video(out, (frame for frame, _ in stage.frames()), self._fps(request))
        return _report(stage)

    def perform(self, request: VideoRequest) -> Performance:
        """The performance in memory.

        Raises BadInput when a picture can't be used: "no_person", "too_small", "torso_cropped", "no_matte", "picture_size",
        "head_cropped", "arms_crossed", "forearm_cut", "chest_occluded".
        """
        stage = self.staged(request)
        frames, alphas = zip(*stage.frames(), strict=True)
        return Performance(np.stack(frames), np.stack(alphas), self._fps(request), _report(stage))

    def _fps(self, request: VideoRequest) -> float:
        return cast(PuppetOptions, self.options).fps or request.geometry.fps

    def staged(self, request: VideoRequest) -> Stage:
        """Everybody cut out, posed and lit, and the scene they are to stand in. Raises as `perform`."""
        self.validate(request)
        options = cast(PuppetOptions, self.options)
        fps = self._fps(request)
        count = ceil(request.geometry.duration_s * fps - 1e-6) + 1
        at_N = np.clip(np.arange(count) / fps * request.geometry.fps, 0, request.geometry.frames - 1)
        replacing = request.mode == "replacement"
        placement = Placement(like_driver=replacing or request.clip_people.count > 1)
        scene: Plate | Array
        with ThreadPoolExecutor(1) as aside:  # the plate takes as long as everything else, and neither looks at the other
            plate = aside.submit(_plate_of_clip, request) if replacing else None
            pictures = [self._picture(_sized(path, request.geometry)) for path in request.painted]
            views = [[self._view(path) for path in paths] for paths in request.views] or [[] for _ in pictures]
            actors = [actor_of(p, views[i], request.clip_people, i, placement, at_N) for i, p in enumerate(pictures)]
            if plate is not None:
                scene, looks = plate.result()
                actors = [actor.graded(look, options.relight) for actor, look in zip(actors, looks, strict=True)]
            else:
                known = _sized(request.scene, request.geometry) if request.scene else None
                scene = own_scene(actors[0].takes[0].character, pictures[0][0]) if known is None else known
        return Stage(actors, request.clip_people, request.others if replacing else None, scene, at_N, options.shadow)

    def _picture(self, image_HWC: Array) -> Picture:
        return image_HWC, read_portrait(self._tracker, self._reader, image_HWC)

    def _view(self, path: Path) -> View:
        image = media.read_image(path)
        return View(glance(self._tracker, image), lambda: self._picture(image))


def _sized(path: Path, geometry: Geometry) -> Array:
    """A picture of the geometry's size. Raises BadInput("picture_size")."""
    image = media.read_image(path)
    if image.shape[:2] != (geometry.height, geometry.width):
        got, want = f"{image.shape[1]}×{image.shape[0]}", f"{geometry.width}×{geometry.height}"
        raise BadInput(f"the picture is {got}, the geometry {want}; paint at that size", "picture_size")
    return image


def _plate_of_clip(request: VideoRequest) -> tuple[Plate, list[Look | None]]:
    """The clip without its driven people, and the look of what surrounds each of them."""
    frames, _ = media.read_frames(request.clip)
    people, others = request.clip_people, request.others
    if frames.shape[:3] != people.masks_PTHW.shape[1:]:
        raise BadInput(f"the clip is T×H×W {frames.shape[:3]}, its people {people.masks_PTHW.shape[1:]}", "people_mismatch")
    plate = clean_plate(frames, driven_masks(people), None if others is None else others.masks_PTHW.max(0, initial=0))
    return plate, [look_near(frames, masks) for masks in people.masks_PTHW]


def _report(stage: Stage) -> Report:
    people = stage.driver
    exposed_T = np.interp(np.arange(people.frames), stage.at_N, stage.exposed_N)
    plate = trust_in_plate(stage.scene, exposed_T) if isinstance(stage.scene, Plate) else None
    confidence, reasons, per_frame = together([trust_in(actor, people.size_hw) for actor in stage.actors], plate)
    return Report(confidence=confidence, reasons=reasons, per_frame=per_frame, stretches=stretches_of(np.array(per_frame), people.fps))

"""What every way to run Wan2.2-Animate shares: its options, its segments, and the videos that are derived for it.

Inputs follow the model's own preprocessing (Wan-AI, Apache-2.0): a skeleton video, a face video of 512×512, and for replacement the clip
with black where the model paints and a mask that is white there. Poses, faces and masks come from this project's extractors, and its
drawing ends at the ankles, where the published one goes on to the toes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, Options, VideoGenerator, VideoRequest, frames_covering
from generators.inputs import faces, pictures, regions, timing
from generators.inputs.poses import skeleton_video
from generators.poses.people import PeopleTracker
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import Bools, Bytes
from generators.videos.puppet.cutout import main_person
from manifests import media
from manifests.errors import BadInput

FPS = 30.0
SEGMENT = 77
DERIVED = ("pose", "face", "background", "mask")
"""the last two for replacement only"""


class AnimateOptions(Options):
    """What a recipe may set. The defaults are the published ones."""

    steps: int = Field(default=20, ge=1, le=200)
    guidance: float = Field(default=1.0, ge=1, le=20)
    """above 1 each step runs twice, the second time without prompt and face"""
    segment_frames: int = Field(default=SEGMENT, ge=5, le=241)
    """frames made at once, 4n+1; the last segment is made whole and cut"""
    overlap: Literal[1, 5] = 1
    """frames that a segment takes over from the one before"""
    retarget: bool = True
    """animation: poses with the place and proportions of the painted character, where one is found in the picture"""
    mask_blocks: tuple[int, int] = (1, 1)
    """replacement: the mask fills the silhouette's box in this many blocks across and down; (1, 1): the whole box"""

    @field_validator("segment_frames")
    @classmethod
    def _four_n_plus_one(cls, v: int) -> int:
        if v % 4 != 1:
            raise ValueError(f"segment_frames must be 4n+1 (5, 9, 13, …, 77), got {v}")
        return v

    @field_validator("mask_blocks")
    @classmethod
    def _blocks(cls, v: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= n <= 64 for n in v):
            raise ValueError(f"mask_blocks must be from 1 to 64 across and down, got {v}")
        return v

    @model_validator(mode="after")
    def _overlap_is_less_than_half(self) -> AnimateOptions:
        # diffusers counts the segments as frames // (segment - overlap), which is one too many where the overlap is not below that.
        if self.segment_frames <= 2 * self.overlap:
            raise ValueError(
                f"segment_frames is {self.segment_frames}; with an overlap of {self.overlap} it must be above {2 * self.overlap}"
            )
        return self


class Animated(VideoGenerator):
    """A painted character moves like the clip's person, in its own scene or in the clip's. How the model is run is the subclass's."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"animation", "replacement"}), frames_max=SEGMENT, segments=True, fps=FPS, size_multiple=16, gpus=1,
        inputs=frozenset(DERIVED), code_licence="Apache-2.0", weights_licence="Apache-2.0",
    )  # fmt: skip
    options_type: ClassVar[type[base.Options]] = AnimateOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark")

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()

    @property
    def _common(self) -> AnimateOptions:
        return cast(AnimateOptions, self.options)

    def segments(self, request: VideoRequest) -> timing.Segments:
        """How the span is parted."""
        own = self._common
        count = max(frames_covering(request.geometry, self.can.rate_of(request.geometry)), own.overlap + 1)
        return timing.Segments(count, own.segment_frames, own.overlap)

    def validate(self, request: VideoRequest) -> None:
        """As the base, and there must be one person ("people_mismatch"), who is of the clip and in it ("driver_absent")."""
        super().validate(request)
        people, geometry = request.clip_people, request.geometry
        got, want = (people.frames, *people.size_hw), (geometry.frames, geometry.height, geometry.width)
        if got != want:
            raise BadInput(
                f"the clip's people are given for T×H×W {got}, the geometry is {want}; track the conformed clip", "people_mismatch"
            )
        if people.count != 1:
            raise BadInput(f"Wan-Animate drives one person, got {people.count}", "people_mismatch")
        if not people.present_PT.any():
            raise BadInput("the driven person is in no frame of the clip; choose another one", "driver_absent")

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Write what is derived, losslessly at the model's rate, and find the painted character. Raises BadInput as `validate`."""
        self.validate(request)
        if request.reference_people is None and request.mode == "animation" and self._common.retarget:
            found = self._tracker.still(reference(request))
            request = replace(request, reference_people=found.only([main_person(found)]) if found.count else None)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for name, video_THWC in self._derived(request).items():
            paths[name] = folder / f"{name}.mp4"
            media.write_lossless(paths[name], video_THWC, self.can.rate_of(request.geometry))
        return replace(request, inputs={**request.inputs, **paths})

    def _derived(self, request: VideoRequest) -> dict[str, Bytes]:
        g, people, fps, count = request.geometry, request.clip_people, self.can.rate_of(request.geometry), self.segments(request).frames
        frames, _ = media.read_frames(request.clip)
        if frames.shape[:3] != people.masks_PTHW.shape[1:]:
            raise BadInput(f"the clip is T×H×W {frames.shape[:3]}, its people {people.masks_PTHW.shape[1:]}", "people_mismatch")
        clips = {"face": faces.face_video(frames, faces.face_boxes(people, 0))}
        if request.mode == "replacement":
            keep = _others(request)
            anew = regions.to_regenerate(regions.silhouettes(people.masks_PTHW), *self._common.mask_blocks, keep_THW=keep)
            clips |= {"background": regions.background(frames, anew), "mask": regions.as_mask_video(anew)}
        # As in the published tool no face is drawn: the face video carries it.
        pose = skeleton_video(people, g.height, g.width, fps, count, PoseOptions(face=False), request.reference_people)
        return {"pose": pose} | {name: timing.at_rate(clip, g.fps, fps, count) for name, clip in clips.items()}

    def given(self, request: VideoRequest) -> dict[str, Path]:
        """The derived videos that the request's mode needs. Raises BadInput when one is not there or is not of the segments' length: the
        model's code would repeat what is too short back and forth without a word."""
        names, frames = DERIVED if request.mode == "replacement" else DERIVED[:2], self.segments(request).frames
        if missing := [name for name in names if name not in request.inputs]:
            raise BadInput(f"the inputs {', '.join(missing)} are missing; call `prepare` before `run`, or `make`", "inputs_missing")
        have = timing.same_length(**{name: range(media.probe(request.inputs[name]).frames) for name in names})
        if have != frames:
            raise BadInput(f"the inputs have {have} frames, needed are {frames}", "inputs_mismatch")
        return {name: request.inputs[name] for name in names}

    def reasons(self, request: VideoRequest) -> tuple[str, ...]:
        """What the report of a prepared request says."""
        lost = request.mode == "animation" and self._common.retarget and request.reference_people is None
        return ("not_retargeted",) if lost else ()


def reference(request: VideoRequest) -> Bytes:
    """The painted picture at the pair's size."""
    return pictures.letterboxed(media.read_image(request.painted[0]), request.geometry.height, request.geometry.width)


def _others(request: VideoRequest) -> Bools | None:
    return regions.silhouettes(request.others.masks_PTHW) if request.others is not None and request.others.count else None

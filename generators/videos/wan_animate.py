"""Wan2.2-Animate 14B through diffusers: one person, animation and replacement, clips of any length in overlapping segments.

Inputs follow the model's own preprocessing (Wan-AI, Apache-2.0): a skeleton video, a face video of 512×512, and for replacement the clip
with black where the model paints and a mask that is white there. Only the extractors differ: poses, faces and masks are this project's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field, field_validator, model_validator

from generators import base, diffusion
from generators.base import Capabilities, Report, VideoGenerator, VideoRequest, frames_covering
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
PROMPT = "A person moves in a video."
"""where a recipe gives none: the published tool passes one fixed sentence too"""


class WanAnimateOptions(diffusion.DiffusionOptions):
    """What a recipe may set. The defaults are the published ones."""

    weights: str = "hf:Wan-AI/Wan2.2-Animate-14B-Diffusers"
    steps: int = Field(default=20, ge=1, le=200)
    guidance: float = Field(default=1.0, ge=1, le=20)
    """above 1 each step runs twice, the second time without prompt and face"""
    segment_frames: int = Field(default=SEGMENT, ge=5, le=241)
    """frames made at once, 4n+1; the last segment is made whole and cut"""
    overlap: Literal[1, 5] = 1
    """frames that a segment takes over from the one before"""
    fps: float = Field(default=FPS, gt=0, le=120)
    """the rate the model works at; it was trained at 30"""
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
    def _overlap_is_less_than_half(self) -> WanAnimateOptions:
        # diffusers counts the segments as frames // (segment - overlap), which is one too many where the overlap is not below that.
        if self.segment_frames <= 2 * self.overlap:
            raise ValueError(
                f"segment_frames is {self.segment_frames}; with an overlap of {self.overlap} it must be above {2 * self.overlap}"
            )
        return self


class WanAnimate(VideoGenerator):
    """A painted character moves like the clip's person, in its own scene or in the clip's."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"animation", "replacement"}), frames_max=SEGMENT, segments=True, fps=FPS, size_multiple=16, gpus=1,
        inputs=frozenset(DERIVED), code_licence="Apache-2.0", weights_licence="Apache-2.0",
    )  # fmt: skip
    options_type: ClassVar[type[base.Options]] = WanAnimateOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark")
    requires: ClassVar[tuple[str, ...]] = (*diffusion.REQUIRES, "ftfy")

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        own = cast(WanAnimateOptions, options)
        can = cls.capabilities.model_copy(update={"fps": own.fps, "frames_max": own.segment_frames})
        return diffusion.without_gpu(can, own)

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """A folder of weights counts by what lies in it."""
        return diffusion.keyed(options)

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()
        self._pipe: Any = None

    @property
    def _set(self) -> WanAnimateOptions:
        return cast(WanAnimateOptions, self.options)

    def setup(self) -> None:
        """Load the pipeline, and what reads the painted picture. Raises as `diffusion.load`."""
        if self._pipe is None:
            self._tracker.setup()
            # Its authors run the VAE in float32: bfloat16 shows as banding.
            self._pipe = diffusion.load("WanAnimatePipeline", self._set, kept_in_float32=("vae",))

    def segments(self, request: VideoRequest) -> timing.Segments:
        """How the span is parted."""
        count = max(frames_covering(request.geometry, self._set.fps), self._set.overlap + 1)
        return timing.Segments(count, self._set.segment_frames, self._set.overlap)

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
        if request.reference_people is None and request.mode == "animation" and self._set.retarget:
            found = self._tracker.still(_reference(request))
            request = replace(request, reference_people=found.only([main_person(found)]) if found.count else None)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for name, video_THWC in self._derived(request).items():
            paths[name] = folder / f"{name}.mp4"
            media.write_lossless(paths[name], video_THWC, self._set.fps)
        return replace(request, inputs={**request.inputs, **paths})

    def _derived(self, request: VideoRequest) -> dict[str, Bytes]:
        g, people, fps, count = request.geometry, request.clip_people, self._set.fps, self.segments(request).frames
        frames, _ = media.read_frames(request.clip)
        if frames.shape[:3] != people.masks_PTHW.shape[1:]:
            raise BadInput(f"the clip is T×H×W {frames.shape[:3]}, its people {people.masks_PTHW.shape[1:]}", "people_mismatch")
        clips = {"face": faces.face_video(frames, faces.face_boxes(people, 0))}
        if request.mode == "replacement":
            keep = _others(request)
            anew = regions.to_regenerate(regions.silhouettes(people.masks_PTHW), *self._set.mask_blocks, keep_THW=keep)
            clips |= {"background": regions.background(frames, anew), "mask": regions.as_mask_video(anew)}
        # As in the published tool no face is drawn: the face video carries it.
        pose = skeleton_video(people, g.height, g.width, fps, count, PoseOptions(face=False), request.reference_people)
        return {"pose": pose} | {name: timing.at_rate(clip, g.fps, fps, count) for name, clip in clips.items()}

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write the performance at the geometry's size and the model's rate. `prepare` comes first. Raises BadOutput."""
        self.setup()
        options, g, segments = self._set, request.geometry, self.segments(request)
        replacing = request.mode == "replacement"
        videos = _opened(request, DERIVED if replacing else DERIVED[:2], segments.frames)
        made = self._pipe(
            image=diffusion.to_pil([_reference(request)])[0],
            **{f"{name}_video": diffusion.to_pil(frames) for name, frames in videos.items()},
            prompt=request.prompt or PROMPT,
            height=g.height,
            width=g.width,
            segment_frame_length=segments.length,
            num_inference_steps=options.steps,
            mode="replace" if replacing else "animate",
            prev_segment_conditioning_frames=segments.overlap,
            guidance_scale=options.guidance,
            generator=diffusion.seeded(request.seed),
            output_type="np",
        ).frames[0]
        frames = diffusion.to_bytes(np.asarray(made), (segments.frames, g.height, g.width, 3), "WanAnimatePipeline")
        media.write_video(out, frames, options.fps)
        lost = request.mode == "animation" and options.retarget and request.reference_people is None
        return Report(reasons=("not_retargeted",) if lost else ())


def _reference(request: VideoRequest) -> Bytes:
    return pictures.letterboxed(media.read_image(request.painted[0]), request.geometry.height, request.geometry.width)


def _others(request: VideoRequest) -> Bools | None:
    return regions.silhouettes(request.others.masks_PTHW) if request.others is not None and request.others.count else None


def _opened(request: VideoRequest, names: tuple[str, ...], frames: int) -> dict[str, Bytes]:
    """The derived videos. Raises BadInput when one is not there or is not of this length: the pipeline would repeat what is too short
    back and forth without a word."""
    if missing := [name for name in names if name not in request.inputs]:
        raise BadInput(f"the inputs {', '.join(missing)} are missing; call `prepare` before `run`, or `make`", "inputs_missing")
    videos = {name: media.read_frames(request.inputs[name])[0] for name in names}
    if timing.same_length(**videos) != frames:
        raise BadInput(f"the inputs have {len(videos[names[0]])} frames, needed are {frames}", "inputs_mismatch")
    return videos

"""`kind: command` for videos: a research repository, or any other program, named in the recipe alone.

What it can do stands in the entry, with the names of `Capabilities`. Clip and derived inputs come at the program's own size and rate and
with as many frames as it is to make; they are made only when the command line asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import cv2
import numpy as np
from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, Mode, Report, VideoGenerator, VideoRequest
from generators.inputs import faces, pictures, regions
from generators.poses import cylinders, skeleton
from generators.poses.cylinders import CylinderOptions
from generators.poses.figures import Figures, figures
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import Bools, Bytes
from generators.workers import command
from generators.workers.command import CommandOptions, own_folder
from manifests import media

VIDEO_MODES: frozenset[Mode] = frozenset({"animation", "replacement", "pose"})


class VideoCommandOptions(CommandOptions):
    """A program that writes a video."""

    dilate_px: int = Field(default=0, ge=0, le=256)
    """`{mask}` and `{background}`: pixels of the clip by which the silhouette grows"""
    mask_box: bool = False
    """the silhouette's bounding box instead of its outline"""

    @field_validator("modes")
    @classmethod
    def _of_videos(cls, v: frozenset[Mode]) -> frozenset[Mode]:
        if not v <= VIDEO_MODES:
            raise ValueError(f"one program makes either images or some of {', '.join(sorted(VIDEO_MODES))}, got {', '.join(sorted(v))}")
        return v

    @model_validator(mode="after")
    def _known(self) -> VideoCommandOptions:
        self.checked(PLAIN | frozenset(DERIVED))
        return self


PLAIN = frozenset({"out", "folder", "painted", "pictures", "scene", "prompt", "seed", "mode", "people", "height", "width", "frames", "fps"})
"""placeholders that cost nothing"""


@dataclass(frozen=True)
class Material:
    """A request at the program's size, rate and number of frames."""

    request: VideoRequest
    options: VideoCommandOptions
    height: int
    width: int
    fps: float
    frames: int

    @cached_property
    def clip(self) -> Bytes:
        """The real clip."""
        own, _ = media.read_frames(self.request.clip)
        return self._resized(self._timed(own))

    def pose(self, draw: Callable[[Figures], Iterable[Bytes]]) -> Bytes:
        """The driven people, drawn; what a program needs beyond the clip's end is the last frame, held."""
        people = self.request.clip_people
        covered = max(1, media.frames_within(people.frames / people.fps, self.fps))
        fig = figures(people, self.height, self.width, self.fps, min(self.frames, covered))
        drawn = np.stack(list(draw(fig)))
        return drawn[np.minimum(np.arange(self.frames), len(drawn) - 1)]

    def regenerate(self) -> Bools:
        """Where the driven people are, grown, without those who stay."""
        request = self.request
        inside = regions.silhouettes(request.clip_people.masks_PTHW)
        others = request.others
        keep = regions.silhouettes(others.masks_PTHW) if others is not None and others.count else None
        if not self.options.mask_box:
            grown = inside if not self.options.dilate_px else _grown(inside, self.options.dilate_px)
            return grown if keep is None else grown & ~keep
        return regions.to_regenerate(inside, 1, 1, 2 * self.options.dilate_px + 1, 1, keep)

    def mask(self) -> Bytes:
        """White where the program is to paint."""
        return np.where(self._resized(self._timed(regions.as_mask_video(self.regenerate()))) < 128, np.uint8(0), np.uint8(255))

    def face(self) -> Bytes:
        """The first driven person's face, 512 × 512."""
        boxes = faces.face_boxes(self.request.clip_people, 0)
        own, _ = media.read_frames(self.request.clip)
        return self._timed(faces.face_video(own, boxes))

    def _timed(self, frames_THWC: Bytes) -> Bytes:
        starts = np.arange(len(frames_THWC)) / self.request.geometry.fps
        return frames_THWC[media.sample_indices(starts, self.frames, self.fps)]

    def _resized(self, frames_THWC: Bytes) -> Bytes:
        return np.stack([pictures.resized(frame, self.height, self.width) for frame in frames_THWC])


def _grown(inside_THW: Bools, by_px: int) -> Bools:
    kernel = np.ones((2 * by_px + 1, 2 * by_px + 1), np.uint8)
    return np.stack([cv2.dilate(frame.astype(np.uint8), kernel) for frame in inside_THW]).astype(np.bool_)


DERIVED: dict[str, Callable[[Material], Bytes]] = {
    "clip": lambda m: m.clip,
    "skeleton": lambda m: m.pose(lambda fig: skeleton.render(fig, PoseOptions())),
    "cylinders": lambda m: m.pose(lambda fig: cylinders.render(fig, CylinderOptions())),
    "mask": lambda m: m.mask(),
    "first_mask": lambda m: m.mask()[:1],
    "background": lambda m: regions.background(m.clip, m.mask()[..., 0] > 0),
    "face": lambda m: m.face(),
}
"""placeholder → the frames that it stands for; a single frame becomes a PNG"""


class Command(VideoGenerator):
    """Runs the entry's program once for each request."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=VIDEO_MODES, people_max=6)
    options_type: ClassVar[type[base.Options]] = VideoCommandOptions

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """As the entry declares."""
        own = cast(VideoCommandOptions, options)
        return own.can().model_copy(update={"inputs": frozenset(own.placeholders() & set(DERIVED) - {"clip"})})

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Files named in the command line count by content; timeouts and patterns do not count."""
        return command.keyed(options)

    @classmethod
    def missing(cls, options: base.Options | None = None) -> list[str]:
        """Also the program."""
        return super().missing(options) + (options.missing() if isinstance(options, CommandOptions) else [])

    @property
    def _set(self) -> VideoCommandOptions:
        return cast(VideoCommandOptions, self.options)

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Whatever the command line asks for. Raises BadInput for a request that the entry does not cover."""
        self.validate(request)
        material = self._material(request)
        made: dict[str, Path] = {}
        for name in sorted(self._set.placeholders() & set(DERIVED)):
            folder.mkdir(parents=True, exist_ok=True)
            frames = DERIVED[name](material)
            made[name] = folder / f"{name}{'.png' if len(frames) == 1 else '.mp4'}"
            if len(frames) == 1:
                media.write_png(made[name], frames[0])
            else:
                (media.write_lossless if name == "mask" else media.write_video)(made[name], frames, material.fps)
        return replace(request, inputs={**request.inputs, **made})

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Run the program. Raises as `command.call`."""
        with own_folder(out) as folder:
            command.call(self._set, self._values(request, folder / "in"), folder / "out", out)
        return Report()

    def _material(self, request: VideoRequest) -> Material:
        can, geometry = self.can, request.geometry
        frames = can.frames_for(geometry)
        assert frames is not None  # validate has refused it
        sizes = sorted(can.sizes_for(geometry) or [(geometry.height, geometry.width)])
        aspect = geometry.width / geometry.height
        height, width = min(sizes, key=lambda hw: abs(np.log(hw[1] / hw[0] / aspect)))
        return Material(request, self._set, height, width, can.rate_of(geometry), frames)

    def _values(self, request: VideoRequest, folder: Path) -> command.Values:
        material = self._material(request)
        painted = tuple(command.copied(path, folder, f"painted{i}") for i, path in enumerate(request.painted))
        return {
            **{name: command.copied(path, folder, name) for name, path in request.inputs.items()},
            "painted": painted[0] if painted else None, "pictures": painted,
            "scene": command.copied(request.scene, folder, "scene") if request.scene else None,
            "prompt": request.prompt, "seed": str(request.seed), "mode": request.mode, "people": str(request.clip_people.count),
            "height": str(material.height), "width": str(material.width), "frames": str(material.frames), "fps": f"{material.fps:g}",
        }  # fmt: skip

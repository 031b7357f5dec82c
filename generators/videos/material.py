"""Clip and derived inputs as somebody else's program or workflow wants them: at its own size and rate, as many frames as it is to make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from generators.base import Capabilities, Mode, Options, VideoRequest
from generators.inputs import faces, pictures, regions
from generators.poses import cylinders, skeleton
from generators.poses.cylinders import CylinderOptions
from generators.poses.figures import Figures, figures
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import Bools, Bytes
from manifests import media

VIDEO_MODES: frozenset[Mode] = frozenset({"animation", "replacement", "pose"})


class MaskOptions(Options):
    """What a recipe may say of masks."""

    dilate_px: int = Field(default=0, ge=0, le=256)
    """`{mask}` and `{background}`: pixels of the clip by which the silhouette grows"""
    mask_box: bool = False
    """the silhouette's bounding box instead of its outline"""


@dataclass(frozen=True)
class Material:
    """A request at the program's size, rate and number of frames."""

    request: VideoRequest
    masks: MaskOptions
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
        if not self.masks.mask_box:
            grown = inside if not self.masks.dilate_px else _grown(inside, self.masks.dilate_px)
            return grown if keep is None else grown & ~keep
        return regions.to_regenerate(inside, 1, 1, 2 * self.masks.dilate_px + 1, 1, keep)

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


def material_for(can: Capabilities, request: VideoRequest, masks: MaskOptions) -> Material:
    """The request for a generator with these capabilities, which cover it. Of its sizes it is the one whose proportions are nearest."""
    geometry = request.geometry
    frames = can.frames_for(geometry)
    assert frames is not None  # validate has refused it
    sizes = sorted(can.sizes_for(geometry) or [(geometry.height, geometry.width)])
    aspect = geometry.width / geometry.height
    height, width = min(sizes, key=lambda hw: abs(np.log(hw[1] / hw[0] / aspect)))
    return Material(request, masks, height, width, can.rate_of(geometry), frames)


def derive(material: Material, names: Collection[str], folder: Path) -> dict[str, Path]:
    """Those of DERIVED that are named, as files in `folder`: a PNG for a single frame, else a video, lossless where it is a mask."""
    made: dict[str, Path] = {}
    for name in sorted(set(names) & set(DERIVED)):
        folder.mkdir(parents=True, exist_ok=True)
        frames = DERIVED[name](material)
        made[name] = folder / f"{name}{'.png' if len(frames) == 1 else '.mp4'}"
        if len(frames) == 1:
            media.write_png(made[name], frames[0])
        else:
            (media.write_lossless if name == "mask" else media.write_video)(made[name], frames, material.fps)
    return made

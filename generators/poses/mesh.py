"""Pose renderings in space: every person's surface, shaded, on black. For clips whose pose extractor gives meshes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from generators.base import Capabilities, Options, Report, VideoGenerator, VideoRequest
from generators.poses.camera import Camera
from generators.poses.surfaces import Sheet
from generators.poses.tracks import Bytes, People
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry


class MeshOptions(Options):
    """How bodies look."""

    colour: tuple[int, int, int] = Field(default=(166, 189, 219))
    """of every body, 0 to 255; the default is the light blue of SAM 3D Body's own pictures"""


class Mesh(VideoGenerator):
    """Renders the clip's people as shaded surfaces, nearer ones in front. CPU only, the same request gives the same bytes.

    They stay in their place: surfaces have the clip's own proportions, and are not moved onto a reference.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"pose"}), people_max=6, deterministic=True, needs=frozenset({"meshes"})
    )
    options_type: ClassVar[type[Options]] = MeshOptions

    def validate(self, request: VideoRequest) -> None:
        """Also raises BadInput for people without meshes ("no_meshes"), and frames that end before the span does."""
        super().validate(request)
        people, g = request.clip_people, request.geometry
        if people.count == 0:
            raise BadInput("nobody to draw: the clip has no tracked person; leave it out of pose slices", "no_people")
        if people.meshes is None:
            raise BadInput("the clip's people have no meshes; write extractors: {poses: {kind: sam3d_body, …}}", "no_meshes")
        if (people.frames - 0.5) / people.fps < g.duration_s:
            raise BadInput(
                f"the people were tracked in {people.frames} frames, the pair has {g.frames}; analyse the span", "frames_mismatch"
            )

    def run(self, request: VideoRequest, out: Path) -> Report:
        self.validate(request)
        assert isinstance(self.options, MeshOptions)
        red, green, blue = (c / 255 for c in self.options.colour)
        media.write_video(out, render(request.clip_people, request.geometry, (red, green, blue)), request.geometry.fps)
        here = request.clip_people.present_PT
        return Report(reasons=() if here.all() else ("person_missing_in_some_frames",), confidence=round(float(here.mean()), 4))


def render(people: People, geometry: Geometry, colour: tuple[float, float, float]) -> Iterator[Bytes]:
    """One HWC frame after the other, each of the tracked frame on display then."""
    assert people.meshes is not None
    tracked_hw, camera = people.size_hw, Camera.of(people.size_hw)
    across, down = geometry.width / tracked_hw[1], geometry.height / tracked_hw[0]
    shown = np.minimum(np.floor(np.arange(geometry.frames) * people.fps / geometry.fps + 0.0005 * people.fps), people.frames - 1)
    for t in shown.astype(int):
        sheet = Sheet.empty((geometry.height, geometry.width), _stretched(camera, across, down))
        for p in np.flatnonzero(people.present_PT[:, t]):
            sheet.add(people.meshes.vertices_PTVx3[p, t].astype(np.float64), people.meshes.faces_Fx3, colour)
        yield sheet.canvas_HWC


def _stretched(camera: Camera, across: float, down: float) -> Camera:
    """The camera for a picture of another size; proportions are the pair's, so both factors are the same but for rounding."""
    return Camera(camera.focal_px * (across + down) / 2, camera.centre_x * across, camera.centre_y * down)

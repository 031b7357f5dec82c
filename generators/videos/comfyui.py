"""`kind: comfyui` for videos: a workflow of ComfyUI's, run by a server of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import field_validator, model_validator

from generators import base
from generators.base import Capabilities, Mode, Report, VideoGenerator, VideoRequest
from generators.videos.material import DERIVED, VIDEO_MODES, MaskOptions, Material, derive, material_for
from generators.workers import queueing
from generators.workers.queueing import ComfyOptions, Desk, Values
from manifests.errors import BadInput

PEOPLE_MAX = 6
PAINTED = ("painted", *(f"painted{i}" for i in range(2, PEOPLE_MAX + 1)))
"""slots of the characters' pictures, in the order of the clip's people"""
PLAIN = frozenset({*PAINTED, "scene", "prompt", "seed", "mode", "people", "height", "width", "frames", "fps"})
"""slots that cost nothing"""
SUFFIXES = (".mp4",)


class VideoComfyOptions(ComfyOptions, MaskOptions):
    """A workflow that makes a video."""

    @field_validator("modes")
    @classmethod
    def _of_videos(cls, v: frozenset[Mode]) -> frozenset[Mode]:
        if not v <= VIDEO_MODES:
            raise ValueError(f"one workflow makes either images or some of {', '.join(sorted(VIDEO_MODES))}, got {', '.join(sorted(v))}")
        return v

    @model_validator(mode="after")
    def _known(self) -> VideoComfyOptions:
        self.checked(PLAIN | frozenset(DERIVED), frozenset() if self.modes == {"pose"} else frozenset({"painted"}))
        pictures = sum(name in self.slots for name in PAINTED)
        if not set(PAINTED[:pictures]) <= set(self.slots):
            raise ValueError(f"slots: pictures of several people are {', '.join(PAINTED[:3])} and so on, without a gap")
        if self.modes != {"pose"} and self.people_max not in (1, pictures):
            raise ValueError(f"people_max is {self.people_max}; the slots take {pictures} pictures, so leave it out")
        return self

    def can(self) -> Capabilities:
        """As declared; people as many as there are slots for pictures."""
        pictures = sum(name in self.slots for name in PAINTED)
        inputs = frozenset(set(self.slots) & set(DERIVED) - {"clip"})
        return super().can().model_copy(update={"people_max": max(self.people_max, pictures), "inputs": inputs})


class ComfyUI(VideoGenerator):
    """Sends each request to one of the entry's servers."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=VIDEO_MODES, people_max=PEOPLE_MAX)
    options_type: ClassVar[type[base.Options]] = VideoComfyOptions
    requires: ClassVar[tuple[str, ...]] = queueing.REQUIRES

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """As the entry declares."""
        return cast(VideoComfyOptions, options).can()

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The workflow counts by what it says; who runs it, and how long that may take, does not."""
        return queueing.keyed(options)

    @classmethod
    def texts(cls, options: Mapping[str, Any]) -> list[str]:
        """The workflow."""
        return [str(options["workflow"])]

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._desk: Desk | None = None

    @property
    def _set(self) -> VideoComfyOptions:
        return cast(VideoComfyOptions, self.options)

    def setup(self) -> None:
        """Nothing is asked of the servers before the first request."""
        self._desk = self._desk or Desk(self._set)

    def validate(self, request: VideoRequest) -> None:
        """Also raises BadInput("people_mismatch"): a workflow is drawn for a number of characters, and takes no fewer."""
        super().validate(request)
        pictures = sum(name in self._set.slots for name in PAINTED)
        if request.mode != "pose" and len(request.painted) != pictures:
            raise BadInput(f"the workflow takes {pictures} characters, the request has {len(request.painted)}", "people_mismatch")

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Whatever the slots ask for. Raises BadInput for a request that the entry does not cover."""
        self.validate(request)
        return replace(request, inputs={**request.inputs, **derive(self._material(request), set(self._set.slots), folder)})

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Have the workflow run. Raises as `Desk.make`."""
        self.setup()
        assert self._desk is not None
        self._desk.make(self._values(request), out, SUFFIXES)
        return Report()

    def _material(self, request: VideoRequest) -> Material:
        return material_for(self.can, request, self._set)

    def _values(self, request: VideoRequest) -> Values:
        material = self._material(request)
        values: Values = {
            **dict(zip(PAINTED, request.painted, strict=False)), **request.inputs, "scene": request.scene, "prompt": request.prompt,
            "seed": request.seed, "mode": request.mode, "people": request.clip_people.count, "height": material.height,
            "width": material.width, "frames": material.frames, "fps": int(material.fps) if material.fps % 1 == 0 else material.fps,
        }  # fmt: skip
        return {name: values[name] for name in self._set.slots}

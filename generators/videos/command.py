"""`kind: command` for videos: a research repository, or any other program, named in the recipe alone.

What it can do stands in the entry, with the names of `Capabilities`. Clip and derived inputs come at the program's own size and rate and
with as many frames as it is to make; they are made only when the command line asks for them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import field_validator, model_validator

from generators import base
from generators.base import Capabilities, Mode, Report, VideoGenerator, VideoRequest
from generators.videos.material import DERIVED, VIDEO_MODES, MaskOptions, Material, derive, material_for
from generators.workers import command
from generators.workers.command import CommandOptions, Sources, own_folder


class VideoCommandOptions(CommandOptions, MaskOptions):
    """A program that writes a video."""

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

    def __init__(self, options: base.Options) -> None:
        super().__init__(options)
        self._sources: Sources | None = None

    @property
    def _set(self) -> VideoCommandOptions:
        return cast(VideoCommandOptions, self.options)

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Whatever the command line asks for. Raises BadInput for a request that the entry does not cover."""
        self.validate(request)
        made = derive(self._material(request), self._set.placeholders(), folder)
        return replace(request, inputs={**request.inputs, **made})

    def setup(self) -> None:
        """Look at the files that the command line names."""
        self._sources = self._sources or Sources(self._set)

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Run the program. Raises as `command.call`, and BadRecipe when its files were edited since `setup`."""
        self.setup()
        assert self._sources is not None
        with own_folder(out) as folder:
            command.call(self._set, self._values(request, folder / "in"), folder / "out", out)
        self._sources.check()
        return Report()

    def _material(self, request: VideoRequest) -> Material:
        return material_for(self.can, request, self._set)

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

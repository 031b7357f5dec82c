"""`kind: command` with `modes: [image]`: a program that paints the picture of a new character, named in the recipe alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, ImageGenerator, ImageRequest, Mode, Report
from generators.images import references
from generators.workers import command
from generators.workers.command import CommandOptions, Sources, own_folder
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

ROLES = ("character", "clothing", "scene")
PLAIN = frozenset({"out", "folder", "references", "prompt", "negative", "scale", "seed", "mode", "height", "width"})
"""placeholders beside the roles; `{references}` are all pictures of the request, in the order of `roles`"""


class ImageCommandOptions(CommandOptions):
    """A program that writes a picture."""

    roles: tuple[str, ...] = Field(default=("character",), min_length=1)
    """the references that it honours, in the order in which `{references}` gives them"""

    @field_validator("modes")
    @classmethod
    def _of_images(cls, v: frozenset[Mode]) -> frozenset[Mode]:
        if v != {"image"}:
            raise ValueError(f"a program that makes images makes nothing else, got {', '.join(sorted(v))}")
        return v

    @model_validator(mode="after")
    def _known(self) -> ImageCommandOptions:
        if not {"character"} <= set(self.roles) <= set(ROLES):
            raise ValueError(f"roles are character and some of {', '.join(ROLES[1:])}, got {', '.join(self.roles)}")
        self.checked(PLAIN | frozenset(self.roles))
        return self


class ImageCommand(ImageGenerator):
    """Runs the entry's program once for each request."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"image"}), roles=frozenset(ROLES))
    options_type: ClassVar[type[base.Options]] = ImageCommandOptions

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """As the entry declares."""
        own = cast(ImageCommandOptions, options)
        return own.can().model_copy(update={"roles": frozenset(own.roles)})

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

    def setup(self) -> None:
        """Look at the files that the command line names."""
        self._sources = self._sources or Sources(cast(ImageCommandOptions, self.options))

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Run the program. Raises as `command.call`, and BadRecipe when its files were edited since `setup`."""
        self.setup()
        assert self._sources is not None
        options = cast(ImageCommandOptions, self.options)
        with own_folder(out) as folder:
            copies = {role: command.copied(path, folder / "in", role) for role, path in sorted(request.pictures.items())}
            values: command.Values = {
                **dict.fromkeys(options.roles), **copies, "references": tuple(copies[role] for role in options.roles if role in copies),
                "prompt": request.prompt, "negative": request.negative, "scale": f"{request.scale:g}", "seed": str(request.seed),
                "mode": request.mode, "height": str(request.geometry.height), "width": str(request.geometry.width),
            }  # fmt: skip
            command.call(options, values, folder / "out", out)
        self._sources.check()
        if options.own_size or options.sizes:
            _fit(out, request.geometry)
        return Report()


def _fit(out: Path, geometry: Geometry) -> None:
    """Bring a picture of the program's own size to the pair's: scaled to cover it and cropped at the centre."""
    try:
        image_HWC = media.read_image(out)
    except BadInput:
        return  # `verify` says what is wrong with it
    media.write_png(out, references.as_painted(image_HWC, geometry))

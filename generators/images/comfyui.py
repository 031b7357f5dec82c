"""`kind: comfyui` with `modes: [image]`: a workflow of ComfyUI's that paints the picture of a new character."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, ImageGenerator, ImageRequest, Mode, Report
from generators.images import references
from generators.workers import queueing
from generators.workers.command import own_folder
from generators.workers.queueing import ComfyOptions, Desk, Values
from manifests import media

PLAIN = frozenset({"prompt", "negative", "scale", "seed", "mode", "height", "width"})
"""slots beside the roles"""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageComfyOptions(ComfyOptions):
    """A workflow that makes a picture."""

    multiple: int = Field(default=16, ge=1, le=256)
    """of the sides that the slots height and width are given"""
    pixels: int | None = Field(default=1024 * 1024, ge=4096, le=16 * 1024 * 1024)
    """area that is painted, in the geometry's proportions, then scaled to it; null: the geometry itself"""
    word: str = Field(default="picture", pattern=r"^(picture|image)$")
    """what the model's prompts call a reference: picture 1, or image 1"""

    @field_validator("modes")
    @classmethod
    def _of_images(cls, v: frozenset[Mode]) -> frozenset[Mode]:
        if v != {"image"}:
            raise ValueError(f"a workflow that makes images makes nothing else, got {', '.join(sorted(v))}")
        return v

    @model_validator(mode="after")
    def _known(self) -> ImageComfyOptions:
        self.checked(PLAIN | frozenset(references.ROLES), frozenset({"character"}))
        return self

    def can(self) -> Capabilities:
        """As declared; the roles are the slots."""
        return super().can().model_copy(update={"roles": frozenset(set(self.slots) & set(references.ROLES))})


class ImageComfyUI(ImageGenerator):
    """Sends each request to one of the entry's servers."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"image"}), roles=frozenset(references.ROLES))
    options_type: ClassVar[type[base.Options]] = ImageComfyOptions
    requires: ClassVar[tuple[str, ...]] = queueing.REQUIRES

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """As the entry declares."""
        return cast(ImageComfyOptions, options).can()

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
    def _set(self) -> ImageComfyOptions:
        return cast(ImageComfyOptions, self.options)

    def setup(self) -> None:
        """Nothing is asked of the servers before the first request."""
        self._desk = self._desk or Desk(self._set)

    def validate(self, request: ImageRequest) -> None:
        super().validate(request)
        references.roles_of(request)

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Have the workflow run; its picture is scaled and cropped to the geometry. Raises as `Desk.make`, BadOutput("half_written")."""
        self.validate(request)
        self.setup()
        assert self._desk is not None
        with own_folder(out) as folder:
            self._desk.make(self._values(request), folder / "picture", SUFFIXES)
            media.write_png(out, references.as_painted(references.read_made(folder / "picture"), request.geometry))
        return Report()

    def _values(self, request: ImageRequest) -> Values:
        height, width = references.working_size(request.geometry, self._set.pixels, self._set.multiple)
        values: Values = {
            **dict.fromkeys(references.ROLES), **request.pictures, "prompt": references.told(request, self._set.word),
            "negative": request.negative, "scale": request.scale, "seed": request.seed, "mode": request.mode, "height": height,
            "width": width,
        }  # fmt: skip
        return {name: values[name] for name in self._set.slots}

"""FLUX.2 through diffusers, the large model and Klein alike: one picture painted from several references."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field

from generators import base, diffusion
from generators.base import Capabilities, ImageGenerator, ImageRequest, Report
from generators.images import references
from generators.inputs import pictures
from manifests import media
from manifests.errors import BadInput, Transient
from manifests.media import Image

MULTIPLE = 16
REFERENCE_PIXELS = 1024 * 1024
"""the most that a reference may have; the pipeline itself would scale it, but by another filter"""
SMALLEST_PX, LONGEST = 64, 8
"""the shortest side of a reference, and the greatest ratio of its sides, that the pipeline takes"""
FREE = ("FLUX.2-klein-4B", "FLUX.2-klein-base-4B")
"""weights under Apache-2.0; the others are for non-commercial use"""
FAMILY = "Flux2"


class Flux2Options(diffusion.DiffusionOptions):
    """What a recipe may set. The defaults are the published ones of FLUX.2 [dev] and of Klein's base models."""

    weights: str = "hf:black-forest-labs/FLUX.2-dev"
    """Klein's distilled models want steps: 4 and guidance: 1"""
    steps: int = Field(default=50, ge=1, le=200)
    guidance: float = Field(default=4.0, ge=1, le=20)
    """distilled models ignore it"""
    pixels: int | None = Field(default=1024 * 1024, ge=4096, le=4 * 1024 * 1024)
    """area that is painted, in the geometry's proportions, then scaled to it; null: the geometry itself"""


class Flux2(ImageGenerator):
    """Paints a character from its picture, and from pictures of clothing and scene where given. There is no negative prompt."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"image"}), gpus=1, roles=frozenset(references.ROLES), code_licence="Apache-2.0",
        weights_licence="FLUX non-commercial", accept_licence=True,
    )  # fmt: skip
    options_type: ClassVar[type[base.Options]] = Flux2Options
    requires: ClassVar[tuple[str, ...]] = diffusion.REQUIRES

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        """The smaller Klein models have another licence."""
        can = diffusion.without_gpu(cls.capabilities, options)
        if cast(Flux2Options, options).weights.removeprefix("hf:black-forest-labs/") in FREE:
            can = can.model_copy(update={"weights_licence": "Apache-2.0", "accept_licence": False})
        return can

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """A folder of weights counts by what lies in it."""
        return diffusion.keyed(options)

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._pipe: Any = None

    def setup(self) -> None:
        """Load the pipeline that the weights are for. Raises as `diffusion.load`, Transient when they are for another family."""
        if self._pipe is None:
            pipe = diffusion.load("DiffusionPipeline", cast(Flux2Options, self.options))
            if not type(pipe).__name__.startswith(FAMILY):
                raise Transient(f"the weights are for {type(pipe).__name__}, not for {FAMILY}; name others", "no_weights")
            self._pipe = pipe

    def validate(self, request: ImageRequest) -> None:
        super().validate(request)
        references.roles_of(request)

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size. Raises BadInput as `validate` and for pictures that are too small or too long, BadOutput."""
        self.validate(request)
        self.setup()
        options = cast(Flux2Options, self.options)
        height, width = references.working_size(request.geometry, options.pixels, MULTIPLE)
        made = self._pipe(
            image=diffusion.to_pil([_usable(picture) for picture in references.references(request)]),
            prompt=references.told(request, "image"),
            height=height,
            width=width,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=diffusion.seeded(request.seed),
            output_type="np",
        ).images[0]
        painted = diffusion.to_bytes(np.asarray(made), (height, width, 3), type(self._pipe).__name__)
        media.write_png(out, references.as_painted(painted, request.geometry))
        return Report()


def _usable(picture_HWC: Image) -> Image:
    h, w = picture_HWC.shape[:2]
    if max(h, w) > LONGEST * min(h, w):
        raise BadInput(f"a picture is {w}×{h}; FLUX.2 takes sides of up to {LONGEST}:1, crop it", "picture_size")
    scaled = pictures.within_area(picture_HWC, REFERENCE_PIXELS, MULTIPLE)
    if min(scaled.shape[:2]) < SMALLEST_PX:
        raise BadInput(f"a picture is {w}×{h}; FLUX.2 takes sides from {SMALLEST_PX} px on, give a larger one", "picture_size")
    return scaled

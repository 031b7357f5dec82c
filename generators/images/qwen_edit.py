"""Qwen-Image-Edit-2509 through diffusers: one picture painted from several references, "Picture 1", "Picture 2" …"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field

from generators import base, diffusion
from generators.base import Capabilities, ImageGenerator, ImageRequest, Report
from generators.images import references
from manifests import media

MULTIPLE = 16
"""8 for the VAE, 2 for its patches; the pipeline rounds anything else down without a word"""


class QwenEditOptions(diffusion.DiffusionOptions):
    """What a recipe may set. The defaults are the published ones."""

    weights: str = "hf:Qwen/Qwen-Image-Edit-2509"
    steps: int = Field(default=50, ge=1, le=200)
    true_cfg: float = Field(default=4.0, ge=1, le=20)
    """guidance against the negative prompt: each step runs twice. 1: no guidance, the negative prompt is not used"""
    pixels: int | None = Field(default=1024 * 1024, ge=4096, le=4 * 1024 * 1024)
    """area that is painted, in the geometry's proportions, then scaled to it; null: the geometry itself"""


class QwenEdit(ImageGenerator):
    """Paints a character from its picture, and from pictures of clothing and scene where given."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"image"}), gpus=1, roles=frozenset(references.ROLES), code_licence="Apache-2.0", weights_licence="Apache-2.0"
    )
    options_type: ClassVar[type[base.Options]] = QwenEditOptions
    requires: ClassVar[tuple[str, ...]] = diffusion.REQUIRES

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        return diffusion.without_gpu(cls.capabilities, options)

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """A folder of weights counts by what lies in it."""
        return diffusion.keyed(options)

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._pipe: Any = None

    def setup(self) -> None:
        """Load the pipeline. Raises as `diffusion.load`."""
        if self._pipe is None:
            self._pipe = diffusion.load("QwenImageEditPlusPipeline", cast(QwenEditOptions, self.options))

    def validate(self, request: ImageRequest) -> None:
        super().validate(request)
        references.roles_of(request)

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size. Raises BadInput as `validate`, BadOutput."""
        self.validate(request)
        self.setup()
        options = cast(QwenEditOptions, self.options)
        height, width = references.working_size(request.geometry, options.pixels, MULTIPLE)
        made = self._pipe(
            image=diffusion.to_pil(references.references(request)),
            # The pipeline itself puts "Picture 1:" and so on before the images; the prompt only has to use the names.
            prompt=references.told(request, "picture"),
            # Guidance is silently left out where there is no negative prompt at all.
            negative_prompt=(request.negative or " ") if options.true_cfg > 1 else None,
            true_cfg_scale=options.true_cfg,
            # Without a size it follows the last picture, which is the scene or the clothing.
            height=height,
            width=width,
            num_inference_steps=options.steps,
            generator=diffusion.seeded(request.seed),
            output_type="np",
        ).images[0]
        painted = diffusion.to_bytes(np.asarray(made), (height, width, 3), "QwenImageEditPlusPipeline")
        media.write_png(out, references.as_painted(painted, request.geometry))
        return Report()

"""Wan2.2-Animate 14B through diffusers: one person, animation and replacement, clips of any length in overlapping segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field

from generators import base, diffusion
from generators.base import Capabilities, Report, VideoRequest
from generators.videos import wan_animate_inputs
from generators.videos.wan_animate_inputs import FPS, Animated, AnimateOptions
from manifests import media

PROMPT = "A person moves in a video."
"""where a recipe gives none: the published tool passes one fixed sentence too"""


class WanAnimateOptions(AnimateOptions, diffusion.DiffusionOptions):
    """What a recipe may set. The defaults are the published ones."""

    weights: str = "hf:Wan-AI/Wan2.2-Animate-14B-Diffusers"
    fps: float = Field(default=FPS, gt=0, le=120)
    """the rate the model works at; it was trained at 30"""


class WanAnimate(Animated):
    """A painted character moves like the clip's person, in its own scene or in the clip's."""

    options_type: ClassVar[type[base.Options]] = WanAnimateOptions
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
        self._pipe: Any = None

    def setup(self) -> None:
        """Load the pipeline, and what reads the painted picture. Raises as `diffusion.load`."""
        if self._pipe is None:
            self._tracker.setup()
            # Its authors run the VAE in float32: bfloat16 shows as banding.
            self._pipe = diffusion.load("WanAnimatePipeline", cast(WanAnimateOptions, self.options), kept_in_float32=("vae",))

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Write the performance at the geometry's size and the model's rate. `prepare` comes first. Raises BadInput, BadOutput."""
        self.setup()
        options, g, segments = cast(WanAnimateOptions, self.options), request.geometry, self.segments(request)
        videos = {name: media.read_frames(path)[0] for name, path in self.given(request).items()}
        made = self._pipe(
            image=diffusion.to_pil([wan_animate_inputs.reference(request)])[0],
            **{f"{name}_video": diffusion.to_pil(frames) for name, frames in videos.items()},
            prompt=request.prompt or PROMPT,
            height=g.height,
            width=g.width,
            segment_frame_length=segments.length,
            num_inference_steps=options.steps,
            mode="replace" if request.mode == "replacement" else "animate",
            prev_segment_conditioning_frames=segments.overlap,
            guidance_scale=options.guidance,
            generator=diffusion.seeded(request.seed),
            output_type="np",
        ).frames[0]
        frames = diffusion.to_bytes(np.asarray(made), (segments.frames, g.height, g.width, 3), "WanAnimatePipeline")
        media.write_video(out, frames, options.fps)
        return Report(reasons=self.reasons(request))

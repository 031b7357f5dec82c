"""Two people side by side, one of whom rises while the other sinks; which one, only the driving video tells.

In half of the scenes the driving video shows the two on swapped sides, so that place alone does not tell whose motion is whose: the
binding slots do. Everything is made of coloured squares, 9 frames of 64×64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from factory.trainer.flow import Batch
from factory.trainer.masks28 import halved, mask_28
from factory.trainer.model import Inputs
from factory.trainer.positions import positions
from factory.trainer.vae import BlockTransformStandIn, to_pixels
from manifests import masks

SIDE, FRAMES, HALF = 64, 9, 10
PLACES = (16, 48)
VAE = BlockTransformStandIn()


@dataclass(frozen=True, eq=False)
class Scene:
    """Latents and masks; `opposite` is the target in which the two have each other's motion."""

    target: Tensor
    opposite: Tensor
    driving: Tensor
    reference: Tensor
    driving_mask: Tensor
    driving_mask_unbound: Tensor
    reference_mask: Tensor
    reference_mask_unbound: Tensor


def scene(rng: np.random.Generator) -> Scene:
    """One at random."""
    colours, grounds = rng.integers(0, 256, (4, 3)), rng.integers(60, 196, (2, 3))
    rises, swapped = int(rng.integers(2)), bool(rng.integers(2))
    places = PLACES[::-1] if swapped else PLACES
    target, opposite = (_video(PLACES, who, colours[:2], grounds[0]) for who in (rises, 1 - rises))
    driving = _video(places, rises, colours[2:], grounds[1])
    inside_PTHW = _inside(places, rises)
    still_PTHW = _inside(PLACES, rises)[:, :1]
    slots = masks.assign_slots([40.0, 40.0])

    def mask(inside: np.ndarray, side: masks.Side, bound: bool) -> Tensor:
        return mask_28(masks.paint(inside, slots if bound else (0, 0), "animation", side), half=side == "driving")

    def latents(frames_THWC: np.ndarray) -> Tensor:
        return VAE.encode(to_pixels(frames_THWC))

    return Scene(
        latents(target), latents(opposite), VAE.encode(to_pixels(halved(driving))), latents(target[:1]),
        mask(inside_PTHW, "driving", True), mask(inside_PTHW, "driving", False),
        mask(still_PTHW, "reference", True), mask(still_PTHW, "reference", False),
    )  # fmt: skip


def _inside(places: tuple[int, ...], rises: int) -> np.ndarray:
    """Silhouettes (P, T, H, W); two pixels a frame."""
    inside_PTHW = np.zeros((2, FRAMES, SIDE, SIDE), bool)
    for p, x in enumerate(places):
        for t in range(FRAMES):
            y = SIDE // 2 + (-2 if p == rises else 2) * t
            inside_PTHW[p, t, max(0, y - HALF) : y + HALF, x - HALF : x + HALF] = True
    return inside_PTHW


def _video(places: tuple[int, ...], rises: int, colours: np.ndarray, ground: np.ndarray) -> np.ndarray:
    frames_THWC = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    frames_THWC[:] = ground
    for inside_THW, colour in zip(_inside(places, rises), colours, strict=True):
        frames_THWC[inside_THW] = colour
    return frames_THWC


def batch(scenes: list[Scene], noise: Tensor, sigma_B: Tensor, bound: bool) -> Batch:
    """Scenes at a noise and σ; without bound slots, everybody has the first one."""
    video = torch.stack([s.target for s in scenes])
    sigma = sigma_B.view(-1, 1, 1, 1, 1)
    driving_mask = torch.stack([s.driving_mask if bound else s.driving_mask_unbound for s in scenes])
    reference_mask = torch.stack([s.reference_mask if bound else s.reference_mask_unbound for s in scenes])
    inputs = Inputs(
        noisy_B20THW=_marked((1 - sigma) * video + sigma * noise, 0.0),
        references_B20RHW=_marked(torch.stack([s.reference for s in scenes]), 1.0),
        driving_B20Thw=_marked(torch.stack([s.driving for s in scenes]), 1.0),
        reference_mask_B28SHW=torch.cat([reference_mask, torch.zeros(len(scenes), 28, *video.shape[2:])], 2),
        driving_mask_B28Thw=driving_mask,
        sigma_B=sigma_B,
        words_BLC=torch.zeros(len(scenes), 64, 64),
        picture_BLC=None,
        positions=(positions("animation", 0),) * len(scenes),
    )
    whole = torch.ones_like(video)
    return Batch(inputs, noise - video, whole, 1 - whole, ("animation",) * len(scenes), ("scene",) * len(scenes))


def _marked(latents_B16THW: Tensor, mark: float) -> Tensor:
    return torch.cat([latents_B16THW, torch.full((len(latents_B16THW), 4, *latents_B16THW.shape[2:]), mark)], 1)

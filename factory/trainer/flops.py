"""Analytic operations and token counts of a sample, and how much of a device's peak a run reaches (MFU; Chowdhery et al., 2022).

An operation is an addition or a multiplication; a matrix product of (m, k) and (k, n) takes 2 m k n. Counted are matrix products and
attention, not norms and activations.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.trainer.masks28 import CHANNELS
from factory.trainer.model import MARKED_CHANNELS, ModelConfig
from factory.trainer.positions import PATCH
from factory.trainer.vae import LATENT_CHANNELS

PICTURE_TOKENS = 257
"""of CLIP's features"""
PEAKS = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "B200": 2250e12, "GB200": 2500e12, "L40S": 362e12, "4090": 165e12}
"""dense bfloat16 operations per second, by a part of the device's name, as the maker gives them"""


@dataclass(frozen=True)
class Tokens:
    """Of a sample's sequence."""

    references: int
    video: int
    driving: int

    @property
    def all(self) -> int:
        return self.references + self.video + self.driving


def tokens_of(frames: int, height: int, width: int, references: int = 1) -> Tokens:
    """For a video of so many latent frames and latent cells: 81 frames of 512×896 pixels are (21, 64, 112)."""
    each = (height // PATCH) * (width // PATCH)
    return Tokens(references * each, frames * each, frames * (each // PATCH**2))


def forward_flops(model: ModelConfig, tokens: Tokens) -> dict[str, float]:
    """Of one sample's forward pass: `attention` (self), and everything else as `linear`."""
    n, d = tokens.all, model.dim
    looked_at = model.text_tokens + (PICTURE_TOKENS if model.image_dim else 0)
    block = 2 * n * (4 * d * d + 2 * d * d + 2 * d * model.ffn_dim) + 2 * looked_at * 2 * d * d + 4 * n * looked_at * d
    patches = PATCH * PATCH * d * 2 * (n * MARKED_CHANNELS + n * CHANNELS)
    text = 2 * model.text_tokens * (model.text_dim * d + d * d)
    picture = 2 * PICTURE_TOKENS * (model.image_dim**2 + model.image_dim * d) if model.image_dim else 0
    time = 2 * (model.freq_dim * d + d * d + 6 * d * d)
    head = 2 * tokens.video * d * LATENT_CHANNELS * PATCH * PATCH
    return {"attention": 4.0 * n * n * d * model.layers, "linear": float(block * model.layers + patches + text + picture + time + head)}


def training_flops(model: ModelConfig, tokens: Tokens) -> float:
    """Forward and backward, three times the forward pass. What checkpointing computes again is no useful work and does not count."""
    return 3 * sum(forward_flops(model, tokens).values())


def peak_of(device_name: str) -> float | None:
    """Operations per second of a device that is known by name; none for others, CPUs among them."""
    return next((peak for name, peak in sorted(PEAKS.items(), key=lambda item: -len(item[0])) if name in device_name), None)

"""Pixels to latents and back: Wan's video autoencoder by name, and a stand-in of the same geometry that needs no weights.

Pixels are float32 (3, T, H, W) in [-1, 1], T = 4n + 1, sides multiples of 8; latents float32 (16, n + 1, H/8, W/8), normalised to a
variance of about 1 a channel. One video at a time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from factory.trainer.masks28 import GROUP, STRIDE, latent_frames
from manifests.errors import BadInput

LATENT_CHANNELS = 16


class Vae(Protocol):
    """What encodes and decodes."""

    def encode(self, pixels_3THW: Tensor) -> Tensor:
        """Latents (16, n + 1, H/8, W/8); the same pixels always give the same."""

    def decode(self, latents_16THW: Tensor) -> Tensor:
        """Pixels (3, 4n + 1, H, W), clamped to [-1, 1]."""


def to_pixels(frames_THWC: NDArray[np.uint8] | Tensor) -> Tensor:
    """RGB frames of 0 to 255 as float32 (3, T, H, W) in [-1, 1]."""
    frames = torch.as_tensor(frames_THWC).to(torch.float32)
    return (frames / 127.5 - 1).permute(3, 0, 1, 2).contiguous()


def to_frames(pixels_3THW: Tensor) -> NDArray[np.uint8]:
    """The inverse of `to_pixels`, rounded: uint8 (T, H, W, 3)."""
    levels = ((pixels_3THW.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 3, 0).cpu().numpy())


def checked(pixels_3THW: Tensor) -> tuple[int, int, int]:
    """(T, H, W). Raises BadInput for pixels that have no latents."""
    if pixels_3THW.ndim != 4 or pixels_3THW.shape[0] != 3 or pixels_3THW.shape[2] % STRIDE or pixels_3THW.shape[3] % STRIDE:
        raise BadInput(f"pixels are (3, T, H, W) with sides that are multiples of {STRIDE}, got {tuple(pixels_3THW.shape)}", "bad_size")
    latent_frames(pixels_3THW.shape[1])
    frames, height, width = pixels_3THW.shape[1:]
    return int(frames), int(height), int(width)


# --- without weights

KEPT: tuple[tuple[int, int, int, int], ...] = (
    (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 0), (2, 0, 0, 0), (0, 0, 0, 2), (0, 0, 2, 0), (0, 2, 0, 0),
    (0, 0, 0, 3), (0, 0, 3, 0), (0, 3, 0, 0), (0, 0, 0, 4), (0, 0, 4, 0), (0, 0, 1, 1), (1, 0, 0, 1),
)  # fmt: skip
"""(colour, frequency in time, down, across) of the stand-in's channels: the 16 of the largest variance in the model that MODEL says."""
MODEL = {"space": 0.95, "time": 0.95, "colours": (1.0, 0.08, 0.04)}
"""neighbouring pixels' and frames' correlation in a separable first-order process, and the variance of the three colour axes: usual
figures for natural video, fixed by us"""
SPREAD = (6.81, 1.95, 1.95, 1.93, 1.42, 1.36, 1.07, 1.07, 0.79, 0.74, 0.74, 0.61, 0.58, 0.58, 0.56, 0.55)
"""standard deviation of the channels in that model, for pixels whose brightness axis has one of 0.5; channels are divided by it"""


BASIS_STEPS, PIXEL_STEPS = 2.0**28, 2.0**16
"""The transform is computed in whole numbers of these parts. A sum of 768 products stays below 2^53, so float64 holds it exactly and no
order of adding up (threads, processors, alignment) shows in the result."""


class BlockTransformStandIn:
    """No learned model: a cosine transform of blocks of 4×8×8 pixels in an opponent colour space, of which 16 coefficients are kept.

    It has the geometry of Wan's autoencoder (16 channels, strides 4, 8, 8; the first frame alone), is deterministic, loses detail and can
    be decoded. So everything around an autoencoder runs where no weights are; a model that was trained on its latents is of use with it
    alone.
    """

    def __init__(self) -> None:
        self._basis = torch.from_numpy(np.rint(_basis() * BASIS_STEPS))
        self._spread = torch.tensor(SPREAD, dtype=torch.float64)[:, None]

    def encode(self, pixels_3THW: Tensor) -> Tensor:
        """See `Vae.encode`."""
        frames, height, width = checked(pixels_3THW)
        h, w = height // STRIDE, width // STRIDE
        out = torch.empty(LATENT_CHANNELS, latent_frames(frames), h, w)
        for n in range(out.shape[1]):
            group = pixels_3THW[:, :1].expand(-1, GROUP, -1, -1) if n == 0 else pixels_3THW[:, GROUP * n - 3 : GROUP * n + 1]
            parts = (group.to(torch.float64) * PIXEL_STEPS).round()
            blocks = parts.reshape(3, GROUP, h, STRIDE, w, STRIDE).permute(2, 4, 0, 1, 3, 5).reshape(h * w, -1)
            sums = (self._basis @ blocks.T) / (BASIS_STEPS * PIXEL_STEPS)
            out[:, n] = (sums / self._spread).reshape(LATENT_CHANNELS, h, w)
        return out

    def decode(self, latents_16THW: Tensor) -> Tensor:
        """See `Vae.decode`."""
        _, groups, h, w = latents_16THW.shape
        out = torch.empty(3, GROUP * (groups - 1) + 1, h * STRIDE, w * STRIDE)
        for n in range(groups):
            parts = (latents_16THW[:, n].to(torch.float64).reshape(LATENT_CHANNELS, -1) * self._spread * PIXEL_STEPS).round()
            blocks = (parts.T @ self._basis) / (BASIS_STEPS * PIXEL_STEPS)
            group = blocks.reshape(h, w, 3, GROUP, STRIDE, STRIDE).permute(2, 3, 0, 4, 1, 5).reshape(3, GROUP, h * STRIDE, w * STRIDE)
            if n == 0:
                out[:, 0] = group.mean(1)
            else:
                out[:, GROUP * n - 3 : GROUP * n + 1] = group
        return out.clamp(-1, 1)


def _basis() -> NDArray[np.float64]:
    """The kept rows of the orthonormal transform: (16, 3 · 4 · 8 · 8)."""
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    time, side = cosines(GROUP), cosines(STRIDE)
    return np.stack([np.einsum("c,t,y,x->ctyx", colours[c], time[t], side[y], side[x]).ravel() for c, t, y, x in KEPT])


def cosines(size: int) -> NDArray[np.float64]:
    """The orthonormal type-II cosine transform, (frequency, place)."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    out = np.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2 / size)
    out[0] /= math.sqrt(2)
    return np.asarray(out)


# --- with weights


class WanVae:
    """diffusers' `AutoencoderKLWan` from a folder (its own, or one that holds it as `vae`). Latents are the posterior's mode, normalised
    by the mean and deviation of its configuration."""

    def __init__(self, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Raises BadInput when the folder holds no such model of 16 channels and strides 4, 8, 8."""
        from diffusers import AutoencoderKLWan

        place = Path(folder)
        place = place / "vae" if (place / "vae" / "config.json").is_file() else place
        if not (place / "config.json").is_file():
            raise BadInput(f"{folder} holds no AutoencoderKLWan (no config.json); give the folder that diffusers' save_pretrained wrote")
        self._model: Any = AutoencoderKLWan.from_pretrained(place, torch_dtype=dtype).to(device).eval().requires_grad_(False)
        config = self._model.config
        strides = 2 ** sum(config.temperal_downsample), 2 ** (len(config.dim_mult) - 1)
        if (config.z_dim, *strides) != (LATENT_CHANNELS, GROUP, STRIDE):
            raise BadInput(f"{folder} has {config.z_dim} channels and strides {strides}; SCAIL-2 takes Wan2.1's, 16 channels and (4, 8)")
        self._device, self._dtype = device, dtype
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )

    def encode(self, pixels_3THW: Tensor) -> Tensor:
        """See `Vae.encode`."""
        checked(pixels_3THW)
        with torch.no_grad():
            mode: Tensor = self._model.encode(pixels_3THW[None].to(self._device, self._dtype)).latent_dist.mode()[0]
        return (mode.float().cpu() - self._mean) / self._std

    def decode(self, latents_16THW: Tensor) -> Tensor:
        """See `Vae.decode`."""
        latents = latents_16THW.float().cpu() * self._std + self._mean
        with torch.no_grad():
            pixels: Tensor = self._model.decode(latents[None].to(self._device, self._dtype)).sample[0]
        return pixels.float().cpu().clamp(-1, 1)

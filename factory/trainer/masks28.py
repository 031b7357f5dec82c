"""Colour masks as the model's 28 channels, and boxes as latent masks. No VAE is involved. Formulas: SCAIL-2 (arXiv 2606.10804) and its
published implementation.

Channel 7 · g + p is plane p (white, red, green, blue, yellow, magenta, cyan) of the g-th pixel frame in a latent frame's group of four.
People who share a binding slot share a plane. Black has no plane: all seven are 0 there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manifests.errors import BadInput
from manifests.records import Box

PLANES: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))
"""which of red, green and blue are on: white, red, green, blue, yellow, magenta, cyan"""
ON_ABOVE = 225.0
"""a channel is on when it is greater than this, of 255"""
GROUP = 4
"""pixel frames of a latent frame; the first latent frame has one of them, four times"""
STRIDE = 8
"""pixels of a latent cell's side"""
CHANNELS = GROUP * len(PLANES)
BOX_CHANNELS = 16


def latent_frames(frames: int) -> int:
    """Latent frames of 4n + 1 pixel frames: n + 1. Raises BadInput for another count."""
    if frames < 1 or frames % GROUP != 1:
        raise BadInput(f"got {frames} frames; a video has 4n + 1 of them (1, 5, 9, …, 81)", "bad_frames")
    return (frames - 1) // GROUP + 1


def latent_side(pixels: int) -> int:
    """Latent cells of a side, by three halvings that round up."""
    for _ in range(3):
        pixels = -(-pixels // 2)
    return pixels


def halved(frames_THWC: NDArray[np.uint8]) -> Tensor:
    """Frames at half the height and width, each pixel the mean of 2×2: float32 (T, H/2, W/2, C), 0 to 255. Sides must be even."""
    frames, height, width, channels = frames_THWC.shape
    if height % 2 or width % 2:
        raise BadInput(f"a driving video of {width}×{height} px can't be halved; its sides must be multiples of 32", "bad_size")
    quads = torch.from_numpy(np.ascontiguousarray(frames_THWC)).reshape(frames, height // 2, 2, width // 2, 2, channels)
    return quads.to(torch.float32).mean((2, 4))


def planes(mask_THWC: Tensor) -> Tensor:
    """The seven binary planes, float32 (T, 7, H, W), of an RGB mask of 0 to 255. At most one is 1 in a pixel."""
    on_T3HW = (mask_THWC.permute(0, 3, 1, 2) > ON_ABOVE).to(torch.uint8)
    code_THW = on_T3HW[:, 0] * 4 + on_T3HW[:, 1] * 2 + on_T3HW[:, 2]
    wanted_7 = torch.tensor([r * 4 + g * 2 + b for r, g, b in PLANES], dtype=torch.uint8)
    return (code_THW[:, None] == wanted_7[None, :, None, None]).to(torch.float32)


def mask_28(mask_THWC: NDArray[np.uint8], half: bool = False) -> Tensor:
    """A mask video (4n + 1 frames) or picture (1 frame) as float32 (28, n + 1, h, w), values from 0 to 1.

    `half`: a driving mask, halved before it is binarised, so h and w are those of the halved driving video's latents.
    """
    if mask_THWC.dtype != np.uint8 or mask_THWC.ndim != 4 or mask_THWC.shape[-1] != 3:
        raise BadInput(f"a mask is uint8 (T, H, W, 3), got {mask_THWC.dtype} {mask_THWC.shape}", "not_a_mask")
    groups = latent_frames(len(mask_THWC))
    pixels_THWC = halved(mask_THWC) if half else torch.from_numpy(np.ascontiguousarray(mask_THWC))
    size = latent_side(pixels_THWC.shape[1]), latent_side(pixels_THWC.shape[2])
    # A frame at a time: the planes of a whole video are 28 bytes a pixel.
    cells_T7hw = torch.cat([functional.interpolate(planes(frame[None]), size=size, mode="area") for frame in pixels_THWC])
    grouped = torch.cat([cells_T7hw[:1].expand(GROUP, -1, -1, -1), cells_T7hw[1:]])
    return grouped.reshape(groups, CHANNELS, *size).transpose(0, 1).contiguous()


def boxes_mask(boxes_T: Sequence[Sequence[Box]], frames: int, height: int, width: int) -> Tensor:
    """Boxes of pixel frames as a latent mask, float32 (n + 1, 16, H/8, W/8): 1 in every cell that a box of any of its frames touches.

    `boxes_T` has an entry a frame, or none at all. The 16 channels are equal, as published latent shards have them.
    """
    out_Thw = torch.zeros(latent_frames(frames), latent_side(height), latent_side(width))
    for t, boxes in enumerate(boxes_T):
        for x0, y0, x1, y1 in boxes:
            rows, columns = _touched(y0, y1, out_Thw.shape[1]), _touched(x0, x1, out_Thw.shape[2])
            out_Thw[-(-t // GROUP), rows, columns] = 1
    return out_Thw[:, None].expand(-1, BOX_CHANNELS, -1, -1).contiguous()


def _touched(low: float, high: float, cells: int) -> slice:
    """Cells whose inside lies partly between two pixel coordinates; none where they do not grow."""
    if high <= low:
        return slice(0, 0)
    return slice(min(max(int(low // STRIDE), 0), cells), min(max(int(-(-high // STRIDE)), 0), cells))

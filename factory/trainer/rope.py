"""Rotary frequencies of the whole sequence, by mode. Layout of the axes and base of the frequencies: Wan2.1; positions: positions.py.

A head's channels are split over time, height and width; pair i of an axis with d channels turns by position · 10000^(-2i/d).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from factory.trainer.positions import PATCH, Offset, Positions, grid

BASE = 10000.0


class Rotary(NamedTuple):
    """What the attention of every block is given."""

    cos_BN1D: Tensor
    """float32, D = half a head's channels; B may be 1"""
    sin_BN1D: Tensor
    tokens: int
    """of the whole sequence, before any padding"""


def axis_channels(head_channels: int) -> tuple[int, int, int]:
    """How many of a head's channels turn with time, height and width."""
    side = 2 * (head_channels // 6)
    return head_channels - 2 * side, side, side


def tables(offset: Offset, frames: int, height: int, width: int, head_channels: int) -> tuple[Tensor, Tensor]:
    """cos and sin of a group of tokens in row order, float64 (frames · height · width, head_channels / 2). Sizes are in tokens."""
    positions_N3 = grid(offset, frames, height, width).to(torch.float64)
    angles = []
    for axis, channels in enumerate(axis_channels(head_channels)):
        speeds = BASE ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        angles.append(positions_N3[:, axis, None] * speeds)
    angles_ND = torch.cat(angles, 1)
    return angles_ND.cos(), angles_ND.sin()


@functools.lru_cache(maxsize=32)
def sequence(where: Positions, frames: int, height: int, width: int, head_channels: int) -> tuple[Tensor, Tensor]:
    """cos and sin of [additional references; reference; video; driving], float32 (N, head_channels / 2).

    Sizes are the video's, in tokens. A driving token stands for 2×2 places of the video's grid: its cos and sin are the means of theirs
    (of a length below 1, as published weights expect).
    """
    pictures = [tables(offset, 1, height, width, head_channels) for offset in (*where.additional, where.reference)]
    video = tables(where.video, frames, height, width, head_channels)
    driving = tuple(
        table.reshape(frames, height // PATCH, PATCH, width // PATCH, PATCH, -1).mean((2, 4)).flatten(0, 2)
        for table in tables(where.driving, frames, height, width, head_channels)
    )
    cos_ND, sin_ND = (torch.cat(parts).to(torch.float32) for parts in zip(*pictures, video, driving, strict=True))
    return cos_ND, sin_ND


def turned(x_BNHC: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys, turned in pairs of neighbouring channels; computed in float32."""
    even, odd = x_BNHC.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary.cos_BN1D, rotary.sin_BN1D
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x_BNHC.dtype)

"""Where each group of tokens stands in the rotary position embedding, by mode. Figures: SCAIL-2's published implementation.

Positions are (t, h, w) in tokens: one latent frame, 2×2 latent cells. The sequence is [additional references; reference; video; driving].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from manifests.records import Task

Layout = Literal["animation", "replacement"]
Offset = tuple[int, int, int]
APART = 120
"""tokens by which what shall not be seen as the same place is moved away; more than any side has"""
PATCH = 2
"""latent cells of a token's side"""


def layout_of(task: Task) -> Layout:
    """A pose pair is an animation that is driven by a rendering."""
    return "replacement" if task == "replacement" else "animation"


@dataclass(frozen=True)
class Positions:
    """First position (t, h, w) of every group of tokens."""

    additional: tuple[Offset, ...]
    """one a picture"""
    reference: Offset
    video: Offset
    driving: Offset
    """of the full-resolution grid: the driving tokens' frequencies are the 2×2 average of that grid's"""


def positions(layout: Layout, additional: int) -> Positions:
    """The offsets for so many additional references.

    In an animation the reference comes before the video, at its place: its scene is kept. In a replacement the driving scene is: the
    reference is moved away.
    """
    away = APART if layout == "replacement" else 0
    start = additional + (layout == "animation")
    return Positions(
        additional=tuple((i, away, 0) for i in range(additional)),
        reference=(additional, away, 0),
        video=(start, 0, 0),
        driving=(start, 0, APART),
    )


def grid(offset: Offset, frames: int, height: int, width: int) -> Tensor:
    """Positions of a group's tokens in row order, int64 (frames · height · width, 3). Sizes are in tokens."""
    axes = (torch.arange(size) + first for first, size in zip(offset, (frames, height, width), strict=True))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

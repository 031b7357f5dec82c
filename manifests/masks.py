"""What a colour mask means: the only place that knows the palette.

A mask is an RGB picture or video. Per pixel, black says "the background here shall not be seen", white "it shall be seen", and each of
six colours "this belongs to the character of that binding slot". The eight are the corners of the RGB cube, so a pixel is legal when
each of its channels is 0 or 255. Masks are written lossless: one blurred edge would be another character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import BadInput
from manifests.records import Task

Frames = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Side = Literal["driving", "reference"]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
SLOTS: tuple[Colour, ...] = ((0, 0, 255), (255, 0, 0), (0, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 0))
"""slot number → colour: blue, red, green, magenta, cyan, yellow"""
THRESHOLD = 128
"""soft silhouettes are inside from here on, of 255"""


def _code(colour: Colour) -> int:
    """A corner of the RGB cube as a number from 0 to 7."""
    return (colour[0] > 127) * 4 + (colour[1] > 127) * 2 + (colour[2] > 127)


_SLOT_OF_CODE = {_code(colour): slot for slot, colour in enumerate(SLOTS)}


def background(task: Task, which: Side) -> Colour:
    """The background's colour. Whoever keeps the environment is white: the reference, but in a replacement the driving video."""
    return WHITE if (which == "driving") == (task == "replacement") else BLACK


def assign_slots(heights: Sequence[float]) -> tuple[int, ...]:
    """A slot for each person, given by first appearance, then left to right, with their heights in pixels.

    Up to six people get slots 0, 1, 2 … in that order. Of more, the five tallest (nearest) keep a slot each, in that order, and all the
    distant ones share the sixth. Call it once a pair and use the answer for every mask of the pair.
    """
    if len(heights) <= len(SLOTS):
        return tuple(range(len(heights)))
    own = len(SLOTS) - 1
    near = sorted(sorted(range(len(heights)), key=lambda i: (-heights[i], i))[:own])
    return tuple(near.index(i) if i in near else own for i in range(len(heights)))


def paint(
    masks_PTHW: npt.NDArray[np.uint8] | npt.NDArray[np.bool_],
    slots: Sequence[int],
    task: Task,
    which: Side,
    depth_PT: npt.NDArray[np.floating] | None = None,
) -> Frames:
    """Draw people's silhouettes in their slots' colours: frames_THWC, uint8 RGB.

    `masks_PTHW` is boolean or soft (inside from 128 on); `slots` gives a slot per person. Where people overlap, the later one in the list
    paints over the earlier one. With `depth_PT` (distance from the camera, any unit) each frame is painted from far to near instead, so
    the nearer person is on top; equal distances and unknown ones (NaN, taken for far) keep the order of the list.
    Raises ValueError for shapes or slots that do not fit.
    """
    people, frames = _checked(masks_PTHW, slots, depth_PT)
    inside_PTHW = masks_PTHW if masks_PTHW.dtype == np.bool_ else masks_PTHW >= THRESHOLD
    out_THWC = np.empty((*masks_PTHW.shape[1:], 3), np.uint8)
    out_THWC[:] = background(task, which)
    for t in range(frames):
        for p in _far_to_near(people, None if depth_PT is None else depth_PT[:, t]):
            out_THWC[t][inside_PTHW[p, t]] = SLOTS[slots[p]]
    return out_THWC


def _far_to_near(people: int, depth_P: npt.NDArray[np.floating] | None) -> list[int]:
    if depth_P is None:
        return list(range(people))
    far = np.where(np.isnan(depth_P), np.inf, depth_P)
    return [int(p) for p in np.argsort(-far, kind="stable")]


def _checked(masks_PTHW: npt.NDArray[np.generic], slots: Sequence[int], depth_PT: npt.NDArray[np.floating] | None) -> tuple[int, int]:
    if masks_PTHW.ndim != 4 or masks_PTHW.dtype not in (np.dtype(bool), np.dtype(np.uint8)):
        raise ValueError(f"expected bool or uint8 masks (P, T, H, W), got {masks_PTHW.dtype} {masks_PTHW.shape}")
    people, frames = masks_PTHW.shape[:2]
    if len(slots) != people or not all(0 <= slot < len(SLOTS) for slot in slots):
        raise ValueError(f"got slots {tuple(slots)} for {people} people; give each one of 0..{len(SLOTS) - 1}")
    if depth_PT is not None and depth_PT.shape != (people, frames):
        raise ValueError(f"expected depths ({people}, {frames}), got {depth_PT.shape}")
    return people, frames


def stray_colours(frames: npt.NDArray[np.uint8], limit: int = 8) -> list[Colour]:
    """Colours outside the palette, in ascending order, at most `limit` of them. `frames` is THWC or HWC."""
    stray = frames[((frames != 0) & (frames != 255)).any(-1)]
    if not len(stray):
        return []
    packed = np.unique(stray.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))[:limit]
    return [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in packed]


def validate_colours(frames: npt.NDArray[np.uint8], task: Task | None = None, which: Side | None = None) -> None:
    """Raise BadInput("stray_colours") when a pixel is outside the palette, or, given task and side, has the other background's colour."""
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise BadInput(f"a mask is uint8 RGB, got {frames.dtype} {frames.shape}", "not_a_mask")
    stray = stray_colours(frames)
    if stray:
        raise BadInput(
            f"the mask has colours outside the palette, such as {stray}; store masks lossless and do not resize them", "stray_colours"
        )
    if task is not None and which is not None:
        wrong = WHITE if background(task, which) == BLACK else BLACK
        if (_codes(frames) == _code(wrong)).any():
            raise BadInput(
                f"the {which} mask of a pair for {task} has a background of {background(task, which)}, found {wrong}", "stray_colours"
            )


def slots_present(frames: npt.NDArray[np.uint8]) -> set[int]:
    """The slots whose colours occur in a legal mask (THWC or HWC). Raises BadInput as `validate_colours`."""
    validate_colours(frames)
    found = np.flatnonzero(np.bincount(_codes(frames).ravel(), minlength=8))
    return {_SLOT_OF_CODE[int(code)] for code in found if int(code) in _SLOT_OF_CODE}


def slot_mask(frames: npt.NDArray[np.uint8], slot: int) -> npt.NDArray[np.bool_]:
    """Where a legal mask shows this slot: THW for THWC, HW for HWC."""
    return np.asarray(_codes(frames) == _code(SLOTS[slot]))


def matte(reference_HWC: Image, mask_HWC: Image) -> Image:
    """The reference on black: only what its mask gives to a slot is kept. A replacement pair's reference must look like this.

    Raises BadInput when the sizes differ (size_mismatch) or the mask is not legal (stray_colours).
    """
    if reference_HWC.shape != mask_HWC.shape:
        raise BadInput(
            f"the reference is {reference_HWC.shape}, its mask {mask_HWC.shape}; make the mask from the reference", "size_mismatch"
        )
    validate_colours(mask_HWC)
    codes_HW = _codes(mask_HWC)
    character_HW1 = ((codes_HW != _code(BLACK)) & (codes_HW != _code(WHITE)))[..., None]
    return np.where(character_HW1, reference_HWC, np.uint8(0)).astype(np.uint8)


def _codes(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    high = frames >> 7
    return np.asarray(high[..., 0] * 4 + high[..., 1] * 2 + high[..., 2], np.uint8)

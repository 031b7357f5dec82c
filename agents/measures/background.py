"""Is the scene the right one? In a replacement it is the clip's, in an animation the reference's, and nothing of the real person is left.

Pictures are compared at reduced size, about every pixel in a window, after one frame was brought to the other's exposure: coding noise,
a slightly softer picture or a little more light are no other scene. Windows are summed up in tiles, so that a change in one place shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from agents.measures.frames import Array, Bools, Bytes, Doubles, Floats, checked_alike, grown, reduced, reduced_masks

SIDE_PX = 192
"""longest side of the pictures compared"""
WINDOW_PX = 7
TILE_PX = 12
RIM = 0.02
"""of the longest side, around people: neither masks nor silhouettes are exact"""
THIN_RIM = 0.01
"""the same where a wide one would leave nothing to look at"""
AROUND = 0.08
"""of the longest side: so far beside people, halos are looked for, and shadows and belongings may rightly have changed"""
OPEN_LEAST = 0.25
"""share of a tile's pixels that must be open to view"""
OPEN_FRAMES = 3
"""frames in which a tile must be open"""
UNUSUAL = 80.0
"""percentile over the frames: what a tile looks like at its worse times"""
SSIM_C2 = (0.03 * 255) ** 2
DARK = 8.0
"""levels added before ratios are taken"""
EXPOSURE_MOST = 0.12
"""exposure is made up for up to this share"""
APART = 18.0
"""levels (root mean square) by which two pictures must differ in a place, to say which of them is seen there"""
STILL = 6.0
"""levels: median distance of the clip's frames from their own median picture, above which the camera moves"""
SCENE_FRAMES = 12
"""that the clip's empty scene is the median of"""
BARE_LEAST = 40
"""pixels of the real person's silhouette, over all frames, that the character leaves bare, to judge a place"""
BARE_SHARE = 0.004
"""of the whole silhouette that must be bare: two silhouettes of the same person differ by less, a hand is more"""


@dataclass(frozen=True)
class Kept:
    """How much of a scene is there. NaN where people hide it all."""

    alike: float
    """mean structure term of SSIM (Wang et al. 2004), -1 to 1; 1 is the same scene"""
    alike_worst: float
    """of the worst tile at its worse times, away from people"""
    gap: float
    """mean difference of local colour, levels, 0 to 255"""
    gap_worst: float
    """of the worst tile at its worse times, away from people"""


@dataclass(frozen=True)
class ClipLeft:
    """How much of the clip shows where the reference's scene is expected: 0 nothing, 1 all of it, about 0.5 where both are mixed.

    Least-squares opacity, times the cosine between what is unexpected and what the clip would add, so that a third scene counts little. NaN
    where the two scenes look too much alike to tell."""

    mean: float
    worst: float
    """of the worst tile at its worse times, away from people"""
    near: float
    """mean close around the people: a halo"""
    told: float
    """share of the open area in which it can be told, 0 to 1"""


@dataclass(frozen=True)
class PersonLeft:
    """How much of the real person shows beside the character: least-squares opacity, 0 clean, 1 all there (a little below 0 by chance).

    NaN where the character covers the real person, or the person looks like the scene behind."""

    mean: float
    worst: float
    """of the worst tile over all frames: a leg left standing"""
    bare: float
    """share of the real person's silhouette that the character leaves bare, 0 to 1"""


def scene_kept(frames_THWC: Bytes, hidden_THW: Bools, clip_THWC: Bytes) -> Kept:
    """Replacement: the scene outside `hidden` (silhouettes of the characters and of the people they replace) against the clip's.

    People who stay are part of the scene. Raises ValueError when the three differ in frames or size.
    """
    checked_alike(frames_THWC, hidden_THW, clip_THWC)
    small, hidden = _small(frames_THWC, hidden_THW)
    return _kept(small, hidden, _floats(clip_THWC))


def scene_shown(frames_THWC: Bytes, people_THW: Bools, scene_HWC: Bytes, known_HW: Bools) -> Kept:
    """Animation: the scene outside the people against the reference's where that is known. The camera must stand still.

    The reference is the painted picture without the character (known everywhere), or the painted picture itself, known outside its
    character. Raises ValueError when the sizes differ.
    """
    checked_alike(frames_THWC, people_THW, *(_every(x, len(frames_THWC)) for x in (scene_HWC, known_HW)))
    small, hidden = _small(frames_THWC, people_THW | ~known_HW)
    return _kept(small, hidden, _every(_floats(scene_HWC[None])[0], len(small)))


def clip_left(frames_THWC: Bytes, people_THW: Bools, clip_THWC: Bytes, scene_HWC: Bytes, known_HW: Bools) -> ClipLeft:
    """Animation: how much of the clip, its real people included, shows outside the synthetic people. Scene as in `scene_shown`.

    Raises ValueError when the sizes differ.
    """
    checked_alike(frames_THWC, people_THW, clip_THWC, *(_every(x, len(frames_THWC)) for x in (scene_HWC, known_HW)))
    small, people = _small(frames_THWC, people_THW)
    clip, scene = _floats(clip_THWC), _floats(scene_HWC[None])[0]
    known, side = ~reduced_masks(~known_HW[None], scene.shape[:2])[0], max(scene.shape)
    found, far, near, told = [], [], [], []
    for t in range(len(small)):
        open_HW, around = ~grown(people[t], RIM * side) & known, grown(people[t], AROUND * side)
        expected = _in_light(scene, small[t], open_HW)
        unexpected, added = small[t] - expected, clip[t] - expected
        found.append(_opacity(unexpected, added, open_HW))
        far.append(_opacity(unexpected, added, open_HW & ~around))
        near.append(_opacity(unexpected, added, open_HW & around))
        told.append(np.isfinite(found[-1]).sum() / max(1, np.isfinite(_tiled(unexpected[..., 0], open_HW)).sum()))
    return ClipLeft(_mean(np.stack(found)), _worst(np.stack(far)), _mean(np.stack(near)), float(np.mean(told)))


def person_left(frames_THWC: Bytes, people_THW: Bools, clip_THWC: Bytes, real_THW: Bools) -> PersonLeft:
    """Replacement: how much of the real people (`real`) shows where the characters (`people`) do not cover them.

    Expected there is the clip's scene as other frames show it, while the camera stands still; where none does, only structure finer than
    the window is compared. Raises ValueError when the four differ in frames or size.
    """
    checked_alike(frames_THWC, people_THW, clip_THWC, real_THW)
    (small, people), (clip, real) = _small(frames_THWC, people_THW), _small(clip_THWC, real_THW)
    scene, known = _empty_scene(clip, real)
    both, alone, pixels = [], [], []
    for t in range(len(small)):
        bare = real[t] & ~grown(people[t], THIN_RIM * max(real.shape[1:]))
        if not bare.any():
            continue
        unexpected, added = small[t] - scene, clip[t] - scene
        unexpected[~known], added[~known] = _fine(small[t], bare)[~known], _fine(clip[t], bare)[~known]
        both.append(_tile_sums((unexpected * added).mean(2), bare))
        alone.append(_tile_sums((added * added).mean(2), bare))
        pixels.append(_tile_sums(bare, bare))
    share = float(sum(p.sum() for p in pixels) / max(1, np.count_nonzero(real)))
    if share < BARE_SHARE:
        return PersonLeft(float("nan"), float("nan"), share)
    both_n, alone_n, pixels_n = (np.sum(x, axis=0) for x in (both, alone, pixels))
    tell = (pixels_n >= BARE_LEAST) & (alone_n > APART**2 * pixels_n)
    if not tell.any():
        return PersonLeft(float("nan"), float("nan"), share)
    return PersonLeft(float(both_n[tell].sum() / alone_n[tell].sum()), float((both_n[tell] / alone_n[tell]).max()), share)


def _floats(frames_THWC: Bytes) -> Floats:
    return reduced(frames_THWC, SIDE_PX).astype(np.float32)


def _small(frames_THWC: Bytes, masks_THW: Bools) -> tuple[Floats, Bools]:
    small = _floats(frames_THWC)
    return small, reduced_masks(masks_THW, small.shape[1:3])


def _every(one: Array, frames: int) -> Array:
    """The same picture for all frames."""
    return np.broadcast_to(one, (frames, *one.shape))


def _kept(frames_THWC: Floats, hidden_THW: Bools, others_THWC: Floats) -> Kept:
    side = max(hidden_THW.shape[1:])
    alike, gap, alike_far, gap_far = [], [], [], []
    for frame, other, hidden in zip(frames_THWC, others_THWC, hidden_THW, strict=True):
        open_HW, far = ~grown(hidden, RIM * side), ~grown(hidden, AROUND * side)
        structure, colour = _compared(_in_light(frame, other, open_HW), other, open_HW)
        alike.append(_tiled(structure, open_HW))
        gap.append(_tiled(colour, open_HW))
        alike_far.append(_tiled(structure, far))
        gap_far.append(_tiled(colour, far))
    return Kept(_mean(np.stack(alike)), -_worst(-np.stack(alike_far)), _mean(np.stack(gap)), _worst(np.stack(gap_far)))


def _empty_scene(clip_THWC: Floats, hidden_THW: Bools) -> tuple[Floats, Bools]:
    """The clip's median picture without its people, and where it is known; nowhere when the camera moves."""
    picked = np.unique(np.linspace(0, len(clip_THWC) - 1, SCENE_FRAMES).astype(int))
    hidden = np.stack([grown(hidden_THW[t], RIM * max(hidden_THW.shape[1:])) for t in picked])
    known = (~hidden).sum(0) >= min(OPEN_FRAMES, len(picked))
    scene = np.zeros(clip_THWC.shape[1:], np.float32)
    if not known.any():
        return scene, known
    seen = np.where(hidden[:, known, None], np.float32(np.nan), clip_THWC[picked][:, known])
    scene[known] = np.nanmedian(seen, axis=0)
    steady = float(np.nanmedian(np.abs(seen - scene[known]))) <= STILL
    return scene, known & steady


def _fine(image: Floats, where: Bools) -> Floats:
    return np.asarray(image - _local_mean(image, where.astype(np.float32)))


def _opacity(unexpected: Floats, added: Floats, where: Bools) -> Doubles:
    """`ClipLeft` of every tile, flat; NaN where it can't be told."""
    both = _tiled((unexpected * added).mean(2), where)
    alone, all_of_it = _tiled((added * added).mean(2), where), _tiled((unexpected * unexpected).mean(2), where)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = both / alone * np.clip(both / np.sqrt(alone * np.maximum(all_of_it, 1e-6)), 0, 1)
        return np.where(alone > APART**2, np.clip(share, 0, 1), np.nan)


def _in_light(image: Floats, other: Floats, where_HW: Bools) -> Floats:
    """A picture in another's light: the median ratio of each channel."""
    a, b = image[where_HW], other[where_HW]
    if len(a) < OPEN_LEAST * TILE_PX**2:
        return image
    step = max(1, len(a) // 4000)
    gain = np.clip(np.median((b[::step] + DARK) / (a[::step] + DARK), axis=0), 1 - EXPOSURE_MOST, 1 + EXPOSURE_MOST)
    return np.asarray((image + DARK) * gain.astype(np.float32) - DARK)


def _compared(image: Floats, other: Floats, open_HW: Bools) -> tuple[Floats, Floats]:
    """About each pixel: the structure term of SSIM on grey levels, and the difference of the mean colour in levels."""
    weight = open_HW.astype(np.float32)
    x, y = image.mean(2), other.mean(2)
    terms = _local_mean(np.dstack([x, y, x * x, y * y]), weight)
    cross = _local_mean(x * y, weight)
    variances = [np.maximum(terms[..., k + 2] - terms[..., k] ** 2, 0) for k in range(2)]
    structure = (2 * (cross - terms[..., 0] * terms[..., 1]) + SSIM_C2) / (variances[0] + variances[1] + SSIM_C2)
    gap = np.abs(_local_mean(image - other, weight)).max(2)
    return np.asarray(structure), np.asarray(gap)


def _local_mean(image: Floats, weight_HW: Floats) -> Floats:
    """Mean over the window, of the pixels that count."""
    size = (WINDOW_PX, WINDOW_PX)
    share = np.maximum(cv2.blur(weight_HW, size), 1e-4)
    weighted = image * weight_HW if image.ndim == 2 else image * weight_HW[..., None]
    return np.asarray(cv2.blur(weighted, size) / (share if image.ndim == 2 else share[..., None]))


def _tile_sums(values_HW: Array, where_HW: Bools) -> Doubles:
    """Sum of the chosen pixels of every tile, flat."""
    rows, columns = (np.arange(0, n, TILE_PX) for n in where_HW.shape)
    chosen = np.where(where_HW, values_HW, 0).astype(np.float64)
    return np.asarray(np.add.reduceat(np.add.reduceat(chosen, rows, 0), columns, 1).ravel())


def _tiled(values_HW: Array, where_HW: Bools) -> Doubles:
    """Mean of the chosen pixels of every tile, flat; NaN where they are too few."""
    count = _tile_sums(where_HW, where_HW)
    return np.where(count >= OPEN_LEAST * TILE_PX**2, _tile_sums(values_HW, where_HW) / np.maximum(count, 1), np.nan)


def _mean(values_Tn: Doubles) -> float:
    return float(np.nanmean(values_Tn)) if np.isfinite(values_Tn).any() else float("nan")


def _worst(values_Tn: Doubles) -> float:
    """The largest tile, each at its worse times."""
    enough = values_Tn[:, np.isfinite(values_Tn).sum(0) >= min(OPEN_FRAMES, len(values_Tn))]
    return float(np.nanpercentile(enough, UNUSUAL, axis=0).max()) if enough.size else float("nan")

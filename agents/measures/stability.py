"""Do the pictures hang together over time? Flicker and flow-warped error, each beside the real clip's at the same instants.

Everything is measured along the video's own optical flow, so that a moving person or camera is no change. What comes into sight or goes
out of it is left out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from agents.measures.frames import Array, Bools, Bytes, Doubles, Floats, checked_alike, grown, reduced, reduced_masks

SIDE_PX = 192
"""longest side at which flow is computed"""
RIM = 0.015
"""of the longest side: masks are neither exact nor sharp"""
OCCLUDED = (0.01, 0.5)
"""forward and backward flow disagree by more than this share of their squared lengths plus so many px²: hidden (Sundaram et al. 2010)"""
TILES = 4
"""the scene is also looked at in so many tiles each way: light may flicker in a part of it"""
REGION_LEAST = 60
"""pixels (at the reduced size) that a region needs to say anything"""
PIXELS_MOST = 5000
"""of a region that are looked at: a median of more is no better"""
DARK = 8.0
"""levels added before ratios are taken: in the dark, noise is no change of light"""
WINDOW = 5
"""frames around one over whose median light may not jump: a fade, or a lamp switched on, is no flicker"""
PEAK = 90.0
"""percentile over the frames: a flash in every tenth frame is seen"""
FLAT = 3.0
"""levels of spread under which a region has no contrast that could change"""
NOISE_PCT = 2.0
"""added to both flow-warped errors before their ratio is taken"""
WHOLE, PERSON, SCENE = range(3)


@dataclass(frozen=True)
class Flicker:
    """How far a region's light leaves the median of the frames around, beyond what the real clip does at the same instant.

    Percent of the level, 0 and up: 90th percentile over the frames. NaN where the region is too small in most frames."""

    brightness_pct: float
    contrast_pct: float
    """of the spread of its levels; coarse where the region is small: a turning person changes it by some percent"""
    colour_pct: float
    """the largest of the three channels' against their mean"""


@dataclass(frozen=True)
class Stability:
    """What `stability` finds."""

    whole: Flicker
    person: Flicker
    scene: Flicker
    """outside the people"""
    tile_pct: float
    """brightness or colour of that sixteenth of the scene that flickers most, as in `Flicker`"""
    warp_error_pct: float
    """flow-warped error outside the people: root mean square of the difference along the flow over the spread of levels, percent, median
    over the frames"""
    clip_warp_error_pct: float
    """the real clip's"""
    warp_ratio: float
    """of the two, each plus 2 %: about 1 or less where the scene is as steady as the clip's, 2 and more where textures boil"""


@dataclass(frozen=True)
class _Steps:
    """What changes from each frame to the next, (T - 1, regions, …); NaN where a region is too small."""

    light_NR3: Doubles
    """log ratio of the light per channel"""
    contrast_NR: Doubles
    """log ratio of the spread; of the first three regions only"""
    error_NR: Doubles
    """root mean square difference over the spread; of the first three regions only"""


def stability(frames_THWC: Bytes, people_THW: Bools, clip_THWC: Bytes, clip_people_THW: Bools) -> Stability:
    """Flicker and flow-warped error of a video against the real clip's. Masks: everybody in the video, everybody in the clip.

    Flow-warped error after Lai et al. 2018 (Learning blind video temporal consistency), on grey levels and relative to their spread;
    optical flow by DIS (Kroeger et al. 2016). Raises ValueError when the four differ in frames or size, or hold less than two frames.
    """
    checked_alike(frames_THWC, people_THW, clip_THWC, clip_people_THW)
    if len(frames_THWC) < 2:
        raise ValueError("a single frame can't be unsteady; give two or more")
    own, real = _steps(frames_THWC, people_THW), _steps(clip_THWC, clip_people_THW)
    whole, person, scene = (_flicker(own, real, region) for region in (WHOLE, PERSON, SCENE))
    tiles = [max(_light(own, real, region)) for region in range(SCENE + 1, own.light_NR3.shape[1])]
    errors = [100 * _median(steps.error_NR[:, SCENE]) for steps in (own, real)]
    ratio = (errors[0] + NOISE_PCT) / (errors[1] + NOISE_PCT)
    return Stability(whole, person, scene, max((t for t in tiles if not np.isnan(t)), default=float("nan")), errors[0], errors[1], ratio)


def _steps(frames_THWC: Bytes, people_THW: Bools) -> _Steps:
    small = reduced(frames_THWC, SIDE_PX)
    people = reduced_masks(people_THW, small.shape[1:3])
    greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in small]
    logs = [cv2.log(f.astype(np.float32) + DARK) for f in small]
    height, width = greys[0].shape
    tiles, radius = _tiles(height, width), RIM * max(height, width)
    shape = len(small) - 1, SCENE + 1 + len(tiles)
    out = _Steps(np.full((*shape, 3), np.nan), np.full(shape, np.nan), np.full(shape, np.nan))
    flow = _Flow(height, width)
    for t in range(shape[0]):
        at, seen = flow.between(greys[t], greys[t + 1])
        was = _fetched(people[t].astype(np.uint8), at, cv2.INTER_NEAREST) > 0
        change = logs[t + 1] - _fetched(logs[t], at)
        grey = _fetched(greys[t], at)
        scene = seen & ~grown(people[t + 1] | was, radius)
        for region, where in ((WHOLE, seen), (PERSON, seen & people[t + 1] & was), (SCENE, scene)):
            picked = np.flatnonzero(where)
            if len(picked) >= REGION_LEAST:
                picked = picked[:: max(1, len(picked) // PIXELS_MOST)]
                out.light_NR3[t, region] = _middle(change.reshape(-1, 3)[picked])
                out.contrast_NR[t, region], out.error_NR[t, region] = _spread(grey.ravel()[picked], greys[t + 1].ravel()[picked])
        for region, tile in enumerate(tiles, SCENE + 1):
            if np.count_nonzero(scene[tile]) >= REGION_LEAST:
                out.light_NR3[t, region] = _middle(change[tile][scene[tile]])
    return out


class _Flow:
    """Where each pixel of a frame was in the frame before."""

    def __init__(self, height: int, width: int) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setUseSpatialPropagation(False)  # its outcome depends on the number of threads
        columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        self._grid = np.stack(np.meshgrid(columns, rows), -1)

    def between(self, before_HW: Bytes, after_HW: Bytes) -> tuple[Floats, Bools]:
        """For the pixels of `after` their places in `before` (H, W, 2), and which of them `before` shows too (H, W)."""
        still = np.zeros_like(self._grid)
        back = np.asarray(self._dis.calc(after_HW, before_HW, still.copy()), np.float32)
        forth = np.asarray(self._dis.calc(before_HW, after_HW, still), np.float32)
        at = self._grid + back
        forth = _fetched(forth, at)
        slack = OCCLUDED[0] * (_squared(back) + _squared(forth)) + OCCLUDED[1]
        height, width = before_HW.shape
        x, y = at[..., 0], at[..., 1]
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        return at, np.asarray((_squared(back + forth) < slack) & inside)


def _squared(flow_HW2: Floats) -> Floats:
    return np.asarray(flow_HW2[..., 0] ** 2 + flow_HW2[..., 1] ** 2)


def _middle(values_N3: Floats) -> Doubles:
    """Upper median of each channel."""
    return np.asarray(np.partition(values_N3.T, len(values_N3) // 2)[:, len(values_N3) // 2], np.float64)


def _fetched(image: Array, at_HW2: Floats, how: int = cv2.INTER_LINEAR) -> Array:
    """A picture's values at places in it."""
    return np.asarray(cv2.remap(image, at_HW2[..., 0], at_HW2[..., 1], how))


def _tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    rows, columns = (np.linspace(0, n, TILES + 1).astype(int) for n in (height, width))
    return [(slice(y, y1), slice(x, x1)) for y, y1 in itertools.pairwise(rows) for x, x1 in itertools.pairwise(columns)]


def _spread(before_N: Bytes, after_N: Bytes) -> tuple[float, float]:
    """Log ratio of the spread of the same pixels in two frames, and their root mean square difference over the spread."""
    a, b = before_N.astype(np.float32), after_N.astype(np.float32)
    was, now = float(a.std()), float(b.std())
    contrast = float(np.log(now / was)) if min(was, now) > FLAT else 0.0
    return contrast, float(np.sqrt(np.mean((b - a) ** 2))) / max(FLAT, was)


def _flicker(own: _Steps, real: _Steps, region: int) -> Flicker:
    brightness, colour = _light(own, real, region)
    return Flicker(brightness, _excess_pct(own.contrast_NR[:, region], real.contrast_NR[:, region]), colour)


def _light(own: _Steps, real: _Steps, region: int) -> tuple[float, float]:
    """Flicker of brightness and of colour, percent."""
    level, clip_level = own.light_NR3[:, region].mean(1), real.light_NR3[:, region].mean(1)
    tint, clip_tint = own.light_NR3[:, region] - level[:, None], real.light_NR3[:, region] - clip_level[:, None]
    return _excess_pct(level, clip_level), max(_excess_pct(tint[:, c], clip_tint[:, c]) for c in range(3))


def _excess_pct(own_N: Doubles, real_N: Doubles) -> float:
    """From log ratios between frames to percent of flicker that the clip does not have."""
    if np.isnan(own_N).mean() > 0.5:
        return float("nan")
    beyond = _departures(own_N) - (0.0 if np.isnan(real_N).mean() > 0.5 else _departures(real_N))
    return 100 * float(np.percentile(np.maximum(beyond, 0), PEAK))


def _departures(steps_N: Doubles) -> Doubles:
    """From steps (N,) to how far each frame (N + 1,) lies from the median of those around it."""
    level, reach = np.concatenate([[0.0], np.cumsum(np.nan_to_num(steps_N))]), WINDOW // 2
    medians = level.copy()
    if len(level) >= WINDOW:
        medians[reach:-reach] = np.median(np.lib.stride_tricks.sliding_window_view(level, WINDOW), axis=1)
    for t in {*range(min(reach, len(level))), *range(max(0, len(level) - reach), len(level))}:
        medians[t] = np.median(level[max(0, t - reach) : t + reach + 1])
    return np.asarray(np.abs(level - medians))


def _median(values_N: Doubles) -> float:
    known = values_N[~np.isnan(values_N)]
    return float(np.median(known)) if len(known) else float("nan")

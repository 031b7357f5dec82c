"""How far a tracked person can be trusted, frame by frame and with reasons, and the stretches of a video in which that is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.silhouettes import body_size
from generators.poses.tracks import BODY, INDEX, Bools, Bytes, People

Doubles = npt.NDArray[np.float64]

JOINTS = [INDEX[name] for name in BODY]
SEEN = 0.5
TRUST = 0.5
"""confidence from which a frame is good"""
BRIDGED_S = 0.2
"""shorter dips do not end a stretch"""
BEST_JOINTS = 5
"""of so many best seen joints the visibility counts: a close-up of head and arms is a person too"""
AROUND_S = 0.5
"""to either side; a body's size is compared with the median over this time"""
LIMBS = ((11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28))
DARK = 24
"""brightness (95th percentile, of 255) below which a frame shows nothing"""
FADED = 0.5
"""share of its shot's median brightness below which a frame is fading"""


@dataclass(frozen=True)
class Confidence:
    """Of one person in a video."""

    per_frame_T: Doubles
    """0 to 1: the least of all measures"""
    reasons_T: tuple[str, ...]
    """which measure is the least, a code; empty where nothing is wrong"""


@dataclass(frozen=True)
class Stretch:
    """A run of good frames of one person."""

    track: int
    start: int
    stop: int
    """the frame after the last"""

    @property
    def frames(self) -> int:
        return self.stop - self.start


def confidence(people: People, track: int) -> Confidence:
    """Confidence and its reasons: absent, joints_hidden, joints_off_mask, upside_down, limbs_change_length, size_jumps, place_jumps."""
    measures: dict[str, Doubles] = {
        "absent": people.present_PT[track].astype(np.float64),
        "joints_hidden": _visible(people, track),
        "joints_off_mask": _on_mask(people, track),
        "upside_down": _upright(people, track),
        "limbs_change_length": _limbs(people, track),
        "size_jumps": _size(people, track),
        "place_jumps": _place(people, track),
    }
    names, values = list(measures), np.stack(list(measures.values()))
    least = values.argmin(axis=0)
    worst = values.min(axis=0)
    return Confidence(worst, tuple(names[k] if v < TRUST else "" for k, v in zip(least, worst, strict=True)))


def stretches(people: People, track: int, threshold: float = TRUST) -> tuple[Stretch, ...]:
    """The maximal runs of frames whose confidence is at least `threshold`, in order; dips of at most BRIDGED_S are bridged.

    The frames must be of one shot: nothing here can see a cut.
    """
    good = confidence(people, track).per_frame_T >= threshold
    dip = int(BRIDGED_S * people.fps)
    joined: list[Stretch] = []
    for start, stop in runs(good):
        if joined and start - joined[-1].stop <= dip:
            start = joined.pop().start
        joined.append(Stretch(track, start, stop))
    return tuple(joined)


def runs(good_T: Bools) -> list[tuple[int, int]]:
    """(first, after last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good_T.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def lit(frames_THWC: Bytes) -> Bools:
    """Per frame of one shot: it is neither black nor on the way there, judged by its brighter parts."""
    bright = np.array([np.percentile(cv2.resize(f, (64, 64), interpolation=cv2.INTER_AREA).max(axis=2), 95) for f in frames_THWC])
    return np.asarray(bright >= max(DARK, FADED * float(np.median(bright[bright >= DARK]) if (bright >= DARK).any() else 255)))


def _ramp(values: Doubles, bad: float, good: float) -> Doubles:
    """0 at `bad`, 1 at `good`, straight between."""
    return np.asarray(np.clip((values - bad) / (good - bad), 0, 1))


def _visible(people: People, track: int) -> Doubles:
    best = np.sort(people.visibility_PT33[track][:, JOINTS], axis=1)[:, -BEST_JOINTS:]
    return _ramp(best.mean(axis=1).astype(np.float64), 0.3, 0.8)


def _on_mask(people: People, track: int) -> Doubles:
    """Share of the visible joints in the picture that lie on the mask or very near it."""
    height, width = people.size_hw
    out = np.ones(people.frames)
    for t in np.flatnonzero(people.present_PT[track]):
        xy = np.round(people.landmarks_PT33x3[track, t, JOINTS, :2]).astype(int)
        seen = (people.visibility_PT33[track, t, JOINTS] > SEEN) & (xy >= 0).all(axis=1) & (xy < [width, height]).all(axis=1)
        if seen.any():
            out[t] = (people.masks_PTHW[track, t][xy[seen, 1], xy[seen, 0]] > 63).mean()
    return _ramp(out, 0.4, 0.8)


def _upright(people: People, track: int) -> Doubles:
    """The model knows hardly any bodies upside down: there it invents."""
    xy = people.landmarks_PT33x3[track, :, :, :2].astype(np.float64)
    trunk = xy[:, [23, 24]].mean(axis=1) - xy[:, [11, 12]].mean(axis=1)
    return _ramp(trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=1), 1.0), -0.8, -0.2)


def _limbs(people: People, track: int) -> Doubles:
    """Lengths of limbs, in metres, against their medians over the clip: how far the median limb is off."""
    world = people.world_PT33x3[track].astype(np.float64)
    lengths = np.stack([np.linalg.norm(world[:, a] - world[:, b], axis=1) for a, b in LIMBS], axis=1)
    usual = np.median(lengths[people.present_PT[track]], axis=0) if people.present_PT[track].any() else lengths.mean(axis=0)
    off = np.median(np.abs(np.log(np.maximum(lengths, 1e-3) / np.maximum(usual, 1e-3))), axis=1)
    return 1 - _ramp(off, 0.25, 0.6)


def _sizes(people: People, track: int) -> Doubles:
    return np.array([body_size(frame) for frame in people.landmarks_PT33x3[track]])


def _around(values_T: Doubles, radius: int, of: Callable[[Doubles], float]) -> Doubles:
    return np.array([of(values_T[max(0, t - radius) : t + radius + 1]) for t in range(len(values_T))])


def _size(people: People, track: int) -> Doubles:
    """Log of the body's size in the picture against the median of the frames around."""
    size = np.log(_sizes(people, track))
    usual = _around(size, max(1, round(AROUND_S * people.fps)), lambda v: float(np.median(v)))
    return 1 - _ramp(np.abs(size - usual), 0.25, 0.6)


def _place(people: People, track: int) -> Doubles:
    """Travel of the trunk within a frame, in body sizes a second: half a metre is one; nobody runs 30 of them."""
    trunk = people.landmarks_PT33x3[track][:, [11, 12, 23, 24], :2].mean(axis=1).astype(np.float64)
    step = np.linalg.norm(np.diff(trunk, axis=0), axis=1) / np.maximum(_sizes(people, track)[1:], 1.0) * people.fps
    return 1 - _ramp(np.maximum(np.append(step, 0.0), np.append(0.0, step)), 20.0, 40.0)

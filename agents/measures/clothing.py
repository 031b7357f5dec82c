"""Are they dressed alike? Clothing and hair as colours; whose face it is, identity.py asks.

A person is three palettes: head, torso, legs. Two palettes are as far apart as it costs to turn one into the other: the earth mover's
distance (Rubner, Tomasi & Guibas 2000) in CIELAB, so that stripes stay stripes. A common change of light costs little, and lightness
counts less than hue. `appearance.py` is the coarse figure beside it, made for ranking thousands; this one is for judging.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.tracks import INDEX, Bytes, People

Doubles = npt.NDArray[np.float64]
Clothes = tuple[Doubles, Doubles, Doubles]
"""Of head, torso and legs: up to six colours (K, 4), most frequent first: CIELAB L*, a*, b* (D65) and the colour's share of the region, 0
to 1. K is 0 where a region is not seen."""

COUNTS = (0.5, 1.0, 1.0)
"""weight of each region; a head shows hair from behind and a face from the front"""
COLOURS = 6
"""most colours of one palette"""
REGION_MIN = 0.03
"""share of the person's pixels below which a region is not seen"""
PIXELS_MIN, PIXELS_MOST = 20, 1500
"""pixels of one region: needed in all frames together, taken from each"""
SAMPLED_FRAMES = 8
EDGE = 0.02
"""of the torso's length; the silhouette is shrunk by it, so that no background comes in"""
INSIDE = 140
"""mask value, of 255, above which a pixel is the person's"""

LIGHTNESS = 0.7
"""what a step of L* counts, a step of a* or b* being 1"""
BINS = (10.0, 6.0, 6.0)
"""size of the cells that pixels are counted in before they are clustered: L*, a*, b*"""
APART = 5.0
"""colours nearer than this are one"""
ROUNDS = 10
LIGHTS = tuple(float(v) for v in np.exp(np.linspace(-0.22, 0.22, 7)))
"""factors on (L* + 16, a*, b*) that are tried: light that is k times as strong multiplies them by the cube root of k"""
LIGHT_COSTS = 10.0
"""per unit of the factor's logarithm"""


def clothes_of(frames_THWC: Bytes, people: People, person: int = 0, start: int = 0, stop: int | None = None) -> Clothes:
    """What one person wears in up to 8 frames (RGB) of `start` up to, not including, `stop`; empty palettes when it isn't there."""
    found = start + np.flatnonzero(people.present_PT[person, start:stop])
    picked = found[np.unique(np.linspace(0, len(found) - 1, SAMPLED_FRAMES).astype(int))] if len(found) else []
    seen = [_regions(frames_THWC[t], people, person, int(t)) for t in picked]
    sizes = np.array([[size for size, _ in regions] for regions in seen], np.float64).reshape(-1, 3).sum(axis=0)
    head, torso, legs = (
        _palette(np.concatenate([regions[k][1] for regions in seen])) if sizes[k] > REGION_MIN * sizes.sum() else np.zeros((0, 4))
        for k in range(3)
    )
    return head, torso, legs


def distance(a: Clothes, b: Clothes) -> float | None:
    """How differently two people are dressed. Unit: steps of CIELAB (CIE76 with lightness counting 0.7), the mean over the regions that
    both show; 0 is the same, 5 to 10 the same clothes in another picture, above 20 other clothes. Symmetric.

    A common change of light between half and double costs little, a colour cast is not taken out. None when no region is seen in both.
    """
    pairs = [(w, x, y) for w, x, y in zip(COUNTS, a, b, strict=True) if len(x) and len(y)]
    if not pairs:
        return None
    costs = []
    for light in LIGHTS:
        moved = sum(w * _moving(_lit(x, light**0.5), _lit(y, light**-0.5)) for w, x, y in pairs)
        costs.append(moved / sum(w for w, _, _ in pairs) + LIGHT_COSTS * abs(float(np.log(light))))
    return min(costs)


def worn_through(frames_THWC: Bytes, people: People, person: int = 0, stretches: int = 4) -> tuple[Clothes, ...]:
    """What one person wears in so many equal stretches of the video, for `worst` and `change`."""
    cuts = [len(frames_THWC) * k // stretches for k in range(stretches + 1)]
    return tuple(clothes_of(frames_THWC, people, person, start, stop) for start, stop in itertools.pairwise(cuts))


def worst(wanted: Clothes, worn: tuple[Clothes, ...]) -> float | None:
    """The largest `distance` between `wanted` and a stretch of the video: a character that changes half way shows here and not in the
    whole. Same unit; None when nothing can be compared."""
    return max((gap for part in worn if (gap := distance(wanted, part)) is not None), default=None)


def change(worn: tuple[Clothes, ...]) -> float | None:
    """The largest `distance` between two stretches of a video: how much the clothes change with no picture to compare to. Same unit; None
    when nothing can be compared."""
    gaps = (distance(a, b) for a, b in itertools.combinations(worn, 2))
    return max((gap for gap in gaps if gap is not None), default=None)


def _regions(rgb_HWC: Bytes, people: People, person: int, t: int) -> list[tuple[int, Doubles]]:
    """Size in pixels, and a sample of the pixels (N, 3; CIELAB), of the silhouette's parts: it is cut across the spine at the shoulders and
    the hips."""
    xy = people.landmarks_PT33x3[person, t, :, :2].astype(np.float64)
    shoulders = (xy[INDEX["left_shoulder"]] + xy[INDEX["right_shoulder"]]) / 2
    spine = (xy[INDEX["left_hip"]] + xy[INDEX["right_hip"]]) / 2 - shoulders
    length = max(float(np.linalg.norm(spine)), 1.0)
    body_HW = (people.masks_PTHW[person, t] > INSIDE).astype(np.uint8)
    if edge := round(EDGE * length):
        body_HW = np.asarray(cv2.erode(body_HW, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8)), np.uint8)
    y, x = np.nonzero(body_HW)
    along = ((x - shoulders[0]) * spine[0] + (y - shoulders[1]) * spine[1]) / length**2
    out = []
    for inside in (along < -0.1, (along > 0.1) & (along < 0.9), along > 1.15):
        rows, columns = y[inside], x[inside]
        every = max(1, -(-len(rows) // PIXELS_MOST))
        rgb_N13 = rgb_HWC[rows[::every], columns[::every]].reshape(-1, 1, 3).astype(np.float32) / 255
        lab_N3 = cv2.cvtColor(rgb_N13, cv2.COLOR_RGB2LAB)[:, 0] if len(rgb_N13) else np.zeros((0, 3))
        out.append((len(rows), np.asarray(lab_N3, np.float64)))
    return out


def _palette(lab_N3: Doubles) -> Doubles:
    """Up to six colours (K, 4), most frequent first: k-means on counted cells, begun with the most frequent cell and then with those that
    are farthest from all before, for their count. Sums run in the order of the cells, whatever the machine."""
    if len(lab_N3) < PIXELS_MIN:
        return np.zeros((0, 4))
    cells, place = np.unique(np.floor(lab_N3 / BINS).astype(np.int64), axis=0, return_inverse=True)
    place = place.reshape(-1)
    counts = np.bincount(place, minlength=len(cells)).astype(np.float64)
    scale = np.array([LIGHTNESS, 1.0, 1.0])
    points_N3 = np.stack([np.bincount(place, lab_N3[:, i]) for i in range(3)], axis=1) / counts[:, None] * scale
    centres_K3 = points_N3[[int(np.argmax(counts))]]
    while len(centres_K3) < COLOURS:
        nearest = _squares(points_N3, centres_K3).min(axis=1)
        farthest = int(np.argmax(nearest * counts))
        if nearest[farthest] < APART**2:
            break
        centres_K3 = np.concatenate([centres_K3, points_N3[[farthest]]])
    for _ in range(ROUNDS):
        own = np.argmin(_squares(points_N3, centres_K3), axis=1)
        weight = np.bincount(own, counts, minlength=len(centres_K3))
        sums = np.stack([np.bincount(own, points_N3[:, i] * counts, minlength=len(centres_K3)) for i in range(3)], axis=1)
        centres_K3 = sums[weight > 0] / weight[weight > 0, None]
    shares = np.bincount(np.argmin(_squares(points_N3, centres_K3), axis=1), counts, minlength=len(centres_K3)) / counts.sum()
    order = np.argsort(-shares, kind="stable")
    palette_K4 = np.concatenate([centres_K3 / scale, shares[:, None]], axis=1)[order]
    return np.asarray(palette_K4[palette_K4[:, 3] > 0])


def _squares(points_N3: Doubles, centres_K3: Doubles) -> Doubles:
    return np.asarray(((points_N3[:, None] - centres_K3[None]) ** 2).sum(axis=2))


def _lit(palette_K4: Doubles, factor: float) -> Doubles:
    """The palette under other light, as OpenCV's distance wants it: share, L*, a*, b*."""
    lab_K3 = (palette_K4[:, :3] + [16.0, 0.0, 0.0]) * factor
    return np.concatenate([palette_K4[:, 3:], lab_K3 * [LIGHTNESS, 1.0, 1.0]], axis=1)


def _moving(a_K4: Doubles, b_K4: Doubles) -> float:
    return float(cv2.EMD(a_K4.astype(np.float32), b_K4.astype(np.float32), cv2.DIST_L2)[0])

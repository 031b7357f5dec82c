"""Clothing and hair colour of a person: the identity measure of the built-in brain.

It tells people apart by what they wear, not by who they are; a face measure is a later one's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.tracks import INDEX, People

REGIONS = ("head", "torso", "legs")
MIN_PIXELS = 20
SAMPLED_FRAMES = 8

Descriptor = tuple[float, ...]
"""For head, torso, legs: median CIELAB L, a, b and the region's share of the person's pixels (0: not seen); 12 numbers."""


def describe(frames_THWC: npt.NDArray[np.uint8], people: People) -> tuple[Descriptor, ...]:
    """Descriptor of every person, from up to 8 frames in which the person was found. Colours are CIELAB (D65) as OpenCV scales floats."""
    return tuple(_describe_one(frames_THWC, people, p) for p in range(people.count))


def _describe_one(frames_THWC: npt.NDArray[np.uint8], people: People, p: int) -> Descriptor:
    found = np.flatnonzero(people.present_PT[p])
    if not len(found):
        return (0.0,) * 12
    picked = found[np.unique(np.linspace(0, len(found) - 1, SAMPLED_FRAMES).astype(int))]
    pixels: list[list[npt.NDArray[np.float32]]] = [[], [], []]
    for t in picked:
        lab = cv2.cvtColor(frames_THWC[t].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for region, inside in enumerate(_regions(people, p, int(t))):
            pixels[region].append(lab[inside])
    total = max(1, sum(len(x) for region in pixels for x in region))
    out: list[float] = []
    for region_pixels in pixels:
        values = np.concatenate(region_pixels)
        if len(values) < MIN_PIXELS:
            out += [0.0, 0.0, 0.0, 0.0]
        else:
            out += [round(float(v), 2) for v in np.median(values, 0)] + [round(len(values) / total, 4)]
    return tuple(out)


def _regions(people: People, p: int, t: int) -> list[npt.NDArray[np.bool_]]:
    """Three masks (H, W): the silhouette cut across the spine at the shoulders and the hips."""
    xy = people.landmarks_PT33x3[p, t, :, :2]
    shoulders = (xy[INDEX["left_shoulder"]] + xy[INDEX["right_shoulder"]]) / 2
    hips = (xy[INDEX["left_hip"]] + xy[INDEX["right_hip"]]) / 2
    spine = hips - shoulders
    length = float(np.linalg.norm(spine)) + 1e-6
    height, width = people.size_hw
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    along = ((x - shoulders[0]) * spine[0] + (y - shoulders[1]) * spine[1]) / length**2
    body = people.masks_PTHW[p, t] > 140
    return [body & (along < -0.1), body & (along > 0.1) & (along < 0.9), body & (along > 1.15)]


def distance(a: Descriptor, b: Descriptor) -> float | None:
    """Mean CIE76 colour difference over the regions both show, weighted by the smaller share; 0 same, above 40 clearly other.

    None when no region is shown by both: then nothing can be said.
    """
    gap = float(distances(a, table([b]))[0])
    return None if np.isnan(gap) else gap


def table(descriptors: Sequence[Descriptor]) -> npt.NDArray[np.float64]:
    """Descriptors as an array N×12 for `distances`; one that is missing becomes a row of zeros, which shows no region."""
    return np.array([d if len(d) == 12 else (0.0,) * 12 for d in descriptors], np.float64).reshape(-1, 12)


def distances(a: Descriptor, others_Nx12: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`distance` to many descriptors at once, N; NaN where nothing can be said.

    Sums are written out term by term: a matrix product adds in an order that depends on the machine.
    """
    mine = table([a])[0]
    gap, weight = np.zeros(len(others_Nx12)), np.zeros(len(others_Nx12))
    for at in range(0, 12, 4):
        lab, share = others_Nx12[:, at : at + 3] - mine[at : at + 3], np.minimum(others_Nx12[:, at + 3], mine[at + 3])
        gap += np.sqrt(lab[:, 0] ** 2 + lab[:, 1] ** 2 + lab[:, 2] ** 2) * share
        weight += share
    return np.where(weight > 0, gap / np.where(weight > 0, weight, 1.0), np.nan)


NAMED: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("black", (12, 0, 0)), ("dark grey", (32, 0, 0)), ("grey", (55, 0, 0)), ("light grey", (76, 0, 0)), ("white", (95, 0, 0)),
    ("dark red", (28, 38, 22)), ("red", (48, 62, 40)), ("pink", (72, 32, 6)), ("orange", (65, 40, 62)), ("tan", (68, 12, 24)),
    ("brown", (36, 14, 22)), ("yellow", (86, -4, 70)), ("olive", (46, -8, 36)), ("green", (50, -42, 36)),
    ("dark green", (26, -18, 14)), ("teal", (52, -26, -8)), ("light blue", (74, -8, -24)), ("blue", (44, 6, -50)),
    ("navy", (18, 8, -28)), ("purple", (38, 36, -36)),
)  # fmt: skip
"""Colour words and a CIELAB point for each, chosen by us."""


def colour_name(lab: npt.ArrayLike) -> str:
    """The nearest colour word of a CIELAB point."""
    point = np.asarray(lab, np.float64)
    return min(NAMED, key=lambda named: float(np.linalg.norm(point - named[1])))[0]

"""Is an arm or a leg really drawn where its joints are? Masks can't tell: a segmentation network completes a shin that is not there.

So colours are asked: a limb that is there looks like the painted one, one that is not looks like what lies beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from agents.measures.agreement import Body, body_of
from agents.measures.frames import Bools, Bytes, Doubles, grown
from agents.measures.silhouette import PARTS, RADII, drawn, free_cores
from generators.poses.curves import VISIBLE
from generators.poses.tracks import INDEX, People

BESIDE = (1.7, 3.0)
"""times a limb's thickness: from there to there is beside it"""
HAZE = 16
"""mask value, of 255, from which a pixel beside the limb may be somebody's"""
MARGIN = 0.03
"""torso lengths around silhouettes that are nobody's scene either"""
PIXELS_MIN = 12
TELLING = 14.0
"""CIELAB steps (CIE76) between the painted limb and what lies beside it, from which the two can be told apart"""
FRAMES = 16
"""looked at, evenly spread"""


@dataclass(frozen=True)
class Contrast:
    """One part of a limb against what lies beside it."""

    name: str
    """of `silhouette.PARTS`"""
    ratio: float
    """median over the frames: how much it stands out, over how much the painted one would; 1 it is there, 0 the scene shows"""
    frames: int
    """in which it can be told"""


def contrasts(painted_HWC: Bytes, painted: People, frames_THWC: Bytes, people: People, track: int = 0) -> tuple[Contrast, ...]:
    """Of `track` in the video, for the parts that the painted picture (one person) shows clear of the rest; where nothing can be told it is
    left out. Pictures are RGB."""
    limbs = _painted_colours(painted_HWC, painted)
    found: dict[str, list[float]] = {name: [] for name in limbs}
    body, everybody = body_of(people, track), people.masks_PTHW.max(0)
    there = np.flatnonzero(people.present_PT[track])
    for t in there[np.unique(np.linspace(0, len(there) - 1, FRAMES).astype(int))] if len(there) else ():
        for name, (core, beside) in _seen(frames_THWC[t], body, int(t), everybody[t] > HAZE, list(limbs)).items():
            wanted = np.linalg.norm(limbs[name] - beside)
            if wanted > TELLING:
                found[name].append(float(np.linalg.norm(core - beside) / wanted))
    return tuple(Contrast(name, float(np.median(ratios)), len(ratios)) for name, ratios in found.items() if ratios)


def _painted_colours(image_HWC: Bytes, people: People) -> dict[str, Doubles]:
    """Median colour of every part of a limb that the picture shows."""
    if not people.count:
        return {}
    body, lab = body_of(people), _lab(image_HWC)
    visible = [name for name, (_, chain) in PARTS.items() if all(people.visibility_PT33[0, 0, INDEX[joint]] > VISIBLE for joint in chain)]
    cores = free_cores(body, body.torso_px, 0, image_HWC.shape[:2], visible)
    solid = people.masks_PTHW[0, 0] > 127
    return {name: np.median(lab[core & solid], axis=0) for name, core in cores.items() if (core & solid).sum() >= PIXELS_MIN}


def _seen(frame_HWC: Bytes, body: Body, t: int, somebody_HW: Bools, names: list[str]) -> dict[str, tuple[Doubles, Doubles]]:
    """Median colours of each part where its joints are, and of what lies beside it."""
    torso, size = body.torso_px, frame_HWC.shape[:2]
    visible = [name for name in names if all(body.seen[joint][t] for joint in PARTS[name][1])]
    if not visible:
        return {}
    lab, taken = _lab(frame_HWC), grown(somebody_HW, MARGIN * torso)
    out = {}
    for name, core in free_cores(body, torso, t, size, visible).items():
        near, far = (drawn(body, t, PARTS[name][1], reach * RADII[name.split("_")[1]] * torso, size) for reach in BESIDE)
        beside = (far > near) & ~taken
        if min(core.sum(), beside.sum()) >= PIXELS_MIN:
            out[name] = np.median(lab[core], axis=0), np.median(lab[beside], axis=0)
    return out


def _lab(image_HWC: Bytes) -> Doubles:
    """CIELAB, D65."""
    return np.asarray(cv2.cvtColor(image_HWC.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB), np.float64)

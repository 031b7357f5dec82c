"""Contact sheets: the clip, what it was made from, and what is judged, to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from checker_parts.cases import Case
from generators.poses.tracks import Bytes
from manifests import media

COLUMNS = {True: 6, False: 4}
"""by whether the picture is upright"""
TINTS = ((255, 60, 60), (60, 120, 255), (60, 220, 60), (230, 200, 40), (200, 60, 220), (40, 210, 210))


def write_sheet(case: Case, words: str, path: Path, height_px: int = 200) -> None:
    """Rows: the real clip, the judged video with everybody's mask tinted. The painted picture comes first."""
    clip, shown = case.base.footage.frames_THWC, case.frames_THWC
    picked = np.unique(np.linspace(0, len(shown) - 1, COLUMNS[clip.shape[1] > clip.shape[2]]).astype(int))
    rows = [[case.base.painted_HWC[0], *(clip[t] for t in picked)], [case.base.painted_HWC[-1], *(_tinted(case, int(t)) for t in picked)]]
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_png(path, media.contact_sheet(rows, [case.name, words], height_px=height_px))


def _tinted(case: Case, t: int) -> Bytes:
    frame = case.frames_THWC[t].astype(np.float32)
    for mask, tint in zip(case.people.masks_PTHW[:, t], TINTS, strict=False):
        frame[mask > 127] = 0.75 * frame[mask > 127] + 0.25 * np.array(tint, np.float32)
    return np.asarray(frame, np.uint8)

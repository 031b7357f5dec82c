"""Contact sheets: what was asked, what was made, and the masks, to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builtin_parts.making import Made
from generators.masks.slots import crisp
from generators.poses.tracks import Bytes
from manifests import media

COLUMNS = {True: 8, False: 4}
"""by whether the picture is upright"""
TINTS = ((255, 60, 60), (60, 120, 255), (60, 220, 60), (230, 200, 40), (200, 60, 220), (40, 210, 210))


def write_sheet(made: Made, figures: dict[str, object], path: Path) -> None:
    """Rows: the real clip, the output, the output under its tracked masks. Frames that the puppet does not trust are darkened there."""
    height, width = made.target_THWC.shape[1:3]
    picked = np.unique(np.linspace(0, len(made.target_THWC) - 1, COLUMNS[height > width]).astype(int))
    sure = made.confident
    rows = [
        [made.target_THWC[t] for t in picked],
        [made.output_THWC[t] for t in picked],
        [masked(made, int(t), bool(sure[t])) for t in picked],
    ]
    told = ", ".join(
        f"{k} {figures[k]:.2f}" for k in ("pck", "limb_deg", "jitter_ratio", "leakage", "fps") if isinstance(figures.get(k), float)
    )
    labels = [made.combo.name, f"{told}; confidence {made.report.confidence:.2f} {' '.join(made.report.reasons)}", "masks"]
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_png(path, media.contact_sheet(rows, labels, height_px=330))


def masked(made: Made, t: int, sure: bool) -> Bytes:
    """One output frame, everybody tinted by their own mask."""
    frame = made.output_THWC[t].astype(np.float32)
    inside_PHW = crisp(made.people.masks_PTHW[:, t : t + 1])[:, 0]
    for inside, tint in zip(inside_PHW, TINTS, strict=False):
        frame[inside] = 0.5 * frame[inside] + 0.5 * np.array(tint, np.float32)
    return np.asarray(np.clip(frame * (1.0 if sure else 0.45), 0, 255), np.uint8)

"""The built-in generators' reported outputs, which somebody looked at: does the checker keep what the eye kept?"""

from __future__ import annotations

import json
from pathlib import Path

from builtin_parts import combos

from checker_parts.rows import Row

KEPT = Path(__file__).parent.parent / "marks" / "kept_by_eye.json"


def rows_by_eye() -> list[tuple[Row, bool]]:
    """The reported combinations and whether the eye kept them, without those of which it kept a part."""
    judged = json.loads(KEPT.read_text())["combinations"]
    out = []
    for (mode, clip, characters, scene, start, frames), combo in zip(
        combos.REPORTED, combos.of_samples(combos.REPORTED, Path("samples")), strict=True
    ):
        keep = judged[combo.name]["keep"]
        if isinstance(keep, bool):
            out.append((Row(clip, start, frames, combos.FPS, mode, characters, scene, combos.SHORT_SIDE), keep))
    return out

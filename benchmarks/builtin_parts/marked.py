"""Joints that were marked by eye in frames of the reported clips, and what they say of tracker and output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.measures.agreement import SCORED, body_of
from agents.measures.motion import LIMBS, MIN_LENGTH
from builtin_parts.combos import FPS
from builtin_parts.making import Made, window_of
from generators.masks.identity import match_people
from generators.poses.tracks import INDEX
from manifests import media

Doubles = npt.NDArray[np.float64]
Joints = dict[str, Doubles]

FILE = Path(__file__).parent.parent / "marks" / "joints.json"
FAR = 1.0
"""mean distance in torso lengths from which a marked person is none of the driven ones"""


class Marks:
    """All marks, and the comparisons collected so far."""

    def __init__(self, file: Path = FILE) -> None:
        self.frames: list[dict[str, Any]] = json.loads(file.read_text())["frames"]
        self.used: set[tuple[str, int]] = set()
        """frames that took part"""
        self.tracker_gaps: dict[tuple[str, int, str, str], float] = {}
        """torso lengths between tracked and marked joint, each marked joint once"""

    def compare(self, made: Made) -> dict[str, float]:
        """Angle between the output's limbs and the marked ones of the real person, degrees: median, its null (the output at the
        mirrored instant), and over how many limbs. Frames that the puppet does not trust are left out, as everywhere."""
        name = f"{made.combo.clip.parent.name}/{made.combo.clip.name}"
        window = window_of(made.combo.clip)
        rate = media.probe(made.combo.clip).fps
        angles: list[float] = []
        null: list[float] = []
        matched = match_people(made.driven, made.people)
        for frame in self.frames:
            at = (frame["frame"] / rate - made.combo.start_s) * FPS
            if frame["clip"] != name or not 0 <= at <= len(made.target_THWC) - 1:
                continue
            for marked in frame["people"]:
                joints = {
                    k: (np.array(v[:2]) - [window.left, window.top]) * window.zoom
                    for k, v in marked["joints"].items()
                    if v and v[2] == "seen"
                }
                person = self._who(made, joints, at, (name, frame["frame"], marked["name"]))
                if person is None or matched[person] < 0 or not made.confident[round(at)]:
                    continue
                self.used.add((name, frame["frame"]))
                last = len(made.target_THWC) - 1
                for found, instant in ((angles, at), (null, last - at)):
                    found += _angles(joints, _at(made.people.landmarks_PT33x3[matched[person], ..., :2], instant))
        return {"marked_limb_deg": _median(angles), "marked_limb_null_deg": _median(null), "marked_limbs": len(angles)}

    def _who(self, made: Made, joints: Joints, at: float, key: tuple[str, int, str]) -> int | None:
        """The driven person that the marks belong to; notes how far its tracked joints are from the marks."""
        best: tuple[float, int, dict[str, float]] | None = None
        for person in range(made.driven.count):
            torso = body_of(made.driven, person).torso_px
            tracked = _at(made.driven.landmarks_PT33x3[person, ..., :2], at)
            gaps = {n: float(np.linalg.norm(tracked[INDEX[n]] - joints[n])) / torso for n in SCORED if n in joints}
            mean = float(np.mean(list(gaps.values()))) if gaps else float("inf")
            if mean < FAR and (best is None or mean < best[0]):
                best = mean, person, gaps
        if best is None:
            return None
        self.tracker_gaps |= {(*key, n): gap for n, gap in best[2].items()}
        return best[1]

    def summary(self) -> dict[str, float | int]:
        """How many frames took part, and how well the tracker itself agrees with the marks."""
        gaps = np.array(list(self.tracker_gaps.values()))
        return {
            "marked_frames": len(self.used), "tracker_joints": len(gaps),
            "tracker_pck_0.1": float((gaps <= 0.1).mean()) if len(gaps) else float("nan"),
            "tracker_pck_0.2": float((gaps <= 0.2).mean()) if len(gaps) else float("nan"),
            "tracker_gap_median": _median(list(gaps)),
        }  # fmt: skip


def _at(xy_Tx33x2: npt.NDArray[np.float32], instant: float) -> Doubles:
    """Joints (33, 2) between two frames, linearly."""
    low = int(np.clip(np.floor(instant), 0, len(xy_Tx33x2) - 1))
    high = min(low + 1, len(xy_Tx33x2) - 1)
    share = min(max(instant - low, 0.0), 1.0)
    return np.asarray(xy_Tx33x2[low] * (1 - share) + xy_Tx33x2[high] * share, np.float64)


def _angles(marked: Joints, output_33x2: Doubles) -> list[float]:
    """Degrees between the limbs of both; limbs that point at the camera have no direction in the picture."""
    torsos = [marked[j] for j in ("left_shoulder", "right_shoulder", "left_hip", "right_hip") if j in marked]
    size = np.ptp(np.stack(torsos), axis=0).max() if len(torsos) > 1 else 0.0
    out = []
    for a, b in LIMBS:
        if a in marked and b in marked:
            real, synthetic = marked[b] - marked[a], output_33x2[INDEX[b]] - output_33x2[INDEX[a]]
            lengths = float(np.linalg.norm(real)), float(np.linalg.norm(synthetic))
            if lengths[0] > MIN_LENGTH * size and lengths[1] > 1.0:
                out.append(float(np.degrees(np.arccos(np.clip(real @ synthetic / (lengths[0] * lengths[1]), -1, 1)))))
    return out


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")

"""How believable the built-in generators' pairs are, in figures that the driving model does not give itself.

    python benchmarks/builtin.py                                  # the reported combinations, some minutes
    python benchmarks/builtin.py --quick                          # three of them, under 50 s
    python benchmarks/builtin.py --tuned                          # those that settings were chosen on
    python benchmarks/builtin.py --clips MY_CLIPS --characters MY_PICTURES

Clips are read at 30 fps and short side 512, a character is painted for each driven person, the puppet performs, and the written file is
tracked anew. Contact sheets go to `--sheets` (default out/builtin). The last line is one JSON object; figures and nulls are explained in
`builtin_parts/judging.py`. Over combinations the median and the worst are told. Combinations that the puppet itself does not trust (fewer
than 8 confident frames) are left out of that and named.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from builtin_parts import combos, judging, sheets
from builtin_parts.making import Made, Studio, read_target
from builtin_parts.marked import Marks

from factory.samples import fetch_samples
from manifests.errors import MotionpairError

WORST_IS_SMALL = frozenset({"pck", "pck_mean", "found", "fps", "wrist", "wrist_found", "face", "face_found", "silhouette"})
FIGURES = (
    "pck", "pck_null", "pck_mean", "pck_mean_null", "limb_deg", "limb_null_deg", "found", "jitter_ratio", "leakage", "mask_missing",
    "wrist", "wrist_null", "wrist_found", "face", "face_null", "face_found", "silhouette", "silhouette_null", "marked_limb_deg",
    "marked_limb_null_deg",
)  # fmt: skip
ROUNDS = 3
"""of tracking and animating; the median of their times counts (one in `--quick`)"""
CONFIDENT_FRAMES_MIN = 8
TRUSTED = 0.6
"""confidence from which the puppet's word is taken"""
KEPT = Path(__file__).parent / "marks" / "kept_by_eye.json"
SWAP_CLIPS = ("lab/multi-cam01", "lab/multi-cam02", "lab/multi-cam03", "lab/multi-cam04", "park/walk")


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="three combinations")
    parser.add_argument("--tuned", action="store_true", help="the combinations that settings were chosen on")
    parser.add_argument("--clips", type=Path, help="a folder of your own clips (with --characters)")
    parser.add_argument("--characters", type=Path, help="a folder of pictures, one person each")
    parser.add_argument("--only", default="", help="only combinations whose name holds this")
    parser.add_argument("--sheets", type=Path, default=Path("out/builtin"), help="where contact sheets go")
    asked = parser.parse_args()
    cv2.setNumThreads(2)
    chosen = [c for c in _combos(asked) if asked.only in c.name]
    studio, judges, marks = Studio(), judging.Judges.load(), Marks()
    table: dict[str, dict[str, Any]] = {}
    for combo in chosen:
        table[combo.name] = _one(combo, studio, judges, marks, asked.sheets, 1 if asked.quick else ROUNDS)
        print(f"{combo.name}: {json.dumps(table[combo.name])}", flush=True)
    swaps = {} if asked.quick or asked.clips or asked.only else _swaps(studio)
    print(json.dumps({**summary(table), "swaps_in_clips": swaps, **_rounded(marks.summary())}))


def _combos(asked: argparse.Namespace) -> list[combos.Combo]:
    if (asked.clips is None) != (asked.characters is None):
        raise SystemExit("--clips and --characters go together")
    if asked.clips:
        return combos.of_folders(asked.clips, asked.characters)
    samples = fetch_samples().clips.parent
    rows = combos.TUNED if asked.tuned else combos.REPORTED
    return combos.of_samples(tuple(rows[i] for i in combos.QUICK) if asked.quick else rows, samples)


def _one(combo: combos.Combo, studio: Studio, judges: judging.Judges, marks: Marks, folder: Path, rounds: int) -> dict[str, Any]:
    try:
        made: Made = studio.make(combo, rounds)
    except MotionpairError as e:
        return {"refused": e.code, "why": e.message}
    figures: dict[str, Any] = {**judging.figures_of(made, judges), **marks.compare(made)}
    if len(combo.characters) > 1:
        figures["swaps"] = judging.swaps(made.output_THWC, made.people)
    sheets.write_sheet(made, dict(figures), folder / f"{combo.name}.png")
    return _rounded(figures)


def _swaps(studio: Studio) -> dict[str, int | None]:
    """Identity swaps of the tracker on the real clips with two people, all of their frames at 30 fps; None where colours can't tell."""
    root = fetch_samples().clips.parent
    out = {}
    for clip in SWAP_CLIPS:
        frames = 213 if clip == "park/walk" else 49
        target, _ = read_target(combos.Combo(root / "clips" / f"{clip}.mp4", (), "animation", frames=frames))
        out[clip] = judging.swaps(target, studio.tracker.track(target, combos.FPS))
    return out


def summary(table: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Median and worst of every figure over the combinations that count; what does not count, by name."""
    counted = {n: f for n, f in table.items() if f.get("confident_frames", 0) >= CONFIDENT_FRAMES_MIN}
    out: dict[str, Any] = {"combinations": len(table), "counted": len(counted)}
    out["refused"] = {n: f["refused"] for n, f in table.items() if "refused" in f}
    out["not_trusted"] = {n: f["reasons"] for n, f in table.items() if n not in counted and "refused" not in f}
    for name in FIGURES:
        out[name] = _spread(name, [f[name] for f in counted.values() if f.get(name) is not None])
    for mode in ("animation", "replacement"):
        rates = [f["fps"] for n, f in table.items() if n.startswith(mode[:4]) and "+" not in n and "fps" in f]
        out[f"fps_{mode}"] = _spread("fps", rates)
    out["fps_two_people"] = _spread("fps", [f["fps"] for n, f in table.items() if "+" in n and "fps" in f])
    out |= against_the_eye(table)
    out["swaps_in_outputs"] = sum(f.get("swaps") or 0 for f in table.values())
    return out


def against_the_eye(table: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Where the puppet's own word and a look at the contact sheet differ. Combinations of which a part would be kept are left out."""
    judged = {n: j["keep"] for n, j in json.loads(KEPT.read_text())["combinations"].items() if isinstance(j["keep"], bool)}
    trusted = {n for n, f in table.items() if f.get("confidence", 0.0) >= TRUSTED}
    return {
        "trusted_but_not_kept": [n for n in table if n in trusted and judged.get(n) is False],
        "kept_but_not_trusted": [n for n in table if n not in trusted and judged.get(n) is True],
    }


def _spread(name: str, values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    worst = min(values) if name in WORST_IS_SMALL or name.endswith("_null_deg") else max(values)
    return {"median": round(statistics.median(values), 4), "worst": round(worst, 4)}


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Four digits; what is not a number becomes null."""
    return {k: (None if math.isnan(v) else round(v, 4)) if isinstance(v, float) else v for k, v in figures.items()}


if __name__ == "__main__":
    main()

"""Does the Quality Checker catch what is wrong, and leave alone what is right? Twelve kinds of defect, planted in good outputs.

    python benchmarks/checker.py --cache FOLDER                   # the reporting scene and the outputs judged by eye; an hour at first
    python benchmarks/checker.py --quick                          # one output, one instance of each kind, under 50 s
    python benchmarks/checker.py --cache FOLDER --tuning          # the scene that thresholds were set on
    python benchmarks/checker.py --cache FOLDER --sheets FOLDER   # contact sheets of all that is judged

Good outputs are real clips as they are and the puppet's outputs that a look at the contact sheet would keep (`marks/bases_by_eye.json`).
Each is planted with each kind of defect, written, decoded, tracked anew and judged. Caught is what is not accepted; the shares stand with
their 95 % intervals (Wilson), which take instances for independent: those of one output or camera are not quite. The last line is one
JSON object. `--cache` keeps what is made; empty the folder after a change of the generators or of the planting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
from checker_parts import by_eye, cases, planting, rows, scoring, sheets
from checker_parts.bases import Base, Studio
from checker_parts.cache import Cache

from factory.samples import fetch_samples
from manifests.agency import CheckerSpec
from manifests.errors import MotionpairError


def main() -> None:
    """Make, plant, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one instance of each kind, in one output")
    parser.add_argument("--tuning", action="store_true", help="the scene that thresholds were set on")
    parser.add_argument("--cache", type=Path, help="a folder for what is dear to make; default: a temporary one")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    parser.add_argument("--part", default="1/1", help="k/n: every n-th output only, to fill the cache with several processes")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder:
        run(asked, Cache(asked.cache or Path(folder)))


def run(asked: argparse.Namespace, cache: Cache) -> None:
    """All of it."""
    studio, judge = Studio(cache, fetch_samples().clips.parent), scoring.Judge(cache, CheckerSpec())
    listed = rows.quick() if asked.quick else rows.tuning() if asked.tuning else rows.reporting()
    every = [row for row in listed if studio.usable(row)]
    part, parts = (int(n) for n in asked.part.split("/"))
    chosen = every[:2] if asked.quick else every[part - 1 :: parts]
    cast = planting.Cast(studio, every)
    found: dict[str, list[scoring.Judged]] = {kind: [] for kind in (cases.GOOD, *planting.KINDS)}
    for row in chosen:
        base = studio.base(row)
        alone = row in rows.JUDGED_ONLY or (asked.quick and not row.characters)
        for case in [cases.good(base)] if alone else _cases(base, cast, once=asked.quick):
            seen = judge.look(case)
            found[case.kind].append(seen)
            _tell(case, seen, asked.sheets)
    told = {**summary(found), "unusable": sorted({r.name for r in listed} - {r.name for r in every})}
    if not asked.quick and not asked.tuning and parts == 1:
        told["by_eye"], kept = _by_eye(studio, judge, asked.sheets)
        untouched = [j for j in found[cases.GOOD] if not j.row.characters]
        told["false_rejections"]["untouched_clips_and_list"] = scoring.falsely_rejected([*untouched, *kept])
    print(json.dumps(told))


def _cases(base: Base, cast: planting.Cast, once: bool) -> Iterator[cases.Case]:
    yield cases.good(base)
    for kind in planting.KINDS:
        yield from cases.planted(base, kind, cast)[: 1 if once else None]


def _tell(case: cases.Case, seen: scoring.Judged, folder: Path | None) -> None:
    words = " ".join([seen.verdict.decision, *dict.fromkeys(f.code for f in seen.verdict.findings)])
    print(f"{seen.name}: {words}", flush=True)
    if folder is not None:
        sheets.write_sheet(case, words, folder / case.kind / f"{case.name}.png")


def summary(found: dict[str, list[scoring.Judged]]) -> dict[str, Any]:
    """Rates per kind; which kinds miss what is wanted."""
    good = found[cases.GOOD]
    accepted = {j.row for j in good if j.verdict.accepted}
    kinds = {kind: scoring.caught(found[kind], accepted) for kind in planting.KINDS}
    played = [(len(j.row.characters), j) for j in good]
    return {
        "caught": kinds, "kinds_below": {k: t["share"] for k, t in kinds.items() if t["of"] and t["share"] < scoring.WANTED_CAUGHT},
        "false_rejections": {
            name: scoring.falsely_rejected([j for count, j in played if count in counts])
            for name, counts in {"untouched_clips": (0,), "puppet": (1, 2), "puppet_one_person": (1,), "puppet_two_people": (2,)}.items()
        },
    }  # fmt: skip


def _by_eye(studio: Studio, judge: scoring.Judge, folder: Path | None) -> tuple[dict[str, Any], list[scoring.Judged]]:
    """Agreement with the eye on the built-in generators' reported outputs, at their own size, where what a generator refuses is not kept;
    and what was said of those that the eye keeps."""
    differ, kept = [], []
    listed = by_eye.rows_by_eye()
    for row, keep in listed:
        accepted = False
        with contextlib.suppress(MotionpairError):
            case = cases.good(studio.base(row))
            seen = judge.look(case)
            _tell(case, seen, folder)
            accepted = seen.verdict.accepted
            kept += [seen] if keep else []
        differ += [] if accepted == keep else [f"{row.name}: the eye {'keeps' if keep else 'does not keep'} it"]
    told = {"agree": len(listed) - len(differ), "of": len(listed), "differ": differ, "false_rejections": scoring.falsely_rejected(kept)}
    return told, kept


if __name__ == "__main__":
    main()

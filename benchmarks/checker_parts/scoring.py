"""From verdicts to rates."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.checker import judge_video
from agents.inspected import Networks
from agents.measuring import measure_video
from checker_parts.cache import Cache
from checker_parts.cases import Case
from checker_parts.rows import Row
from factory.steps import code_digest
from manifests.agency import CheckerSpec
from manifests.records import Verdict

Z95 = 1.959964
"""the normal distribution's 97.5th percentile"""
WANTED_CAUGHT, WANTED_FALSE = 0.95, 0.05


@dataclass(frozen=True)
class Judged:
    """What the checker said of a case. The case itself is let go: hundreds of videos would stay in memory."""

    name: str
    row: Row
    verdict: Verdict


class Judge:
    """The checker, with its scores kept: they are measured anew when the measures' code changes, not when a threshold does."""

    def __init__(self, cache: Cache, spec: CheckerSpec) -> None:
        self._cache, self._spec, self._networks = cache, spec, Networks()
        self._code = code_digest(("agents.measuring",))

    def look(self, case: Case) -> Judged:
        """The verdict on one case."""

        def build(folder: Path) -> None:
            seen = case.seen()
            (folder / "scores.json").write_text(json.dumps(measure_video(seen, self._networks)))

        folder = self._cache.folder(["scores", self._code, case.base.folder.name, case.folder.name], build)
        scores = json.loads((folder / "scores.json").read_text())
        return Judged(case.name, case.base.row, judge_video(scores, case.base.footage.geometry, case.base.report, self._spec))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) for nothing."""
    if not count:
        return 0.0, 1.0
    share, z = hits / count, Z95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate(hits: int, count: int) -> dict[str, Any]:
    """A share with its interval, or null for nothing."""
    low, high = wilson(hits, count)
    return {"of": count, "share": round(hits / count, 4) if count else None, "interval": [round(low, 4), round(high, 4)]}


def caught(found: Sequence[Judged], accepted: Set[Row]) -> dict[str, Any]:
    """How many defects were not accepted, and by which reason. `in_accepted`: of those planted in outputs that are accepted without
    a defect (`accepted`): there only the defect can have been caught."""
    hits = [j for j in found if not j.verdict.accepted]
    reasons = Counter(j.verdict.reason for j in hits)
    return {
        **rate(len(hits), len(found)), "outputs": len({j.row for j in found}), "by": dict(reasons.most_common()),
        "in_accepted": rate(sum(j.row in accepted for j in hits), sum(j.row in accepted for j in found)),
        "missed": [j.name for j in found if j.verdict.accepted],
    }  # fmt: skip


def falsely_rejected(found: Sequence[Judged]) -> dict[str, Any]:
    """How many good outputs were not accepted."""
    wrong = {j.name: [f.code for f in j.verdict.findings] for j in found if not j.verdict.accepted}
    return {**rate(len(wrong), len(found)), "which": wrong}

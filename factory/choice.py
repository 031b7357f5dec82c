"""Which finished pairs of a slice enter the release: decided in plan order, so never by who finished first."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from factory.plan import Job, SlicePlan
from manifests.ledger import State
from manifests.records import Pair
from manifests.release import LeftOut


@dataclass(frozen=True)
class Decision:
    """How a job ended."""

    state: State
    reason: str = ""
    message: str = ""
    pair: Pair | None = None


@dataclass
class Choice:
    """The pairs of one slice, taken from its jobs' decisions one after the other in plan order until the quota is met.

    A pair with the driving video and target of an earlier one is a duplicate; pairs whose reference is a frame of the target are
    surplus once they make up the recipe's share of the quota.
    """

    part: SlicePlan
    in_target_max: float
    pairs: list[tuple[Job, Pair]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    taken: int = 0
    """jobs looked at so far"""
    _ahead: dict[int, Decision] = field(default_factory=dict)
    _videos: set[tuple[str, str]] = field(default_factory=set)
    _inside: int = 0

    @property
    def full(self) -> bool:
        return len(self.pairs) >= self.part.spec.quota

    @property
    def likely(self) -> int:
        """Pairs there will be at least if those decided ahead of an undecided job count as well."""
        ahead = sum(d.pair is not None and not d.pair.reference_in_target for d in self._ahead.values())
        return min(len(self.pairs) + ahead, self.part.spec.quota)

    def decide(self, place: int, decision: Decision) -> None:
        """Note how the job at a place of the plan ended, and take all that follow without a gap."""
        self._ahead[place] = decision
        while not self.full and self.taken in self._ahead:
            self._take(self.part.jobs[self.taken], self._ahead.pop(self.taken))
            self.taken += 1

    def close(self) -> None:
        """Nothing more will be decided. With a quota that is not met, all that is left of the plan is listed as undecided, and the share
        of references in the target is kept among the pairs there are."""
        if not self.full:
            others = len(self.pairs) - self._inside
            allowed = math.floor(self.in_target_max * others / (1 - self.in_target_max)) if self.in_target_max < 1 else self._inside
            inside = [(job, pair) for job, pair in self.pairs if pair.reference_in_target]
            for job, pair in inside[allowed:]:
                self.pairs.remove((job, pair))
                self.left_out.append(_left_out(job, "surplus", "reference_in_target"))
            self.left_out += [_left_out(job, "undecided") for job in self.part.jobs[self.taken :]]

    def _take(self, job: Job, decision: Decision) -> None:
        pair = decision.pair
        if pair is None:
            self.left_out.append(_left_out(job, decision.state, decision.reason))
            return
        videos = _videos(pair)
        cap = math.floor(self.in_target_max * self.part.spec.quota)
        if videos in self._videos:
            self.left_out.append(_left_out(job, "duplicate", "same_videos"))
        elif pair.reference_in_target and self._inside >= cap:
            self.left_out.append(_left_out(job, "surplus", "reference_in_target"))
        else:
            self._videos.add(videos)
            self._inside += pair.reference_in_target
            self.pairs.append((job, pair))


def _left_out(job: Job, state: str, reason: str = "") -> LeftOut:
    return LeftOut(job=job.id, slice=job.slice, split=job.split, state=state, reason=reason)


def distinct(taken: list[tuple[Job, Pair]]) -> tuple[list[tuple[Job, Pair]], list[LeftOut]]:
    """All slices' pairs in plan order without those that another slice has too, and these as left out."""
    kept: dict[tuple[str, str], tuple[Job, Pair]] = {}
    twice = []
    for job, pair in sorted(taken, key=lambda entry: entry[0].rank):
        if kept.setdefault(_videos(pair), (job, pair))[0] is not job:
            twice.append(_left_out(job, "duplicate", "same_videos"))
    return list(kept.values()), twice


def _videos(pair: Pair) -> tuple[str, str]:
    return pair.driving.digest, pair.target.digest

"""Which finished pairs of a slice enter the release: decided in plan order, so never by who finished first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agents.measures.duplicates import KnownVideos, same_picture
from factory.plan import Job, SlicePlan
from manifests.ledger import PairSketch, State
from manifests.recipe import DuplicateSpec
from manifests.records import Split
from manifests.release import LeftOut


@dataclass(frozen=True)
class Decision:
    """How a job ended."""

    state: State
    reason: str = ""
    message: str = ""
    pair: PairSketch | None = None
    """when accepted"""


@dataclass
class Choice:
    """The pairs of one slice, taken from its jobs' decisions one after the other in plan order until the quota is met.

    A pair that shows what an earlier one does is a duplicate (see `Seen`); pairs whose reference is a frame of the target are surplus once
    they make up the recipe's share of the quota.
    """

    part: SlicePlan
    in_target_max: float
    duplicates: DuplicateSpec
    pairs: list[Job] = field(default_factory=list)
    """whose pairs are taken"""
    left_out: list[LeftOut] = field(default_factory=list)
    taken: int = 0
    """jobs looked at so far"""
    decided: int = 0
    passed: int = 0
    """of the decided ones: those that gave a pair"""
    furthest: int = -1
    """place of the last decided job in the plan"""
    _ahead: dict[int, Decision] = field(default_factory=dict)
    _sound_ahead: int = 0
    """of these that will count whatever else is decided, unless they are duplicates"""
    _seen: Seen = field(init=False)
    _inside: list[Job] = field(default_factory=list)
    """of the pairs: those whose reference is a frame of the target"""

    def __post_init__(self) -> None:
        self._seen = Seen(self.duplicates)

    @property
    def full(self) -> bool:
        return len(self.pairs) >= self.part.spec.quota

    @property
    def likely(self) -> int:
        """Pairs there will be at least if those decided ahead of an undecided job count as well."""
        return min(len(self.pairs) + self._sound_ahead, self.part.spec.quota)

    def knows(self, place: int) -> bool:
        """Whether the job at a place of the plan is decided."""
        return place < self.taken or place in self._ahead

    def decide(self, place: int, decision: Decision) -> None:
        """Note how the job at a place of the plan ended, and take all that follow without a gap."""
        self._ahead[place] = decision
        self.furthest = max(self.furthest, place)
        self.decided += 1
        self.passed += decision.pair is not None
        self._sound_ahead += _sound(decision)
        while not self.full and self.taken in self._ahead:
            following = self._ahead.pop(self.taken)
            self._sound_ahead -= _sound(following)
            self._take(self.part.jobs[self.taken], following)
            self.taken += 1

    def close(self) -> None:
        """Nothing more will be decided. With a quota that is not met, all that is left of the plan is listed as undecided, and the share
        of references in the target is kept among the pairs there are."""
        if not self.full:
            others = len(self.pairs) - len(self._inside)
            allowed = math.floor(self.in_target_max * others / (1 - self.in_target_max)) if self.in_target_max < 1 else len(self._inside)
            surplus = {job.id for job in self._inside[allowed:]}
            self.left_out += [_left_out(job, "surplus", "reference_in_target") for job in self.pairs if job.id in surplus]
            self.pairs = [job for job in self.pairs if job.id not in surplus]
            self.left_out += [_left_out(job, "undecided") for job in self.part.jobs[self.taken :]]

    def _take(self, job: Job, decision: Decision) -> None:
        pair = decision.pair
        if pair is None:
            self.left_out.append(_left_out(job, decision.state, decision.reason))
            return
        twice = self._seen.twice(pair)
        cap = math.floor(self.in_target_max * self.part.spec.quota)
        if twice:
            self.left_out.append(_left_out(job, "duplicate", twice))
        elif pair.reference_in_target and len(self._inside) >= cap:
            self.left_out.append(_left_out(job, "surplus", "reference_in_target"))
        else:
            self._seen.add(pair)
            self.pairs.append(job)
            if pair.reference_in_target:
                self._inside.append(job)


def _sound(decision: Decision) -> bool:
    return decision.pair is not None and not decision.pair.reference_in_target


def _left_out(job: Job, state: str, reason: str = "") -> LeftOut:
    return LeftOut(job=job.id, slice=job.slice, split=job.split, state=state, reason=reason)


def distinct(taken: Sequence[Job], pair_of: Callable[[Job], PairSketch], spec: DuplicateSpec) -> tuple[list[Job], list[LeftOut]]:
    """The jobs of all slices' pairs in plan order without those that another slice has too, and these as left out.

    Two slices may use one clip, so of clips that look alike only those on the two sides of the split are told: nothing of the validation
    side may be trained on.
    """
    kept: list[Job] = []
    videos: set[bytes] = set()
    sides: dict[Split, Seen] = {"train": Seen(spec), "validation": Seen(spec)}
    twice = []
    for job in sorted(taken, key=lambda job: job.rank):
        pair = pair_of(job)
        other = sides["train" if pair.split == "validation" else "validation"]
        reason = "same_videos" if _videos(pair) in videos else other.same_clip(pair)
        if reason:
            twice.append(_left_out(job, "duplicate", reason))
            continue
        videos.add(_videos(pair))
        sides[pair.split].add(pair)
        kept.append(job)
    return kept, twice


class Seen:
    """The pairs that were taken, to be asked whether one more shows the same.

    One clip gives many pairs: other spans, and the same span with other characters. That is wanted. Two pairs are the same one twice when

    - they have the same videos (`same_videos`);
    - their targets show the same although they come from two files (`same_clip`): a clip that is there twice, in two encodings or cut
      differently, would count twice, whatever the characters;
    - they have the same span and their painted characters can't be told apart (`same_character`): a gallery picture that is there twice.
    """

    def __init__(self, spec: DuplicateSpec) -> None:
        self._spec = spec
        self._videos: set[bytes] = set()
        self._known = KnownVideos()
        self._of_source: dict[str, list[int]] = {}
        """numbers of the known videos"""
        self._of_span: dict[tuple[object, ...], list[tuple[bytes, ...]]] = {}

    def add(self, pair: PairSketch) -> None:
        """Take it."""
        self._videos.add(_videos(pair))
        if not pair.shown:
            return
        span = _span(pair)
        if span not in self._of_span:  # the repeats of a span have one target
            self._of_source.setdefault(pair.source, []).append(self._known.add(pair.shown))
        self._of_span.setdefault(span, []).append(pair.painted)

    def twice(self, pair: PairSketch) -> str:
        """Why a pair is a duplicate of one that was taken; empty when it is none."""
        return "same_videos" if _videos(pair) in self._videos else self.same_clip(pair) or self._same_character(pair)

    def same_clip(self, pair: PairSketch) -> str:
        """`same_clip` when another file's pair shows the same; else empty."""
        if not pair.shown:
            return ""
        return "same_clip" if self._known.near(pair.shown, self._spec.bits_max, self._of_source.get(pair.source, ())) else ""

    def _same_character(self, pair: PairSketch) -> str:
        mine = pair.painted
        for painted in self._of_span.get(_span(pair), ()) if mine else ():
            alike = [same_picture(a, b, self._spec.bits_max, self._spec.colour_max) for a, b in zip(mine, painted, strict=False)]
            if len(mine) == len(painted) and all(alike):
                return "same_character"
        return ""


def _videos(pair: PairSketch) -> bytes:
    return bytes.fromhex(pair.driving + pair.target)


def _span(pair: PairSketch) -> tuple[object, ...]:
    return pair.source, pair.start_frame, pair.crop

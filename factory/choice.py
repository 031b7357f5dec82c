"""Which finished pairs of a slice enter the release: decided in plan order, so never by who finished first."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agents.measures.duplicates import KnownVideos, same_picture
from factory.plan import Job, SlicePlan
from manifests.ledger import State
from manifests.recipe import DuplicateSpec
from manifests.records import Pair, PicturePrint, Split
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

    A pair that shows what an earlier one does is a duplicate (see `Seen`); pairs whose reference is a frame of the target are surplus once
    they make up the recipe's share of the quota.
    """

    part: SlicePlan
    in_target_max: float
    duplicates: DuplicateSpec
    pairs: list[tuple[Job, Pair]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    taken: int = 0
    """jobs looked at so far"""
    _ahead: dict[int, Decision] = field(default_factory=dict)
    _sound_ahead: int = 0
    """of these that will count whatever else is decided, unless they are duplicates"""
    _seen: Seen = field(init=False)
    _inside: int = 0

    def __post_init__(self) -> None:
        self._seen = Seen(self.duplicates)

    @property
    def full(self) -> bool:
        return len(self.pairs) >= self.part.spec.quota

    @property
    def likely(self) -> int:
        """Pairs there will be at least if those decided ahead of an undecided job count as well."""
        return min(len(self.pairs) + self._sound_ahead, self.part.spec.quota)

    def decide(self, place: int, decision: Decision) -> None:
        """Note how the job at a place of the plan ended, and take all that follow without a gap."""
        self._ahead[place] = decision
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
        twice = self._seen.twice(pair)
        cap = math.floor(self.in_target_max * self.part.spec.quota)
        if twice:
            self.left_out.append(_left_out(job, "duplicate", twice))
        elif pair.reference_in_target and self._inside >= cap:
            self.left_out.append(_left_out(job, "surplus", "reference_in_target"))
        else:
            self._seen.add(pair)
            self._inside += pair.reference_in_target
            self.pairs.append((job, pair))


def _sound(decision: Decision) -> bool:
    return decision.pair is not None and not decision.pair.reference_in_target


def _left_out(job: Job, state: str, reason: str = "") -> LeftOut:
    return LeftOut(job=job.id, slice=job.slice, split=job.split, state=state, reason=reason)


def distinct(taken: list[tuple[Job, Pair]], spec: DuplicateSpec) -> tuple[list[tuple[Job, Pair]], list[LeftOut]]:
    """All slices' pairs in plan order without those that another slice has too, and these as left out.

    Two slices may use one clip, so of clips that look alike only those on the two sides of the split are told: nothing of the validation
    side may be trained on.
    """
    kept: list[tuple[Job, Pair]] = []
    videos: set[tuple[str, str]] = set()
    sides: dict[Split, Seen] = {"train": Seen(spec), "validation": Seen(spec)}
    twice = []
    for job, pair in sorted(taken, key=lambda entry: entry[0].rank):
        other = sides["train" if pair.split == "validation" else "validation"]
        reason = "same_videos" if _videos(pair) in videos else other.same_clip(pair)
        if reason:
            twice.append(_left_out(job, "duplicate", reason))
            continue
        videos.add(_videos(pair))
        sides[pair.split].add(pair)
        kept.append((job, pair))
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
        self._videos: set[tuple[str, str]] = set()
        self._known = KnownVideos()
        self._sources: list[str] = []
        """of the known videos"""
        self._of_span: dict[tuple[object, ...], list[tuple[PicturePrint, ...]]] = {}

    def add(self, pair: Pair) -> None:
        """Take it."""
        self._videos.add(_videos(pair))
        if pair.prints is None:
            return
        span = _span(pair)
        if span not in self._of_span:  # the repeats of a span have one target
            self._known.add(pair.prints.target)
            self._sources.append(pair.lineage.source)
        self._of_span.setdefault(span, []).append(pair.prints.painted)

    def twice(self, pair: Pair) -> str:
        """Why a pair is a duplicate of one that was taken; empty when it is none."""
        return "same_videos" if _videos(pair) in self._videos else self.same_clip(pair) or self._same_character(pair)

    def same_clip(self, pair: Pair) -> str:
        """`same_clip` when another file's pair shows the same; else empty."""
        if pair.prints is None:
            return ""
        near = self._known.near(pair.prints.target, self._spec.bits_max)
        return "same_clip" if any(self._sources[i] != pair.lineage.source for i in near) else ""

    def _same_character(self, pair: Pair) -> str:
        mine = pair.prints.painted if pair.prints else ()
        for painted in self._of_span.get(_span(pair), ()) if mine else ():
            alike = [same_picture(a, b, self._spec.bits_max, self._spec.colour_max) for a, b in zip(mine, painted, strict=False)]
            if len(mine) == len(painted) and all(alike):
                return "same_character"
        return ""


def _videos(pair: Pair) -> tuple[str, str]:
    return pair.driving.digest, pair.target.digest


def _span(pair: Pair) -> tuple[object, ...]:
    return pair.lineage.source, pair.lineage.start_frame, pair.lineage.crop

"""Who may play whom: the shortlists of all jobs of a slice, dealt in plan order so that every picture gets its share and no more.

A character's **share** of the jobs so far is what an even choice among the best-suiting characters of each of them would give it. Each job
takes its characters in an order of its own, a hash of its span and the character (rendezvous hashing: Thaler & Ravishankar 1998), and
passes over those that already have 1.25 times their share (consistent hashing with bounded loads: Mirrokni, Thorup & Zadimoghaddam 2018).
So the deal is even from early in the plan on, depends on spans and gallery alone, and a clip or picture that is added moves few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from agents.fitting import SUITS, USABLE, Roster, measure, tiers
from manifests.agency import CheckerSpec
from manifests.records import Candidate, Digest, Figure, Split, digest_of

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Role = Literal["character", "clothing", "scene"]

HEADROOM = 1.25
"""times its share that a picture may get, rounded up: room enough for nearly every job to have what its hash names"""


class Cast:
    """The pictures of one role on one side of the split, grouped by character: pictures that are views of each other are one."""

    def __init__(self, gallery: Iterable[Candidate], role: Role, split: Split, checker: CheckerSpec) -> None:
        self._checker, self._measured = checker, role == "character"
        of_character: dict[Digest, list[Candidate]] = {}
        for picture in sorted((c for c in gallery if c.role == role and c.split == split), key=lambda c: c.picture):
            of_character.setdefault(min((picture.picture, *picture.views)), []).append(picture)
        self.views: list[list[Candidate]] = list(of_character.values())
        """of every character; C characters in all"""
        self.hash_C: Hashes = np.array([_hash(name) for name in of_character], np.uint64)
        self._first_C = np.cumsum([0, *map(len, self.views)])[:-1]
        self._roster = Roster.of([c for views in self.views for c in views] if self._measured else [])
        self._seen: dict[Figure, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.views)

    def levels(self, figure: Figure) -> list[Bools]:
        """The characters that suit a person, C, by tier, the best first; only those that there are.

        Those that the selector would refuse are among them only where there is nobody else: the index sees less than it does.
        """
        if not self._measured:
            return [np.ones(len(self), np.bool_)]
        if figure not in self._seen:
            best_C = np.minimum.reduceat(self._tiers(figure, self._roster), self._first_C)
            self._seen[figure] = np.packbits([best_C == SUITS, best_C == USABLE], axis=1)
        known = np.unpackbits(self._seen[figure], axis=1, count=len(self)).astype(np.bool_)
        return [level for level in known if level.any()] or [np.ones(len(self), np.bool_)]

    def picture(self, character: int, figure: Figure) -> Candidate:
        """The character's view that suits a person best: by tier, then the one that is turned most like them."""
        views = self.views[character]
        if len(views) == 1 or not self._measured:
            return views[0]
        roster = Roster.of(views)
        tier, turn = self._tiers(figure, roster), measure(figure, roster).yaw_gap_deg_N
        return min(zip(tier, turn, views, strict=True), key=lambda view: (view[0], view[1], view[2].picture))[2]

    def _tiers(self, figure: Figure, roster: Roster) -> npt.NDArray[np.uint8]:
        return tiers(measure(figure, roster), self._checker.identity_gap_min, self._checker.yaw_max_deg)


@dataclass(frozen=True)
class Wish:
    """What a job wants a shortlist for."""

    span: Digest
    """a span's repeats have the same"""
    split: Split
    figures: tuple[Figure, ...]
    """the people who shall be played"""

    def of_one(self) -> Wish:
        """For pictures that are chosen once for all."""
        return Wish(self.span, self.split, self.figures[:1])


class Tally:
    """What the characters of a cast have had of one kind of place, and their share of it."""

    def __init__(self, size: int) -> None:
        self.share_C: Floats = np.zeros(size)
        self.had_C: Ints = np.zeros(size, np.int64)

    def announce(self, places: int, levels: list[Bools]) -> None:
        """A person has so many places to give: each tier of characters shares in what is left by the one before."""
        for level_C in levels:
            size = int(np.count_nonzero(level_C))
            given = min(places, size)
            self.share_C[level_C] += given / size
            places -= given
            if not places:
                return

    def allowed(self, some: Ints) -> Ints:
        """How many places each of some characters may have."""
        return np.asarray(np.ceil(HEADROOM * self.share_C[some] - 1e-9), np.int64)

    def excess_of(self, some: Ints) -> Floats:
        """How far above its share each of some characters would be with one place more."""
        return (self.had_C[some] + 1) / np.maximum(self.share_C[some], 1e-9)


class Dealer:
    """Deals the characters of a cast to the jobs of one slice, which come in plan order.

    Shares are announced for one job, then for as many again as were dealt, and so on to the plan's end: at each of these ends nobody is
    above the limit. To announce them job by job would keep it everywhere, but then most are at their limit most of the time, and a job
    that is added moves many others instead of one or two.
    """

    def __init__(self, cast: Cast, count: int) -> None:
        """`count`: how many of the cast a job with one person gets."""
        self._cast, self._count = cast, count
        self._places, self._leads = Tally(len(cast)), Tally(len(cast))
        self._given: dict[Digest, list[int]] = {}
        """span → characters that its repeats had so far"""

    def deal(self, wishes: Sequence[Wish]) -> list[tuple[Candidate, ...]]:
        """The pictures of every job, of different characters. Fewer than were asked for where the cast is small.

        They are dealt to the job's people in turn, each the best that is free. The first round (one for each person) is counted on its own
        as well, so that nobody leads too often. The repeats of a span show other characters as long as there are any that suit as well.
        """
        out: list[tuple[Candidate, ...]] = []
        while len(out) < len(wishes) and len(self._cast):
            stage = wishes[len(out) : max(1, 2 * len(out))]
            for wish in stage:
                self._announce(wish)
            out += [self._deal(wish) for wish in stage]
        return out or [()] * len(wishes)

    def _places_of(self, wish: Wish) -> int:
        """Everybody has `count` to choose from also when the others have theirs."""
        return self._count + len(wish.figures) - 1

    def _announce(self, wish: Wish) -> None:
        for i, figure in enumerate(wish.figures):
            levels = self._cast.levels(figure)
            self._places.announce(len(range(i, self._places_of(wish), len(wish.figures))), levels)
            self._leads.announce(1, levels)

    def _deal(self, wish: Wish) -> tuple[Candidate, ...]:
        order_C = _mixed(self._cast.hash_C ^ np.uint64(_hash(wish.span)))
        given = self._given.setdefault(wish.span, [])
        used_C = np.bincount(np.array(given, np.int64), minlength=len(self._cast))
        free_C = np.ones(len(self._cast), np.bool_)
        levels, out = [self._cast.levels(figure) for figure in wish.figures], []
        for place in range(self._places_of(wish)):
            person = place % len(levels)
            chosen = self._choose(levels[person], free_C, used_C, order_C, leads=place < len(levels))
            if chosen is not None:
                free_C[chosen] = False
                given.append(chosen)
                out.append(self._cast.picture(chosen, wish.figures[person]))
        return tuple(out)

    def _choose(self, levels: list[Bools], free_C: Bools, used_C: Ints, order_C: Hashes, leads: bool) -> int | None:
        pools = (np.flatnonzero(level & free_C) for level in levels)
        pool = next((p for p in pools if len(p)), None)
        if pool is None:
            return None
        pool = pool[used_C[pool] == used_C[pool].min()]
        tallies = (self._places, self._leads) if leads else (self._places,)
        within = np.logical_and.reduce([t.had_C[pool] < t.allowed(pool) for t in tallies])
        if within.any():
            pool = pool[within]
        else:  # all have their share already, as happens among a few: the one that would be least above it
            excess = np.maximum.reduce([t.excess_of(pool) for t in tallies])
            pool = pool[excess == excess.min()]
        chosen = int(pool[np.argmin(order_C[pool])])
        for tally in tallies:
            tally.had_C[chosen] += 1
        return chosen


class Galleries:
    """The casts of every role and side of the split."""

    def __init__(self, gallery: Sequence[Candidate], checker: CheckerSpec) -> None:
        sides: tuple[Split, ...] = ("train", "validation")
        roles: tuple[Role, ...] = ("character", "scene", "clothing")
        self.casts = {(split, role): Cast(gallery, role, split, checker) for split in sides for role in roles}

    def shortlists(self, wishes: Sequence[Wish], candidates: int) -> list[tuple[Candidate, ...]]:
        """The characters, scenes and clothing pictures of the jobs of one slice, which come in plan order; `candidates` of each for a
        job with one person. What another slice is dealt changes nothing here.
        """
        out: list[tuple[Candidate, ...]] = [()] * len(wishes)
        for (split, role), cast in self.casts.items():
            mine = [i for i, wish in enumerate(wishes) if wish.split == split]
            asked = [wishes[i] if role == "character" else wishes[i].of_one() for i in mine]
            for i, dealt in zip(mine, Dealer(cast, candidates).deal(asked), strict=True):
                out[i] += dealt
        return out


def _hash(digest: Digest) -> int:
    return int(digest_of(["shortlist", digest])[:16], 16)


def _mixed(x: Hashes) -> Hashes:
    """Every number as another that looks random: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)

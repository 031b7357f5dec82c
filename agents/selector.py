"""Candidate Selector: which gallery pictures suit a clip.

It measures how each candidate of the job's shortlist fits each person, drops what can't work, lets the brain order the rest and casts
every person with another character.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agents.brains.base import Fit, Look, SelectorAnswer, SelectorFacts
from agents.fitting import Roster, measure
from agents.text import clean
from manifests.records import Analysis, Candidate, Digest, Figure, Frozen, Person, Selection, rounded

Casting = tuple[Selection, ...]
"""One selection a driven person, in the order of the driven people."""


class SelectRequest(Frozen):
    """What the selector sees."""

    clip: Analysis
    driven: tuple[int, ...]
    """tracks of the people to be replaced"""
    shortlist: tuple[Candidate, ...]
    identity_gap_min: float
    yaw_max_deg: float
    own_scene: bool
    """the characters stand in a scene of their own, not in the clip's"""


@dataclass(frozen=True)
class Usable:
    """What the measures leave of the shortlist."""

    fits: tuple[tuple[Fit, ...], ...]
    """of every driven person"""
    refused: dict[str, str]
    """candidate → why it can't be used for anyone of this clip"""
    scenes: tuple[Candidate, ...]
    clothing: tuple[Candidate, ...]


def fit(candidate: Candidate, person: Person, person_appearance: tuple[float, ...]) -> Fit:
    """Measure one candidate against one person. The candidate must be a character."""
    assert candidate.person is not None
    figure = Figure(framing=person.framing, yaw_deg=person.yaw_deg, visible_joints=person.visible_joints, appearance=person_appearance)
    fits = measure(figure, Roster.of([candidate]))
    gap = float(fits.identity_gap_N[0])
    return Fit(
        candidate=candidate.picture,
        joints=rounded(fits.joints_N[0]),
        framing=bool(fits.framing_N[0]),
        yaw_gap_deg=rounded(fits.yaw_gap_deg_N[0]),
        identity_gap=None if math.isnan(gap) else rounded(gap),
        confidence=rounded(candidate.person.confidence),
    )


def usable(request: SelectRequest) -> Usable:
    """Measure the shortlist against every driven person and drop what can't work."""
    characters = [c for c in request.shortlist if c.role == "character" and c.person is not None]
    refused: dict[str, str] = {}
    fits = []
    for track in request.driven:
        measured = [fit(c, request.clip.people[track], request.clip.appearance[track]) for c in characters]
        fits.append(tuple(f for f in measured if not refused_because(f, request, refused)))
    of_role = {role: tuple(c for c in request.shortlist if c.role == role) for role in ("scene", "clothing")}
    return Usable(tuple(fits), refused, of_role["scene"] if request.own_scene else (), of_role["clothing"])


def facts(found: Usable, place: int, person: Look) -> SelectorFacts:
    """What the brain is told for the driven person at `place`."""
    return SelectorFacts(person=person, fits=found.fits[place], scenes=len(found.scenes), clothing=len(found.clothing))


def cast(request: SelectRequest, found: Usable, answers: Sequence[SelectorAnswer]) -> tuple[Casting, ...]:
    """Castings for the clip, best first: as many as there are usable characters, each person with another one. Empty when none is usable.

    `answers` are the brain's, one for every driven person; what they name that was not shown is ignored, and what they leave out follows in
    the measured order.
    """
    rankings = [_ranking(fits, answer) for fits, answer in zip(found.fits, answers, strict=True)]
    castings = []
    for first in range(max((len(r) for r in rankings), default=0)):
        casting: list[Selection] = []
        for track, ranking, answer in zip(request.driven, rankings, answers, strict=True):
            taken = {s.character for s in casting}
            free = [r for r in ranking[first:] + ranking[:first] if r.character not in taken]
            if free:
                scene = _picked(found.scenes, answer.scene, first)
                wear = _picked(found.clothing, answer.clothing, first) if answer.clothing is not None else None
                casting.append(free[0].model_copy(update={"person": track, "scene": scene, "clothing": wear}))
        if len(casting) == len(request.driven):
            castings.append(tuple(casting))
    return tuple(dict.fromkeys(castings))


def _ranking(fits: tuple[Fit, ...], answer: SelectorAnswer) -> list[Selection]:
    """The brain's order as selections of nobody yet."""
    named = {p.number: p for p in reversed(answer.characters) if 0 <= p.number < len(fits)}
    order = [p.number for p in answer.characters if named.get(p.number) is p]
    order += [i for i in range(len(fits)) if i not in named]
    return [
        Selection(
            person=0, character=fits[i].candidate, score=rounded(named[i].score) if i in named else 0.0,
            reasons=tuple(map(clean, named[i].reasons)) if i in named else (), difficulty=answer.difficulty,
        )
        for i in order
    ]  # fmt: skip


def _picked(pictures: tuple[Candidate, ...], number: int | None, turn: int) -> Digest | None:
    """The picture that the brain named, and the following ones in later castings."""
    if not pictures:
        return None
    first = number if number is not None and 0 <= number < len(pictures) else 0
    return pictures[(first + turn) % len(pictures)].picture


def refused_because(f: Fit, request: SelectRequest, refused: dict[str, str]) -> bool:
    """Note in `refused` why a candidate can't work; True when it can't."""
    if f.identity_gap is not None and f.identity_gap < request.identity_gap_min:
        refused[f.candidate] = "looks_like_the_real_person"
    elif f.yaw_gap_deg > request.yaw_max_deg:
        refused[f.candidate] = "turned_away"
    else:
        return False
    return True

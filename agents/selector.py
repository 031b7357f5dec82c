"""Candidate Selector: which gallery pictures suit a clip.

It measures how each candidate of the job's shortlist fits each person, drops what can't work, lets the brain order the rest and casts
every person with another character.
"""

from __future__ import annotations

from agents.brains.base import Brain, Fit
from agents.measures import appearance
from manifests.records import Analysis, Candidate, Frozen, Person, Selection, rounded

FRAMING_RANK = {"close": 0, "half": 1, "full": 2}

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


class SelectAnswer(Frozen):
    castings: tuple[Casting, ...]
    """best first"""
    refused: dict[str, str]
    """candidate → why it can't be used for anyone of this clip"""


def fit(candidate: Candidate, person: Person, person_appearance: tuple[float, ...]) -> Fit:
    """Measure one candidate against one person. The candidate must be a character."""
    assert candidate.person is not None
    shown = set(candidate.person.visible_joints)
    wanted = set(person.visible_joints)
    gap = appearance.distance(candidate.appearance, person_appearance)
    return Fit(
        candidate=candidate.picture,
        joints=rounded(len(shown & wanted) / max(1, len(wanted))),
        framing=FRAMING_RANK[candidate.person.framing] >= FRAMING_RANK[person.framing],
        yaw_gap_deg=rounded(yaw_gap_deg(candidate.person.yaw_deg, person.yaw_deg)),
        identity_gap=None if gap is None else rounded(gap),
        confidence=rounded(candidate.person.confidence),
    )


def yaw_gap_deg(a_deg: float, b_deg: float) -> float:
    """Distance of two angles on the circle, 0 to 180."""
    return abs((a_deg - b_deg + 180) % 360 - 180)


def select(request: SelectRequest, brain: Brain) -> SelectAnswer:
    """Castings for the clip, best first: as many as there are usable characters. Empty when none is usable."""
    characters = [c for c in request.shortlist if c.role == "character" and c.person is not None]
    scenes = [c for c in request.shortlist if c.role == "scene"]
    clothing = [c for c in request.shortlist if c.role == "clothing"]
    refused: dict[str, str] = {}
    rankings = []
    for track in request.driven:
        person, look = request.clip.people[track], request.clip.appearance[track]
        fits = [fit(c, person, look) for c in characters]
        usable = [f for f in fits if not refused_because(f, request, refused)]
        rankings.append(list(brain.rank(tuple(usable))))
    castings = []
    for first in range(max((len(r) for r in rankings), default=0)):
        casting: list[Selection] = []
        for track, ranking in zip(request.driven, rankings, strict=True):
            taken = {s.character for s in casting}
            free = [r for r in ranking[first:] + ranking[:first] if r.candidate not in taken]
            if free:
                scene = scenes[first % len(scenes)].picture if scenes else None
                wear = clothing[first % len(clothing)].picture if clothing else None
                casting.append(
                    Selection(
                        person=track, character=free[0].candidate, clothing=wear, scene=scene, score=free[0].score, reasons=free[0].reasons
                    )
                )
        if len(casting) == len(request.driven):
            castings.append(tuple(casting))
    return SelectAnswer(castings=tuple(dict.fromkeys(castings)), refused=refused)


def refused_because(f: Fit, request: SelectRequest, refused: dict[str, str]) -> bool:
    """Note in `refused` why a candidate can't work; True when it can't."""
    if f.identity_gap is not None and f.identity_gap < request.identity_gap_min:
        refused[f.candidate] = "looks_like_the_real_person"
    elif f.yaw_gap_deg > request.yaw_max_deg:
        refused[f.candidate] = "turned_away"
    else:
        return False
    return True

"""Shortlists: who suits whom, everybody's share over a whole plan, and what moves when a clip or a picture is added."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from agents import selector
from agents.brains.base import Look, SelectorFacts
from agents.brains.builtin import select
from agents.fitting import REFUSED, SUITS, USABLE, Roster, measure, tiers
from agents.measures import appearance
from factory.plan import Job, PlannedSpan, make_plan
from factory.shortlist import HEADROOM
from factory.work.spans import SpanInfo
from generators.poses.tracks import LANDMARKS
from manifests.agency import CheckerSpec
from manifests.recipe import Recipe, parse_recipe
from manifests.records import Analysis, Artifact, Candidate, Figure, Framing, Geometry, Person, Span, digest_of

CHECKER = CheckerSpec()
NOBODY = Look(framing="", facing="", hair="", top="", bottoms="", movement="", place="")
SHOWN: dict[Framing, tuple[str, ...]] = {"close": LANDMARKS[:15], "half": LANDMARKS[:25], "full": LANDMARKS}
FRAMINGS: tuple[Framing, ...] = ("full", "half", "close")


def recipe(repeats: int = 1, candidates: int = 3, **slices: object) -> Recipe:
    part = {"task": "animation", "generator": "g", "quota": 5, "repeats": repeats, "where": {"people": "1..6"}}
    return parse_recipe(
        {"recipe": "x", "seed": 5, "sources": [{"clips": "a"}], "split": {"validation_fraction": 0, "validation_groups": ["held_out"]},
         "generators": {"g": {"kind": "puppet"}, "painter": {"kind": "collage"}}, "slices": {"a": part, **slices},
         "budget_per_job": {"candidates": candidates}}
    )  # fmt: skip


def looks(rng: random.Random) -> tuple[float, ...]:
    return tuple(v for _ in range(3) for v in (rng.uniform(5, 95), rng.uniform(-40, 40), rng.uniform(-40, 40), 0.33))


def yaw(rng: random.Random, frontal: float) -> float:
    middle = 0 if rng.random() < frontal else rng.choice([90, -90, 180])
    return (rng.gauss(middle, 20) + 180) % 360 - 180


def figure(rng: random.Random) -> Figure:
    """Every third real person is turned to a side or away."""
    framing = rng.choices(FRAMINGS, [6, 3, 1])[0]
    return Figure(
        framing=framing, yaw_deg=yaw(rng, 0.65), visible_joints=SHOWN[framing], stature_px=rng.uniform(250, 900), appearance=looks(rng)
    )


def planned(number: int, people: int = 1, group: str = "") -> PlannedSpan:
    rng = random.Random(f"span {number}")
    span = Span(source=digest_of(["clip", number]), start_frame=0, geometry=Geometry(frames=81, height=512, width=896), crop=(0, 0, 9, 9))
    info = SpanInfo(span=span, shot=(0, 200), figures=tuple(figure(rng) for _ in range(people)))
    return PlannedSpan(info=info, group=group or f"group{number}", licence="cc0")


def character(number: int, frontal: float = 0.9, split: str = "train", **person: object) -> Candidate:
    """One of ten is turned to a side or away, and three of ten are cut: a skewed gallery."""
    rng = random.Random(f"character {number}")
    framing = rng.choices(FRAMINGS, [7, 2, 1])[0]
    seen = {"track": 0, "box": (0, 0, 1, 1), "presence": 1, "framing": framing, "visible_joints": SHOWN[framing],
            "yaw_deg": yaw(rng, frontal), "yaw_spread_deg": 0, "height": 1, "motion": 0,
            "arms_crossed": False, "confidence": 1}  # fmt: skip
    return Candidate.model_validate(
        {"picture": digest_of(["character", number]), "role": "character", "group": f"g{number}", "split": split,
         "person": Person.model_validate({**seen, **person}), "appearance": looks(rng), "stature_px": rng.uniform(300, 1200)}
    )  # fmt: skip


def picture(role: str, number: int) -> Candidate:
    made = {"picture": digest_of([role, number]), "role": role, "group": f"{role}{number}", "split": "train"}
    return Candidate.model_validate(made)


def jobs_of(recipe: Recipe, spans: Sequence[PlannedSpan], gallery: Sequence[Candidate]) -> list[Job]:
    return list(make_plan(recipe, spans, gallery).slices[0].jobs)


def characters_of(job: Job) -> list[str]:
    return [c.picture for c in job.shortlist if c.role == "character"]


def shares(jobs: Sequence[Job], spans: Sequence[PlannedSpan], gallery: Sequence[Candidate]) -> dict[str, float]:
    """What an even choice among those that suit each job best gives every character; jobs of one person."""
    roster, of_span = Roster.of(gallery), {s.info.span: s.info.main for s in spans}
    total = np.zeros(len(gallery))
    for job in jobs:
        tier = tiers(measure(of_span[job.span], roster), CHECKER.identity_gap_min, CHECKER.yaw_max_deg)
        best = tier == tier.min()
        total[best] += 1 / best.sum()
    return {c.picture: float(share) for c, share in zip(gallery, total, strict=True)}


@pytest.mark.parametrize("size", [12, 60, 400, 3000])
def test_no_character_leads_more_often_than_its_share_allows(size: int) -> None:
    spans, gallery = [planned(n) for n in range(1000)], [character(n) for n in range(size)]
    jobs = jobs_of(recipe(), spans, gallery)
    for count in (1, 64, 512, 1000):  # the deal is even from early in the plan on, for a quota is met long before its end
        first = Counter(characters_of(job)[0] for job in jobs[:count])
        share = shares(jobs[:count], spans, gallery)
        over = {c: (n, share[c]) for c, n in first.items() if n > np.ceil(HEADROOM * share[c] - 1e-6)}
        assert not over, f"{len(over)} of {size} lead too often among {count} jobs"


def test_the_built_in_brain_keeps_the_deal() -> None:
    """It could prefer the same few wherever they are shortlisted; among those that suit it takes the one that leads."""
    spans, gallery = [planned(n) for n in range(1000)], [character(n) for n in range(200)]
    jobs, of_span = jobs_of(recipe(), spans, gallery), {s.info.span: s.info.main for s in spans}
    picked: Counter[str] = Counter()
    for job in jobs:
        one = of_span[job.span]
        person = character(0, framing=one.framing, yaw_deg=one.yaw_deg, visible_joints=one.visible_joints).person
        assert person is not None
        fits = tuple(selector.fit(c, person, one.appearance) for c in job.shortlist)
        answer = select(SelectorFacts(person=NOBODY, fits=fits, scenes=0, clothing=0))
        picked[fits[answer.characters[0].number].candidate] += 1
    share = shares(jobs, spans, gallery)
    over = sum(max(0, n - int(np.ceil(HEADROOM * share[c] - 1e-6))) for c, n in picked.items())
    assert over < 50, "of 1,000; what the index did not see may speak against the leader"


def test_places_in_shortlists_are_shared_like_first_places() -> None:
    spans = [planned(n) for n in range(1000)]
    gallery = [character(n, yaw_deg=0.0, framing="full", visible_joints=LANDMARKS) for n in range(90)]
    places = Counter(c for job in jobs_of(recipe(), spans, gallery) for c in characters_of(job))
    assert sum(places.values()) == 3000
    # One or two characters that look like the real person are missing in each job, so shares differ a little.
    assert max(places.values()) <= np.ceil(HEADROOM * 3000 / 90) + 1


def test_who_is_shortlisted_suits_while_there_are_any() -> None:
    spans, gallery = [planned(n) for n in range(300)], [character(n) for n in range(100)]
    roster, index = Roster.of(gallery), {c.picture: i for i, c in enumerate(gallery)}
    of_span = {s.info.span: s.info.main for s in spans}
    for job in jobs_of(recipe(), spans, gallery):
        tier = tiers(measure(of_span[job.span], roster), CHECKER.identity_gap_min, CHECKER.yaw_max_deg)
        got = [tier[index[c]] for c in characters_of(job)]
        assert got == sorted(got)
        assert got == sorted(tier[tier < REFUSED].tolist())[:3] if (tier < REFUSED).any() else all(t == REFUSED for t in got)


def test_repeats_show_other_characters_while_there_are_any() -> None:
    gallery = [character(n, yaw_deg=0.0, framing="full", visible_joints=LANDMARKS, split="train") for n in range(9)]
    gallery = [c.model_copy(update={"appearance": (), "stature_px": 0.0}) for c in gallery]
    turns = [characters_of(job) for job in jobs_of(recipe(repeats=6, candidates=2), [planned(0)], gallery)]
    seen = [c for turn in turns for c in turn]
    assert all(len(set(turn)) == 2 for turn in turns)
    assert len(set(seen[:9])) == 9, "the first nine places show all nine"
    assert max(Counter(seen).values()) == 2, "and nobody comes a third time before all were there twice"


def test_everybody_of_several_people_has_a_choice_left() -> None:
    spans, gallery = [planned(n, people=3) for n in range(50)], [character(n) for n in range(200)]
    for job in jobs_of(recipe(candidates=2), spans, gallery):
        assert len(set(characters_of(job))) == 4


def test_scenes_and_clothing_are_dealt_too_one_for_each_attempt() -> None:
    gallery = [character(n) for n in range(20)] + [picture(role, n) for role in ("scene", "clothing") for n in range(10)]
    jobs = jobs_of(recipe(candidates=2), [planned(n) for n in range(200)], gallery)
    for role in ("scene", "clothing"):
        places = Counter(c.picture for job in jobs for c in job.shortlist if c.role == role)
        assert sum(places.values()) == 400
        assert max(places.values()) <= np.ceil(HEADROOM * 40)


def test_views_of_one_character_are_one_character() -> None:
    """Two views of one figure never stand in one shortlist, so never play two people; the view that is turned like the person is taken."""
    front, side, other = (
        character(n, framing="full", visible_joints=LANDMARKS, yaw_deg=deg) for n, deg in ((0, 0.0), (1, 90.0), (2, 45.0))
    )
    front, side = (a.model_copy(update={"views": (b.picture,)}) for a, b in ((front, side), (side, front)))
    gallery = [c.model_copy(update={"appearance": (), "stature_px": 0.0}) for c in (front, side, other)]
    for turned_deg, view in ((10.0, front), (40.0, front), (50.0, side), (80.0, side)):
        spans = [planned(n) for n in range(20)]
        person = spans[0].info.main.model_copy(update={"yaw_deg": turned_deg})
        spans = [s.model_copy(update={"info": s.info.model_copy(update={"figures": (person,)})}) for s in spans]
        lists = [set(characters_of(job)) for job in jobs_of(recipe(), spans, gallery)]
        assert lists == [{view.picture, other.picture}] * 20


def test_a_deal_depends_on_neither_order_nor_names_nor_other_slices() -> None:
    spans, gallery = [planned(n) for n in range(60)], [character(n) for n in range(30)]
    jobs = jobs_of(recipe(2), spans, gallery)
    renamed = [s.model_copy(update={"group": f"other {i}"}) for i, s in enumerate(spans)]
    for again in (jobs_of(recipe(2), spans[::-1], gallery[::-1]), jobs_of(recipe(2), renamed, gallery)):
        assert [(j.id, j.shortlist) for j in again] == [(j.id, j.shortlist) for j in jobs]
    more = recipe(2, b={"task": "replacement", "generator": "g", "quota": 9})
    assert jobs_of(more, spans, gallery) == jobs


def test_the_sides_of_the_split_share_nobody() -> None:
    gallery = [character(n, split="train" if n % 4 else "validation") for n in range(40)]
    spans = [planned(n, group="held_out" if n % 5 == 0 else "") for n in range(200)]
    jobs = jobs_of(recipe(), spans, gallery)
    assert {job.split for job in jobs} == {"train", "validation"}
    assert all(c.split == job.split for job in jobs for c in job.shortlist)
    # What is added on one side moves nothing on the other.
    more = {job.id: job for job in jobs_of(recipe(), [*spans, *(planned(n) for n in range(500, 550))], gallery)}
    assert all(more[job.id] == job for job in jobs if job.split == "validation")


def moved(before: Sequence[Job], after: Sequence[Job]) -> int:
    """Shortlists that have changed."""
    now = {job.id: job.shortlist for job in after}
    return sum(now[job.id] != job.shortlist for job in before if job.id in now)


def test_a_clip_or_a_picture_that_is_added_moves_few_shortlists() -> None:
    """Of 1,000 shortlists with 3,000 places; a new picture's own places are about 15."""
    spans, gallery = [planned(n) for n in range(1000)], [character(n) for n in range(200)]
    before = jobs_of(recipe(), spans, gallery)
    clips = [moved(before, jobs_of(recipe(), [*spans, planned(2000 + n)], gallery)) for n in range(4)]
    pictures = [moved(before, jobs_of(recipe(), spans, [*gallery, character(2000 + n)])) for n in range(4)]
    assert np.mean(clips) < 15, clips
    assert np.mean(pictures) < 60, pictures


def test_the_tiers() -> None:
    person = Figure(
        framing="half", yaw_deg=170, visible_joints=SHOWN["half"], stature_px=600, appearance=(50.0, 0.0, 0.0, 0.5) + (0.0,) * 8
    )

    def tier(stature: float = 600, lightness: float = 90, **about: object) -> int:
        base = {"framing": "half", "visible_joints": SHOWN["half"], "yaw_deg": -170.0}
        one = character(0, **{**base, **about})  # type: ignore[arg-type]
        one = one.model_copy(update={"stature_px": stature, "appearance": (lightness, 0.0, 0.0, 0.5) + (0.0,) * 8})
        return int(tiers(measure(person, Roster.of([one])), identity_gap_min=8, yaw_max_deg=75)[0])

    assert tier() == SUITS
    assert tier(yaw_deg=111.0) == SUITS
    assert tier(yaw_deg=109.0) == USABLE, "turned more than 60°"
    assert tier(yaw_deg=94.0) == REFUSED, "more than yaw_max_deg"
    assert tier(framing="close") == USABLE
    assert tier(visible_joints=SHOWN["half"][:19]) == USABLE, "19 of 25 joints"
    assert tier(visible_joints=SHOWN["half"][:20]) == SUITS
    assert tier(stature=299) == USABLE, "would be enlarged more than twice"
    assert tier(stature=0) == SUITS, "not known"
    assert tier(lightness=61) == USABLE, "a gap of 11: near the limit of 8"
    assert tier(lightness=57) == REFUSED


def test_what_the_plan_calls_refused_is_what_the_selector_refuses() -> None:
    rng = random.Random(3)
    gallery = [character(n, frontal=0.3) for n in range(200)]
    for _ in range(5):
        someone = figure(rng)
        tier = tiers(measure(someone, Roster.of(gallery)), CHECKER.identity_gap_min, CHECKER.yaw_max_deg)
        person = character(0, framing=someone.framing, yaw_deg=someone.yaw_deg, visible_joints=someone.visible_joints).person
        assert person is not None
        clip = Analysis(
            frames=5, height=64, width=64, fps=16, people=(person,), appearance=(someone.appearance,),
            arrays=Artifact(digest=digest_of(0), size=0, suffix=".npz"),
        )  # fmt: skip
        request = selector.SelectRequest(
            clip=clip,
            driven=(0,),
            shortlist=tuple(gallery),
            identity_gap_min=CHECKER.identity_gap_min,
            yaw_max_deg=CHECKER.yaw_max_deg,
            own_scene=True,
        )
        refused = selector.usable(request).refused
        assert set(refused) == {c.picture for c, t in zip(gallery, tier, strict=True) if t == REFUSED}
        assert 20 < len(refused) < 180


def test_colour_distances_to_many_are_those_to_each() -> None:
    rng = random.Random(1)
    some = [looks(rng) for _ in range(5)] + [(), (50.0, 0.0, 0.0, 1.0) + (0.0,) * 8, (0.0,) * 8 + (50.0, 0.0, 0.0, 1.0)]
    for a, b in itertools.product(some, some):
        one, many = appearance.distance(a, b), appearance.distances(a, appearance.table(some))[some.index(b)]
        assert np.isnan(many) if one is None else one == many
    assert appearance.distance(some[-1], some[-2]) is None, "no region that both show"
    assert appearance.distance((50.0, 3.0, 0.0, 1.0) + (0.0,) * 8, some[-2]) == 3.0

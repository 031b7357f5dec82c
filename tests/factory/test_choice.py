"""The release's pairs depend on the plan's order alone, never on which job ends first."""

from __future__ import annotations

import random

import tiny
from hypothesis import given
from hypothesis import strategies as st

from factory.choice import Choice, Decision, distinct
from factory.plan import Job, SlicePlan
from manifests.recipe import Slice
from manifests.records import Artifact, Geometry, Pair, Span

FILES = {name: Artifact(digest=tiny.sha(name), size=1, suffix=".mp4") for name in
         [f"video{i}" for i in range(4)] + [f"{kind}_{task}" for kind in ("driving_mask", "reference_mask") for task in
                                            ("animation", "replacement")] + ["reference0", "reference1"]}  # fmt: skip
GEOMETRY = Geometry(frames=5, height=64, width=64)


def job(number: int) -> Job:
    span = Span(source=tiny.sha("clip"), start_frame=number, geometry=GEOMETRY, crop=(0, 0, 64, 64))
    return Job(
        id=tiny.sha(number), slice="s", task="animation", split="train", group="g", licence="cc0", span=span, shot=(0, 99), repeat=0,
        people=(1, 1), shortlist=(), rank=tiny.sha(number),
    )  # fmt: skip


def decision(number: int, kind: str) -> Decision:
    if kind in ("rejected", "quarantined"):
        return Decision(kind, "why")  # type: ignore[arg-type]
    made: Pair = tiny.pair(number, FILES).model_copy(update={"reference_in_target": kind == "inside"})
    video = Artifact(digest=tiny.sha("same" if kind == "same" else ("video", number)), size=1, suffix=".mp4")
    return Decision("accepted", pair=made.model_copy(update={"driving": video, "target": FILES["video0"]}))


def chosen(kinds: list[str], quota: int, order: list[int], share: float = 0.5) -> Choice:
    spec = Slice.model_validate({"task": "animation", "generator": "g", "quota": quota})
    part = SlicePlan("s", spec, tuple(job(n) for n in range(len(kinds))), quota, 0.0, 0)
    choice = Choice(part, share)
    for n in order:
        choice.decide(n, decision(n, kinds[n]))
    choice.close()
    return choice


KINDS = st.lists(st.sampled_from(["good", "good", "rejected", "quarantined", "same", "inside"]), min_size=1, max_size=12)


@given(KINDS, st.integers(1, 6), st.integers(0, 1000))
def test_the_order_of_endings_changes_nothing(kinds: list[str], quota: int, seed: int) -> None:
    in_order = chosen(kinds, quota, list(range(len(kinds))))
    shuffled = list(range(len(kinds)))
    random.Random(seed).shuffle(shuffled)
    other = chosen(kinds, quota, shuffled)
    assert [j.id for j, _ in other.pairs] == [j.id for j, _ in in_order.pairs]
    assert other.left_out == in_order.left_out
    assert len(in_order.pairs) <= quota


def test_duplicates_and_surplus_are_named() -> None:
    choice = chosen(["same", "inside", "same", "inside", "good", "rejected"], 3, list(range(6)), share=0.4)
    assert [j.id for j, _ in choice.pairs] == [tiny.sha(n) for n in (0, 1, 4)]
    assert [(entry.state, entry.reason) for entry in choice.left_out] == [("duplicate", "same_videos"), ("surplus", "reference_in_target")]


def test_the_cap_holds_among_the_pairs_there_are() -> None:
    choice = chosen(["good"] * 2 + ["inside"] * 10, 100, list(range(12)), share=0.1)
    assert sum(pair.reference_in_target for _, pair in choice.pairs) == 0
    choice = chosen(["good"] * 18 + ["inside"] * 10, 100, list(range(28)), share=0.1)
    assert sum(pair.reference_in_target for _, pair in choice.pairs) == 2
    assert len(choice.pairs) == 20
    assert [entry.reason for entry in choice.left_out].count("reference_in_target") == 8


def test_an_undecided_job_holds_back_what_follows_and_is_listed() -> None:
    choice = chosen(["good"] * 4, 3, [0, 2, 3])
    assert [j.id for j, _ in choice.pairs] == [tiny.sha(0)]
    assert choice.likely == 3
    assert [entry.state for entry in choice.left_out] == ["undecided"] * 3


def test_two_slices_with_the_same_videos_release_them_once() -> None:
    one, other = (chosen(["good", "good"], 2, [0, 1]).pairs for _ in range(2))
    assert one[0][0] is not other[0][0]
    kept, twice = distinct([*other, *one])
    assert [job.rank for job, _ in kept] == sorted(job.rank for job, _ in one)
    assert [entry.reason for entry in twice] == ["same_videos"] * 2

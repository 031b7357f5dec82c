"""The release's pairs depend on the plan's order alone, never on which job ends first."""

from __future__ import annotations

import random

import tiny
from hypothesis import given
from hypothesis import strategies as st

from factory.choice import Choice, Decision, distinct
from factory.plan import Job, SlicePlan
from manifests.ledger import PairSketch, sketch_of
from manifests.recipe import DuplicateSpec, Slice
from manifests.records import Artifact, Geometry, Lineage, Pair, PicturePrint, Prints, Span, VideoPrint
from manifests.release import LeftOut

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
    return Decision("accepted", pair=sketch_of(made.model_copy(update={"driving": video, "target": FILES["video0"]})))


def chosen(kinds: list[str], quota: int, order: list[int], share: float = 0.5) -> Choice:
    spec = Slice.model_validate({"task": "animation", "generator": "g", "quota": quota})
    part = SlicePlan("s", spec, tuple(job(n) for n in range(len(kinds))), quota, 0.0, 0)
    choice = Choice(part, share, DuplicateSpec())
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
    assert other.pairs == in_order.pairs
    assert other.left_out == in_order.left_out
    assert len(in_order.pairs) <= quota


def test_duplicates_and_surplus_are_named() -> None:
    choice = chosen(["same", "inside", "same", "inside", "good", "rejected"], 3, list(range(6)), share=0.4)
    assert [j.id for j in choice.pairs] == [tiny.sha(n) for n in (0, 1, 4)]
    assert [(entry.state, entry.reason) for entry in choice.left_out] == [("duplicate", "same_videos"), ("surplus", "reference_in_target")]


def test_the_cap_holds_among_the_pairs_there_are() -> None:
    choice = chosen(["good"] * 2 + ["inside"] * 10, 100, list(range(12)), share=0.1)
    assert [j.id for j in choice.pairs] == [tiny.sha(n) for n in (0, 1)]
    choice = chosen(["good"] * 18 + ["inside"] * 10, 100, list(range(28)), share=0.1)
    assert [j.id for j in choice.pairs] == [tiny.sha(n) for n in range(20)], "eighteen, and two of the others"
    assert [entry.reason for entry in choice.left_out].count("reference_in_target") == 8


def test_an_undecided_job_holds_back_what_follows_and_is_listed() -> None:
    choice = chosen(["good"] * 4, 3, [0, 2, 3])
    assert [j.id for j in choice.pairs] == [tiny.sha(0)]
    assert choice.likely == 3
    assert [entry.state for entry in choice.left_out] == ["undecided"] * 3


def test_two_slices_with_the_same_videos_release_them_once() -> None:
    one, other = (chosen(["good", "good"], 2, [0, 1]).pairs for _ in range(2))
    assert one[0] is not other[0]
    sketches = {job.id: decision(n, "good").pair for n, job in enumerate(one)}
    kept, twice = distinct([*other, *one], lambda job: sketches[job.id], DuplicateSpec())
    assert [job.rank for job in kept] == sorted(job.rank for job in one)
    assert [entry.reason for entry in twice] == ["same_videos"] * 2


def shown(number: int, clip: str = "a", start: int = 0, content: int = 0, character: int = 0, **more: object) -> tuple[Job, PairSketch]:
    """A job and its pair: from which file and span, what its target shows (hashes of so many ones), and who plays in it."""
    word = f"{(1 << content) - 1:016x}"
    prints = Prints(
        target=VideoPrint(scene=word, looks=word * 5, moves=word * 5),
        painted=(PicturePrint(shape=word, colours=f"{character * 40:02x}" * 192),),
    )
    lineage = Lineage(source=tiny.sha(clip), start_frame=start, crop=(0, 0, 64, 64))
    video = Artifact(digest=tiny.sha(("shown", number)), size=1, suffix=".mp4")
    made = tiny.pair(number, FILES).model_copy(
        update={"driving": video, "prints": prints, "lineage": lineage, "reference_in_target": False, "split": "train", **more}
    )
    return job(number), sketch_of(made)


def reasons(*entries: tuple[Job, PairSketch]) -> list[str]:
    """Why each was left out, in plan order; the jobs end in the reverse order."""
    spec = Slice.model_validate({"task": "animation", "generator": "g", "quota": 99})
    choice = Choice(SlicePlan("s", spec, tuple(j for j, _ in entries), 9, 0.0, 0), 0.5, DuplicateSpec())
    for place in reversed(range(len(entries))):
        choice.decide(place, Decision("accepted", pair=entries[place][1]))
    why = {entry.job: entry.reason for entry in choice.left_out}
    assert all(entry.state == "duplicate" for entry in choice.left_out)
    return [why.get(j.id, "") for j, _ in entries]


def test_one_clip_in_two_files_counts_once() -> None:
    assert reasons(shown(0, "a"), shown(1, "b")) == ["", "same_clip"], "whatever the characters"
    assert reasons(shown(0, "b"), shown(1, "a"), shown(2, "b", character=3)) == ["", "same_clip", ""], "the first in plan order stays"
    assert reasons(shown(0, "a", content=20), shown(1, "b", content=40)) == ["", ""]


def test_one_clip_gives_many_pairs() -> None:
    assert reasons(shown(0, start=0), shown(1, start=17)) == ["", ""], "other spans, even when they look alike: they do not overlap"
    assert reasons(shown(0, character=1), shown(1, character=4)) == ["", ""], "other characters"


def test_one_character_in_two_pictures_counts_once_a_span() -> None:
    assert reasons(shown(0, character=1), shown(1, character=1)) == ["", "same_character"]
    assert reasons(shown(0, character=1), shown(1, start=17, character=1)) == ["", ""]


def test_what_is_left_out_makes_no_duplicates_itself() -> None:
    """The second is no pair of the release, so it does not matter that the third looks like it."""
    assert reasons(*(shown(n, name, content=8 * n) for n, name in enumerate("abc"))) == ["", "same_clip", ""]


def test_slices_share_clips_but_the_sides_of_the_split_do_not() -> None:
    def told(*entries: tuple[Job, PairSketch]) -> tuple[list[Job], list[LeftOut]]:
        return distinct([job for job, _ in entries], lambda job: next(pair for one, pair in entries if one is job), DuplicateSpec())

    trained, other = shown(0, "a"), shown(1, "b")
    kept, twice = told(trained, other)
    assert (len(kept), twice) == (2, []), "two slices may use a clip, also in two files"
    held_out = shown(1, "b", split="validation")
    ranked = sorted([trained[0], held_out[0]], key=lambda job: job.rank)
    kept, twice = told(held_out, trained)
    assert kept == ranked[:1]
    assert [(entry.job, entry.reason) for entry in twice] == [(ranked[1].id, "same_clip")]
